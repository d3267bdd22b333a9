"""Manifests to batches of a word classifier: labelled utterances, and parts of longer ones.

As in `speech.dataset`, everything random is drawn from (seed, epoch, utterance).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from speech.augment import WaveAugment, spec_augment
from speech.classifier_config import ClassesConfig, ClassifierConfig
from speech.dataset import Draw, SampleCache
from speech.errors import ManifestError
from speech.features import FeatureExtractor, pad_features
from speech.manifest import Utterance, read_manifest
from speech.tokenizer import normalise_text

_DEV_EPOCH = 0  # of the draws that cut longer dev utterances: always the same parts


@dataclass(frozen=True)
class ClassExample:
    """An utterance with its class; `longest_seconds` is the most of it that is heard at once."""

    utterance: Utterance
    label: int
    longest_seconds: float
    share: float = 1.0  # passes per epoch

    @property
    def seconds(self) -> float:
        """How much audio a pass over it takes at most."""
        return min(self.utterance.duration, self.longest_seconds)

    @property
    def is_cut(self) -> bool:
        """Whether only a part is heard."""
        return self.utterance.duration > self.longest_seconds


@dataclass(frozen=True)
class ClassBatch:
    """Padded features of some utterances and their classes."""

    log_mel: Tensor  # (B, T, M)
    log_mel_lengths: Tensor  # (B,)
    labels: Tensor  # (B,) int64
    utterances: tuple[Utterance, ...]


@dataclass
class ClassSelection:
    """What trains, what judges, and what does neither and why."""

    train: list[ClassExample] = field(default_factory=list)
    dev: list[ClassExample] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)  # reason -> manifest:line


def select_class_examples(config: ClassifierConfig, directory: Path) -> ClassSelection:
    """Read the manifests and give every utterance its class.

    Left out, and named: utterances that hold one of the words among others, and those with a word
    of ``data.without``. Raises `ManifestError` where a text is none of the words and there is no
    class for it, or where a class has no example.
    """
    data, selection = config.data, ClassSelection()
    for name, share in data.train.items():
        for utterance in read_manifest(directory / data.root / name):
            example = _example(utterance, config, share, selection)
            if example is not None:
                judges = is_held_out(utterance.id, data.dev_share)
                (selection.dev if judges else selection.train).append(example)
    for name in data.dev:
        for utterance in read_manifest(directory / data.root / name):
            example = _example(utterance, config, 1.0, selection)
            if example is not None:
                selection.dev.append(example)
    found = {example.label for example in selection.train}
    for label, word in enumerate((*config.classes.words, "anything else")[: config.classes.count]):
        if label not in found:
            manifests = ", ".join(data.train) or "[data.train]"
            raise ManifestError(f"no utterance to learn {word!r} from in {manifests}")
    return selection


def class_of(text: str, classes: ClassesConfig) -> int | None:
    """Return the class of a normalised text; None where it holds one of the words among others."""
    if text in classes.words:
        return classes.words.index(text)
    return None if set(text.split()) & set(classes.words) else len(classes.words)


def longest_part(label: int, config: ClassifierConfig) -> float:
    """Return the most seconds of an utterance that are heard: a word is never cut."""
    return math.inf if label < len(config.classes.words) else config.data.cut_seconds[1]


def _example(
    utterance: Utterance, config: ClassifierConfig, share: float, selection: ClassSelection
) -> ClassExample | None:
    text = normalise_text(utterance.text)
    label = class_of(text, config.classes)
    if set(text.split()) & set(config.data.without):
        reason = "a word of data.without"
    elif utterance.speaker in config.data.without_speakers:
        reason = "a speaker of data.without_speakers"
    elif label is None:
        reason = "one of the words among others"
    elif label < config.classes.count:
        return ClassExample(utterance, label, longest_part(label, config), share)
    else:
        raise ManifestError(
            f"{utterance.source}: {text!r} is none of {', '.join(config.classes.words)}, and "
            "classes.unknown = false has no place for it"
        )
    selection.left_out.setdefault(reason, []).append(utterance.source)
    return None


def is_held_out(name: str, share: float) -> bool:
    """Whether an utterance is among the share of them that judges: the same by every call."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def cut(
    samples: Tensor, seconds: Sequence[float], rate: int, random: np.random.Generator
) -> Tensor:
    """Return a part of samples (S,), as long as a draw between the shortest and longest seconds."""
    length = int(random.uniform(seconds[0], seconds[1]) * rate)
    start = int(random.integers(max(1, len(samples) - length + 1)))
    return samples[start : start + length]


class ClassSet:
    """Features of examples: augmented to train, as they are to judge."""

    def __init__(
        self,
        examples: Sequence[ClassExample],
        extractor: FeatureExtractor,
        config: ClassifierConfig,
        cache: SampleCache,
        varied: bool,
    ) -> None:
        self.examples = examples
        self._extractor, self._cache, self._varied = extractor, cache, varied
        self._augment, self._cut_seconds = config.augment, config.data.cut_seconds
        self._rate, self._seed = config.features.sample_rate, config.train.seed
        self._wave = WaveAugment(config.augment, self._rate, self._seed)

    def features(self, draw: Draw, epoch: int) -> Tensor:
        """Return the features (T, M) of one example as epoch `epoch` cuts and varies it."""
        random = np.random.default_rng([self._seed, epoch, draw.index, draw.turn])
        log_mel = self._extractor.extract(self._vary(self._load(draw, random), random))
        return spec_augment(log_mel, self._augment, random) if self._varied else log_mel

    def batch(self, draws: Sequence[Draw], epoch: int = _DEV_EPOCH) -> ClassBatch:
        """Return the padded batch of some passes over examples."""
        with torch.inference_mode():
            log_mel, lengths = pad_features([self.features(draw, epoch) for draw in draws])
        examples = [self.examples[draw.index] for draw in draws]
        labels = torch.tensor([example.label for example in examples])
        return ClassBatch(log_mel, lengths, labels, tuple(one.utterance for one in examples))

    def _load(self, draw: Draw, random: np.random.Generator) -> Tensor:
        example = self.examples[draw.index]
        samples = self._cache.load(example.utterance.audio_path)
        return cut(samples, self._cut_seconds, self._rate, random) if example.is_cut else samples

    def _vary(self, samples: Tensor, random: np.random.Generator) -> Tensor:
        if not self._varied:
            return samples
        return self._wave.apply(samples, self._wave.draw_speed(random), random)
