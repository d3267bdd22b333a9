"""Where in the log-probs the tokens of a text were emitted: the best path that spells them.

The recursion of Graves et al. 2006 (section 4.1, eq. 6-7) with the maximum in place of the sum,
hence the Viterbi algorithm, and a walk back along the moves that won. Of the paths whose collapse
is the text it finds the most probable one; for the labelling that `speech.decode.greedy` returns
that is the greedy path itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from speech.decode import Hypothesis, check_log_probs, required_frames
from speech.errors import SpeechError
from speech.tokenizer import BLANK


@dataclass(frozen=True)
class Alignment:
    """The most probable path that spells the tokens; the tuples have an entry for each of L tokens.

    The path emits token i in the output frames ``frames[i]`` to ``end_frames[i]`` (exclusive) and
    blanks in all others. ``confidences[i]`` in [0, 1] is the token's mean probability there, and
    ``log_probability`` (natural log) that of the whole path.
    """

    frames: tuple[int, ...]
    end_frames: tuple[int, ...]
    confidences: tuple[float, ...]
    log_probability: float


def align_tokens(log_probs: NDArray[np.float32], tokens: Sequence[int]) -> Alignment:
    """The alignment of the tokens with `log_probs` (T', V), natural logs, each frame normalised.

    Time and memory grow with T' L, memory by two bytes for each: this is for segments of a
    recording, not for hours of it. Compiled at the first call, which takes seconds, and cached.
    SpeechError where the T' frames are too few for the tokens, a token is the blank or outside
    the vocabulary, no path has a probability above 0, or `check_log_probs` refuses the log-probs.
    """
    check_log_probs(log_probs)
    _check_tokens(log_probs, tokens)
    extended = np.full(2 * len(tokens) + 1, BLANK, dtype=np.int64)
    extended[1::2] = tokens
    path, log_probability = _best_path(np.ascontiguousarray(log_probs), extended)
    if log_probability == -np.inf:
        raise SpeechError(
            f"the {len(tokens)} tokens cannot be aligned: every path that spells them has "
            "the probability 0"
        )
    # Entries of l' never decrease along a path, and token i is entry 2 i + 1.
    entries = np.arange(1, len(extended), 2)
    starts = np.searchsorted(path, entries, side="left")
    ends = np.searchsorted(path, entries, side="right")
    return Alignment(
        tuple(starts.tolist()),
        tuple(ends.tolist()),
        _mean_probabilities(log_probs[np.arange(len(path)), extended[path]], starts, ends),
        float(log_probability),
    )


def with_alignment(hypothesis: Hypothesis, log_probs: NDArray[np.float32]) -> Hypothesis:
    """The hypothesis with frames, confidences and log-probability of its tokens' alignment."""
    alignment = align_tokens(log_probs, hypothesis.tokens)
    return replace(
        hypothesis,
        frames=alignment.frames,
        end_frames=alignment.end_frames,
        confidences=alignment.confidences,
        log_probability=alignment.log_probability,
    )


def _check_tokens(log_probs: NDArray[np.float32], tokens: Sequence[int]) -> None:
    frames, vocabulary = log_probs.shape
    if bad := [token for token in tokens if not BLANK < token < vocabulary]:
        raise SpeechError(f"token {bad[0]} must be 1 to {vocabulary - 1}: labels are no blanks")
    if frames < required_frames(tokens):
        raise SpeechError(
            f"{len(tokens)} tokens need {required_frames(tokens)} frames or more to be aligned "
            f"(one each, and a blank inside each repeat), got {frames}"
        )


def _mean_probabilities(
    path_log_probs: NDArray[np.float32], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[float, ...]:
    """Mean probability over the frames from each start to its end."""
    sums = np.concatenate([[0.0], np.exp(path_log_probs, dtype=np.float64).cumsum()])
    means = (sums[ends] - sums[starts]) / (ends - starts)
    return tuple(np.clip(means, 0, 1).tolist())


@njit(cache=True, nogil=True)
def _best_path(
    log_probs: NDArray[np.float32], extended: NDArray[np.int64]
) -> tuple[NDArray[np.int64], float]:
    """The entry of l' (`extended`, (2 L + 1,)) at each of T' frames, and the log-probability.

    The probability is -inf, and the path means nothing, where no path is possible.
    """
    frames, size = len(log_probs), len(extended)
    moves = np.zeros((frames, size), dtype=np.uint8)  # how many entries back the best way came
    best = np.full(size, -np.inf)  # of the paths up to this frame that end in an entry of l'
    for frame in range(frames):
        # An entry must leave enough frames for the tokens behind it, and be reached from the start:
        # at most two entries a frame.
        first = max(0, size - 2 * (frames - frame))
        last = min(size, 2 * frame + 2)
        for entry in range(last - 1, first - 1, -1):  # downwards: those before are still the old
            move, score = 0, best[entry]
            if frame == 0:
                score = 0.0
            if entry > 0 and best[entry - 1] > score:
                move, score = 1, best[entry - 1]
            # A blank may be skipped between two labels that differ.
            skippable = entry > 1 and extended[entry] not in (BLANK, extended[entry - 2])
            if skippable and best[entry - 2] > score:
                move, score = 2, best[entry - 2]
            moves[frame, entry] = move
            best[entry] = score + log_probs[frame, extended[entry]]
    entry, log_probability = size - 1, best[size - 1] if frames else 0.0
    if frames and size > 1 and best[size - 2] >= log_probability:
        entry, log_probability = size - 2, best[size - 2]
    path = np.zeros(frames, dtype=np.int64)
    for frame in range(frames - 1, -1, -1):
        path[frame] = entry
        entry -= moves[frame, entry]
    return path, log_probability
