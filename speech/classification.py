"""How well words are told apart, and other words turned away: counts first, rates last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from speech.bootstrap import bootstrap_interval
from speech.errors import SpeechError
from speech.metrics import ErrorCounts

UNKNOWN = "unknown"  # the answer where a recording is believed to hold none of the words
THRESHOLDS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class ClassScore:
    """What was said in one utterance, and how probable each word was to the classifier."""

    name: str
    speaker: str | None
    said: str  # one of the words, or UNKNOWN
    text: str  # what was said in full
    probabilities: Mapping[str, float]  # of each word, and of UNKNOWN where that is a class

    def answer(self, threshold: float) -> str:
        """Return the most probable class, but no word that is less probable than `threshold`."""
        best = max(self.probabilities, key=self.probabilities.__getitem__)
        return best if self.probabilities[best] >= threshold else UNKNOWN

    @property
    def nearest(self) -> str:
        """The most probable of the words: the answer where something else is no choice."""
        words = {word: p for word, p in self.probabilities.items() if word != UNKNOWN}
        return max(words, key=words.__getitem__)


@dataclass(frozen=True)
class Rates:
    """What a threshold does to words that are known and to everything else, as fractions."""

    threshold: float
    false_rejection: float | None  # known words that are called unknown; None without such words
    false_acceptance: float | None  # other recordings that are taken for a word
    accuracy: float  # right answers, UNKNOWN for everything else among them


def rates(scores: Sequence[ClassScore], threshold: float) -> Rates:
    """Return what a threshold does to some utterances."""
    if not scores:
        raise SpeechError("rates need at least one utterance, got none")
    known = [score for score in scores if score.said != UNKNOWN]
    others = [score for score in scores if score.said == UNKNOWN]
    return Rates(
        threshold,
        _share(score.answer(threshold) == UNKNOWN for score in known),
        _share(score.answer(threshold) != UNKNOWN for score in others),
        _share(score.answer(threshold) == score.said for score in scores) or 0.0,
    )


def _share(truths: Iterable[bool]) -> float | None:
    values = list(truths)
    return sum(values) / len(values) if values else None


def classification_figures(
    scores: Sequence[ClassScore], words: Sequence[str], threshold: float
) -> dict[str, Any]:
    """Return accuracy with interval, confusion matrix and rejection, as plain data.

    ``accuracy`` is of the answers as they are given, ``nearest_accuracy`` of known words if the
    nearest word is always the answer. The interval is a 95 % bootstrap, of speakers where they are
    named.
    """
    own = rates(scores, threshold)
    known = [score for score in scores if score.said != UNKNOWN]
    wrong = [ErrorCounts(int(s.answer(threshold) != s.said), 0, 0, 1) for s in scores]
    low, high = bootstrap_interval(wrong, [score.speaker for score in scores])
    labels = [*words, UNKNOWN]
    return {
        "utterances": len(scores),
        "accuracy": own.accuracy,
        "accuracy_interval": [1 - high, 1 - low],
        "nearest_accuracy": _share(score.nearest == score.said for score in known),
        "threshold": threshold,
        "false_rejection": own.false_rejection,
        "false_acceptance": own.false_acceptance,
        "labels": labels,
        "confusion": confusion(scores, labels, threshold),
        "trade_off": [vars(rates(scores, value)) for value in THRESHOLDS],
    }


def confusion(
    scores: Sequence[ClassScore], labels: Sequence[str], threshold: float
) -> list[list[int]]:
    """Return how often what was said (row) was answered with what (column)."""
    matrix = [[0] * len(labels) for _ in labels]
    for score in scores:
        matrix[labels.index(score.said)][labels.index(score.answer(threshold))] += 1
    return matrix
