"""An n-gram model while it is being made: one level an order, each n-gram linked to two others.

The prefix of n-gram w1 ... wn is w1 ... wn-1, its suffix w2 ... wn; both are places in the level
below, and both always exist. Level 0 lists the words in the order of their ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speech.arpa import NgramLevel, NgramTables
from speech.language_model import NgramArrays, NgramModel, read_only

BEGIN_LOG_PROB = -99 * np.log(10.0)  # of <s>, which is never predicted: the custom of ARPA files


@dataclass(frozen=True)
class Level:
    """The N n-grams of one order, sorted by (prefix, word).

    ``probs`` is of the word after the others, ``backoffs`` the factor of shorter contexts after
    this one, ``frequencies`` the share of all positions in the text where the n-gram stands.
    """

    prefixes: NDArray[np.int32]
    words: NDArray[np.int32]
    suffixes: NDArray[np.int32]
    probs: NDArray[np.float64]
    backoffs: NDArray[np.float64]
    frequencies: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.words)

    def select(self, kept: NDArray[Any]) -> Level:
        """Only the n-grams that a mask or a list of places names."""
        return Level(*(getattr(self, name)[kept] for name in self.__dataclass_fields__))


def keep(levels: Sequence[Level], masks: Sequence[NDArray[np.bool_]]) -> list[Level]:
    """The levels with the n-grams under the masks, links renumbered; back-offs stay as they are.

    A mask must keep the prefix and the suffix of every n-gram it keeps.
    """
    if all(mask.all() for mask in masks):
        return list(levels)
    kept = []
    places: NDArray[np.int32] = np.zeros(0, dtype=np.int32)
    for number, (level, mask) in enumerate(zip(levels, masks, strict=True)):
        chosen = level.select(mask)
        if number:
            chosen = replace(
                chosen, prefixes=places[chosen.prefixes], suffixes=places[chosen.suffixes]
            )
        kept.append(chosen)
        places = np.cumsum(mask, dtype=np.int32) - np.int32(1)
    return kept


def normalised(levels: Sequence[Level]) -> list[Level]:
    """The levels with the back-offs that make the probabilities after each context sum to one.

    After context h the n-grams take the mass sum p(w | h); what is left is shared as the shorter
    context h' shares what the same words leave there (Katz 1987):
    backoff(h) = (1 - sum p(w | h)) / (1 - sum p(w | h')).
    """
    result = list(levels)
    for number in range(len(levels) - 1):
        left, lower_left = masses_left(levels[number], levels[number + 1], len(levels[number]))
        with np.errstate(divide="ignore", invalid="ignore"):
            backoffs = np.where(lower_left > 0, left / lower_left, 1.0)
        result[number] = replace(result[number], backoffs=np.maximum(backoffs, 0.0))
    return result


def masses_left(
    lower: Level, level: Level, contexts: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each context the probability that its n-grams leave, after itself and when shortened."""
    taken = np.bincount(level.prefixes, level.probs, minlength=contexts)
    lower_taken = np.bincount(level.prefixes, lower.probs[level.suffixes], minlength=contexts)
    return 1.0 - taken.astype(np.float64), 1.0 - lower_taken.astype(np.float64)


def to_tables(levels: Sequence[Level], words: list[str], begin: int) -> NgramTables:
    """The tables of a finished model; `begin` is the id of ``<s>``."""
    ids = levels[0].words[:, None]
    tables = []
    for number, level in enumerate(levels):
        if number:
            ids = np.column_stack([ids[level.prefixes], level.words])
        log_probs, backoffs = _logs(level, begin if number == 0 else None)
        tables.append(NgramLevel(ids, log_probs, backoffs))
    return NgramTables(words, tables)


def to_model(levels: Sequence[Level], words: list[str], begin: int) -> NgramModel:
    """The model for use: levels are sorted as the trie is, so that only places are renumbered."""
    starts = np.cumsum([1, *map(len, levels)])  # of each level among the nodes; 0 is the root
    logs = [_logs(level, None if number else begin) for number, level in enumerate(levels)]
    heads = [
        starts[number + 1] + np.searchsorted(level.prefixes, np.arange(len(levels[number])))
        for number, level in enumerate(levels[1:])
    ]
    suffixes = [starts[number] + level.suffixes for number, level in enumerate(levels[1:])]
    root = np.zeros(1, dtype=np.float32)
    arrays = NgramArrays(
        words=np.concatenate([[0], *(level.words for level in levels)]).astype(np.int32),
        log_probs=np.concatenate([root, *(log_probs for log_probs, _ in logs)]),
        suffixes=np.concatenate([np.zeros(starts[1]), *suffixes]).astype(np.int32),
        backoffs=np.concatenate([root, *(backoffs for _, backoffs in logs[:-1])]),
        first_children=np.concatenate([[1], *heads, [starts[-1]]]).astype(np.int32),
    )
    return NgramModel(words, tuple(map(len, levels)), read_only(arrays))


def _logs(level: Level, begin: int | None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Natural logs of the probabilities and the back-offs; of words also that of ``<s>``."""
    with np.errstate(divide="ignore"):
        log_probs = np.log(level.probs)
    if begin is not None:
        log_probs[begin] = BEGIN_LOG_PROB
    backoffs = np.log(np.maximum(level.backoffs, np.finfo(np.float32).tiny))
    return log_probs.astype(np.float32), backoffs.astype(np.float32)
