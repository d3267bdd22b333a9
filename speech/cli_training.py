"""What commands that train have in common: display, tables, exit status of a stopped run."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speech.progress import TrainingDisplay
from speech.stop import INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from speech.config import LoopConfig
    from speech.run import Progress
    from speech.task import RunConfig


def training_display(settings: LoopConfig) -> TrainingDisplay:
    """The display of a run; of several workers only the first one shows anything."""
    return TrainingDisplay(settings.last_epoch, silent=os.environ.get("RANK", "0") != "0")


def run_shown(
    train: Callable[..., Progress], config: RunConfig, directory: Path, output: Path, resume: bool
) -> None:
    """Run a training as `speech.trainer.run_training` does, and show how it goes on.

    Ends the process with 130 where the run was stopped.
    """
    from speech.run import is_finished

    with training_display(config.train) as shown:
        progress = train(config, output, shown, directory, resume)
    if not is_finished(progress, config.train):
        sys.exit(INTERRUPTED)


def print_study(figures: Mapping[str, Any] | None, as_json: bool = False) -> None:
    """Print a study's table or its figures; None ends the process: a training was stopped.

    The same command goes on with it.
    """
    from speech.results import finite
    from speech.study_results import study_table

    if figures is None:
        sys.exit(INTERRUPTED)
    for line in [json.dumps(finite(figures))] if as_json else study_table(figures):
        print(line)
