"""Forecasting log-mel frames: a network that learns from audio what comes next, and needs no text.

Autoregressive predictive coding (Chung, Hsu, Tang & Glass, 2019): from all it has heard a network
of one direction forecasts the frames some steps ahead, judged by their absolute difference (their
L1 loss) in deviations of each band over the training set. What it has to know for that (sounds,
speaker, the course of formants) is what a recogniser begins with (`start_from_forecaster`).

Output frame t sees the log-mel frames up to ``factor * t + reach``, since convolutions look ahead.
Forecast are the ``factor`` frames from ``(steps - 1) * factor + 1`` frames behind that one on:
nothing of them is seen. (The windows of frames 25 ms long every 10 ms overlap: the first two frames
behind the last one seen share samples with it; no others do.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from speech.checkpoint import (
    WEIGHTS_FILE,
    Model,
    read_weights,
    replace_file,
    require_same,
    write_weights,
)
from speech.config import dump_config, load_config_of
from speech.errors import ModelError
from speech.features import FeatureExtractor
from speech.forecast_config import ForecastConfig
from speech.layers import frame_mask, linear_output
from speech.model import Encoder
from speech.run import BEST_MODEL

FORECASTER_FILE = "forecaster.toml"
# What needs no training to forecast: the last frame seen; the line through it and the frame
# `factor` before it; the mean, which normalised features have at zero.
BASELINES = ("same_as_now", "linear", "mean")


class ForecastNetwork(Encoder):
    """Map log-mel frames to forecasts of later ones."""

    def __init__(self, config: ForecastConfig) -> None:
        bands = config.features.mel_bands
        super().__init__(config.model, bands)
        self.sizes = config.model.subsampling, bands
        self.output = linear_output(self.encoded_size, self.sizes[0] * bands)

    def forward(self, log_mel: Tensor, log_mel_lengths: Tensor) -> Tensor:
        """Return (B, T', factor, M) float32 from (B, T, M) and (B,); see `Window.targets`."""
        x, _ = self.encode(log_mel, log_mel_lengths)
        forecasts: Tensor = self.output(x).float()
        return forecasts.view(*forecasts.shape[:2], *self.sizes)


@dataclass(frozen=True)
class Window:
    """Which frames output frame t has seen, and which it forecasts."""

    factor: int  # log-mel frames per output frame
    reach: int  # the last one seen by output frame t is factor * t + reach
    steps: int  # output frames ahead of that one

    @property
    def first(self) -> int:
        """The first frame that output frame 0 forecasts: an utterance needs more than that."""
        return self.reach + 1 + (self.steps - 1) * self.factor

    @property
    def distances(self) -> list[int]:
        """How many frames behind the last one seen each forecast frame is."""
        return [self.first - self.reach + place for place in range(self.factor)]

    def targets(self, log_mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, T', factor, M), what is to be forecast, and (B, T', factor), where it is.

        Where an utterance of `lengths` (B,) has no such frame any more the targets mean nothing.
        """
        size = -(-log_mel.shape[1] // self.factor) * self.factor
        batch, _, bands = log_mel.shape
        targets = _shifted(log_mel, self.first, size).view(batch, -1, self.factor, bands)
        own = frame_mask(lengths - self.first, size).view(batch, -1, self.factor)
        return targets, own

    def baselines(self, log_mel: Tensor) -> dict[str, Tensor]:
        """Return the forecasts (B, T', factor, M) of BASELINES from normalised log-mel frames."""
        size = -(-log_mel.shape[1] // self.factor) * self.factor
        last = _shifted(log_mel, self.reach, size)[:, :: self.factor, None]
        before = _shifted(log_mel, self.reach - self.factor, size)[:, :: self.factor, None]
        distances = torch.tensor(self.distances, device=log_mel.device)[:, None] / self.factor
        same = last.expand(-1, -1, self.factor, -1)
        linear = last + distances * (last - before)
        return dict(zip(BASELINES, (same, linear, torch.zeros_like(same)), strict=True))


def _shifted(log_mel: Tensor, by: int, size: int) -> Tensor:
    """Return (B, size, M), the frames from number `by` on, zeros where there are none."""
    later = log_mel[:, by : by + size]
    return nn.functional.pad(later, (0, 0, 0, size - later.shape[1]))


def absolute_errors(forecasts: Tensor, targets: Tensor, own: Tensor) -> Tensor:
    """Return (B, factor): each utterance's absolute errors by place, summed over bands and time."""
    errors = (forecasts - targets).abs().sum(-1)  # (B, T', factor)
    return errors.masked_fill(~own, 0.0).sum(1)


def mean_absolute_errors(forecasts: Tensor, targets: Tensor, own: Tensor) -> Tensor:
    """Return (B,): the mean absolute error of each utterance's forecast values."""
    values = own.sum((1, 2)).clamp(min=1) * targets.shape[-1]
    return absolute_errors(forecasts, targets, own).sum(1) / values


@dataclass(frozen=True)
class Forecaster:
    """A network that forecasts, with the features that it hears."""

    config: ForecastConfig
    extractor: FeatureExtractor
    network: ForecastNetwork

    @classmethod
    def create(cls, config: ForecastConfig) -> Forecaster:
        """Return one with initial weights, drawn from torch's global generator."""
        return cls(config, FeatureExtractor(config.features), ForecastNetwork(config))

    @classmethod
    def load(cls, directory: Path) -> Forecaster:
        """Return the one in `directory`, in evaluation mode. Raises `ModelError`."""
        found = cls.create(load_config_of(ForecastConfig, directory / FORECASTER_FILE))
        read_weights(directory / WEIGHTS_FILE, found.modules())
        return found

    @property
    def window(self) -> Window:
        """What is seen and what is forecast."""
        model = self.config.model
        return Window(model.subsampling, self.network.subsampler.reach, self.config.forecast.steps)

    def modules(self) -> nn.ModuleDict:
        """The parts with weights and buffers under the names they have on disk."""
        return nn.ModuleDict({"features": self.extractor, "network": self.network})

    def save(self, directory: Path) -> None:
        """Write config and weights into a directory."""
        directory.mkdir(parents=True, exist_ok=True)
        config = dump_config(self.config)
        replace_file(directory / FORECASTER_FILE, lambda path: path.write_text(config, "utf-8"))
        write_weights(directory / WEIGHTS_FILE, self.modules().state_dict())


def find_forecaster(path: Path) -> Path | None:
    """Return the directory of a forecaster: `path`, or the best one of the run in `path`."""
    for candidate in (path, path / BEST_MODEL):
        if (candidate / FORECASTER_FILE).is_file():
            return candidate
    return None


def start_from_forecaster(source: Path, model: Model, layers: int = 0) -> None:
    """Begin a recogniser with a forecaster's features, convolutions and first `layers`; 0: all.

    What stands behind these stays as it is: further layers, look-ahead, normalisation and output.
    Raises `ModelError` unless features and network are alike, so that every weight has its place.
    """
    forecaster = Forecaster.load(source)
    # What stands behind the layers is the recogniser's own.
    ours = dataclasses.replace(model.config.model, lookahead_frames=0)
    require_same(source, "[features]", forecaster.config.features, model.config.features)
    require_same(source, "[model]", forecaster.config.model, ours)
    if layers > ours.layers:
        raise ModelError(f"cannot take {layers} layers from {source}: it has {ours.layers}")
    model.extractor.load_state_dict(forecaster.extractor.state_dict())
    for name in ("subsampler", *(f"layers.{n}" for n in range(layers or ours.layers))):
        weights: Mapping[str, Tensor] = forecaster.network.get_submodule(name).state_dict()
        model.network.get_submodule(name).load_state_dict(weights)
