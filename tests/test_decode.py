from __future__ import annotations

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from speech.decode import Hypothesis, collapse, greedy, label_log_probability, required_frames
from speech.errors import SpeechError


def logs(*frames: list[float]) -> NDArray[np.float32]:
    with np.errstate(divide="ignore"):
        return np.log(np.array(frames, dtype=np.float32))


@st.composite
def matrices(
    draw: st.DrawFn, max_frames: int = 5, max_vocabulary: int = 4, min_frames: int = 0
) -> NDArray[np.float32]:
    """Normalised log-probs of a few frames over a few tokens."""
    frames = draw(st.integers(min_frames, max_frames))
    vocabulary = draw(st.integers(2, max_vocabulary))
    seed = draw(st.integers(0, 2**32 - 1))
    logits = np.random.default_rng(seed).normal(scale=2, size=(frames, vocabulary))
    return (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)


def all_labellings(log_probs: NDArray[np.float32]) -> dict[tuple[int, ...], float]:
    """Probability of every labelling, by adding up every path."""
    probabilities: dict[tuple[int, ...], float] = defaultdict(float)
    frames, vocabulary = log_probs.shape
    for path in itertools.product(range(vocabulary), repeat=frames):
        log_probability = sum(float(log_probs[t, token]) for t, token in enumerate(path))
        probabilities[collapse(path)] += math.exp(log_probability)
    return probabilities


# --- Collapse and required frames -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "labelling"),
    [
        # Graves 2006, section 3.1: both paths below spell "aab".
        ([1, 0, 1, 2, 0], (1, 1, 2)),
        ([0, 1, 1, 0, 0, 1, 2, 2], (1, 1, 2)),
        ([1, 1, 1], (1,)),
        ([0, 0], ()),
        ([], ()),
    ],
)
def test_collapse(path: list[int], labelling: tuple[int, ...]) -> None:
    assert collapse(path) == labelling


def test_required_frames_counts_a_blank_inside_each_repeat() -> None:
    assert [required_frames(tokens) for tokens in ([], [1], [1, 2], [1, 1], [1, 1, 1, 2, 2])] == [
        0, 1, 2, 3, 8,
    ]  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.integers(1, 3), max_size=3))
def test_required_frames_is_the_shortest_path(tokens: list[int]) -> None:
    for frames in itertools.count():
        if any(collapse(p) == tuple(tokens) for p in itertools.product(range(4), repeat=frames)):
            break
    assert required_frames(tokens) == frames


# --- Greedy ---------------------------------------------------------------------------------------


def test_greedy_of_a_pencil_example() -> None:
    log_probs = logs(
        [0.8, 0.1, 0.1],
        [0.1, 0.6, 0.3],
        [0.2, 0.8, 0.0],
        [0.5, 0.3, 0.2],
        [0.3, 0.7, 0.0],
        [0.1, 0.4, 0.5],
    )
    hypothesis = greedy(log_probs)
    assert hypothesis.tokens == (1, 1, 2)
    assert hypothesis.frames == (1, 4, 5)
    assert hypothesis.end_frames == (3, 5, 6)
    assert hypothesis.confidences == pytest.approx((0.7, 0.7, 0.5))
    path_probability = 0.8 * 0.6 * 0.8 * 0.5 * 0.7 * 0.5
    assert hypothesis.log_probability == pytest.approx(math.log(path_probability))
    assert hypothesis.score == hypothesis.log_probability


def test_greedy_of_silence_and_of_no_frames() -> None:
    assert greedy(logs([1.0, 0.0], [1.0, 0.0])) == Hypothesis((), (), (), (), 0.0, 0.0)
    assert greedy(np.empty((0, 29), dtype=np.float32)) == Hypothesis((), (), (), (), 0.0, 0.0)


def test_greedy_takes_the_lowest_of_equal_tokens() -> None:
    assert greedy(logs([0.4, 0.4, 0.2])).tokens == ()
    assert greedy(logs([0.2, 0.4, 0.4])).tokens == (1,)


@settings(deadline=None, max_examples=200)
@given(matrices())
def test_greedy_is_the_most_probable_of_all_paths(log_probs: NDArray[np.float32]) -> None:
    frames, vocabulary = log_probs.shape
    paths = itertools.product(range(vocabulary), repeat=frames)
    best = max(paths, key=lambda path: sum(log_probs[t, token] for t, token in enumerate(path)))
    hypothesis = greedy(log_probs)
    assert hypothesis.tokens == collapse(best)
    assert hypothesis.log_probability == pytest.approx(
        sum(float(log_probs[t, token]) for t, token in enumerate(best)), abs=1e-5
    )


@settings(deadline=None, max_examples=200)
@given(matrices(max_frames=30))
def test_greedy_says_where_its_tokens_are(log_probs: NDArray[np.float32]) -> None:
    hypothesis = greedy(log_probs)
    path = log_probs.argmax(axis=1)
    rebuilt = np.zeros(len(path), dtype=int)
    runs = zip(
        hypothesis.tokens,
        hypothesis.frames,
        hypothesis.end_frames,
        hypothesis.confidences,
        strict=True,
    )
    for token, first, end, confidence in runs:
        assert confidence == pytest.approx(np.exp(log_probs[first:end, token]).mean(), abs=1e-6)
        assert 0 <= confidence <= 1
        rebuilt[first:end] = token
    assert rebuilt.tolist() == path.tolist()


# --- The exact probability of a labelling ---------------------------------------------------------


def test_greedy_is_not_the_best_labelling() -> None:
    # Two frames of 0.6 blank, 0.4 "a": the best path is two blanks (0.36), but three paths spell
    # "a" (0.4 * 0.4 + 0.4 * 0.6 + 0.6 * 0.4 = 0.64). "b" never happens.
    log_probs = logs([0.6, 0.4, 0.0], [0.6, 0.4, 0.0])
    assert greedy(log_probs).tokens == ()
    assert math.exp(label_log_probability(log_probs, ())) == pytest.approx(0.36)
    assert math.exp(label_log_probability(log_probs, (1,))) == pytest.approx(0.64)
    assert label_log_probability(log_probs, (2,)) == -math.inf


@settings(deadline=None, max_examples=200)
@given(matrices())
def test_label_probability_equals_the_sum_over_paths(log_probs: NDArray[np.float32]) -> None:
    labellings = all_labellings(log_probs)
    for tokens, probability in labellings.items():
        assert math.exp(label_log_probability(log_probs, tokens)) == pytest.approx(
            probability, rel=1e-5
        )
    assert sum(labellings.values()) == pytest.approx(1, abs=1e-5)


def test_a_labelling_too_long_for_its_frames_is_impossible() -> None:
    frame = [0.2, 0.5, 0.3]
    assert label_log_probability(logs(frame, frame), (1, 1)) == -math.inf
    assert label_log_probability(logs(frame, frame, frame), (1, 1)) == pytest.approx(
        math.log(0.5 * 0.2 * 0.5)
    )
    assert label_log_probability(np.empty((0, 3), np.float32), ()) == 0.0
    assert label_log_probability(np.empty((0, 3), np.float32), (1,)) == -math.inf


@settings(deadline=None, max_examples=50)
@given(matrices(max_frames=40, max_vocabulary=6, min_frames=1), st.data())
def test_label_probability_is_the_ctc_loss_of_torch(
    log_probs: NDArray[np.float32], data: st.DataObject
) -> None:
    torch = pytest.importorskip("torch")
    frames, vocabulary = log_probs.shape
    tokens = data.draw(st.lists(st.integers(1, vocabulary - 1), min_size=1, max_size=10))
    loss = torch.nn.functional.ctc_loss(
        torch.from_numpy(log_probs).double()[:, None],  # (T', B, V)
        torch.tensor([tokens]),
        torch.tensor([frames]),
        torch.tensor([len(tokens)]),
        reduction="sum",
    )
    assert -label_log_probability(log_probs, tokens) == pytest.approx(float(loss), rel=1e-5)
    assert math.isinf(float(loss)) == (frames < required_frames(tokens))


# --- What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log_probs", "reason"),
    [
        (np.zeros(3, np.float32), r"shape .*got \(3,\)"),
        (np.zeros((1, 2, 3), np.float32), r"got \(1, 2, 3\)"),
        (np.zeros((2, 1), np.float32), r"got \(2, 1\)"),
        (np.zeros((2, 3), np.int64), "floating point, got int64"),
        (np.zeros((2, 4), np.float32), r"frame 0 add up to 4, not 1 \(2 of 2 frames; are these"),
        (np.array([[0.0, -np.inf], [0.5, 0.5]], np.float32), r"frame 1 add up to 3.297, .*\(1 of"),
        (np.log(np.array([[0.6, 0.5]], np.float32)), "add up to 1.1, not 1"),
        (np.array([[np.nan, 0.0]], np.float32), "NaN"),
        (np.array([[np.inf, 0.0]], np.float32), "add up to inf"),
        (np.full((2, 3), -np.inf, np.float32), "add up to 0"),
    ],
)
def test_what_is_no_log_probs_is_refused(log_probs: NDArray[np.float32], reason: str) -> None:
    for decode in (greedy, lambda matrix: label_log_probability(matrix, ())):
        with pytest.raises(SpeechError, match=reason):
            decode(log_probs)


def test_log_probs_through_bfloat16_are_accepted() -> None:
    logits = np.random.default_rng(0).normal(scale=5, size=(200, 29))
    log_probs = (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)
    bfloat16 = (log_probs.view(np.uint32) & 0xFFFF0000).view(np.float32)
    assert greedy(bfloat16).tokens


def test_blanks_are_no_labels() -> None:
    for token in (0, 3, -1):
        with pytest.raises(SpeechError, match=f"token {token} must be 1 to 2"):
            label_log_probability(logs([0.2, 0.5, 0.3]), (1, token))
