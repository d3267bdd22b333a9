from __future__ import annotations

import pytest

from speech.classification import UNKNOWN, ClassScore, classification_figures, confusion, rates
from speech.errors import SpeechError


def score(said: str, yes: float, no: float, other: float, speaker: str = "s") -> ClassScore:
    probabilities = {"yes": yes, "no": no, UNKNOWN: other}
    return ClassScore("name", speaker, said, said, probabilities)


SCORES = [
    score("yes", 0.9, 0.1, 0.0),
    score("yes", 0.6, 0.3, 0.1),
    score("no", 0.55, 0.4, 0.05),
    score("no", 0.1, 0.2, 0.7),
    score(UNKNOWN, 0.2, 0.2, 0.6),
    score(UNKNOWN, 0.7, 0.2, 0.1),
]


def test_a_word_below_the_threshold_is_unknown() -> None:
    assert [one.answer(0.0) for one in SCORES] == ["yes", "yes", "yes", UNKNOWN, UNKNOWN, "yes"]
    assert [one.answer(0.65) for one in SCORES] == ["yes", *[UNKNOWN] * 4, "yes"]
    assert [one.nearest for one in SCORES[2:5]] == ["yes", "no", "yes"]


def test_rates_count_known_and_other_words_apart() -> None:
    found = rates(SCORES, 0.65)
    assert found.false_rejection == 3 / 4
    assert found.false_acceptance == 1 / 2
    assert found.accuracy == 2 / 6
    assert rates(SCORES[:2], 0.5).false_acceptance is None
    with pytest.raises(SpeechError, match="at least one"):
        rates([], 0.5)


def test_confusion_matrix_has_what_was_said_in_rows() -> None:
    labels = ("yes", "no", UNKNOWN)
    assert confusion(SCORES, labels, 0.0) == [[2, 0, 0], [1, 0, 1], [1, 0, 1]]


def test_figures_agree_with_each_other() -> None:
    figures = classification_figures(SCORES, ("yes", "no"), 0.0)
    right = sum(figures["confusion"][i][i] for i in range(3))
    assert figures["accuracy"] == right / figures["utterances"] == 0.5
    low, high = figures["accuracy_interval"]
    assert low <= 0.5 <= high
    assert figures["nearest_accuracy"] == 0.75  # the third is nearer to yes, the fourth to no
    assert figures["trade_off"][0]["threshold"] == 0.0
