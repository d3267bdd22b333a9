"""Training a word classifier: the task for the loop of `speech.trainer`, and its evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from speech.batching import prefetch
from speech.checkpoint import find_initial
from speech.class_data import (
    ClassBatch,
    ClassExample,
    ClassSet,
    class_of,
    longest_part,
    select_class_examples,
)
from speech.classification import UNKNOWN, ClassScore
from speech.classifier import Classifier, start_from_recogniser
from speech.classifier_config import ClassifierConfig
from speech.dataset import Draw, SampleCache, batch_by_seconds, epoch_batches, fit_features
from speech.manifest import Utterance, read_manifest
from speech.model import UtteranceClassifier
from speech.report import Curves
from speech.task import BatchSize, DevResult
from speech.tokenizer import normalise_text
from speech.trainer import run_training
from speech.workers import Workers, autocast


class ClassifierTask:
    """One class for each utterance, judged by cross entropy on utterances that are held out."""

    deciding_name = "dev loss"
    curves = Curves("cross entropy, nats per utterance", ("dev_error",), "share of wrong answers")

    def __init__(self, config: ClassifierConfig, directory: Path) -> None:
        """Draw the network, read what is trained on and what judges; fit the features."""
        self.config = config
        self.model = Classifier.create(config)
        self.network: nn.Module = self.model.network
        self.kept = {"features": self.model.extractor}
        cache = SampleCache.of(config.data, config.features.sample_rate, directory)
        self.selection = select_class_examples(config, directory)
        self.examples = self.selection.train
        self.data = ClassSet(self.examples, self.model.extractor, config, cache, varied=True)
        self.dev = ClassSet(self.selection.dev, self.model.extractor, config, cache, varied=False)
        if config.train.init_from:
            start_from_recogniser(find_initial(config.train.init_from, directory), self.model)
        else:
            fit_features(self.model.extractor, self.examples, cache, config.train.seed)

    def summary(self) -> tuple[str, list[str]]:
        """Return how many utterances there are of what, and what was left out for which reason."""
        counts = np.bincount([e.label for e in self.examples], minlength=len(self.model.labels))
        by_class = ", ".join(
            f"{label} {n}" for label, n in zip(self.model.labels, counts, strict=True)
        )
        left_out = [
            f"left out {len(sources)} utterances, {reason}"
            for reason, sources in self.selection.left_out.items()
        ]
        return (
            f"{len(self.examples)} utterances ({by_class}), {len(self.dev.examples)} judge",
            left_out,
        )

    def epoch_batches(self, epoch: int) -> list[list[Draw]]:
        """Return the epoch's batches of utterances of like length."""
        settings = self.config.train
        return epoch_batches(self.examples, settings.batch_seconds, settings.seed, epoch, False)

    def batch_size(self, examples: Sequence[Draw]) -> BatchSize:
        """Return utterances and seconds of a batch."""
        seconds = sum(self.examples[draw.index].seconds for draw in examples)
        return BatchSize(len(examples), len(examples), seconds)

    def batch(self, examples: Sequence[Draw], epoch: int) -> ClassBatch:
        """Return the utterances as this epoch cuts and varies them."""
        return self.data.batch(examples, epoch)

    def losses(self, network: nn.Module, batch: ClassBatch) -> Tensor:
        """Return -log p (B,) of each utterance's class, in nats."""
        log_probs = network(batch.log_mel, batch.log_mel_lengths)
        return nn.functional.nll_loss(log_probs, batch.labels, reduction="none")

    def names(self, batch: ClassBatch) -> list[str]:
        """Return each utterance's place in its manifest, and its file."""
        return [utterance.whereabouts for utterance in batch.utterances]

    def evaluate(
        self, network: nn.Module, workers: Workers, precision: torch.dtype | None
    ) -> DevResult | None:
        """Return cross entropy and share of wrong answers of what is held out."""
        if not self.dev.examples:
            return None
        nats, wrong = 0.0, 0
        batches = dev_batches(self.dev, self.config.train.batch_seconds)
        for batch in prefetch(self.dev.batch, batches[workers.rank :: workers.size]):
            moved = workers.to_device(batch)
            with torch.inference_mode(), autocast(workers.device, precision):
                log_probs = network(moved.log_mel, moved.log_mel_lengths)
            nats -= float(log_probs.gather(1, moved.labels[:, None]).double().sum())
            wrong += int((log_probs.argmax(1) != moved.labels).sum())
        nats, all_wrong = workers.sum([nats, float(wrong)])
        count = len(self.dev.examples)
        return DevResult({"dev_loss": nats / count, "dev_error": all_wrong / count}, nats / count)

    def save(self, directory: Path, network: nn.Module) -> None:
        """Write a model directory with these weights."""
        dataclasses.replace(self.model, network=cast(UtteranceClassifier, network)).save(directory)


# Train a word classifier as `run_training` says.
train_classifier = partial(run_training, ClassifierTask)


def dev_batches(data: ClassSet, batch_seconds: float) -> list[list[Draw]]:
    """Return batches that go once through all examples."""
    batches = batch_by_seconds([example.seconds for example in data.examples], batch_seconds)
    return [[Draw(index, 0) for index in batch] for batch in batches]


def score_manifests(
    classifier: Classifier,
    manifests: Sequence[Path],
    on_utterances: Callable[[int], None] = lambda count: None,
    only_speaker: str | None = None,
) -> list[ClassScore]:
    """Return what a classifier makes of the utterances of some manifests, or of one speaker's.

    An utterance whose text is none of the words is something else; of one longer than
    ``data.cut_seconds`` a part is heard, always the same. Those that hold one of the words among
    others are left out: what is right to answer depends on the part.
    """
    utterances = [u for path in manifests for u in read_manifest(path)]
    if only_speaker is not None:
        utterances = [one for one in utterances if one.speaker == only_speaker]
    config = classifier.config
    examples = [e for u in utterances if (e := _to_judge(u, config)) is not None]
    cache = SampleCache(None, config.features.sample_rate)
    data = ClassSet(examples, classifier.extractor, config, cache, varied=False)
    scores: dict[int, ClassScore] = {}
    draws = dev_batches(data, config.train.batch_seconds)
    for batch_draws, batch in zip(draws, prefetch(data.batch, draws), strict=True):
        with torch.inference_mode():
            rows = classifier.network(batch.log_mel, batch.log_mel_lengths).exp().numpy()
        for draw, row in zip(batch_draws, rows, strict=True):
            one = examples[draw.index].utterance
            text = normalise_text(one.text)
            said = text if text in classifier.words else UNKNOWN
            scores[draw.index] = classifier.score(one.id, row, said, text, one.speaker)
        on_utterances(len(batch_draws))
    return [scores[index] for index in range(len(examples))]


def _to_judge(utterance: Utterance, config: ClassifierConfig) -> ClassExample | None:
    label = class_of(normalise_text(utterance.text), config.classes)
    if label is None:
        return None
    return ClassExample(utterance, label, longest_part(label, config))
