"""What the prefix beam search works on: the records of its memory, its rules, what it knows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from speech.hot_words import HotStates
from speech.language_model import NgramArrays
from speech.lexicon import LexiconArrays

SLOT = np.dtype(
    [
        ("node", np.int32),
        ("token", np.int32),  # the last one; 0 of the empty prefix
        ("letters", np.int32),
        ("lexeme", np.int32),
        ("hot", np.int32),
        ("blank", np.float64),
        ("nonblank", np.float64),
        ("total", np.float64),
        ("worth", np.float64),  # of the text
        ("base", np.float64),  # of the words before, and of having begun this one
        ("ceiling", np.float64),  # no letter makes the text worth more
    ],
    align=True,
)
CANDIDATE = np.dtype(
    [
        ("slot", np.int32),  # of the prefix that stays, or that grows by a token
        ("token", np.int32),  # BLANK: it stays
        ("lexeme", np.int32),
        ("blank", np.float64),
        ("nonblank", np.float64),
        ("total", np.float64),
    ],
    align=True,
)


class Rules(NamedTuple):
    """What the search is told; logs are natural."""

    beam_size: int
    beam_threshold: float
    token_threshold: float
    tokens_per_frame: int
    with_words: bool
    with_language_model: bool
    closed: bool  # only words of the lexicon
    space: int
    lm_weight: float
    word_bonus: float
    unknown_log_prob: float  # of the unknown word without context
    letter_log_prob: float  # of each letter of an unknown word
    largest_promise: float  # of the hot words
    begin_state: int
    end_word: int


class Knowledge(NamedTuple):
    """What the text is judged by."""

    lexicon: LexiconArrays
    language_model: NgramArrays
    hot: HotStates


class Space(NamedTuple):
    """The memory the search works in."""

    slots: NDArray[Any]  # (2, beam_size) SLOT: the beam before and after a frame, in turns
    candidates: NDArray[Any]  # (beam_size (V + 1),) CANDIDATE
    scores: NDArray[np.float64]  # of the candidates
    scratch: NDArray[np.float64]
    heard: NDArray[np.float64]  # (V,) log-probs of a frame, -inf where pruned
    tokens: NDArray[np.int32]  # (V,) those that were not pruned, without the blank
    taken: NDArray[np.int64]  # (beam_size, V) last frame in which a child was in the beam itself
