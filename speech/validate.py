"""The dev set of a training run: loss and greedy error rates, shared out over the workers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from speech.batching import prefetch
from speech.checkpoint import Model
from speech.config import Config
from speech.dataset import (
    Batch,
    Example,
    SampleCache,
    batch_by_seconds,
    collate,
    encode_utterance,
)
from speech.decode import greedy
from speech.errors import DivergedError
from speech.features import FeatureExtractor, pad_features
from speech.gradients import horizons
from speech.manifest import read_manifest
from speech.metrics import ErrorCounts, character_errors, sum_errors, word_errors
from speech.model import ctc_losses
from speech.workers import Workers, autocast

_HORIZON_UTTERANCES = 4  # enough for a figure that is steady, few enough to take a second
_HORIZON_SECONDS = 6.0


@dataclass(frozen=True)
class DevResult:
    """Figures over the whole dev set."""

    loss: float  # nats per character, of the utterances that their frames are able to spell
    words: ErrorCounts
    characters: ErrorCounts
    empty: int  # transcripts without a character, for references that have some
    utterances: int


class DevSet:
    """Utterances that judge a model in training; all of them, none left out."""

    def __init__(
        self,
        examples: Sequence[Example],
        extractor: FeatureExtractor,
        cache: SampleCache,
        batch_seconds: float,
    ) -> None:
        self.examples = examples
        self._extractor = extractor
        self._cache = cache
        durations = [example.utterance.duration for example in examples]
        self._batches = batch_by_seconds(durations, batch_seconds)

    @classmethod
    def read(cls, config: Config, directory: Path, model: Model, cache: SampleCache) -> DevSet:
        """Read ``[data] dev``; a relative ``data.root`` starts at `directory`."""
        examples = [
            Example(utterance, encode_utterance(utterance, model.tokenizer))
            for name in config.data.dev
            for utterance in read_manifest(directory / config.data.root / name)
        ]
        return cls(examples, model.extractor, cache, config.train.batch_seconds)

    def score(self, model: Model, workers: Workers, precision: torch.dtype | None) -> DevResult:
        """Return the figures of greedy decoding; every worker gets those of all."""
        own = self._batches[workers.rank :: workers.size]
        totals = torch.zeros(len(_FIELDS), dtype=torch.float64)
        for batch in prefetch(self._batch, own):
            totals += _score_batch(model, workers.to_device(batch), precision)
        loss, tokens, empty, *counts = workers.sum(totals.tolist())
        words, characters = (ErrorCounts(*map(int, half)) for half in (counts[:4], counts[4:]))
        mean_loss = loss / tokens if tokens else math.inf
        return DevResult(mean_loss, words, characters, int(empty), len(self.examples))

    def horizons(self, model: Model, device: torch.device, frames: int) -> dict[str, float]:
        """Return how far back the loss is felt (`speech.gradients.horizons`), up to `frames`.

        Measured on a few utterances of middling length, always the same, in float32.
        """
        order = sorted(range(len(self.examples)), key=lambda i: self._distance(self.examples[i]))
        batch = self._batch(order[:_HORIZON_UTTERANCES])
        tokens, token_lengths = batch.tokens.to(device), batch.token_lengths.to(device)

        def losses(log_probs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            return ctc_losses(log_probs, lengths, tokens, token_lengths)

        # Clones: what was made in inference mode takes no part in gradients.
        log_mel, lengths = batch.log_mel.clone(), batch.log_mel_lengths.clone()
        return horizons(model.network, log_mel.to(device), lengths.to(device), losses, frames)

    def _distance(self, example: Example) -> float:
        """How unfit an utterance is to be measured on: far from the wanted length, or silent."""
        wanted = abs(example.utterance.duration - _HORIZON_SECONDS)
        return wanted if example.tokens else math.inf

    def _batch(self, indices: Sequence[int]) -> Batch:
        examples = [self.examples[index] for index in indices]
        with torch.inference_mode():
            samples = [self._cache.load(example.utterance.audio_path) for example in examples]
            log_mel, lengths = pad_features([self._extractor.extract(one) for one in samples])
        return collate(log_mel, lengths, examples)


# What one batch adds to the totals, in this order.
_FIELDS = ("loss", "tokens", "empty", "S", "D", "I", "N", "cS", "cD", "cI", "cN")


def _score_batch(model: Model, batch: Batch, precision: torch.dtype | None) -> torch.Tensor:
    with torch.inference_mode(), autocast(batch.log_mel.device, precision):
        log_probs, lengths = model.network(batch.log_mel, batch.log_mel_lengths)
        losses = ctc_losses(log_probs, lengths, batch.tokens, batch.token_lengths)
    if bool(losses.isnan().any()):
        raise DivergedError(
            "the network's output for the dev set is not a number: its weights or what grows from "
            "frame to frame are too large; lower train.learning_rate or train.clip_norm"
        )
    tokens = torch.split(batch.tokens.cpu(), batch.token_lengths.tolist())
    references = [model.tokenizer.decode(row.tolist()) for row in tokens]
    rows = zip(log_probs.float().cpu().numpy(), lengths.tolist(), strict=True)
    hypotheses = [model.tokenizer.decode(greedy(row[:length]).tokens) for row, length in rows]
    pairs = list(zip(references, hypotheses, strict=True))
    empty = sum(1 for reference, hypothesis in pairs if reference and not hypothesis.strip())
    words = sum_errors(word_errors(*pair) for pair in pairs)
    characters = sum_errors(character_errors(*pair) for pair in pairs)
    finite = torch.isfinite(losses)  # a text too long for its frames costs infinitely much
    return torch.tensor([
        float(losses[finite].sum()), float(batch.token_lengths.to(finite.device)[finite].sum()),
        empty,
        words.substitutions, words.deletions, words.insertions, words.reference_length,
        characters.substitutions, characters.deletions, characters.insertions,
        characters.reference_length,
    ], dtype=torch.float64)  # fmt: skip
