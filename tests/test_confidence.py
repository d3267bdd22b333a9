"""Confidence maps and reliability: by pencil, on words drawn from a known law, and bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech.confidence import (
    ConfidenceMap,
    cross_validated,
    fit_confidence_map,
    reliability,
    word_confidence,
)
from speech.errors import SpeechError


def drawn_words(count: int, law: ConfidenceMap, seed: int = 0) -> tuple[list[float], list[bool]]:
    """Raw confidences, and words that are right as often as a map says."""
    random = np.random.default_rng(seed)
    raw = random.beta(2, 1, size=count).tolist()
    return raw, [bool(random.random() < law(value)) for value in raw]


def test_a_map_by_pencil() -> None:
    doubled = ConfidenceMap(slope=2.0, intercept=0.0)
    assert doubled(0.75) == pytest.approx(0.9)  # odds 3 become 9
    shifted = ConfidenceMap(slope=1.0, intercept=math.log(3))
    assert shifted(0.5) == pytest.approx(0.75)
    assert ConfidenceMap(1.0, 0.0)(0.3) == pytest.approx(0.3)


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 20), st.floats(-20, 20))
def test_a_map_rises_and_stays_a_probability(
    one: float, other: float, slope: float, intercept: float
) -> None:
    mapped = ConfidenceMap(slope, intercept)
    low, high = sorted((one, other))
    assert 0 <= mapped(low) <= mapped(high) <= 1


@pytest.mark.parametrize(("slope", "intercept"), [(0, 0), (-1, 0), (math.nan, 0), (1, math.inf)])
def test_a_map_that_does_not_rise_is_refused(slope: float, intercept: float) -> None:
    with pytest.raises(SpeechError, match="must rise"):
        ConfidenceMap(slope, intercept)


def test_the_law_of_the_words_is_found() -> None:
    law = ConfidenceMap(1.7, -0.8)
    fitted = fit_confidence_map(*drawn_words(20_000, law), {"manifest": "dev"})
    assert fitted.slope == pytest.approx(law.slope, abs=0.08)
    assert fitted.intercept == pytest.approx(law.intercept, abs=0.08)
    assert fitted.fitted == {"manifest": "dev"}


def test_the_fit_is_that_of_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    raw, right = drawn_words(3000, ConfidenceMap(0.6, 1.0))
    logits = np.log(raw) - np.log1p(-np.array(raw))
    oracle = linear_model.LogisticRegression(C=1e9, tol=1e-8).fit(logits[:, None], right)
    ours = fit_confidence_map(raw, right)
    assert ours.slope == pytest.approx(oracle.coef_[0, 0], rel=0.01)
    assert ours.intercept == pytest.approx(oracle.intercept_[0], rel=0.01)


def test_words_told_apart_without_exception_give_a_finite_map() -> None:
    fitted = fit_confidence_map([0.1, 0.2, 0.8, 0.9], [False, False, True, True])
    # Platt's targets: two right words are worth 3/4, two wrong ones 1/4.
    assert fitted(0.85) == pytest.approx(0.75, abs=0.03)
    assert fitted(0.15) == pytest.approx(0.25, abs=0.03)


def test_certainties_at_both_ends_are_fitted_too() -> None:
    fitted = fit_confidence_map([0.0, 1.0, 0.0, 1.0, 1.0], [False, True, True, True, False])
    assert 0 < fitted(0.0) < fitted(1.0) < 1


@pytest.mark.parametrize(
    ("confidences", "correct", "message"),
    [
        ([0.1, 0.9], [True, True], "needs right words and wrong ones, got 2 right of 2"),
        ([0.1, 0.9], [False, False], "got 0 right of 2"),
        ([0.9, 0.8, 0.1, 0.2], [False, False, True, True], "surer ones are not right more often"),
        ([], [], "got 0 confidences and 0 judgements"),
        ([0.5], [True, False], "got 1 confidences and 2 judgements"),
        ([0.5, 1.5], [True, False], r"must be in \[0, 1\], got 1.5"),
        ([0.5, math.nan], [True, False], r"must be in \[0, 1\], got nan"),
    ],
)
def test_words_that_give_no_map(
    confidences: list[float], correct: list[bool], message: str
) -> None:
    with pytest.raises(SpeechError, match=message):
        fit_confidence_map(confidences, correct)


def test_reliability_by_pencil() -> None:
    """Two bins of two: 0.15 on average, none right; 0.85, one of two right."""
    table = reliability([0.8, 0.1, 0.9, 0.2], [True, False, False, False], bins=2)
    assert [(one.low, one.high, one.words) for one in table.bins] == [(0.1, 0.2, 2), (0.8, 0.9, 2)]
    assert [one.confidence for one in table.bins] == pytest.approx([0.15, 0.85])
    assert [one.accuracy for one in table.bins] == [0.0, 0.5]
    assert table.words == 4
    assert table.expected_calibration_error == pytest.approx((2 * 0.15 + 2 * 0.35) / 4)


def test_more_bins_than_words() -> None:
    table = reliability([0.5, 1.0], [True, True])
    assert len(table.bins) == 2
    assert table.expected_calibration_error == pytest.approx(0.25)


def test_calibration_brings_the_error_down() -> None:
    raw, right = drawn_words(8000, ConfidenceMap(2.0, -1.5))
    speakers = [f"speaker {number % 4}" for number in range(len(raw))]
    calibrated = cross_validated(raw, right, speakers)
    before = reliability(raw, right).expected_calibration_error
    after = reliability(calibrated, right).expected_calibration_error
    assert before > 0.1
    assert after < 0.02


def test_nobody_is_judged_by_a_map_that_heard_him() -> None:
    raw, right = drawn_words(400, ConfidenceMap(1.0, 0.0))
    speakers = ["a"] * 100 + ["b"] * 300
    changed = [False] * 30 + right[30:]
    before, after = (cross_validated(raw, one, speakers)[:100] for one in (right, changed))
    assert before == after
    assert before == [fit_confidence_map(raw[100:], right[100:])(value) for value in raw[:100]]


def test_cross_validation_needs_two_groups() -> None:
    with pytest.raises(SpeechError, match="two groups or more, got 2 and 1"):
        cross_validated([0.1, 0.9], [False, True], ["a", "a"])


def test_a_word_is_as_sure_as_all_its_tokens() -> None:
    assert word_confidence([0.5, 0.9, 1.0]) == pytest.approx(0.45)
