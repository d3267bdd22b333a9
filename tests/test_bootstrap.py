"""Bootstrap intervals and the paired bootstrap: pencil cases, enumeration, who is drawn."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech.bootstrap import (
    bootstrap_interval,
    paired_bootstrap,
    paired_differences,
    relative_reduction,
    repeated_interval,
)
from speech.errors import SpeechError
from speech.metrics import ErrorCounts, sum_errors

# --- Bootstrap ------------------------------------------------------------------------------------


def test_interval_holds_the_rate_and_narrows_with_more_utterances() -> None:
    few = [ErrorCounts(i % 3, 0, 0, 10) for i in range(30)]
    many = few * 30
    for counts in (few, many):
        low, high = bootstrap_interval(counts)
        assert low < sum_errors(counts).rate < high
    width_few, width_many = (hi - lo for lo, hi in map(bootstrap_interval, (few, many)))
    assert width_many == pytest.approx(width_few / math.sqrt(30), rel=0.2)


def test_interval_is_near_the_normal_one() -> None:
    # Each utterance of 10 words is wrong in all of them or in none: rate 0.5, sd 0.5 / sqrt(400).
    low, high = bootstrap_interval([ErrorCounts(10 * (i % 2), 0, 0, 10) for i in range(400)])
    assert low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.008)
    assert high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.008)


def test_interval_is_reproducible() -> None:
    counts = [ErrorCounts(i % 4, 0, 0, 10) for i in range(20)]
    assert bootstrap_interval(counts, seed=1) == bootstrap_interval(counts, seed=1)
    assert bootstrap_interval(counts, seed=1) != bootstrap_interval(counts, seed=2)


def test_speakers_are_drawn_whole() -> None:
    counts = [ErrorCounts(10 * (i % 2), 0, 0, 10) for i in range(100)]
    speakers = ["good" if i % 2 == 0 else "bad" for i in range(100)]
    assert bootstrap_interval(counts, speakers) == (0.0, 1.0)
    # One speaker alone cannot be resampled: utterances are drawn instead.
    assert bootstrap_interval(counts, ["one"] * 100) == bootstrap_interval(counts)
    # Utterances without a speaker stand for themselves.
    low, high = bootstrap_interval(counts, ["x", "y", *[None] * 98])
    assert 0.3 < low < high < 0.7


def test_interval_of_degenerate_corpora() -> None:
    assert bootstrap_interval([ErrorCounts(1, 0, 0, 4)]) == (0.25, 0.25)
    assert bootstrap_interval([ErrorCounts(insertions=1)] * 3) == (math.inf, math.inf)
    assert bootstrap_interval([ErrorCounts()] * 3) == (0.0, 0.0)
    mixed = bootstrap_interval([ErrorCounts(insertions=1), ErrorCounts(0, 0, 0, 5)])
    assert mixed == (0.0, math.inf)
    with pytest.raises(SpeechError, match="at least one utterance"):
        bootstrap_interval([])
    with pytest.raises(SpeechError, match="1 speakers for 2"):
        bootstrap_interval([ErrorCounts()] * 2, ["a"])


# --- Paired ---------------------------------------------------------------------------------------

A = [ErrorCounts(3, 0, 0, 4), ErrorCounts(0, 1, 0, 4), ErrorCounts(1, 0, 1, 2)]
B = [ErrorCounts(1, 0, 0, 4), ErrorCounts(1, 1, 0, 4), ErrorCounts(0, 0, 1, 2)]


def test_differences_by_pencil() -> None:
    """B makes 2 errors fewer of 4, 1 more of 4, 1 fewer of 2."""
    draws = [np.array(draw) for draw in ([0, 1, 2], [0, 0, 0], [1, 1, 1], [1, 1, 2], [0, 1, 1])]
    assert paired_differences(A, B, draws) == [-2 / 10, -6 / 12, 3 / 12, 1 / 10, 0.0]


def test_paired_bootstrap_agrees_with_all_27_draws() -> None:
    draws = [np.array(draw) for draw in itertools.product(range(3), repeat=3)]
    every = paired_differences(A, B, draws)
    # B is better in all draws but those with twice or thrice the second utterance (7 of 27).
    exact = sum(difference < 0 for difference in every) / 27
    assert exact == 20 / 27
    result = paired_bootstrap(A, B, resamples=20_000)
    assert result.difference == -2 / 10
    assert result.probability_of_improvement == pytest.approx(exact, abs=0.012)  # 4 sigma
    assert result.interval == (min(every), max(every))  # each extreme has 1/27 > 2.5 %
    assert not result.significant


def test_a_system_does_not_improve_on_itself() -> None:
    result = paired_bootstrap(A, A)
    assert (result.difference, result.interval) == (0.0, (0.0, 0.0))
    assert result.probability_of_improvement == 0
    assert not result.significant


def test_what_is_better_everywhere_is_certain() -> None:
    worse = [count + ErrorCounts(1) for count in A]
    result = paired_bootstrap(worse, A)
    assert result.probability_of_improvement == 1
    assert result.significant
    assert paired_bootstrap(A, worse).probability_of_improvement == 0
    assert paired_bootstrap(A, worse).significant  # significantly worse


def test_pairing_finds_what_two_intervals_cannot() -> None:
    """Hard and easy utterances spread both rates widely; B has one error fewer in each."""
    hard = [ErrorCounts(1 + 8 * (i % 2), 0, 0, 10) for i in range(40)]
    easier = [ErrorCounts(8 * (i % 2), 0, 0, 10) for i in range(40)]
    assert bootstrap_interval(easier)[1] > bootstrap_interval(hard)[0]
    result = paired_bootstrap(hard, easier)
    assert result.significant
    assert result.interval == pytest.approx((-0.1, -0.1))


def test_pairs_are_drawn_by_speaker() -> None:
    """One speaker gains much, the other loses a little: with two speakers nothing is sure."""
    before = [ErrorCounts(5, 0, 0, 10)] * 100
    after = [ErrorCounts(3 if i < 80 else 6, 0, 0, 10) for i in range(100)]
    speakers = ["gains" if i < 80 else "loses" for i in range(100)]
    assert paired_bootstrap(before, after).significant
    result = paired_bootstrap(before, after, speakers)
    assert not result.significant
    assert result.probability_of_improvement == pytest.approx(3 / 4, abs=0.04)


def test_references_without_words() -> None:
    silent = [ErrorCounts(insertions=n) for n in (0, 2)]
    result = paired_bootstrap(silent[:1], silent[1:])
    assert (result.difference, result.interval) == (math.inf, (math.inf, math.inf))
    assert paired_bootstrap(silent[1:], silent[:1]).difference == -math.inf
    assert paired_bootstrap(silent[1:], silent[1:]).difference == 0


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([], [], "at least one, of both systems: got 0 and 0"),
        (A, B[:2], "got 3 and 2"),
        (A, B[::-1], "references of equal length"),
    ],
)
def test_what_is_no_pair_is_refused(
    a: list[ErrorCounts], b: list[ErrorCounts], message: str
) -> None:
    with pytest.raises(SpeechError, match=message):
        paired_bootstrap(a, b)


COUNTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20)


@settings(deadline=None, max_examples=30)
@given(COUNTS, st.integers(0, 5))
def test_swapping_the_systems_turns_the_sign(errors: list[tuple[int, int]], seed: int) -> None:
    a, b = ([ErrorCounts(pair[side], 0, 0, 10) for pair in errors] for side in (0, 1))
    there = paired_bootstrap(a, b, resamples=100, seed=seed)
    back = paired_bootstrap(b, a, resamples=100, seed=seed)
    assert back.difference == pytest.approx(-there.difference)
    assert back.interval == pytest.approx(tuple(-bound for bound in reversed(there.interval)))
    assert there.probability_of_improvement + back.probability_of_improvement <= 1
    assert there.significant == back.significant


# --- Repeated trainings ---------------------------------------------------------------------------


def repeats(*rates: float, utterances: int = 20) -> list[list[ErrorCounts]]:
    """Trainings with the same share of 10 words wrong in every utterance."""
    return [[ErrorCounts(round(10 * rate), 0, 0, 10)] * utterances for rate in rates]


def test_what_varies_neither_by_seed_nor_by_utterance_is_certain() -> None:
    assert repeated_interval(repeats(0.4, 0.4)) == (0.4, 0.4)
    share, interval = relative_reduction(repeats(0.4, 0.4), repeats(0.1))
    assert (share, *interval) == pytest.approx((0.75, 0.75, 0.75))


def test_an_interval_over_seeds_holds_what_another_training_might_give() -> None:
    counts = repeats(0.2, 0.4)
    low, high = repeated_interval(counts)  # two draws of two: both may be the better, or the worse
    assert (low, high) == (0.2, 0.4)
    one, interval = relative_reduction(repeats(0.8), counts)
    assert one == pytest.approx(1 - 0.3 / 0.8)
    assert interval == pytest.approx((0.5, 0.75))


def test_repeats_are_scored_on_the_same_draws() -> None:
    """B halves the errors of every utterance, however hard: of that there is no doubt."""
    a = [[ErrorCounts(2 * (i % 5), 0, 0, 10) for i in range(30)]]
    b = [[ErrorCounts(i % 5, 0, 0, 10) for i in range(30)]]
    share, interval = relative_reduction(a, b)
    assert (share, *interval) == pytest.approx((0.5, 0.5, 0.5))


def test_nothing_to_reduce_is_refused() -> None:
    with pytest.raises(SpeechError, match="without any"):
        relative_reduction(repeats(0.0), repeats(0.1))
    with pytest.raises(SpeechError, match="at least one training"):
        repeated_interval([])
