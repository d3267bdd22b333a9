"""Curves and events of a training run."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from speech.report import Events, plot_curves
from speech.train import RECOGNISER_CURVES

FULL = {"epoch": 1, "step": 10, "train_loss": 2.5, "dev_loss": 2.0, "dev_wer": 1.2, "dev_cer": 0.6}
HISTORY = [FULL, {"epoch": 2, "step": 20, "train_loss": 1.5}, FULL | {"epoch": 3, "dev_wer": 0.4}]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved, with what is drawn in them."""
    saved = []
    original = Figure.savefig

    def savefig(figure: Figure, *arguments: Any, **options: Any) -> None:
        saved.append(figure)
        original(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return saved


def test_curves_hold_every_figure(tmp_path: Path, figures: list[Figure]) -> None:
    """An epoch without validation leaves a gap in the dev curves only; a WER may exceed 1."""
    plot_curves(HISTORY, tmp_path / "curves.png", RECOGNISER_CURVES)
    losses, rates = figures[0].axes
    curves = {
        line.get_label(): [(float(x), float(y)) for x, y in line.get_xydata()]
        for line in (*losses.lines, *rates.lines)
    }
    assert curves == {
        "train loss": [(1, 2.5), (2, 1.5), (3, 2.5)],
        "dev loss": [(1, 2.0), (3, 2.0)],
        "dev wer": [(1, 1.2), (3, 0.4)],
        "dev cer": [(1, 0.6), (3, 0.6)],
    }
    lowest, highest = rates.get_ylim()
    assert lowest == 0
    assert highest >= 1.2


@pytest.mark.parametrize(
    "history",
    [
        [],
        [{"epoch": 1, "train_loss": 2.5}],
        [{"epoch": 1, "train_loss": math.nan, "dev_loss": math.inf, "dev_wer": 0.0}],
    ],
)
def test_short_histories_can_be_drawn(history: list[dict[str, float]], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_curves(history, tmp_path / "curves.png", RECOGNISER_CURVES)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_events_can_be_read_back(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = Events(tmp_path, next_step=1)
    for step in (1, 2, 3):
        first.add("step", {"loss": step / 2, "learning_rate": 1e-3}, step)
    first.close()
    resumed = Events(tmp_path, next_step=3)  # step 3 was not in the checkpoint: it comes again
    resumed.add("step", {"loss": 9.0}, 3)
    resumed.close()
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    assert set(accumulator.Tags()["scalars"]) == {"step/loss", "step/learning_rate"}
    losses = [(event.step, event.value) for event in accumulator.Scalars("step/loss")]
    assert losses == [(1, 0.5), (2, 1.0), (3, 9.0)]


def test_events_without_a_directory_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    events = Events(None, next_step=1)
    events.add("step", {"loss": 1.0}, 1)
    events.close()
    assert list(tmp_path.iterdir()) == []
