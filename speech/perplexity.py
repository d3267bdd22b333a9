"""How well a language model predicts a text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from speech.arpa import UNKNOWN_ID
from speech.language_model import NgramModel


@dataclass(frozen=True)
class Perplexity:
    """Counts of a text and its log probability (natural), in all and in its unknown words.

    ``words`` leaves the ends of sentences out; the perplexities count them, as usual.
    """

    words: int
    sentences: int
    oov_words: int
    log_prob: float
    oov_log_prob: float

    @property
    def oov_rate(self) -> float:
        """The share of words that the model does not know."""
        return self.oov_words / self.words if self.words else 0.0

    @property
    def perplexity(self) -> float:
        """exp(-log p / n) over words and ends of sentences; an unknown word counts as ``<unk>``."""
        return _perplexity(self.log_prob, self.words + self.sentences)

    @property
    def perplexity_without_oov(self) -> float:
        """The same over all but the unknown words."""
        known = self.words + self.sentences - self.oov_words
        return _perplexity(self.log_prob - self.oov_log_prob, known)

    def to_dict(self) -> dict[str, Any]:
        """All counts and rates, for JSON."""
        return {
            "perplexity": self.perplexity,
            "perplexity_without_oov": self.perplexity_without_oov,
            "oov_rate": self.oov_rate,
            **asdict(self),
        }


def _perplexity(log_prob: float, count: int) -> float:
    return math.exp(-log_prob / count) if count else math.nan


def measure(model: NgramModel, sentences: Iterable[Sequence[str]]) -> Perplexity:
    """The perplexity of a model on normalised sentences."""
    ids = model.encode(sentences)
    log_probs = model.score_ids(ids)
    unknown = ids == UNKNOWN_ID
    ends = int((ids == model.end_id).sum())
    return Perplexity(
        words=len(ids) - ends,
        sentences=ends,
        oov_words=int(unknown.sum()),
        log_prob=float(log_probs.sum(dtype="float64")),
        oov_log_prob=float(log_probs[unknown].sum(dtype="float64")),
    )
