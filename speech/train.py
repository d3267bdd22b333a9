"""Training a recogniser: network, data, loss and dev figures for the loop of `speech.trainer`."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from speech.checkpoint import Model, create_model, find_initial, save_model, start_from
from speech.config import Config, TrainConfig
from speech.dataset import (
    Batch,
    Draw,
    SampleCache,
    TrainingSet,
    epoch_batches,
    fit_features,
    select_examples,
)
from speech.errors import ConfigError
from speech.forecast import find_forecaster, start_from_forecaster
from speech.model import AcousticModel, consistency_losses, ctc_losses
from speech.report import Curves
from speech.task import BatchSize, DevResult
from speech.tokenizer import CharTokenizer
from speech.trainer import run_training
from speech.validate import DevSet
from speech.workers import Workers

RECOGNISER_CURVES = Curves(
    "CTC loss, nats per character", ("dev_wer", "dev_cer"), "error rate, greedy decoding"
)


def begin_with(config: TrainConfig, directory: Path, model: Model) -> None:
    """Give a model the weights that ``init_from`` names; relative paths start at `directory`."""
    forecaster = find_forecaster(directory / config.init_from)
    if forecaster is not None:
        start_from_forecaster(forecaster, model, config.init_layers)
        return
    if config.init_layers:
        raise ConfigError(
            f"train.init_layers = {config.init_layers} needs a run of `speech pretrain` in "
            f"train.init_from, got {config.init_from!r}"
        )
    start_from(find_initial(config.init_from, directory), model)


class RecogniserTask:
    """Log-mel features to characters, learned by CTC and judged by greedy word errors."""

    deciding_name = "dev WER"
    curves = RECOGNISER_CURVES

    def __init__(self, config: Config, directory: Path) -> None:
        """Read what is trained on and what judges it; fit the features to the former."""
        self.config = config
        self.model = create_model(config, CharTokenizer())
        self.model.network.truncate_gradients(config.train.bptt_frames)
        self.network: nn.Module = self.model.network
        self.kept = {"features": self.model.extractor}
        rate, subsampling = config.features.sample_rate, config.model.subsampling
        cache = SampleCache.of(config.data, rate, directory)
        self.selection = select_examples(
            config.data, directory, self.model.tokenizer, self.model.extractor, subsampling
        )
        self.examples = self.selection.examples
        self.data = TrainingSet(
            self.examples, self.model.extractor, config.augment, cache, subsampling,
            config.train.seed, views=2 if config.train.consistency else 1,
        )  # fmt: skip
        if config.train.init_from:
            begin_with(config.train, directory, self.model)
        else:
            fit_features(self.model.extractor, self.examples, cache, config.train.seed)
        self.initial = copy.deepcopy(self.network) if config.train.init_share else None
        self.dev = DevSet.read(config, directory, self.model, cache)

    def summary(self) -> tuple[str, list[str]]:
        """Return utterances and hours of an epoch, and what was left out for which reason."""
        hours = sum(e.utterance.duration * e.share for e in self.examples) / 3600
        phrase = f"{len(self.examples)} utterances, {hours:.2f} h an epoch"
        return phrase, self.selection.messages()

    def epoch_batches(self, epoch: int) -> list[list[Draw]]:
        """Return the epoch's batches; short utterances first in the first epochs."""
        settings = self.config.train
        easy_first = epoch < settings.easy_first_epochs
        return epoch_batches(
            self.examples, settings.batch_seconds, settings.seed, epoch, easy_first
        )

    def batch_size(self, examples: Sequence[Draw]) -> BatchSize:
        """Return utterances, characters and seconds of a batch."""
        members = [self.examples[draw.index] for draw in examples]
        return BatchSize(
            examples=len(members),
            units=sum(len(example.tokens) for example in members),
            audio_seconds=sum(example.utterance.duration for example in members),
        )

    def batch(self, examples: Sequence[Draw], epoch: int) -> Batch:
        """Return the utterances as this epoch varies them."""
        return self.data.batch(examples, epoch)

    def losses(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the loss (B,) of each utterance in nats.

        That is its CTC loss or, of two views, their mean and the weighted consistency of the two.
        """
        log_probs, lengths = network(batch.log_mel, batch.log_mel_lengths)
        views = len(log_probs) // len(batch.utterances)
        tokens, token_lengths = batch.tokens.repeat(views), batch.token_lengths.repeat(views)
        losses = ctc_losses(log_probs, lengths, tokens, token_lengths).view(views, -1).mean(0)
        if views == 1:
            return losses
        return losses + self.config.train.consistency * consistency_losses(log_probs, lengths)

    def names(self, batch: Batch) -> list[str]:
        """Return each utterance's place in its manifest, and its file."""
        return [utterance.whereabouts for utterance in batch.utterances]

    def evaluate(
        self, network: nn.Module, workers: Workers, precision: torch.dtype | None
    ) -> DevResult | None:
        """Return loss and error rates on the dev set; the word error rate decides."""
        if not self.dev.examples:
            return None
        result = self.dev.score(self._with(network), workers, precision)
        figures = {
            "dev_loss": result.loss,
            "dev_wer": result.words.rate,
            "dev_cer": result.characters.rate,
            "dev_empty": result.empty / result.utterances,
        }
        if self.config.train.horizon_frames:
            figures |= self.dev.horizons(
                self._with(network), workers.device, self.config.train.horizon_frames
            )
        collapsed = result.empty > 0.9 * result.utterances
        remark = (
            f"{result.empty} of {result.utterances} dev transcripts are empty: the network "
            "says only blanks. CTC begins so; if the loss has stopped falling it is stuck: "
            "lower train.learning_rate, train longer on short utterances "
            "(train.easy_first_epochs), and check that texts belong to their audio "
            "(speech check)"
        )
        return DevResult(figures, result.words.rate, remark if collapsed else "")

    def save(self, directory: Path, network: nn.Module) -> None:
        """Write a model directory with these weights."""
        save_model(directory, self._with(network))

    def _with(self, network: nn.Module) -> Model:
        """Return the model with these weights, mixed with those of the beginning as configured."""
        if self.initial is not None:
            network = copy.deepcopy(network)
            for own, initial in zip(network.parameters(), self.initial.parameters(), strict=True):
                own.lerp_(initial.to(own.device), self.config.train.init_share)
        return dataclasses.replace(self.model, network=cast(AcousticModel, network))


# Train a recogniser as `run_training` says.
train = partial(run_training, RecogniserTask)
