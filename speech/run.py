"""A training run as a directory: what lies there, whose it is, and where it stands."""

from __future__ import annotations

import fcntl
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speech.checkpoint import load_state
from speech.config import LoopConfig, config_differences
from speech.errors import ConfigError, TrainingError

LAST_STATE, BEST_MODEL, HISTORY, CURVES = "last.pt", "best", "history.json", "curves.png"
EVENTS, LOCK = "tensorboard", ".lock"
# Settings that a resumed run may change without becoming another run.
FREE_TO_CHANGE = {
    "train.epochs", "train.end_epoch", "train.patience", "train.evaluate_every",
    "train.checkpoint_minutes", "train.worker_timeout_minutes",
    "train.max_bad_steps", "train.horizon_frames", "data.cache", "data.root",
    "data.test", "classes.threshold",
}  # fmt: skip


@dataclass
class Progress:
    """Where a run stands; all of it is in ``last.pt``."""

    epoch: int = 0
    batch: int = 0  # batches of the epoch that are done
    step: int = 0
    bad_steps: int = 0  # non-finite losses in a row
    best: float = math.inf  # of the dev figure that decides
    stale: int = 0  # validations since the best
    epoch_loss: float = 0.0  # summed over the epoch's units so far
    epoch_units: int = 0  # what the loss is per: characters, frames, utterances
    epoch_audio_seconds: float = 0.0
    epoch_wall_seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Progress:
        """Return what ``last.pt`` holds of it, under the names of today or of the first version."""
        return cls(**{_RENAMED.get(name, name): value for name, value in state.items()})


_RENAMED = {"best_wer": "best", "epoch_characters": "epoch_units"}


def is_finished(progress: Progress, config: LoopConfig) -> bool:
    """Return whether a run has had its epochs or lost its patience; if not, it was stopped."""
    out_of_patience = 0 < config.patience <= progress.stale
    return out_of_patience or progress.epoch >= config.last_epoch


@contextmanager
def own_directory(output: Path, resume: bool) -> Iterator[None]:
    """Keep other trainings out of a run's directory; make it unless there is a run to resume.

    The lock ends with the process, however that ends.
    """
    if resume and not output.is_dir():
        raise TrainingError(f"{output}: no run to resume: no such directory")
    output.mkdir(parents=True, exist_ok=True)
    with open(output / LOCK, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(f"{output} is in use: another training works there") from None
        yield


def stored_state(config: Any, output: Path, resume: bool) -> dict[str, Any] | None:
    """Return the state to go on from, or None for a new run; refuse what does not match."""
    path = output / LAST_STATE
    if not resume and path.exists():
        raise TrainingError(f"{output} holds a run: --resume it or name another --output")
    if not path.exists():
        return None  # new, or stopped before its first checkpoint: then the run starts over
    state = load_state(path)
    changed = config_differences(state["config"], config) - FREE_TO_CHANGE
    if changed:
        raise ConfigError(
            f"{path} is a run with other settings of {', '.join(sorted(changed))}: "
            "resume with its own config or train into another --output"
        )
    return state
