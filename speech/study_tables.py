"""Tables of the studies as lines of text, made from the plain data that is stored of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Figures = Mapping[str, Any]  # as read from JSON: None for what is not finite


def cells_table(figures: Figures) -> Iterator[str]:
    """Yield a line an encoder, then the relative reductions from one to another."""
    yield (
        f"{'':12} {'WER':>7} {'95 % interval':>17} {'CER':>7} {'weights':>9} {'s/h':>6}  by seed"
    )
    for name, one in figures["encoders"].items():
        if not one["wer"]:
            yield f"{name:12} diverged in all {one['diverged']} trainings"
            continue
        lost = f", {one['diverged']} diverged" if one["diverged"] else ""
        yield (
            f"{name:12} {_rates(one)} {_mean(one['cer']):7.2%} {one['parameters']:>9,} "
            f"{one['seconds_per_hour_of_audio'] or 0:6.0f}  {_by_seed(one)}{lost}"
        )
    for row in figures["reductions"]:
        if row["relative_reduction"] is not None:
            yield (
                f"{row['to']} makes {row['relative_reduction']:.1%} fewer word errors than "
                f"{row['from']} (95 % interval {_interval(row['interval'])})"
            )
    for name, one in figures["encoders"].items():
        if by_speaker := one.get("wer_by_speaker"):
            rates = ", ".join(f"{speaker} {wer:.1%}" for speaker, wer in by_speaker.items())
            yield f"{name}, by speaker: {rates}"


def trials_table(figures: Figures) -> Iterator[str]:
    """Yield the trials by group: loss, gradient horizon before and after, word error rate."""
    yield f"{'':20} {'loss':>7} {'horizon before, after':>22} {'WER':>8}"
    group = None
    for trial in figures["trials"]:
        if trial["group"] != group:
            group = trial["group"]
            yield group
        wer = f"{_mean(trial['wer']):8.2%}" if trial["wer"] else "diverged"
        loss = "-" if trial["loss"][0] is None else f"{_mean(trial['loss']):.3f}"
        frames = f"{_number(trial['horizon_before'][0])}, {_number(trial['horizon_after'][0])}"
        yield f"  {trial['name']:18} {loss:>7} {frames:>22} {wer}"


def pretraining_table(figures: Figures) -> Iterator[str]:
    """Yield the errors of forecasts, then error rates with and without pretraining."""
    errors = figures["forecast"]["mean_absolute_error"].items()
    yield "mean absolute error of forecasts: " + ", ".join(
        f"{name.replace('_', ' ')} {error:.3f}" for name, error in errors
    )
    yield f"{'':22} {'WER':>7} {'95 % interval':>17}  by seed"
    for amount, one in figures["amounts"].items():
        for start in ("random", "pretrained"):
            trained = one[start]
            row = f"{_rates(trained)}  {_by_seed(trained)}" if trained["wer"] else "diverged"
            yield f"{amount + ', ' + start:22} {row}"
        if one["relative_reduction"] is not None:
            yield (
                f"{one['hours']:.2g} h of text: pretraining saves {one['relative_reduction']:.1%} "
                f"of the word errors (95 % interval {_interval(one['interval'])})"
            )
        if "wer_difference" in one:
            low, high = one["wer_difference_interval"]
            yield (
                f"  these trainings, drawn speakers: {100 * one['wer_difference']:+.2f} points "
                f"({100 * low:+.2f} to {100 * high:+.2f})"
            )


def gradients_table(figures: Figures) -> Iterator[str]:
    """Yield how the gradient fades, by cell and spectral radius, then by layer of each network."""
    yield f"{'':36} {'rate':>7} {'theory':>7} {'half-life':>10} {'horizon':>8} {'vanished':>9}"
    for cell, by_radius in figures["radius"].items():
        for radius, one in by_radius.items():
            theory = f"{one['predicted_rate']:.3f}" if "predicted_rate" in one else ""
            yield _profile(f"{cell}, radius {radius}", one["layers"]["layer 1 forwards"], theory)
    for checkpoint in figures["checkpoints"]:
        yield f"{checkpoint['model']} ({checkpoint['cell']})"
        for name, layer in checkpoint["layers"].items():
            yield _profile(f"  {name}", layer)
    if figures["half_life_ratio"] is not None:
        yield (
            f"at radius 1 the LSTM's half-life is {figures['half_life_ratio']:.1f} times the RNN's"
        )


def classification_table(figures: Figures) -> Iterator[str]:
    """Yield accuracy and false acceptance of each classifier, then of each speaker left out."""
    for name, one in figures["classifiers"].items():
        yield f"{name}: {one['parameters']:,} weights"
        for test, row in one["tests"].items():
            low, high = row["accuracy_interval"]
            yield (
                f"  {test:32} accuracy {row['accuracy']:.2%} ({low:.2%} to {high:.2%}), words "
                f"called unknown {percent(row['false_rejection'])}, others taken for a word "
                f"{percent(row['false_acceptance'])}"
            )
        for what, row in one["false_acceptance"].items():
            yield f"  {what}: {percent(row['rate'])} of {row['recordings']} taken for a word"
    for name, one in figures["speakers"].items():
        low, high = one["interval"]
        yield f"{name}: mean {one['mean_accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%})"
        for speaker, row in one["by_speaker"].items():
            yield f"  without {speaker:12} {row['accuracy']:.2%} of {row['utterances']}"


def percent(rate: float | None) -> str:
    """Return a share in percent; it is None where there is nothing to have a share of."""
    return "(none there)" if rate is None else f"{rate:.2%}"


def voice_table(figures: Figures) -> Iterator[str]:
    """Yield how often each detector errs, by sound and ratio, then its equal error rate."""
    yield f"{'':28} {'network':>17} {'levels':>17}   (missed, false alarms, as in use)"
    for row in figures["by_case"]:
        ratio = "alone" if row["snr_db"] is None else f"{row['snr_db']:g} dB"
        rates = "".join(f" {_alarms(row, name, figures):>17}" for name in ("network", "levels"))
        yield f"{row['sound'][:19]:20} {ratio:>7}{rates}"
    for name, one in figures["overall"].items():
        yield f"{name}: equal error rate {one['equal_error_rate']:.2%} of frames"


def _alarms(row: Figures, name: str, figures: Figures) -> str:
    detector = figures["detectors"][name]
    used = detector["thresholds"].index(detector["in_use"])
    missed = row[name]["missed"][used] / max(1, row["speech_frames"])
    false = row[name]["false"][used] / max(1, row["other_frames"])
    return f"{missed:.1%}, {false:.1%}" if row["speech_frames"] else f"{false:.1%}"


def _profile(name: str, layer: Figures, theory: str = "") -> str:
    rate, half_life = layer["rate"], layer["half_life_frames"]
    return (
        f"{name:36} {_number(rate, 3):>7} {theory:>7} {_number(half_life, 1):>10} "
        f"{layer['horizon_frames']:8} {layer['vanished_share']:9.1%}"
    )


def _rates(one: Figures) -> str:
    return f"{_mean(one['wer']):7.2%} {_interval(one['wer_interval']):>17}"


def _interval(bounds: Sequence[float]) -> str:
    return f"{bounds[0]:.1%} to {bounds[1]:.1%}"


def _by_seed(one: Figures) -> str:
    return " ".join(f"{wer:.1%}" for wer in one["wer"])


def _number(value: float | None, decimals: int = 0) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
