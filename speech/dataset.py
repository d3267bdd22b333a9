"""Manifests to training batches: checked texts, augmented features, batches by audio budget.

Everything random is drawn from generators seeded by (seed, epoch, utterance), never from a shared
one. So the batches of an epoch can be listed in advance, resumed in the middle, split over workers,
and come out the same.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import get_ident
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speech.audio import load_audio
from speech.augment import WaveAugment, spec_augment
from speech.batching import batches_of_like_size, costliest_first, pack
from speech.config import AugmentConfig, DataConfig, SourcesConfig
from speech.decode import required_frames
from speech.errors import AudioError, ManifestError, TextError, reason_of
from speech.features import FeatureExtractor, num_frames, pad_features
from speech.manifest import Utterance, read_manifest
from speech.model import output_length
from speech.tokenizer import CharTokenizer, normalise_text

_STATISTICS_UTTERANCES = 400  # that the features' mean and deviation are measured on


@dataclass(frozen=True)
class Example:
    """An utterance ready for the network: who it is, what it says, how long it is."""

    utterance: Utterance
    tokens: tuple[int, ...]  # L labels of the normalised text
    share: float = 1.0  # passes per epoch

    @property
    def seconds(self) -> float:
        """How much audio a pass over it takes."""
        return self.utterance.duration


class Drawable(Protocol):
    """What an epoch makes passes over."""

    @property
    def utterance(self) -> Utterance:
        """The recording."""

    @property
    def share(self) -> float:
        """Passes per epoch."""

    @property
    def seconds(self) -> float:
        """How much audio a pass over it takes."""


@dataclass(frozen=True)
class Draw:
    """One of the passes that an epoch makes over an example; each is varied in its own way."""

    index: int  # of the example
    turn: int  # of the example in this epoch, from 0


@dataclass(frozen=True)
class Batch:
    """Padded features and labels of some utterances.

    With two views of each, the features hold all the first ones, then all the second ones: (2 B,
    T, M); labels and utterances stand there once.
    """

    log_mel: Tensor  # (B, T, M)
    log_mel_lengths: Tensor  # (B,)
    tokens: Tensor  # (sum of L,), one utterance after the other, as CTC takes them
    token_lengths: Tensor  # (B,)
    utterances: tuple[Utterance, ...]

    @property
    def seconds(self) -> float:
        """Audio of the files in the batch, in seconds."""
        return sum(utterance.duration for utterance in self.utterances)


@dataclass
class Selection:
    """The examples that can be trained on, and why the others cannot."""

    examples: list[Example] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)  # reason -> manifest:line

    def leave_out(self, reason: str, utterance: Utterance) -> None:
        """Count an utterance as not used."""
        self.left_out.setdefault(reason, []).append(utterance.source)

    def messages(self) -> list[str]:
        """Return a line for each reason: how many were left out, and the first of them."""
        lines = []
        for reason, sources in self.left_out.items():
            some = ", ".join(sources[:3]) + (", ..." if len(sources) > 3 else "")
            lines.append(f"left out {len(sources)} utterances, {reason}: {some}")
        return lines


def select_examples(
    config: DataConfig,
    directory: Path,
    tokenizer: CharTokenizer,
    extractor: FeatureExtractor,
    subsampling: int,
) -> Selection:
    """Read the training manifests and check every utterance against what CTC can learn.

    Left out, and named: utterances outside the configured durations, and transcripts that need more
    output frames than the audio has. A character outside the alphabet is an error: it would hide in
    the figures. `directory` is where a relative ``data.root`` starts.
    """
    selection = Selection()
    for name, share in config.train.items():
        for utterance in read_manifest(directory / config.root / name):
            tokens = encode_utterance(utterance, tokenizer)
            samples = int(utterance.duration * extractor.config.sample_rate)
            frames = output_length(num_frames(samples, extractor.config), subsampling)
            if reason := _reason_to_leave_out(utterance.duration, frames, tokens, config):
                selection.leave_out(reason, utterance)
            else:
                selection.examples.append(Example(utterance, tokens, share))
    if not selection.examples:
        names = ", ".join(config.train) or "[data.train]"
        raise ManifestError(f"no utterance to train on in {names}")
    return selection


def _reason_to_leave_out(
    seconds: float, frames: int, tokens: Sequence[int], config: DataConfig
) -> str | None:
    if not tokens:
        return "empty text"
    if seconds < config.min_seconds:
        return f"shorter than {config.min_seconds} s"
    if seconds > config.max_seconds:
        return f"longer than {config.max_seconds} s"
    return "transcript too long for its frames" if frames < required_frames(tokens) else None


def encode_utterance(utterance: Utterance, tokenizer: CharTokenizer) -> tuple[int, ...]:
    """Return the labels of an utterance's text; a `TextError` names the manifest line at fault."""
    try:
        return tuple(tokenizer.encode(normalise_text(utterance.text)))
    except TextError as error:
        raise TextError(f"{utterance.source}: {error}") from None


class SampleCache:
    """Decoded audio as float32 files, so that an epoch need not decode again; empty path: none."""

    def __init__(self, directory: Path | None, sample_rate: int) -> None:
        self._directory = directory
        self._sample_rate = sample_rate

    @classmethod
    def of(cls, config: SourcesConfig, sample_rate: int, directory: Path) -> SampleCache:
        """Return the cache that ``[data]`` names; a relative one starts at `directory`."""
        return cls(directory / config.cache if config.cache else None, sample_rate)

    def load(self, path: Path) -> Tensor:
        """Return the samples (S,) of an audio file, the same from the cache as from the file."""
        if self._directory is None:
            return torch.from_numpy(load_audio(path, self._sample_rate).samples)
        stored = self._directory / self._key(path)
        if not stored.exists():
            self._store(load_audio(path, self._sample_rate).samples, stored)
        return torch.from_numpy(np.fromfile(stored, np.float32))

    def _store(self, samples: NDArray[np.float32], stored: Path) -> None:
        """Write beside `stored` and rename: who finds the file finds all of it."""
        partial = stored.with_suffix(f".{os.getpid()}-{get_ident()}")
        try:
            stored.parent.mkdir(parents=True, exist_ok=True)
            samples.tofile(partial)
            partial.replace(stored)
        except OSError as error:
            raise AudioError(f"{stored}: cannot write to the audio cache: {error}") from error
        finally:
            partial.unlink(missing_ok=True)

    def _key(self, path: Path) -> str:
        """Name a file by its path, size, time of change, and the rate it is wanted at."""
        try:
            state = path.stat()
        except OSError as error:
            raise AudioError(f"{path}: cannot open the audio file: {reason_of(error)}") from error
        identity = f"{path.resolve()}|{state.st_size}|{state.st_mtime_ns}|{self._sample_rate}"
        digest = hashlib.sha256(identity.encode()).hexdigest()
        return f"{digest[:2]}/{digest[2:32]}.f32"


def fit_features(
    extractor: FeatureExtractor, examples: Sequence[Drawable], cache: SampleCache, seed: int
) -> None:
    """Measure the features' mean and deviation on a drawn sample of the training files."""
    random = np.random.default_rng(seed)
    count = min(_STATISTICS_UTTERANCES, len(examples))
    chosen = sorted(random.choice(len(examples), count, replace=False).tolist())
    with torch.no_grad():
        extractor.fit(cache.load(examples[index].utterance.audio_path) for index in chosen)


class TrainingSet:
    """Augmented features of the selected examples."""

    def __init__(
        self,
        examples: Sequence[Example],
        extractor: FeatureExtractor,
        augment: AugmentConfig,
        cache: SampleCache,
        subsampling: int,
        seed: int,
        views: int = 1,
    ) -> None:
        self.examples = examples
        self._extractor = extractor
        self._augment = augment
        self._wave = WaveAugment(augment, extractor.config.sample_rate, seed)
        self._cache = cache
        self._subsampling = subsampling
        self._seed = seed
        self._views = views

    def features(self, draw: Draw, epoch: int) -> list[Tensor]:
        """Return the views (T, M) of one example as epoch `epoch` varies it.

        Views share speed, level and noise; they differ in their masks.
        """
        log_mel, random = self.unmasked(draw, epoch)
        return [spec_augment(log_mel, self._augment, random) for _ in range(self._views)]

    def unmasked(self, draw: Draw, epoch: int) -> tuple[Tensor, np.random.Generator]:
        """Return (T, M) before any mask, and the generator that draws what follows."""
        example = self.examples[draw.index]
        random = np.random.default_rng([self._seed, epoch, draw.index, draw.turn])
        samples = self._cache.load(example.utterance.audio_path)
        speed = self._wave.draw_speed(random)
        varied = self._wave.apply(samples, self._possible_speed(example, samples, speed), random)
        return self._extractor.extract(varied), random

    def batch(self, draws: Sequence[Draw], epoch: int) -> Batch:
        """Return the padded batch of some passes over examples."""
        with torch.inference_mode():
            features = [self.features(draw, epoch) for draw in draws]
            log_mel, lengths = pad_features(
                [view for views in zip(*features, strict=True) for view in views]
            )
        return collate(log_mel, lengths, [self.examples[draw.index] for draw in draws])

    def _possible_speed(self, example: Example, samples: Tensor, speed: float) -> float:
        """Fall back to the file's own speed where a faster one leaves too few frames for CTC."""
        frames = num_frames(int(len(samples) / speed), self._extractor.config)
        enough = output_length(frames, self._subsampling) >= required_frames(example.tokens)
        return speed if enough else 1.0


def collate(log_mel: Tensor, lengths: Tensor, examples: Sequence[Example]) -> Batch:
    """Join padded features (B, T, M) with the labels of their examples."""
    return Batch(
        log_mel=log_mel,
        log_mel_lengths=lengths,
        tokens=torch.tensor([token for example in examples for token in example.tokens]),
        token_lengths=torch.tensor([len(example.tokens) for example in examples]),
        utterances=tuple(example.utterance for example in examples),
    )


def epoch_batches(
    examples: Sequence[Drawable], batch_seconds: float, seed: int, epoch: int, easy_first: bool
) -> list[list[Draw]]:
    """Return the batches of an epoch as lists of draws, each at most `batch_seconds` long padded.

    Utterances of like length share a batch; which ones, and the order of the batches, changes from
    epoch to epoch. With `easy_first` short utterances come first (Amodei et al., Deep Speech 2,
    2016, section 3.3). Epoch 0 begins with the longest batch: what will not fit into memory fails
    at once. An example whose share is 0.3 takes part in 3 epochs of 10, one of 2.0 twice in each.
    """
    random = np.random.default_rng([seed, epoch])
    draws = [
        Draw(i, turn) for i, e in enumerate(examples) for turn in range(_passes(e.share, random))
    ]
    seconds = np.array([examples[draw.index].seconds for draw in draws])
    batches = batches_of_like_size(seconds, batch_seconds, random, easy_first)
    if epoch == 0:
        batches = costliest_first(batches, seconds)
    return [[draws[position] for position in batch] for batch in batches]


def batch_by_seconds(seconds: Sequence[float], batch_seconds: float) -> list[list[int]]:
    """Return batches of indices, shortest first, each at most `batch_seconds` long when padded.

    An utterance longer than that makes a batch of its own.
    """
    order = sorted(range(len(seconds)), key=lambda index: seconds[index])
    return pack(seconds, order, batch_seconds)


def _passes(share: float, random: np.random.Generator) -> int:
    """How often an example of this share takes part in an epoch."""
    whole = int(share)
    return whole + int(share > whole and random.random() < share - whole)
