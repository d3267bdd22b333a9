"""Pretraining by forecasting: how good the forecasts are, and what it saves a recogniser.

A recipe whose ``model.init_from`` names a pretraining is trained with and without it, on some hours
of its transcribed speech and on all of it, in as many steps: little speech is gone through more
often. All begin with one and the same pretraining; seeds draw the rest.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speech.bootstrap import paired_bootstrap
from speech.config import Config
from speech.dataset import SampleCache
from speech.errors import ConfigError, ManifestError
from speech.forecast import Forecaster
from speech.forecast_config import ForecastConfig, load_beginning
from speech.manifest import Utterance, read_manifest, write_manifest
from speech.metrics import sum_errors
from speech.model import count_parameters, match_parameters
from speech.pretrain import ForecastSet, pretrain
from speech.results import write_json
from speech.run import BEST_MODEL, HISTORY, LAST_STATE, is_finished, stored_state
from speech.study import (
    C,
    Observe,
    Outcome,
    Place,
    Trial,
    changed,
    counts_of,
    over_seeds,
    quick,
    reduction_figures,
    run_trial,
    tested_on,
    wer_figures,
)
from speech.study_results import store_study
from speech.tokenizer import CharTokenizer
from speech.workers import Workers

PRETRAINING_FILE = "pretraining.json"
FORECASTS_FILE = "forecasts.json"  # of the pretraining: how far off it was
ALL, RANDOM, PRETRAINED = "all", "random", "pretrained"
_QUICK_SHARE = 0.25  # of the transcribed speech, for little
_HOUR_SECONDS = 3600


@dataclass(frozen=True)
class Pretraining:
    """The first training of a study: its config, where that lies, where it runs."""

    config: ForecastConfig
    path: Path
    directory: str = "pretraining"


@dataclass(frozen=True)
class PretrainingStudy:
    """What is compared: a recipe with and without a pretraining, with little and all speech."""

    config: Config
    pretraining: Pretraining
    layers: int = 0  # that the recogniser takes from it; 0: all
    hours: float = 1.0  # of transcribed speech that count as little
    seeds: int = 2


@dataclass(frozen=True)
class Amount:
    """Some transcribed speech to train on, in an epoch as long as any other's."""

    name: str
    seconds: float  # of different speech
    train: Mapping[str, float]  # manifest -> passes per epoch


def read_pretraining_study(
    config: Config, path: Path, overrides: Sequence[str], hours: float, seeds: int
) -> PretrainingStudy:
    """Return the study of a recipe, read from `path`, and of the pretraining that it begins with.

    `overrides` as `load_beginning` says. Raises `ConfigError` where the recipe begins with no
    pretraining, or that is judged by nothing.
    """
    before = config.train.init_from
    if not before.endswith(".toml"):
        raise ConfigError(
            f"{path}: a study of pretraining needs the TOML file of one in model.init_from, "
            f"got {before!r}"
        )
    forecast = load_beginning(path.parent / before, overrides)
    if not forecast.data.dev:
        raise ConfigError(f"{path.parent / before}: a study needs manifests in data.dev")
    pretraining = Pretraining(forecast, path.parent / before)
    without = changed(config, init_from="", init_layers=0)
    return PretrainingStudy(without, pretraining, config.train.init_layers, hours, seeds)


def quick_study(study: PretrainingStudy, place: Place, parameters: int) -> PretrainingStudy:
    """Return the study with small networks, little data and one seed: it shows that all runs."""
    before = study.pretraining
    config = _resized(quick(study.config, place.directory), parameters)
    forecast = _resized(quick(before.config, before.path.parent), parameters)
    hours = _QUICK_SHARE * _epoch_seconds(config, place) / _HOUR_SECONDS
    return dataclasses.replace(
        study, config=config, pretraining=dataclasses.replace(before, config=forecast),
        hours=hours, seeds=1,
    )  # fmt: skip


def _resized(config: C, parameters: int) -> C:
    """Return a config of so many units that a recogniser with them has so many weights."""
    sizes = config.features.mel_bands, CharTokenizer().size
    return changed(config, hidden=match_parameters(config.model, parameters, *sizes).hidden)


def run_pretraining_study(
    study: PretrainingStudy, place: Place, observe: Observe
) -> dict[str, Any] | None:
    """Pretrain, train, test and compare; return the figures, also written with a picture.

    Trainings that are finished are not repeated. None where one was stopped.
    """
    forecast = _pretrain(study.pretraining, place, observe)
    if forecast is None:
        return None
    given = amounts(study, place)
    results: dict[tuple[str, str], list[Outcome]] = {}
    for number in range(study.seeds):  # a study that is cut short has all of the first seeds
        for amount in given:
            for start in (RANDOM, PRETRAINED):
                trial = _trials(study, amount, start, place)[number]
                outcome = run_trial(trial, place, observe)
                if outcome is None:
                    return None
                results.setdefault((amount.name, start), []).append(outcome)
    figures = {"forecast": forecast, "amounts": _amount_figures(given, results)}
    figures |= _setup(study, place)
    store_study(figures, place.output / PRETRAINING_FILE)
    return figures


# --- Forecasts ------------------------------------------------------------------------------------


def _pretrain(run: Pretraining, place: Place, observe: Observe) -> dict[str, Any] | None:
    """Return the figures of the forecasts; None if their training was stopped."""
    output = place.output / run.directory
    going_on = (output / LAST_STATE).is_file()
    stored_state(run.config, output, going_on)
    if not (output / FORECASTS_FILE).is_file():
        with observe(run) as observer:
            progress = pretrain(run.config, output, observer, run.path.parent, going_on)
        if not is_finished(progress, run.config.train):
            return None
        write_json(output / FORECASTS_FILE, _forecast_figures(run, output))
    figures: dict[str, Any] = json.loads((output / FORECASTS_FILE).read_text("utf-8"))
    return figures


def _forecast_figures(run: Pretraining, output: Path) -> dict[str, Any]:
    """Return mean absolute errors by how far ahead a frame is, and what the training took."""
    config, model = run.config, Forecaster.load(output / BEST_MODEL)
    features = config.features
    cache = SampleCache.of(config.data, features.sample_rate, run.path.parent)
    dev = ForecastSet.read(config, run.path.parent, model.extractor, cache)
    errors = dev.errors(model, Workers.from_environment(), None)
    history = json.loads((output / HISTORY).read_text("utf-8"))
    return {
        "steps_ahead": config.forecast.steps,
        "frames_ahead": model.window.distances,
        "frame_seconds": features.hop_samples / features.sample_rate,
        # In deviations of each band over the training set.
        "mean_absolute_error": {name: sum(row) / len(row) for name, row in errors.items()},
        "mean_absolute_error_by_frame": errors,
        "parameters": sum(weights.numel() for weights in model.network.parameters()),
        "seconds": sum(row["wall_seconds"] for row in history),
        "audio_hours": sum(row["audio_seconds"] for row in history) / _HOUR_SECONDS,
        "steps": history[-1]["step"],
        "train": dict(config.data.train),
        "dev": list(config.data.dev),
        "curve": [{key: row.get(key) for key in ("epoch", "train_loss", "dev_loss")}
                  for row in history],
    }  # fmt: skip


# --- Recognisers ----------------------------------------------------------------------------------


def _trials(study: PretrainingStudy, amount: Amount, start: str, place: Place) -> list[Trial]:
    """Return the trainings of all seeds on some speech from one kind of first weights."""
    config = changed(study.config, train=amount.train)
    if start == PRETRAINED:
        before = str((place.output / study.pretraining.directory).absolute())
        config = changed(config, init_from=before, init_layers=study.layers)
    return over_seeds(config, f"{amount.name.replace(' ', '')}-{start}", study.seeds)


def amounts(study: PretrainingStudy, place: Place) -> list[Amount]:
    """Return little speech, drawn from all of it into a manifest of its own, and all of it."""
    everything = _epoch_seconds(study.config, place)
    name = f"{study.hours:.2g} h"
    chosen = _draw(study, place)
    seconds = sum(utterance.duration for utterance in chosen)
    manifest = (place.output / f"{name.replace(' ', '')}.jsonl").absolute()
    write_manifest(manifest, chosen)
    return [
        Amount(name, seconds, {str(manifest): everything / seconds}),
        Amount(ALL, everything, study.config.data.train),
    ]


def _utterances(config: Config, place: Place) -> list[tuple[Utterance, float]]:
    """Return what a recipe trains on, with its passes per epoch."""
    data = config.data
    return [
        (utterance, share)
        for name, share in data.train.items()
        for utterance in read_manifest(place.directory / data.root / name)
        if utterance.text.strip() and data.min_seconds <= utterance.duration <= data.max_seconds
    ]


def _epoch_seconds(config: Config, place: Place) -> float:
    return sum(utterance.duration * share for utterance, share in _utterances(config, place))


def _draw(study: PretrainingStudy, place: Place) -> list[Utterance]:
    """Return utterances of `hours` in all, drawn at random, always the same, in any order.

    Raises `ManifestError` where the recipe has no more than that.
    """
    utterances = [utterance for utterance, _ in _utterances(study.config, place)]
    wanted = study.hours * _HOUR_SECONDS
    total = sum(utterance.duration for utterance in utterances)
    if total <= wanted:
        raise ManifestError(
            f"a study with {study.hours:.2g} h of transcribed speech needs more than that in "
            f"data.train, got {total / _HOUR_SECONDS:.2g} h"
        )
    order = np.random.default_rng(0).permutation(len(utterances))
    ends = np.cumsum([utterances[index].duration for index in order])
    return [utterances[index] for index in order[: 1 + np.searchsorted(ends, wanted)]]


def _amount_figures(
    given: Sequence[Amount], results: Mapping[tuple[str, str], Sequence[Outcome]]
) -> dict[str, Any]:
    figures = {}
    for amount in given:
        without, with_it = (results[amount.name, start] for start in (RANDOM, PRETRAINED))
        figures[amount.name] = {
            "hours": amount.seconds / _HOUR_SECONDS,
            RANDOM: _start_figures(without),
            PRETRAINED: _start_figures(with_it),
        }
        figures[amount.name] |= reduction_figures(without, with_it)
        figures[amount.name] |= _paired_figures(without, with_it)
    return figures


def _paired_figures(without: Sequence[Outcome], with_it: Sequence[Outcome]) -> dict[str, Any]:
    """Return the change of the word error rate and its interval: these trainings, other speakers.

    The interval of the relative reduction is of other trainings as well.
    """
    tests = [[o.test for o in outcomes if o.test is not None] for outcomes in (without, with_it)]
    if not all(tests) or len(tests[0]) != len(tests[1]):
        return {}
    (counts_a, speakers), (counts_b, _) = map(counts_of, tests)
    pooled = [[sum_errors(seeds) for seeds in zip(*counts, strict=True)]
              for counts in (counts_a, counts_b)]  # fmt: skip
    paired = paired_bootstrap(pooled[0], pooled[1], speakers)
    return {
        "wer_difference": paired.difference,
        "wer_difference_interval": list(paired.interval),
        "probability_of_improvement": paired.probability_of_improvement,
    }


def _start_figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    keys = ("epoch", "step", "train_loss", "dev_loss", "dev_wer", "dev_cer")
    return wer_figures(outcomes) | {
        "seconds": [outcome.sums("wall_seconds") for outcome in outcomes],
        "steps": outcomes[0].last("step"),
        "curves": [[{key: row.get(key) for key in keys} for row in outcome.history]
                   for outcome in outcomes],
    }  # fmt: skip


def _setup(study: PretrainingStudy, place: Place) -> dict[str, Any]:
    config = study.config
    sizes = config.features.mel_bands, CharTokenizer().size
    return {
        "parameters": count_parameters(config.model, *sizes),
        "cell": config.model.cell,
        "hidden": config.model.hidden,
        "layers": config.model.layers,
        "layers_taken": study.layers or config.model.layers,
        "learning_rate": config.train.learning_rate,
        "epochs": config.train.last_epoch,
        "seeds": study.seeds,
        "train": dict(config.data.train),
    } | tested_on(config, place)
