"""Trials of a study: the same training with one thing changed, repeated over seeds, resumable.

A trial is a training run like any other, in a directory of its own below the study's. One that is
finished is not repeated: it has been tested, and its result lies beside it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from speech.bootstrap import relative_reduction, repeated_interval
from speech.config import Config
from speech.decoder import GREEDY
from speech.errors import ConfigError, DivergedError, SpeechError
from speech.evaluate import evaluate
from speech.forecast_config import ForecastConfig
from speech.manifest import read_manifest
from speech.metrics import ErrorCounts, sum_errors
from speech.results import Evaluation, read_results, write_json, write_results
from speech.run import BEST_MODEL, HISTORY, LAST_STATE, is_finished, stored_state
from speech.task import Observer, RunConfig
from speech.train import train
from speech.transcribe import Recogniser

TEST_FILE = "test.json"  # what the trained model makes of the test manifests
DIVERGED_FILE = "diverged.json"
QUICK_SHARE = 0.1  # of the training data, but not fewer than so many utterances
QUICK_UTTERANCES = 40
QUICK_EPOCHS = 2
QUICK_PARAMETERS = 60_000


C = TypeVar("C", Config, ForecastConfig)


class Watched(Protocol):
    """A training as who watches it sees it."""

    @property
    def directory(self) -> str:
        """Where its run lies below the study's directory."""

    @property
    def config(self) -> RunConfig:
        """Its settings."""


@dataclass(frozen=True)
class Trial:
    """One training of a study: what is tried, and the whole recipe."""

    name: str
    config: Config

    @property
    def directory(self) -> str:
        """Where its run lies below the study's directory."""
        return f"{self.name}-seed{self.config.train.seed}"


@dataclass(frozen=True)
class Outcome:
    """How a trial went."""

    trial: Trial
    history: tuple[dict[str, float], ...]
    test: Evaluation | None  # None where the training diverged
    diverged: str = ""  # what was said then

    def sums(self, key: str) -> float:
        """Return a figure of the history summed over the epochs."""
        return sum(row[key] for row in self.history)

    def last(self, key: str) -> float | None:
        """Return the last epoch's figure; None where there is none."""
        found = [row[key] for row in self.history if key in row]
        return found[-1] if found else None


Observe = Callable[[Watched], AbstractContextManager[Observer]]


@dataclass(frozen=True)
class Place:
    """Where a study lives: its output, where its config's relative paths start, what tests it."""

    output: Path
    directory: Path
    tests: tuple[Path, ...]

    @classmethod
    def of(cls, config: Config, path: Path, output: Path, tests: Sequence[Path]) -> Place:
        """Return a study's place; without test manifests its ``data.dev`` tests as well."""
        own = tuple(path.parent / config.data.root / name for name in config.data.dev)
        if not tests and not own:
            raise ConfigError(f"{path}: a study needs manifests in data.dev, or --test MANIFEST")
        return cls(output, path.parent, tuple(tests) or own)


def run_trial(trial: Trial, place: Place, observe: Observe) -> Outcome | None:
    """Train and test, or go on where that was stopped; None if it is stopped again.

    Raises `ConfigError` for a directory whose run had other settings.
    """
    output = place.output / trial.directory
    going_on = (output / LAST_STATE).is_file()
    stored_state(trial.config, output, going_on)
    if (output / DIVERGED_FILE).is_file():
        return _outcome(trial, output)
    if not (output / TEST_FILE).is_file():
        try:
            with observe(trial) as observer:
                progress = train(trial.config, output, observer, place.directory, going_on)
        except DivergedError as error:
            write_json(output / DIVERGED_FILE, {"message": str(error)})
            return _outcome(trial, output)
        if not is_finished(progress, trial.config.train):
            return None
        _test(output, place.tests, trial)
    return _outcome(trial, output)


def _test(output: Path, manifests: Sequence[Path], trial: Trial) -> None:
    recogniser = Recogniser.load(output / BEST_MODEL, options=GREEDY)
    write_results(output / TEST_FILE, evaluate(manifests, recogniser, trial.directory))


def _outcome(trial: Trial, output: Path) -> Outcome:
    history = _read(output / HISTORY) or []
    diverged = _read(output / DIVERGED_FILE) or {"message": ""}
    tested = (output / TEST_FILE).is_file()
    test = read_results(output / TEST_FILE) if tested else None
    return Outcome(trial, tuple(history), test, diverged["message"])


def _read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8")) if path.is_file() else None


def over_seeds(config: Config, name: str, seeds: int) -> list[Trial]:
    """Return the trials of one recipe with as many seeds, from the config's own on."""
    first = config.train.seed
    return [Trial(name, changed(config, seed=seed)) for seed in range(first, first + seeds)]


def changed(config: C, **settings: Any) -> C:
    """Return a config with keys of ``[model]``, ``[train]`` and ``[data]`` changed."""
    for table in ("model", "train", "data"):
        part = getattr(config, table)
        own = {key: settings.pop(key) for key in tuple(settings) if hasattr(part, key)}
        if own:
            config = dataclasses.replace(config, **{table: dataclasses.replace(part, **own)})
    assert not settings, f"no such settings: {settings}"
    return config


def quick(config: C, directory: Path) -> C:
    """Return the config on a tenth of its data for two epochs: shows that a study runs, no more."""
    shares = {}
    for name, share in config.data.train.items():
        count = len(read_manifest(directory / config.data.root / name))
        shares[name] = min(share, max(QUICK_SHARE * share, QUICK_UTTERANCES / count))
    warmup = min(config.train.warmup_steps, 10)
    return changed(config, train=shares, epochs=QUICK_EPOCHS, end_epoch=0, warmup_steps=warmup)


def wer_figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return word and character error rates over seeds and the interval of the former's mean."""
    tests = [outcome.test for outcome in outcomes if outcome.test is not None]
    figures: dict[str, Any] = {
        "wer": [test.words.rate for test in tests],
        "cer": [_characters(test) for test in tests],
        "diverged": sum(outcome.test is None for outcome in outcomes),
    }
    if tests:
        figures["wer_interval"] = list(repeated_interval(*counts_of(tests)))
    return figures


def reduction_figures(worse: Sequence[Outcome], better: Sequence[Outcome]) -> dict[str, Any]:
    """Return the share of the word errors of one recipe that another does not make.

    None where that cannot be said: a training diverged in all seeds, or the first makes no errors.
    """
    tests = [[o.test for o in outcomes if o.test is not None] for outcomes in (worse, better)]
    if not all(tests):
        return {"relative_reduction": None, "interval": None}
    (counts_a, speakers), (counts_b, _) = map(counts_of, tests)
    try:
        share, interval = relative_reduction(counts_a, counts_b, speakers)
    except SpeechError:  # the first makes no errors
        return {"relative_reduction": None, "interval": None}
    return {"relative_reduction": share, "interval": list(interval)}


def counts_of(tests: Sequence[Evaluation]) -> tuple[list[list[ErrorCounts]], list[str | None]]:
    """Return word errors by seed and utterance, and the utterances' speakers."""
    counts = [[score.words for score in test.scores] for test in tests]
    return counts, [score.speaker for score in tests[0].scores]


def tested_on(config: Config, place: Place) -> dict[str, Any]:
    """Return what a study is tested on, and whether that is what chose the best models as well."""
    names = [Path(*manifest.parts[-2:]).as_posix() for manifest in place.tests]
    own = sorted(Path(name).as_posix() for name in config.data.dev)
    return {"test": names, "tested_on_dev": sorted(names) == own}


def _characters(test: Evaluation) -> float:
    return sum_errors(score.characters for score in test.scores).rate
