"""Classifiers of a few words, tried on speakers, words and sounds that they never met.

Each training is a run of its own below the study's directory; one that is finished is not repeated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speech.bootstrap import bootstrap_interval
from speech.classification import UNKNOWN, ClassScore, classification_figures, rates
from speech.classifier import Classifier
from speech.classifier_config import ClassifierConfig
from speech.config import load_config_of
from speech.errors import ConfigError
from speech.manifest import corpus_name, read_manifest
from speech.metrics import ErrorCounts
from speech.nonspeech import nonspeech_signals
from speech.run import BEST_MODEL, LAST_STATE, is_finished
from speech.study_results import store_study
from speech.task import Observer
from speech.train_classifier import score_manifests, train_classifier

CLASSIFICATION_FILE = "classification.json"
QUICK_EPOCHS, QUICK_SHARE = 2, 0.1
QUICK_SPEAKERS = 2
SOUND_SECONDS, QUICK_SOUND_SECONDS = 20.0, 2.0  # of each sound without speech
_PIECE_SECONDS = 1.0  # that are classified at a time

Observe = Callable[[str, int], AbstractContextManager[Observer]]  # a trial's name and its epochs


@dataclass(frozen=True)
class Recipe:
    """A config and where its relative paths start."""

    name: str
    config: ClassifierConfig
    directory: Path

    @classmethod
    def read(cls, path: Path, overrides: Sequence[str], is_quick: bool) -> Recipe:
        """Read a config that names its test manifests; it is called after its folder or file."""
        config = load_config_of(ClassifierConfig, path, overrides)
        if not config.data.test:
            raise ConfigError(f"{path}: a study needs manifests in data.test")
        name = path.parent.name if path.stem == "config" else path.stem
        return cls(name, quick(config) if is_quick else config, path.parent)

    def manifests(self, names: Sequence[str]) -> list[Path]:
        """Return where manifests lie."""
        return [self.directory / self.config.data.root / name for name in names]


@dataclass(frozen=True)
class ClassificationStudy:
    """What is trained: recipes as they are, and recipes with one speaker left out at a time."""

    recipes: tuple[Recipe, ...]
    without_speakers: tuple[Recipe, ...]
    is_quick: bool = False


def quick(config: ClassifierConfig) -> ClassifierConfig:
    """Return the config on a tenth of its data for two epochs: shows that a study runs, no more."""
    shares = {name: share * QUICK_SHARE for name, share in config.data.train.items()}
    data = dataclasses.replace(config.data, train=shares)
    train = dataclasses.replace(config.train, epochs=QUICK_EPOCHS, end_epoch=0, warmup_steps=5)
    return dataclasses.replace(config, data=data, train=train)


def run_classification_study(
    study: ClassificationStudy, output: Path, observe: Observe
) -> dict[str, Any] | None:
    """Train, test and store figures and confusion matrices; None where a training was stopped."""
    figures: dict[str, Any] = {"classifiers": {}, "speakers": {}}
    for recipe in study.recipes:
        classifier = _train(recipe, recipe.name, output, observe)
        if classifier is None:
            return None
        figures["classifiers"][recipe.name] = recipe_figures(
            recipe, classifier, QUICK_SOUND_SECONDS if study.is_quick else SOUND_SECONDS
        )
    for recipe in study.without_speakers:
        one = _speakers(recipe, output, observe, QUICK_SPEAKERS if study.is_quick else None)
        if one is None:
            return None
        figures["speakers"][recipe.name] = one
    store_study(figures, output / CLASSIFICATION_FILE)
    return figures


def _train(recipe: Recipe, name: str, output: Path, observe: Observe) -> Classifier | None:
    """Train, or go on with, a run of the study; None where it is stopped."""
    run = output / name
    with observe(name, recipe.config.train.last_epoch) as observer:
        progress = train_classifier(
            recipe.config, run, observer, recipe.directory, (run / LAST_STATE).is_file()
        )
    if not is_finished(progress, recipe.config.train):
        return None
    return Classifier.load(run / BEST_MODEL)


def recipe_figures(
    recipe: Recipe, classifier: Classifier, sound_seconds: float = SOUND_SECONDS
) -> dict[str, Any]:
    """Return what a classifier does on its test manifests, on held-out words, and on sounds."""
    threshold = recipe.config.classes.threshold
    tests = {}
    others: list[ClassScore] = []
    for path in recipe.manifests(recipe.config.data.test):
        scores = score_manifests(classifier, [path])
        tests[corpus_name(path)] = classification_figures(scores, classifier.words, threshold)
        others += [score for score in scores if score.said == UNKNOWN]
    never = [one for one in others if set(one.text.split()) & set(recipe.config.data.without)]
    sounds = sound_scores(classifier, sound_seconds)
    return {
        "parameters": sum(p.numel() for p in classifier.network.parameters()),
        "words": list(classifier.words),
        "threshold": threshold,
        "tests": tests,
        "held_out_words": list(recipe.config.data.without),
        "false_acceptance": {
            "other words and parts of speech": _acceptance(others, threshold),
            "held-out words": _acceptance(never, threshold),
            "sounds without speech": _acceptance(sounds, threshold),
        },
        "trained_on": dict(recipe.config.data.train),
    }


def _acceptance(scores: Sequence[ClassScore], threshold: float) -> dict[str, Any]:
    share = rates(scores, threshold).false_acceptance if scores else None
    return {"recordings": len(scores), "rate": share}


def sound_scores(classifier: Classifier, seconds: float) -> list[ClassScore]:
    """Return what a classifier makes of sounds without speech, each so long, second by second."""
    rate = classifier.config.features.sample_rate
    count = round(_PIECE_SECONDS * rate)
    scores = []
    for signal in nonspeech_signals(rate, seconds=seconds):
        pieces = [signal.samples[at : at + count] for at in range(0, len(signal.samples), count)]
        rows = classifier.probabilities(pieces)
        scores += [classifier.score(signal.name, row, text=signal.kind) for row in rows]
    return scores


def _speakers(
    recipe: Recipe, output: Path, observe: Observe, count: int | None
) -> dict[str, Any] | None:
    """Train without one speaker of the tests at a time and test on all that the speaker said."""
    paths = recipe.manifests([*recipe.config.data.train, *recipe.config.data.test])
    tests = recipe.manifests(recipe.config.data.test)
    utterances = [utterance for path in tests for utterance in read_manifest(path)]
    speakers = sorted({u.speaker for u in utterances if u.speaker is not None})[:count]
    if len(speakers) < 2:
        raise ConfigError(f"{recipe.name}: leaving speakers out needs two that the manifests name")
    threshold = recipe.config.classes.threshold
    by_speaker: dict[str, Any] = {}
    for speaker in speakers:
        data = dataclasses.replace(recipe.config.data, without_speakers=(speaker,))
        config = dataclasses.replace(recipe.config, data=data)
        left_out = dataclasses.replace(recipe, config=config)
        classifier = _train(left_out, f"{recipe.name}-{speaker}", output, observe)
        if classifier is None:
            return None
        scores = score_manifests(classifier, paths, only_speaker=speaker)
        by_speaker[speaker] = classification_figures(scores, classifier.words, threshold)
    low, high = bootstrap_interval([_errors(one) for one in by_speaker.values()])
    return {
        "by_speaker": by_speaker,
        "mean_accuracy": float(np.mean([one["accuracy"] for one in by_speaker.values()])),
        "interval": [1 - high, 1 - low],  # over speakers
        "trained_on": dict(recipe.config.data.train),
    }


def _errors(figures: dict[str, Any]) -> ErrorCounts:
    count = figures["utterances"]
    return ErrorCounts(round((1 - figures["accuracy"]) * count), 0, 0, count)
