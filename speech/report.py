"""Figures: curves of a training run and of confidences by matplotlib, events for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speech.confidence import Reliability


@dataclass(frozen=True)
class Curves:
    """What the two pictures of a run show: the losses, and the dev figures by their names."""

    loss_label: str
    figures: tuple[str, ...]
    figures_label: str


def plot_curves(history: Sequence[Mapping[str, float]], path: Path, curves: Curves) -> None:
    """Draw losses and dev figures over the epochs of a run as a PNG.

    `history` holds the rows of ``history.json``; rows without dev figures give no point.
    """
    from matplotlib.figure import Figure  # half a second to import; no pyplot, no global state

    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, rates = figure.subplots(1, 2)
    for axes, keys in ((losses, ("train_loss", "dev_loss")), (rates, curves.figures)):
        for key in keys:
            points = [(row["epoch"], row[key]) for row in history if key in row]
            if points:
                axes.plot(*zip(*points, strict=True), marker=".", label=key.replace("_", " "))
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(loc="upper right")
    losses.set_ylabel(curves.loss_label)
    rates.set_ylabel(curves.figures_label)
    rates.set_ylim(bottom=0)
    figure.savefig(path, dpi=110, format="png")


def plot_reliability(tables: Mapping[str, Reliability], path: Path) -> None:
    """Draw reliability curves as a PNG: the share of words that is right against confidence.

    Each point is a bin of `speech.confidence.reliability`; on the diagonal a confidence is what it
    says.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    for name, table in tables.items():
        points = [(one.confidence, one.accuracy) for one in table.bins]
        error = table.expected_calibration_error
        axes.plot(*zip(*points, strict=True), marker="o",
                  label=f"{name}: expected calibration error {error:.3f}")  # fmt: skip
    axes.set_xlabel("confidence, mean of a bin of equally many words")
    axes.set_ylabel("share of words that is right")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    figure.savefig(path, dpi=110, format="png")


class Events:
    """TensorBoard events of a run."""

    def __init__(self, directory: Path | None, next_step: int) -> None:
        """Write into `directory`, where what a stopped run wrote from `next_step` on gives way.

        Without a directory nothing is written.
        """
        self._writer: Any = None  # the writer has no types
        if directory is not None:
            from torch.utils.tensorboard import SummaryWriter  # a second to import

            self._writer = SummaryWriter(str(directory), purge_step=next_step)

    def add(self, group: str, figures: Mapping[str, float], step: int) -> None:
        """Write each figure as ``group/name``."""
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)

    def close(self) -> None:
        """Write what is still in memory."""
        if self._writer is not None:
            self._writer.close()
