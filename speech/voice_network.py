"""Voice activity by a network: each frame to speech or not, one to one.

The same features and network as the recogniser's, with two outputs. Where `speech.voice_activity`
compares levels with a floor, this one has learned what speech sounds like beside hum, clicks and
music.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from speech.checkpoint import (
    read_weights,
    save_config,
    stored_weights,
    write_weights,
)
from speech.config import load_config_of
from speech.features import FeatureExtractor, pad_features
from speech.model import AcousticModel
from speech.shipped import CONFIG_FILE, VOICE_WEIGHTS_FILE, find_shipped
from speech.voice_config import VoiceConfig

DEFAULT_VOICE_MODEL = "voice"
OUTPUTS = 2  # not speech, speech
SPEECH = 1
# The network hears a window at a time, some windows at once, with what is around each.
WINDOW_SECONDS = 10.0
AROUND_SECONDS = 1.0
WINDOWS_AT_ONCE = 3

Voice = NDArray[np.bool_]
Compute = Callable[[list[NDArray[np.float32]]], list[NDArray[np.float32]]]


@dataclass(frozen=True)
class VoiceModel:
    """A network with its features and settings."""

    config: VoiceConfig
    extractor: FeatureExtractor
    network: AcousticModel

    @classmethod
    def create(cls, config: VoiceConfig) -> VoiceModel:
        """Return a model with initial weights, drawn from torch's global generator."""
        network = AcousticModel(config.model, config.features.mel_bands, OUTPUTS)
        return cls(config, FeatureExtractor(config.features), network)

    @classmethod
    def load(cls, name_or_path: str | Path = DEFAULT_VOICE_MODEL) -> VoiceModel:
        """Return a model in evaluation mode with float32 weights on the CPU."""
        directory = find_shipped(
            name_or_path, "voice-activity model", CONFIG_FILE, VOICE_WEIGHTS_FILE
        )
        config = load_config_of(VoiceConfig, directory / CONFIG_FILE)
        with torch.device("meta"):  # shapes only: the weights are read
            network = AcousticModel(config.model, config.features.mel_bands, OUTPUTS)
        model = cls(config, FeatureExtractor(config.features), network)
        read_weights(directory / VOICE_WEIGHTS_FILE, model.modules())
        return model

    def save(self, directory: Path, dtype: torch.dtype = torch.float32) -> None:
        """Write a model directory; weights as `dtype`, statistics of the features as float32."""
        save_config(directory, self.config)
        write_weights(directory / VOICE_WEIGHTS_FILE, stored_weights(self.modules(), dtype))

    def modules(self) -> nn.ModuleDict:
        """The parts with weights and buffers under the names they have on disk."""
        return nn.ModuleDict({"features": self.extractor, "network": self.network})

    def probabilities(self, windows: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Return the probability of speech (T',) in each frame of some sample vectors (S,)."""
        with torch.inference_mode():
            features = [self.extractor.extract(torch.from_numpy(one)) for one in windows]
            log_probs, lengths = self.network(*pad_features(features))
            speech = log_probs[:, :, SPEECH].exp()
        rows = zip(speech.numpy(), lengths.tolist(), strict=True)
        return [row[:length] for row, length in rows]


@functools.cache
def shipped_voice(sample_rate: int) -> VoiceModel | None:
    """Return the shipped network, loaded once; None for audio of another rate than it hears."""
    model = VoiceModel.load()
    return model if model.config.features.sample_rate == sample_rate else None


class NetworkVoiceDetector:
    """Decides frame by frame as `speech.voice_activity.VoiceDetector` does, by a network.

    Windows begin at multiples of WINDOW_SECONDS, so that how the audio was cut changes nothing.
    Decisions come up to WINDOWS_AT_ONCE windows late; no more than those are kept.
    """

    def __init__(
        self,
        model: VoiceModel,
        threshold: float | None = None,
        compute: Compute | None = None,
    ) -> None:
        """Take a model; `compute` is its `VoiceModel.probabilities`, perhaps in another thread."""
        self._compute = compute or model.probabilities
        self.frame_samples = model.config.frame_samples
        self._threshold = model.config.decision.probability if threshold is None else threshold
        rate = model.config.features.sample_rate
        self._window = round(WINDOW_SECONDS * rate / self.frame_samples) * self.frame_samples
        self._around = round(AROUND_SECONDS * rate / self.frame_samples) * self.frame_samples
        self._samples = np.zeros(0, np.float32)
        self._before = 0  # samples kept that have been decided on

    def push(self, samples: NDArray[np.float32]) -> Voice:
        """Take samples (S,); return the decisions that are now possible, following the last."""
        return self.probabilities_of(samples) > self._threshold

    def finish(self) -> Voice:
        """Return the decisions that are left; a last frame may reach beyond the audio."""
        return self.last_probabilities() > self._threshold

    def probabilities_of(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take samples as `push` does; return probabilities of speech in place of decisions."""
        self._samples = np.concatenate([self._samples, samples])
        undecided = len(self._samples) - self._before - self._around
        count = max(0, undecided) // self._window
        return self._decide(count) if count >= WINDOWS_AT_ONCE else np.zeros(0, np.float32)

    def last_probabilities(self) -> NDArray[np.float32]:
        """Return the probabilities that are left."""
        left = len(self._samples) - self._before
        return self._decide(-(-left // self._window))

    def _decide(self, count: int) -> NDArray[np.float32]:
        """Return the probabilities in the next windows; the last one may be short."""
        windows, owns = [], []
        for number in range(count):
            start = self._before + number * self._window
            first = max(0, start - self._around)
            windows.append(self._samples[first : start + self._window + self._around])
            own = min(self._window, len(self._samples) - start)
            owns.append(((start - first) // self.frame_samples, -(-own // self.frame_samples)))
        if not windows:
            return np.zeros(0, np.float32)
        rows = self._compute(windows)
        parts = [
            _at_least(row, skip + frames)[skip : skip + frames]
            for row, (skip, frames) in zip(rows, owns, strict=True)
        ]
        done = self._before + count * self._window
        keep = max(0, done - self._around)
        self._samples, self._before = self._samples[keep:], done - keep
        return np.concatenate(parts)


def _at_least(row: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
    """Return a row of so many frames or more: what lies behind the last one is as it was."""
    return np.pad(row, (0, max(0, frames - len(row))), mode="edge")
