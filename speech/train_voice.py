"""Training a voice-activity network: the task for the loop of `speech.trainer`.

Clips are mixed anew in each epoch from clean speech and sounds without speech, so that the truth is
known (`speech.voice_mixture`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from speech.batching import prefetch
from speech.dataset import SampleCache
from speech.errors import ManifestError
from speech.features import num_frames, pad_features
from speech.manifest import Utterance, read_manifest
from speech.model import AcousticModel, output_length
from speech.nonspeech import Signal
from speech.report import Curves
from speech.task import BatchSize, DevResult
from speech.trainer import run_training
from speech.voice_config import VoiceConfig
from speech.voice_mixture import FRAME_SECONDS, Mixture, Truth, mix, sounds
from speech.voice_network import SPEECH, VoiceModel
from speech.workers import Workers, autocast

_STATISTICS_CLIPS = 40  # that the features' mean and deviation are measured on
_DEV_EPOCH = 1 << 20  # that no training reaches: dev clips are drawn from seeds of their own
_NO_SOUND = 0.1  # share of clips with speech and nothing else


@dataclass(frozen=True)
class VoiceBatch:
    """Padded features of clips, and how much of each output frame is speech."""

    log_mel: Tensor  # (B, T, M)
    log_mel_lengths: Tensor  # (B,)
    speech: Tensor  # (B, T') from 0 to 1
    clips: tuple[int, ...]


class ClipMaker:
    """Clips of known truth from some manifests' speech and some sounds."""

    def __init__(
        self, manifests: dict[Path, float], config: VoiceConfig, directory: Path, is_dev: bool
    ) -> None:
        """Read the manifests (path -> relative frequency); `is_dev` takes the held-out sounds."""
        self._data, self._rate = config.data, config.features.sample_rate
        self._seed = config.train.seed
        self._cache = SampleCache.of(config.data, self._rate, directory)
        self._utterances: list[Utterance] = []
        weights: list[float] = []
        for path, share in manifests.items():
            found = read_manifest(path)
            self._utterances += found
            weights += [share / len(found)] * len(found)
        if not self._utterances:
            raise ManifestError("a voice-activity network needs manifests in data.train")
        self._weights = np.array(weights) / sum(weights)
        held_out = config.data.without_sounds
        self.sounds = sounds(
            self._rate, self._seed + is_dev, held_out, only=is_dev and bool(held_out)
        )

    def clip(self, epoch: int, number: int) -> Mixture:
        """Return a clip, the same by every call."""
        random = np.random.default_rng([self._seed, epoch, number])
        low, high = self._data.snr_db
        speaks = random.random() < self._data.speech_share
        sound = self.sounds[int(random.integers(len(self.sounds)))]
        silent = random.random() < _NO_SOUND
        return self.of(random, None if silent else sound, speaks, float(random.uniform(low, high)))

    def of(
        self, random: np.random.Generator, sound: Signal | None, speaks: bool, snr_db: float
    ) -> Mixture:
        """Return a clip with or without speech over a sound."""
        utterance = self._utterance if speaks else None
        return mix(random, utterance, sound, self._data.clip_seconds, self._rate, snr_db)

    def _utterance(self, random: np.random.Generator) -> NDArray[np.float32]:
        chosen = self._utterances[int(random.choice(len(self._utterances), p=self._weights))]
        return self._cache.load(chosen.audio_path).numpy()


class VoiceTask:
    """Speech or not in each frame, judged by cross entropy on dev speakers and held-out sounds."""

    deciding_name = "dev loss"
    curves = Curves("cross entropy, nats per frame", ("dev_error",), "share of wrong frames")

    def __init__(self, config: VoiceConfig, directory: Path) -> None:
        """Draw the network, read the manifests and make the sounds; fit the features."""
        self.config, data = config, config.data
        self.model = VoiceModel.create(config)
        self.network: nn.Module = self.model.network
        self.kept = {"features": self.model.extractor}
        root = directory / data.root
        shares = {root / name: share for name, share in data.train.items()}
        self.clips = ClipMaker(shares, config, directory, is_dev=False)
        self.dev = None
        if data.dev:
            self.dev = ClipMaker({root / n: 1.0 for n in data.dev}, config, directory, is_dev=True)
        count = round(data.clip_seconds * config.features.sample_rate)
        self._frames = output_length(num_frames(count, config.features), config.model.subsampling)
        with torch.no_grad():
            mixtures = (self.clips.clip(0, n) for n in range(min(_STATISTICS_CLIPS, data.clips)))
            self.model.extractor.fit(torch.from_numpy(one.samples) for one in mixtures)

    def summary(self) -> tuple[str, list[str]]:
        """Return how much is heard in an epoch."""
        hours = self.config.data.clips * self.config.data.clip_seconds / 3600
        return f"{self.config.data.clips} clips, {hours:.2f} h an epoch", []

    def epoch_batches(self, epoch: int) -> list[list[int]]:
        """Return the epoch's batches of clips' numbers."""
        size = self.config.train.batch_clips
        count = self.config.data.clips
        return [list(range(at, min(at + size, count))) for at in range(0, count, size)]

    def batch_size(self, examples: Sequence[int]) -> BatchSize:
        """Return clips, frames and seconds of a batch."""
        count = len(examples)
        return BatchSize(count, count * self._frames, count * self.config.data.clip_seconds)

    def batch(self, examples: Sequence[int], epoch: int) -> VoiceBatch:
        """Return clips as they are mixed in this epoch."""
        return self._batch(self.clips, examples, epoch)

    def _batch(self, maker: ClipMaker, examples: Sequence[int], epoch: int) -> VoiceBatch:
        with torch.inference_mode():
            mixtures = [maker.clip(epoch, number) for number in examples]
            samples = (torch.from_numpy(one.samples) for one in mixtures)
            log_mel, lengths = pad_features([self.model.extractor.extract(one) for one in samples])
        frame_samples = self.config.frame_samples
        width = round(FRAME_SECONDS * self.config.features.sample_rate)
        shares = [
            speech_shares(one.speech, frame_samples // width, self._frames) for one in mixtures
        ]
        return VoiceBatch(log_mel, lengths, torch.from_numpy(np.stack(shares)), tuple(examples))

    def losses(self, network: nn.Module, batch: VoiceBatch) -> Tensor:
        """Return the cross entropy (B,) of each clip in nats, summed over its frames."""
        log_probs: Tensor
        log_probs, _ = network(batch.log_mel, batch.log_mel_lengths)
        right: Tensor = (
            batch.speech * log_probs[:, :, SPEECH] + (1 - batch.speech) * log_probs[:, :, 0]
        )
        return -right.sum(1)

    def names(self, batch: VoiceBatch) -> list[str]:
        """Return the clips' numbers."""
        return [f"clip {number}" for number in batch.clips]

    def evaluate(
        self, network: nn.Module, workers: Workers, precision: torch.dtype | None
    ) -> DevResult | None:
        """Return cross entropy and share of wrong frames of the dev clips."""
        if self.dev is None:
            return None
        maker, size = self.dev, self.config.train.batch_clips
        numbers = list(range(self.config.data.dev_clips))[workers.rank :: workers.size]
        batches = [numbers[at : at + size] for at in range(0, len(numbers), size)]
        nats, wrong = 0.0, 0.0
        for batch in prefetch(lambda some: self._batch(maker, some, _DEV_EPOCH), batches):
            moved = workers.to_device(batch)
            with torch.inference_mode(), autocast(workers.device, precision):
                nats += float(self.losses(network, moved).double().sum())
                log_probs, _ = network(moved.log_mel, moved.log_mel_lengths)
            wrong += float(
                ((log_probs[:, :, SPEECH] > log_probs[:, :, 0]) != (moved.speech > 0.5)).sum()
            )
        nats, wrong = workers.sum([nats, wrong])
        count = self.config.data.dev_clips * self._frames
        return DevResult({"dev_loss": nats / count, "dev_error": wrong / count}, nats / count)

    def save(self, directory: Path, network: nn.Module) -> None:
        """Write a model directory with these weights."""
        dataclasses.replace(self.model, network=cast(AcousticModel, network)).save(directory)


# Train a voice-activity network as `run_training` says.
train_voice = partial(run_training, VoiceTask)


def speech_shares(speech: Truth, factor: int, frames: int) -> NDArray[np.float32]:
    """Return (frames,), how much of each run of `factor` frames is speech; beyond the end none."""
    padded = np.zeros(frames * factor, np.float32)
    count = min(len(speech), len(padded))
    padded[:count] = speech[:count]
    return np.asarray(padded.reshape(frames, factor).mean(1), dtype=np.float32)
