"""Viterbi alignment: by pencil, against every path there is, against torchaudio's."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from speech.alignment import Alignment, align_tokens, with_alignment
from speech.decode import Hypothesis, collapse, greedy, label_log_probability, required_frames
from speech.errors import SpeechError
from speech.tokenizer import BLANK

A, B = 1, 2


def logs(*frames: tuple[float, ...]) -> NDArray[np.float32]:
    with np.errstate(divide="ignore"):
        return np.log(np.array(frames, dtype=np.float32))


def path_of(alignment: Alignment, tokens: tuple[int, ...], frames: int) -> list[int]:
    """The token of each frame."""
    path = [BLANK] * frames
    for token, start, end in zip(tokens, alignment.frames, alignment.end_frames, strict=True):
        assert all(other == BLANK for other in path[start:end]), "tokens overlap"
        path[start:end] = [token] * (end - start)
    return path


def log_prob_of(path: list[int], log_probs: NDArray[np.float32]) -> float:
    return float(sum(frame[token] for frame, token in zip(log_probs, path, strict=True)))


@st.composite
def log_probs_and_tokens(draw: st.DrawFn, longest: int = 6) -> tuple[NDArray[np.float32],
                                                                      tuple[int, ...]]:  # fmt: skip
    """Random log-probs of a small vocabulary, and tokens that fit their frames."""
    vocabulary = draw(st.integers(2, 4))
    frames = draw(st.integers(1, longest))
    tokens = tuple(draw(st.lists(st.integers(1, vocabulary - 1), max_size=frames)))
    assume(required_frames(tokens) <= frames)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sharpness = draw(st.sampled_from([0.3, 1.0, 5.0]))
    logits = torch.from_numpy(random.normal(scale=sharpness, size=(frames, vocabulary)))
    return logits.log_softmax(-1).float().numpy(), tokens


def test_by_pencil() -> None:
    """Frames (-, a, b); five paths spell "ab", the third is the best.

    a b -: 0.3 * 0.1 * 0.6 = 0.018    a - b: 0.3 * 0.3 * 0.3 = 0.027
    - a b: 0.6 * 0.6 * 0.3 = 0.108    a a b: 0.3 * 0.6 * 0.3 = 0.054    a b b: 0.009
    """
    log_probs = logs((0.6, 0.3, 0.1), (0.3, 0.6, 0.1), (0.6, 0.1, 0.3))
    alignment = align_tokens(log_probs, [A, B])
    assert (alignment.frames, alignment.end_frames) == ((1, 2), (2, 3))
    assert alignment.confidences == pytest.approx((0.6, 0.3))
    assert alignment.log_probability == pytest.approx(math.log(0.108))


def test_a_token_lasts_as_long_as_its_run() -> None:
    log_probs = logs((0.1, 0.9), (0.3, 0.7), (0.9, 0.1), (0.2, 0.8))
    alignment = align_tokens(log_probs, [A, A])
    assert (alignment.frames, alignment.end_frames) == ((0, 3), (2, 4))
    assert alignment.confidences == pytest.approx((0.8, 0.8))
    assert align_tokens(log_probs, [A]).end_frames == (2,)  # 0.9 * 0.7 * 0.9 * 0.2


def test_a_repeat_needs_a_blank_between() -> None:
    log_probs = logs((0.01, 0.99), (0.01, 0.99), (0.01, 0.99))
    alignment = align_tokens(log_probs, [A, A])
    assert (alignment.frames, alignment.end_frames) == ((0, 2), (1, 3))
    assert alignment.log_probability == pytest.approx(math.log(0.99 * 0.01 * 0.99))


def test_no_tokens_are_blanks_all_along() -> None:
    log_probs = logs((0.25, 0.75), (0.5, 0.5))
    assert align_tokens(log_probs, []) == Alignment((), (), (), pytest.approx(math.log(0.125)))
    assert align_tokens(log_probs[:0], []) == Alignment((), (), (), 0.0)


@settings(deadline=None)
@given(log_probs_and_tokens())
def test_it_is_the_best_of_all_paths(case: tuple[NDArray[np.float32], tuple[int, ...]]) -> None:
    log_probs, tokens = case
    frames, vocabulary = log_probs.shape
    spelling = [
        log_prob_of(list(path), log_probs)
        for path in itertools.product(range(vocabulary), repeat=frames)
        if collapse(path) == tokens
    ]
    alignment = align_tokens(log_probs, tokens)
    path = path_of(alignment, tokens, frames)
    assert collapse(path) == tokens
    assert alignment.log_probability == pytest.approx(max(spelling), abs=1e-4)
    assert alignment.log_probability == pytest.approx(log_prob_of(path, log_probs), abs=1e-4)


@settings(deadline=None)
@given(log_probs_and_tokens(longest=60))
def test_it_agrees_with_torchaudio(case: tuple[NDArray[np.float32], tuple[int, ...]]) -> None:
    log_probs, tokens = case
    assume(tokens)  # torchaudio refuses none
    path, scores = torchaudio.functional.forced_align(
        torch.from_numpy(log_probs)[None], torch.tensor([tokens], dtype=torch.int32), blank=BLANK
    )
    alignment = align_tokens(log_probs, tokens)
    assert alignment.log_probability == pytest.approx(float(scores.sum()), abs=1e-3)
    # Two paths may be equally probable but for rounding.
    found = path_of(alignment, tokens, len(log_probs))
    if found != path[0].tolist():
        assert log_prob_of(found, log_probs) == pytest.approx(float(scores.sum()), abs=1e-4)


@settings(deadline=None)
@given(log_probs_and_tokens(longest=40))
def test_no_path_beats_the_greedy_one(case: tuple[NDArray[np.float32], tuple[int, ...]]) -> None:
    log_probs, tokens = case
    best = greedy(log_probs)
    alignment = align_tokens(log_probs, tokens)
    assert alignment.log_probability <= best.log_probability + 1e-9
    assert alignment.log_probability <= label_log_probability(log_probs, tokens) + 1e-9
    own = align_tokens(log_probs, best.tokens)
    assert (own.frames, own.end_frames) == (best.frames, best.end_frames)
    assert own.confidences == pytest.approx(best.confidences)
    assert own.log_probability == pytest.approx(best.log_probability)


def test_a_hypothesis_gets_where_it_was_heard_and_keeps_its_score() -> None:
    log_probs = logs((0.1, 0.9), (0.8, 0.2))
    bare = Hypothesis((A,), (), (), (), -7.0, -5.0)
    expected = Hypothesis(
        (A,), (0,), (1,), (pytest.approx(0.9),), pytest.approx(math.log(0.72)), -5.0
    )
    assert with_alignment(bare, log_probs) == expected


def test_strided_and_double_log_probs_are_taken_too() -> None:
    log_probs = logs((0.1, 0.9), (0.8, 0.2), (0.3, 0.7))
    for same in (np.asfortranarray(log_probs), log_probs.repeat(2, axis=0)[::2],
                 log_probs.astype(np.float64)):  # fmt: skip
        assert align_tokens(same, [A, A]).frames == (0, 2)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([A, A, A], r"3 tokens need 5 frames or more to be aligned .*, got 4"),
        ([A, B, A, B, A], r"5 tokens need 5 frames or more .*, got 4"),
        ([A, BLANK], r"token 0 must be 1 to 2"),
        ([3], r"token 3 must be 1 to 2"),
        ([-1], r"token -1 must be 1 to 2"),
    ],
)
def test_tokens_that_cannot_be_aligned_are_refused(tokens: list[int], message: str) -> None:
    with pytest.raises(SpeechError, match=message):
        align_tokens(logs(*[(0.5, 0.25, 0.25)] * 4), tokens)


def test_impossible_tokens_are_refused() -> None:
    with pytest.raises(SpeechError, match="every path that spells them has the probability 0"):
        align_tokens(logs((0.5, 0.5, 0.0), (0.5, 0.5, 0.0)), [B])


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (3, 1)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(SpeechError, match="log_probs must have the shape"):
        align_tokens(np.zeros(shape, np.float32), [A])
