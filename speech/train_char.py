"""Training a character language model: the task for the loop of `speech.trainer`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from speech.batching import pack, prefetch
from speech.char_config import CharConfig
from speech.char_language_model import (
    CharLanguageModel,
    CharNetwork,
    TextScore,
    char_losses,
    shifted,
)
from speech.char_text import TextSet
from speech.lm_text import Bar, no_bar
from speech.report import Curves
from speech.task import BatchSize, DevResult
from speech.tokenizer import CharTokenizer
from speech.trainer import run_training
from speech.workers import Workers, autocast

_NAMED_CHARACTERS = 60  # of a line whose loss is not finite


@dataclass(frozen=True)
class CharBatch:
    """Lines as what is read and what should be said (see `shifted`)."""

    inputs: Tensor  # (B, L + 1)
    targets: Tensor  # (B, L + 1)


class CharTask:
    """The next character of a text, judged by nats per character of lines that are held out."""

    deciding_name = "dev loss"
    curves = Curves(
        "nats per character", ("dev_word_perplexity",), "perplexity per word, held-out lines"
    )

    def __init__(self, config: CharConfig, directory: Path, bar: Bar = no_bar) -> None:
        """Draw the network and read the texts."""
        self.config = config
        self.model = CharLanguageModel.create(config, CharTokenizer())
        self.network: nn.Module = self.model.network
        self.kept: dict[str, nn.Module] = {}
        self.texts = TextSet(config.data, directory, self.model.tokenizer, config.train.seed, bar)
        self._space = self.model.tokenizer.encode(" ")[0]

    def summary(self) -> tuple[str, list[str]]:
        """Return how much text there is, and which lines were left out."""
        left_out = [
            f"left out {count} lines, {reason}"
            for reason, count in self.texts.left_out.items()
            if count
        ]
        phrase = f"{self.texts.characters:,} characters, {len(self.texts.dev):,} lines held out"
        return phrase, left_out

    def epoch_batches(self, epoch: int) -> list[list[int]]:
        """Return the epoch's batches of lines."""
        return self.texts.epoch_batches(self.config.train.batch_characters, epoch)

    def batch_size(self, examples: Sequence[int]) -> BatchSize:
        """Return lines and characters of a batch, one end a line included."""
        return BatchSize(len(examples), int((self.texts.lengths[examples] + 1).sum()))

    def batch(self, examples: Sequence[int], epoch: int) -> CharBatch:
        """Return the padded lines; they are the same in every epoch."""
        return CharBatch(*shifted(self.texts.rows(examples)))

    def losses(self, network: nn.Module, batch: CharBatch) -> Tensor:
        """Return -log p (B,) of each line in nats."""
        return char_losses(network(batch.inputs)[0], batch.targets)

    def names(self, batch: CharBatch) -> list[str]:
        """Return how each line begins."""
        rows = batch.targets[:, :_NAMED_CHARACTERS].tolist()
        texts = (self.model.tokenizer.decode(token for token in row if token > 0) for row in rows)
        return [repr(text) for text in texts]

    def evaluate(
        self, network: nn.Module, workers: Workers, precision: torch.dtype | None
    ) -> DevResult | None:
        """Return loss, bits per character and perplexity per word of the lines held out."""
        if not len(self.texts.dev):
            return None
        score = self._score(network, workers, precision)
        figures = {
            "dev_loss": score.nats_per_character,
            "dev_bits": score.bits_per_character,
            "dev_word_perplexity": score.perplexity_per_word,
        }
        return DevResult(figures, score.nats_per_character)

    def _score(
        self, network: nn.Module, workers: Workers, precision: torch.dtype | None
    ) -> TextScore:
        """Return the score of the held-out lines, shared out over the workers."""
        lengths = self.texts.lengths[self.texts.dev] + 1
        order = np.argsort(lengths, kind="stable").tolist()
        batches = pack(lengths, order, self.config.train.batch_characters)
        lines = [self.texts.dev[batch].tolist() for batch in batches]
        own = lines[workers.rank :: workers.size]
        nats, spaces = 0.0, 0
        for batch in prefetch(lambda examples: self.batch(examples, 0), own):
            moved = workers.to_device(batch)
            with torch.inference_mode(), autocast(workers.device, precision):
                nats += float(self.losses(network, moved).double().sum())
            spaces += int((batch.targets == self._space).sum())
        nats, all_spaces = workers.sum([nats, float(spaces)])
        count = len(self.texts.dev)
        # Words stand between single spaces.
        return TextScore(-nats, int(lengths.sum()), int(all_spaces) + count, count)

    def save(self, directory: Path, network: nn.Module) -> None:
        """Write a model directory with these weights."""
        dataclasses.replace(self.model, network=cast(CharNetwork, network)).save(directory)


# Train a character language model as `run_training` says.
train_char_model = partial(run_training, CharTask)
