"""Pretraining by forecasting: the task for the loop of `speech.trainer`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from speech.augment import spec_augment
from speech.batching import prefetch
from speech.config import DataConfig
from speech.dataset import (
    Draw,
    Example,
    SampleCache,
    Selection,
    TrainingSet,
    batch_by_seconds,
    epoch_batches,
    fit_features,
)
from speech.errors import ManifestError
from speech.features import FeatureExtractor, num_frames, pad_features
from speech.forecast import (
    BASELINES,
    Forecaster,
    ForecastNetwork,
    absolute_errors,
    mean_absolute_errors,
)
from speech.forecast_config import ForecastConfig
from speech.manifest import Utterance, read_manifest
from speech.report import Curves
from speech.task import BatchSize, DevResult
from speech.trainer import run_training
from speech.workers import Workers, autocast


@dataclass(frozen=True)
class AudioBatch:
    """Padded features: masked for the network to hear, and whole for it to forecast."""

    heard: Tensor  # (B, T, M)
    log_mel: Tensor  # (B, T, M)
    log_mel_lengths: Tensor  # (B,)
    targets: Tensor  # (B,) frames that each utterance counts for
    utterances: tuple[Utterance, ...]


class ForecastTask:
    """Log-mel frames of the future from those of the past, judged by their absolute error."""

    deciding_name = "dev loss"
    curves = Curves(
        "mean absolute error, deviations of a band",
        ("dev_loss", *(f"dev_{name}" for name in BASELINES)),
        "the same, network and forecasts that need none",
    )

    def __init__(self, config: ForecastConfig, directory: Path) -> None:
        """Draw the network, read what is heard, fit the features."""
        self.config = config
        self.model = Forecaster.create(config)
        self.network: nn.Module = self.model.network
        self.kept = {"features": self.model.extractor}
        self.window = self.model.window
        rate, seed = config.features.sample_rate, config.train.seed
        cache = SampleCache.of(config.data, rate, directory)
        self.selection = self._select(config.data, directory)
        self.examples = self.selection.examples
        self.data = TrainingSet(
            self.examples, self.model.extractor, config.augment, cache, config.model.subsampling,
            seed,
        )  # fmt: skip
        fit_features(self.model.extractor, self.examples, cache, seed)
        self.dev = ForecastSet.read(config, directory, self.model.extractor, cache)

    def _select(self, data: DataConfig, directory: Path) -> Selection:
        """Return what can be trained on: no text is needed, only something to forecast."""
        selection = Selection()
        for name, share in data.train.items():
            for utterance in _read((name,), data, directory):
                if not data.min_seconds <= utterance.duration <= data.max_seconds:
                    reason = f"not from {data.min_seconds} to {data.max_seconds} s long"
                    selection.leave_out(reason, utterance)
                elif self._targets(utterance) < 1:
                    selection.leave_out("too short to forecast anything", utterance)
                else:
                    selection.examples.append(Example(utterance, (), share))
        if not selection.examples:
            names = ", ".join(data.train) or "[data.train]"
            raise ManifestError(f"no utterance to train on in {names}")
        return selection

    def _targets(self, utterance: Utterance) -> int:
        """Return how many frames of an utterance are forecast."""
        features = self.config.features
        return num_frames(int(utterance.duration * features.sample_rate), features) - (
            self.window.first
        )

    def summary(self) -> tuple[str, list[str]]:
        """Return utterances and hours of an epoch, what is forecast, and what was left out."""
        hours = sum(e.utterance.duration * e.share for e in self.examples) / 3600
        ahead = self.window.distances
        phrase = (
            f"{len(self.examples)} utterances, {hours:.2f} h an epoch, without their texts; "
            f"forecast are frames {ahead[0]} to {ahead[-1]} behind the last one seen"
        )
        return phrase, self.selection.messages()

    def epoch_batches(self, epoch: int) -> list[list[Draw]]:
        """Return the epoch's batches, in random order."""
        settings = self.config.train
        return epoch_batches(self.examples, settings.batch_seconds, settings.seed, epoch, False)

    def batch_size(self, examples: Sequence[Draw]) -> BatchSize:
        """Return utterances, forecast frames (at their own speed) and seconds of a batch."""
        members = [self.examples[draw.index].utterance for draw in examples]
        return BatchSize(
            examples=len(members),
            units=sum(self._targets(utterance) for utterance in members),
            audio_seconds=sum(utterance.duration for utterance in members),
        )

    def batch(self, examples: Sequence[Draw], epoch: int) -> AudioBatch:
        """Return the utterances as this epoch varies them; masks hide nothing of the targets."""
        utterances = tuple(self.examples[draw.index].utterance for draw in examples)
        with torch.inference_mode():
            whole, heard = [], []
            for draw in examples:
                log_mel, random = self.data.unmasked(draw, epoch)
                whole.append(log_mel)
                heard.append(spec_augment(log_mel, self.config.augment, random))
            padded, lengths = pad_features(whole)
        # Outside: the loss's gradient needs it.
        targets = torch.tensor([self._targets(utterance) for utterance in utterances])
        return AudioBatch(pad_features(heard)[0], padded, lengths, targets, utterances)

    def losses(self, network: nn.Module, batch: AudioBatch) -> Tensor:
        """Return (B,): each utterance's mean absolute error times the frames it counts for."""
        forecasts = network(batch.heard, batch.log_mel_lengths)
        targets, own = self.window.targets(batch.log_mel, batch.log_mel_lengths)
        return mean_absolute_errors(forecasts, targets, own) * batch.targets

    def names(self, batch: AudioBatch) -> list[str]:
        """Return each utterance's place in its manifest, and its file."""
        return [utterance.whereabouts for utterance in batch.utterances]

    def evaluate(
        self, network: nn.Module, workers: Workers, precision: torch.dtype | None
    ) -> DevResult | None:
        """Return the mean absolute errors of the network and of the baselines on the dev set."""
        if not self.dev.utterances:
            return None
        errors = self.dev.errors(self._with(network), workers, precision)
        means = {name: sum(by_frame) / len(by_frame) for name, by_frame in errors.items()}
        figures = {"dev_loss": means.pop("network")}
        figures |= {f"dev_{name}": mean for name, mean in means.items()}
        return DevResult(figures, figures["dev_loss"])

    def save(self, directory: Path, network: nn.Module) -> None:
        """Write a forecaster with these weights."""
        self._with(network).save(directory)

    def _with(self, network: nn.Module) -> Forecaster:
        return dataclasses.replace(self.model, network=cast(ForecastNetwork, network))


# Train a forecaster as `run_training` says.
pretrain = partial(run_training, ForecastTask)


def _read(names: Sequence[str], data: DataConfig, directory: Path) -> list[Utterance]:
    """Return the utterances of manifests; a relative ``data.root`` starts at `directory`."""
    return [u for name in names for u in read_manifest(directory / data.root / name)]


class ForecastSet:
    """Utterances that judge forecasts, whole and unvaried."""

    def __init__(
        self,
        utterances: Sequence[Utterance],
        extractor: FeatureExtractor,
        cache: SampleCache,
        batch_seconds: float,
    ) -> None:
        self.utterances = utterances
        self._extractor = extractor
        self._cache = cache
        self._batches = batch_by_seconds([one.duration for one in utterances], batch_seconds)

    @classmethod
    def read(
        cls,
        config: ForecastConfig,
        directory: Path,
        extractor: FeatureExtractor,
        cache: SampleCache,
    ) -> ForecastSet:
        """Read ``[data] dev``; a relative ``data.root`` starts at `directory`."""
        utterances = _read(config.data.dev, config.data, directory)
        return cls(utterances, extractor, cache, config.train.batch_seconds)

    def errors(
        self, model: Forecaster, workers: Workers, precision: torch.dtype | None
    ) -> dict[str, list[float]]:
        """Return mean absolute errors of ``network`` and BASELINES, by distance of the frame.

        A list goes with `Window.distances`. In deviations of each band over the training set;
        every worker gets those of all.
        """
        names = ("network", *BASELINES)
        factor = model.window.factor
        totals = torch.zeros(len(names) + 1, factor, dtype=torch.float64)  # the last row counts
        for batch in prefetch(self._batch, self._batches[workers.rank :: workers.size]):
            totals += _summed_errors(model, workers.to_device(batch), precision).cpu()
        summed = torch.tensor(workers.sum(totals.flatten().tolist())).view(-1, factor)
        means = summed[:-1] / (summed[-1].clamp(min=1) * model.config.features.mel_bands)
        return dict(zip(names, means.tolist(), strict=True))

    def _batch(self, indices: Sequence[int]) -> _DevBatch:
        with torch.inference_mode():
            samples = [self._cache.load(self.utterances[index].audio_path) for index in indices]
            return _DevBatch(*pad_features([self._extractor.extract(one) for one in samples]))


@dataclass(frozen=True)
class _DevBatch:
    log_mel: Tensor  # (B, T, M)
    log_mel_lengths: Tensor  # (B,)


def _summed_errors(model: Forecaster, batch: _DevBatch, precision: torch.dtype | None) -> Tensor:
    """Return absolute errors summed over a batch, a row a forecast; the last row counts frames."""
    window = model.window
    with torch.inference_mode():
        with autocast(batch.log_mel.device, precision):
            forecasts = model.network(batch.log_mel, batch.log_mel_lengths)
        targets, own = window.targets(batch.log_mel, batch.log_mel_lengths)
        every = [forecasts, *window.baselines(batch.log_mel).values()]
        rows = [absolute_errors(one, targets, own).double().sum(0) for one in every]
        return torch.stack([*rows, own.sum((0, 1)).double()])
