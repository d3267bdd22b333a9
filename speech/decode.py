"""From log-probs to tokens: the CTC collapse, the best path, and the exact label probability.

Graves et al. 2006, "Connectionist temporal classification: labelling unsegmented sequence data with
recurrent neural networks". A path names one token a frame; its labelling is what ``collapse``
leaves of it, so that many paths spell one labelling.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from speech.errors import SpeechError
from speech.tokenizer import BLANK

# How far the probabilities of a frame may add up to something else than 1: enough for log-probs
# that passed through bfloat16, far too little for logits or probabilities.
NORMALISATION_TOLERANCE = 0.02


@dataclass(frozen=True)
class Hypothesis:
    """A labelling and where it was heard; the tuples have one entry for each of its L tokens.

    Token i was emitted in the output frames ``frames[i]`` to ``end_frames[i]`` (exclusive), and
    ``confidences[i]`` in [0, 1] is its mean probability there. ``log_probability`` (natural log)
    is that of the path found; ``score`` is what the search ranked by, the same without a language
    model.
    """

    tokens: tuple[int, ...]
    frames: tuple[int, ...]
    end_frames: tuple[int, ...]
    confidences: tuple[float, ...]
    log_probability: float
    score: float


def collapse(path: Iterable[int]) -> tuple[int, ...]:
    """The labelling of a path: repeats merged, then blanks removed (Graves 2006, section 3.1)."""
    labelling = []
    previous = BLANK
    for token in path:
        if token not in (previous, BLANK):
            labelling.append(token)
        previous = token
    return tuple(labelling)


def required_frames(tokens: Sequence[int]) -> int:
    """Fewest output frames that can spell the tokens: one each, and a blank inside each repeat."""
    return len(tokens) + sum(a == b for a, b in pairwise(tokens))


def greedy(log_probs: NDArray[np.float32]) -> Hypothesis:
    """The labelling of the most probable path (best path decoding, Graves 2006, section 3.2).

    ``log_probs`` (T', V) are natural logs, each frame normalised; no frames give no tokens. Among
    equally probable tokens of a frame the lowest wins. This need not be the most probable
    labelling, because the many paths of another may outweigh this one.
    SpeechError for another shape or type, NaN, and frames that are not normalised.
    """
    check_log_probs(log_probs)
    frames = np.arange(len(log_probs))
    path = log_probs.argmax(axis=1)
    path_log_probs = log_probs[frames, path].astype(np.float64)
    # A run is a stretch of equal tokens; the runs of the blank spell nothing.
    starts = np.flatnonzero(np.diff(path, prepend=-1))
    ends = np.append(starts, len(path))[1:]
    spoken = path[starts] != BLANK
    starts, ends = starts[spoken], ends[spoken]
    probabilities = np.concatenate([[0.0], np.exp(path_log_probs).cumsum()])
    confidences = (probabilities[ends] - probabilities[starts]) / (ends - starts)
    log_probability = float(path_log_probs.sum())
    return Hypothesis(
        tokens=tuple(path[starts].tolist()),
        frames=tuple(starts.tolist()),
        end_frames=tuple(ends.tolist()),
        confidences=tuple(np.clip(confidences, 0, 1).tolist()),
        log_probability=log_probability,
        score=log_probability,
    )


def nothing(log_probs: NDArray[np.float32]) -> Hypothesis:
    """The empty labelling of log-probs (T', V), by the path of blanks."""
    log_probability = float(log_probs[:, BLANK].sum(dtype=np.float64))
    return Hypothesis((), (), (), (), log_probability, log_probability)


def label_log_probability(log_probs: NDArray[np.float32], tokens: Sequence[int]) -> float:
    """log p(tokens | log_probs): all paths of a labelling summed (Graves 2006, eq. 6-8), in nats.

    The negative of the CTC loss; -inf where the T' frames cannot spell the tokens.
    """
    check_log_probs(log_probs)
    vocabulary = log_probs.shape[1]
    if bad := [token for token in tokens if not BLANK < token < vocabulary]:
        raise SpeechError(f"token {bad[0]} must be 1 to {vocabulary - 1}: labels are no blanks")
    # l': a blank before, between and after the labels.
    extended = np.full(2 * len(tokens) + 1, BLANK)
    extended[1::2] = tokens
    # A blank may be skipped at the start and between different labels.
    skippable = np.zeros(len(extended), dtype=bool)
    skippable[1::2] = [True, *(a != b for a, b in pairwise(tokens))][: len(tokens)]
    # Before the first frame all probability waits in front of l', one step from its first two
    # entries: alpha[s + 2] is alpha(s).
    alpha = np.full(len(extended) + 2, -np.inf)
    alpha[1] = 0.0
    for frame in log_probs.astype(np.float64):
        skipped = np.where(skippable, alpha[:-2], -np.inf)
        stayed_or_stepped = np.logaddexp(alpha[2:], alpha[1:-1])
        alpha[2:] = np.logaddexp(stayed_or_stepped, skipped) + frame[extended]
        alpha[1] = -np.inf
    return float(np.logaddexp.reduce(alpha[-2:]))


def check_log_probs(log_probs: NDArray[np.float32]) -> None:
    """SpeechError, saying what was got, unless these are (T', V) log-probs of one utterance."""
    if log_probs.ndim != 2 or log_probs.shape[1] < 2:
        raise SpeechError(
            f"log_probs must have the shape (frames, vocabulary of 2 or more), "
            f"got {log_probs.shape}"
        )
    if not np.issubdtype(log_probs.dtype, np.floating):
        raise SpeechError(f"log_probs must be floating point, got {log_probs.dtype}")
    with np.errstate(over="ignore"):
        sums = np.exp(log_probs, dtype=np.float64).sum(axis=1)
    wrong = np.flatnonzero(~(np.abs(sums - 1) <= NORMALISATION_TOLERANCE))
    if len(wrong) == 0:
        return
    frame = int(wrong[0])
    advice = "NaN" if math.isnan(sums[frame]) else "are these logits or probabilities?"
    raise SpeechError(
        f"log_probs must be normalised: the probabilities of frame {frame} add up to "
        f"{sums[frame]:.4g}, not 1 ({len(wrong)} of {len(sums)} frames; {advice})"
    )
