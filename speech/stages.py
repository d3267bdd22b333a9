"""Trainings that build on each other: a config may name the one whose best weights it begins with.

Where ``train.init_from`` is a TOML file instead of a model, that file is trained first, and so on
back to one that begins with random weights. One command repeats a model that came about in stages.
The first one may be a pretraining by forecasting: a file with a table ``[forecast]``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from speech.config import Config
from speech.errors import ConfigError
from speech.forecast_config import ForecastConfig, is_forecast_config, load_beginning
from speech.pretrain import pretrain
from speech.recipes import load_recipe
from speech.run import BEST_MODEL, Progress, is_finished, stored_state
from speech.task import Observer
from speech.train import train
from speech.workers import Workers


@dataclass(frozen=True)
class Stage:
    """One training: its config, where that lies, and the directory of its run."""

    config: Config | ForecastConfig
    path: Path
    output: Path


def read_stages(path: Path, overrides: Sequence[str], output: Path) -> list[Stage]:
    """Return the trainings that end in the config `path`, first one first.

    The last one runs in `output`, an earlier one in a directory of its own there, named after its
    file; `overrides` hold for all of them, for a pretraining as `load_beginning` says. Raises
    `ConfigError` for a config that cannot be read or that begins with itself.
    """
    stages: list[Stage] = []
    while True:
        if any(path.resolve() == stage.path.resolve() for stage in stages):
            raise ConfigError(f"{path}: train.init_from leads back to this very file")
        stage_output = output / path.stem if stages else output
        if stages and is_forecast_config(path):
            stages.insert(0, Stage(load_beginning(path, overrides), path, stage_output))
            break
        config = load_recipe(Config, path, overrides)
        stages.insert(0, Stage(config, path, stage_output))
        before = config.train.init_from
        if not before.endswith(".toml"):
            break
        path = path.parent / before
    return [stages[0], *(_begin_with(a, b) for a, b in pairwise(stages))]


def _begin_with(before: Stage, stage: Stage) -> Stage:
    """Return `stage` with the best model of the run before it as the one it begins with."""
    assert isinstance(stage.config, Config)  # only the first one may be another
    initial = str((before.output / BEST_MODEL).absolute())
    settings = dataclasses.replace(stage.config.train, init_from=initial)
    return dataclasses.replace(stage, config=dataclasses.replace(stage.config, train=settings))


def train_stages(
    stages: Sequence[Stage],
    observe: Callable[[Stage], AbstractContextManager[Observer]],
    resume: bool,
) -> bool:
    """Run the stages one after the other; return whether all are finished.

    `observe` gives each stage its observer. With `resume` finished stages are left as they are and
    the one that was stopped goes on (see `speech.train.train` for what it raises).
    """
    for stage in stages:  # what will be refused is refused now, not when hours are spent
        stored_state(stage.config, stage.output, resume)
    missing = resume and not stages[-1].output.is_dir()  # nothing to resume: the first will say so
    patience = max(stage.config.train.worker_timeout_minutes for stage in stages)
    workers = Workers.from_environment(patience)
    finished = True
    for stage in stages:
        going_on = missing or (resume and stage.output.is_dir())
        with observe(stage) as observer:
            progress = _run(stage, observer, going_on, workers)
        finished = is_finished(progress, stage.config.train)
        if not finished:
            break
    workers.leave()
    return finished


def _run(stage: Stage, observer: Observer, resume: bool, workers: Workers) -> Progress:
    directory = stage.path.parent
    if isinstance(stage.config, ForecastConfig):
        return pretrain(stage.config, stage.output, observer, directory, resume, workers)
    return train(stage.config, stage.output, observer, directory, resume, workers)
