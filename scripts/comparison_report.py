"""The figures of compare_recognisers.py as markdown tables and as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Report = Mapping[str, Any]
MISSING = "not measured"
# Okabe & Ito 2008, "Color Universal Design"; the shapes differ as well.
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P")


# --- Tables ---------------------------------------------------------------------------------------


def markdown(report: Report) -> str:
    """Return the tables: one a manifest, then one of what does not depend on it."""
    machine = report["machine"]
    blocks = [
        f"Measured on {machine['cores']} cores of {machine['processor']}, without a GPU. Word "
        f"errors after the normaliser `{report['normaliser']}`, 95 % bootstrap intervals."
    ]
    for name, one in report["manifests"].items():
        blocks += [_heading(name, one), _table(_accuracy_rows(report["baseline"], one))]
    rows = list(_installation_rows(report["recognisers"]))
    if len(rows) > 1:
        blocks.append(_table(rows))
    return "\n\n".join(blocks) + "\n"


def _heading(name: str, figures: Report) -> str:
    chosen, total = figures["utterances"], figures["utterances_in_manifest"]
    share = f"{chosen} utterances" if chosen == total else f"{chosen} of {total} utterances"
    return f"### {name}: {share}, {figures['audio_seconds'] / 60:.1f} min"


def _accuracy_rows(baseline: str, figures: Report) -> Iterator[Sequence[str]]:
    runs = next(iter(figures["recognisers"].values()))["transcription"]
    speeds = [f"real-time factor, {_cores(run)}" for run in runs]
    yield ("", "WER", "interval", f"errors against {baseline}", *speeds, "memory")
    for name, one in figures["recognisers"].items():
        wer = percent(one["wer"])
        low, high = map(percent, one["wer_interval"])
        against = difference(figures["against_baseline"].get(name))
        factors = [_speed(run, base) for run, base in zip(one["transcription"], runs, strict=True)]
        memory = ", ".join(
            f"{megabytes(run['peak_bytes'])} ({_cores(run)})" for run in one["transcription"]
        )
        yield (name, wer, f"{low} to {high}", against, *factors, memory)


def _cores(run: Report) -> str:
    return f"{run['cores']} core" + ("s" if run["cores"] > 1 else "")


def _speed(run: Report, base: Report) -> str:
    factor = run["real_time_factor"]
    if run is base:
        return f"{factor:.3g}"
    return f"{factor:.3g} ({base['real_time_factor'] / factor:.3g} times as fast)"


def difference(comparison: Report | None) -> str:
    """Return how many of the baseline's errors are gone, and the interval of the difference."""
    if comparison is None or comparison["wer_difference"] is None:
        return "-"
    points = f"{100 * comparison['wer_difference']:+.1f}"
    low, high = (f"{100 * bound:+.1f}" for bound in comparison["wer_difference_interval"])
    reduction = comparison["relative_reduction"]
    relative = "" if reduction is None else f"{-100 * reduction:+.0f} %; "
    return f"{relative}{points} points ({low} to {high})"


def _installation_rows(recognisers: Report) -> Iterator[Sequence[str]]:
    yield ("", "a 5 s file from a cold start", "its memory", "model", "with all that it needs")
    for name, one in recognisers.items():
        start, size = one.get("start"), one.get("size")
        if start is None and size is None:
            continue
        seconds = f"{start['seconds']:.2f} s" if start else MISSING
        memory = megabytes(start["peak_bytes"]) if start else MISSING
        model = megabytes(size["model_bytes"]) if size else MISSING
        installed = megabytes(size["installed_bytes"]) if size else MISSING
        yield (name, seconds, memory, model, installed)


def _table(rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def percent(rate: float | None) -> str:
    """Return a rate as written in tables; of infinitely many errors JSON keeps no number."""
    return "infinite" if rate is None else f"{100 * rate:.1f} %"


def megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"


# --- The picture ----------------------------------------------------------------------------------


def draw(report: Report, path: Path) -> None:
    """Draw word error rate, with its interval, against real-time factor; a panel a manifest."""
    from matplotlib.figure import Figure

    panels = report["manifests"]
    figure = Figure(figsize=(max(6.0, 4.6 * len(panels)), 4.4), layout="constrained")
    figure.set_facecolor("white")
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (name, one) in zip(row, panels.items(), strict=True):
        _panel(axes, one["recognisers"])
        axes.set_title(f"{name}, {one['utterances']} utterances", fontsize=10)
    row[0].set_ylim(bottom=0)  # of all panels, and only now: it ends their scaling to what is drawn
    cores = next(iter(next(iter(panels.values()))["recognisers"].values()))["transcription"][-1]
    row[0].set_ylabel("word error rate, 95 % interval")
    figure.supxlabel(
        f"real-time factor on {_cores(cores)}, logarithmic: left is faster", fontsize=10
    )
    figure.savefig(path, dpi=140, format="png", facecolor="white")


def _panel(axes: Any, recognisers: Report) -> None:
    for number, (name, one) in enumerate(recognisers.items()):
        if one["wer"] is None:
            continue
        factor, rate = one["transcription"][-1]["real_time_factor"], 100 * one["wer"]
        low, high = (100 * bound for bound in one["wer_interval"])
        axes.errorbar(
            factor, rate, yerr=[[max(0.0, rate - low)], [max(0.0, high - rate)]], capsize=4,
            color=COLOURS[number % len(COLOURS)], marker=MARKERS[number % len(MARKERS)],
            markersize=8, linestyle="none", label=name,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.margins(x=0.25)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0f} %")
    axes.grid(alpha=0.3, which="both", linewidth=0.6)
    axes.legend(loc="best", fontsize=9, framealpha=0.9)
