"""Figures of the studies, made from the plain data that is stored beside them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DPI = 110
_COLOURS = 128  # of a palette: a picture is then a third as large
_STEADY_RATE = 0.9995  # from here on a gradient counts as one that does not fade


def plot_cells(figures: Mapping[str, Any], path: Path) -> None:
    """Draw the error rates of encoders over seeds with intervals, and their loss curves, as PNG."""
    from matplotlib.figure import Figure  # half a second to import; no pyplot, no global state

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    rates, losses = figure.subplots(1, 2)
    for place, (name, encoder) in enumerate(figures["encoders"].items()):
        colour = f"C{place}"
        _bar(rates, place, encoder, colour)
        for seed, curve in enumerate(encoder["curves"]):
            label = f"{name}, {encoder['parameters']:,} weights" if seed == 0 else None
            _curve(losses, curve, "dev_loss", colour, label)
    rates.set_xticks(range(len(figures["encoders"])), list(figures["encoders"]))
    rates.set_ylabel("word error rate on the test, %")
    rates.set_title("Mean of seeds (bar), each seed (dot), 95 % interval", fontsize=10)
    losses.set_xlabel("epoch")
    losses.set_ylabel("dev loss, nats per character")
    losses.legend(fontsize=8)
    _save(figure, path)


def _bar(axes: Axes, place: int, encoder: Mapping[str, Any], colour: str) -> None:
    if not encoder["wer"]:
        axes.text(place, 0, "diverged", ha="center", va="bottom", rotation=90)
        return
    percent = [100 * rate for rate in encoder["wer"]]
    mean = sum(percent) / len(percent)
    axes.bar(place, mean, color=colour, alpha=0.4)
    axes.plot([place] * len(percent), percent, "o", color=colour, markersize=4)
    low, high = (100 * bound for bound in encoder["wer_interval"])
    axes.errorbar(place, mean, [[max(0, mean - low)], [max(0, high - mean)]], color="black",
                  capsize=4)  # fmt: skip
    axes.text(place, high, f" {mean:.1f}", ha="center", va="bottom", fontsize=8)


def plot_trials(figures: Mapping[str, Any], path: Path) -> None:
    """Draw the loss over the epochs and the gradient horizon of trials, a line each, as PNG."""
    from matplotlib.figure import Figure

    trials = figures["trials"]
    groups = list(dict.fromkeys(trial["group"] for trial in trials))
    figure = Figure(figsize=(11, 3.2 * len(groups)), layout="constrained")
    axes = figure.subplots(len(groups), 2, squeeze=False)
    for group, (losses, horizons) in zip(groups, axes, strict=True):
        members = [trial for trial in trials if trial["group"] == group]
        for place, trial in enumerate(members):
            end = " (diverged)" if trial["diverged"] else ""
            _curve(losses, trial["curve"], "train_loss", f"C{place}", trial["name"] + end)
            _curve(horizons, trial["curve"], "gradient_horizon_frames", f"C{place}", trial["name"])
        losses.set_title(f"{group}: training loss", fontsize=10)
        losses.set_ylabel("nats per character")
        losses.legend(fontsize=8)
        horizons.set_title(f"{group}: how far back the loss is felt", fontsize=10)
        horizons.set_ylabel("gradient horizon, output frames")
        for one in (losses, horizons):
            one.set_xlabel("epoch")
            one.grid(alpha=0.3)
    _save(figure, path)


def plot_classification(figures: Mapping[str, Any], path: Path) -> None:
    """Draw the confusion matrix of each classifier's first test and of all left-out speakers."""
    matrices = {}
    for name, one in figures["classifiers"].items():
        test, of_test = next(iter(one["tests"].items()))
        matrices[f"{name}: {test}"] = of_test
    for name, one in figures["speakers"].items():
        every = list(one["by_speaker"].values())
        summed = np.sum([speaker["confusion"] for speaker in every], axis=0).tolist()
        matrices[f"{name}, each speaker left out"] = {
            "labels": every[0]["labels"], "confusion": summed, "accuracy": one["mean_accuracy"],
        }  # fmt: skip
    plot_confusion(matrices, path)


def plot_confusion(matrices: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw confusion matrices side by side as PNG: the share of each row's answers, with counts.

    Each has ``labels`` and ``confusion`` as `speech.classification.classification_figures`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(matrices), 5), layout="constrained")
    panels = figure.subplots(1, len(matrices), squeeze=False)[0]
    for axes, (title, one) in zip(panels, matrices.items(), strict=True):
        _matrix(axes, one["labels"], one["confusion"])
        axes.set_title(f"{title}: accuracy {one['accuracy']:.2%}", fontsize=10)
    _save(figure, path)


def plot_voice(figures: Mapping[str, Any], path: Path) -> None:
    """Draw missed speech against false alarms for each detector, over all and by ratio, as PNG."""
    from matplotlib.figure import Figure

    found = dict.fromkeys(row["snr_db"] for row in figures["by_case"])
    ratios = [ratio for ratio in found if ratio is not None]
    figure = Figure(figsize=(3.4 * len(ratios), 3.8), layout="constrained")
    panels = figure.subplots(1, len(ratios), sharey=True, squeeze=False)[0]
    for axes, ratio in zip(panels, ratios, strict=True):
        rows = [row for row in figures["by_case"] if row["snr_db"] == ratio]
        for place, (name, detector) in enumerate(figures["detectors"].items()):
            missed, false = (
                [100 * sum(column) / max(1, sum(row[frames] for row in rows))
                 for column in zip(*(row[name][errors] for row in rows), strict=True)]
                for errors, frames in (("missed", "speech_frames"), ("false", "other_frames"))
            )  # fmt: skip
            axes.plot(false, missed, ".-", color=f"C{place}", label=name)
            used = detector["thresholds"].index(detector["in_use"])
            axes.plot(false[used], missed[used], "o", color=f"C{place}", markersize=9, mfc="none")
        axes.set_title(f"speech {ratio:g} dB above the sound", fontsize=10)
        axes.set_xlabel("pauses taken for speech, %")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    panels[0].set_ylabel("speech missed, % of frames")
    _save(figure, path)


def _matrix(axes: Axes, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> None:
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, row in enumerate(counts):
        for j, count in enumerate(row):
            if count:
                colour = "white" if shares[i][j] > 0.5 else "black"
                axes.text(j, i, str(count), ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(labels)), labels, rotation=45)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("answered")
    axes.set_ylabel("said")


_FORECASTS = {"network": "LSTM", "same_as_now": "same as now", "linear": "linear extrapolation",
              "mean": "the mean"}  # fmt: skip


def plot_pretraining(figures: Mapping[str, Any], path: Path) -> None:
    """Draw forecast errors by distance, error rates with and without, and how they fell, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 4.2), layout="constrained")
    forecasts, rates, curves = figure.subplots(1, 3)
    forecast = figures["forecast"]
    times = [1000 * forecast["frame_seconds"] * frames for frames in forecast["frames_ahead"]]
    for name, errors in forecast["mean_absolute_error_by_frame"].items():
        forecasts.plot(times, errors, marker="o", label=_FORECASTS[name])
    forecasts.set_xlabel("ms behind the last frame seen")
    forecasts.set_ylabel("mean absolute error, deviations of a band")
    forecasts.set_ylim(bottom=0)
    forecasts.set_title("Forecasts of log-mel frames, dev speech", fontsize=10)
    forecasts.legend(fontsize=8)
    labels = []
    for place, (amount, start) in enumerate(_starts(figures)):
        colour, one = f"C{place}", figures["amounts"][amount][start]
        speech = f"{figures['amounts'][amount]['hours']:.2g} h"
        _bar(rates, place, one, colour)
        labels.append(f"{speech}\n{start}")
        for seed, curve in enumerate(one["curves"]):
            _curve(curves, curve, "dev_loss", colour, None if seed else f"{speech}, {start}")
    rates.set_xticks(range(len(labels)), labels, fontsize=8)
    rates.set_ylabel("word error rate on the test, %")
    rates.set_title("Mean of seeds (bar), each seed (dot), 95 % interval", fontsize=10)
    curves.set_xlabel("epoch (as long for little speech as for all of it)")
    curves.set_ylabel("dev loss, nats per character")
    curves.set_yscale("log")
    curves.set_title("Recognisers begun at random and with the forecaster", fontsize=10)
    curves.legend(fontsize=8)
    _save(figure, path)


def _starts(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, start) for name in figures["amounts"] for start in ("random", "pretrained")]


def plot_radius(figures: Mapping[str, Any], path: Path) -> None:
    """Draw the gradient over k for each spectral radius, the theory's lines dashed, as PNG."""
    from matplotlib.figure import Figure

    cells = figures["radius"]
    figure = Figure(figsize=(5.2 * len(cells), 4.6), layout="constrained")
    panels = figure.subplots(1, len(cells), sharey=True, squeeze=False)[0]
    for axes, (cell, by_radius) in zip(panels, cells.items(), strict=True):
        for place, (radius, one) in enumerate(by_radius.items()):
            ratios = one["layers"]["layer 1 forwards"]["ratios"]
            _line(axes, ratios, f"C{place}", f"radius {radius}: {_fate(one)}")
            if "predicted_rate" in one:
                theory = [one["predicted_rate"] ** k for k in range(len(ratios))]
                _line(axes, theory, "black", None, linestyle=":")
        dotted = " (dotted: theory)" if cell.startswith("rnn") else ""
        _gradient_axes(axes, f"{cell}: gradient k frames back{dotted}", highest=1e24)
    figure.suptitle("Norm of dL(t)/dh(t-k) against k = 0: below 1 it vanishes, above 1 it grows",
                    fontsize=10)  # fmt: skip
    _save(figure, path)


def plot_layers(figures: Mapping[str, Any], path: Path) -> None:
    """Draw the gradient over k for each layer and direction of trained networks, as PNG."""
    from matplotlib.figure import Figure

    checkpoints = figures["checkpoints"]
    figure = Figure(figsize=(7.5 * len(checkpoints), 4.6), layout="constrained")
    panels = figure.subplots(1, len(checkpoints), sharey=True, squeeze=False)[0]
    for axes, checkpoint in zip(panels, checkpoints, strict=True):
        for place, (name, one) in enumerate(checkpoint["layers"].items()):
            label = f"{name}: half-life {_frames(one['half_life_frames'])}"
            _line(axes, one["ratios"], f"C{place}", label)
            k, low, high = range(len(one["low"])), _holes(one["low"]), _holes(one["high"])
            axes.fill_between(k, low, high, color=f"C{place}", alpha=0.1)
        model = Path(checkpoint["model"])
        title = "/".join(model.parts[-2:]) if len(model.parts) > 1 else model.name
        _gradient_axes(axes, f"{title} ({checkpoint['cell']}): median of utterances, 80 % band")
    _save(figure, path)


def _gradient_axes(axes: Axes, title: str, highest: float = 10.0) -> None:
    axes.set_yscale("log")
    axes.set_ylim(1e-12, highest)
    axes.axhline(2**-24, color="grey", linewidth=0.8)
    note = "lost beside the present in float32 "
    side = axes.get_yaxis_transform()  # x: share of the width, y: data
    axes.text(1, 2**-24, note, fontsize=7, ha="right", va="top", transform=side)
    axes.set_xlabel("k, output frames")
    axes.set_ylabel("gradient, relative to k = 0")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)


def _line(
    axes: Axes, values: Sequence[float | None], colour: str, label: str | None, **style: Any
) -> None:
    axes.plot(range(len(values)), _holes(values), color=colour, label=label, **style)


def _curve(
    axes: Axes, rows: Sequence[Mapping[str, Any]], key: str, colour: str, label: str | None
) -> None:
    points = [(row["epoch"], row[key]) for row in rows if row.get(key) is not None]
    epochs, values = [epoch for epoch, _ in points], [value for _, value in points]
    axes.plot(epochs, values, marker=".", color=colour, label=label)  # without points: its name
    axes.locator_params("x", integer=True)


def _holes(values: Sequence[float | None]) -> list[float]:
    """Return the values with NaN, which is not drawn, for what is missing or not above zero."""
    return [value if value is not None and value > 0 else float("nan") for value in values]


def _fate(one: Mapping[str, Any]) -> str:
    """Return the half-life or, of a gradient that grows, its rate and what clipping leaves."""
    layer = one["layers"]["layer 1 forwards"]
    if layer["rate"] < _STEADY_RATE:
        return f"half-life {_frames(layer['half_life_frames'])}"
    clipped = one["clipped_to"]
    left = f", clipped to {clipped:.0e}" if clipped < 1 else ""
    return f"x {layer['rate']:.2f} a frame{left}"


def _frames(half_life: float | None) -> str:
    return "none" if half_life is None or half_life == float("inf") else f"{half_life:.1f} frames"


def _save(figure: Any, path: Path) -> None:
    from PIL import Image  # matplotlib needs it as well

    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=_DPI, format="png")
    picture = Image.open(buffer).convert("RGB")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(path, "PNG", optimize=True)
