"""Estimating n-gram models: interpolated modified Kneser-Ney smoothing.

Chen & Goodman 1998, "An empirical study of smoothing techniques for language modeling", section 3;
Heafield et al. 2013, "Scalable modified Kneser-Ney language model estimation", whose treatment of
``<s>`` and ``<unk>`` is followed here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from speech.errors import LanguageModelError
from speech.ngram_counts import CountLevel, count_ngrams
from speech.ngram_levels import Level, keep

MOST_COUNTS = 3  # n-grams seen one, two, and three or more times have discounts of their own
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)  # lmplz's, for texts too small or too regular to tell


class Discounts(NamedTuple):
    """What is taken off the counts of n-grams seen once, twice, and three or more times."""

    one: float
    two: float
    more: float

    def of(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """The discount of each count; none is taken off 0."""
        return np.array([0.0, *self])[np.minimum(counts, MOST_COUNTS)]


def estimate(
    ids: NDArray[np.int32],
    vocabulary: int,
    order: int,
    begin: int,
    *,
    cutoffs: Sequence[int] = (),
    fallback: bool = False,
    advance: Callable[[float], None] = lambda _: None,
) -> list[Level]:
    """The model of sentences that lie end to end, ``begin`` ... ``</s>``, over a vocabulary.

    ``cutoffs[n - 1]`` is the highest count at which n-grams of order n are left out; the last holds
    for all higher orders too. ``fallback`` allows 0.5, 1 and 1.5 as discounts where the counts of
    counts give none, which otherwise is a LanguageModelError.
    """
    counted = count_ngrams(ids, vocabulary, order, begin, advance)
    positions = float((ids != begin).sum())
    levels: list[Level] = []
    masks = []
    begins = counted[0].words == begin  # which n-grams begin with <s>
    for number, limit in enumerate(_limits(cutoffs, order)):
        level = counted.pop(0)  # not kept: an order takes much memory
        begins = begins[level.prefixes] if number else begins
        adjusted = _adjusted_counts(level, counted[0] if counted else None, begins)
        if number == 0:
            adjusted[begin] = 0  # never predicted
        discounts = estimate_discounts(adjusted, number + 1, fallback)
        frequencies = level.counts / positions
        kept = level.counts > limit if number else np.ones(vocabulary, dtype=bool)
        if number == 0:
            levels.append(_unigrams(adjusted, discounts, begin, frequencies))
        else:
            backoffs = _backoffs(level, adjusted, discounts, kept, len(levels[-1]))
            levels[-1] = replace(levels[-1], backoffs=backoffs)
            levels.append(_interpolated(level, adjusted, discounts, levels[-1], frequencies))
        masks.append(kept)
    return keep(levels, masks)


def _limits(cutoffs: Sequence[int], order: int) -> list[int]:
    if len(cutoffs) > order:
        raise LanguageModelError(f"{len(cutoffs)} count cut-offs for a model of order {order}")
    limits = [*cutoffs, *[cutoffs[-1] if cutoffs else 0] * order][:order]
    if limits[0] != 0 or any(low > high for low, high in pairwise(limits)):
        raise LanguageModelError(
            f"count cut-offs must begin with 0 and not fall from order to order, got {limits}"
        )
    return limits


def _adjusted_counts(
    level: CountLevel, above: CountLevel | None, begins: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """How many different words stand before each n-gram; of the highest order, how often it stands.

    Nothing stands before ``<s>``, so that n-grams which begin with it keep their counts
    (Heafield 2013, section 3.2).
    """
    if above is None:
        return level.counts
    before = np.bincount(above.suffixes, minlength=len(level))
    return np.where(begins, level.counts, before)


def estimate_discounts(
    adjusted: NDArray[np.int64], order: int, fallback: bool = False
) -> Discounts:
    """The discounts of one order from its counts of counts t (Chen & Goodman 1998, eq. 26).

    Y = t1 / (t1 + 2 t2), D(k) = k - (k + 1) Y t(k+1) / t(k). LanguageModelError where a count of
    counts is 0 or a discount is outside 0 to k, unless ``fallback``.
    """
    ones, twos, threes, fours = (int((adjusted == k).sum()) for k in range(1, 5))
    if ones and twos and threes:
        share = ones / (ones + 2 * twos)
        found = Discounts(
            1 - 2 * share * twos / ones,
            2 - 3 * share * threes / twos,
            3 - 4 * share * fours / threes,
        )
        if all(0 <= discount <= k for k, discount in enumerate(found, start=1)):
            return found
    if fallback or not len(adjusted):
        return Discounts(*FALLBACK_DISCOUNTS)
    raise LanguageModelError(
        f"the text is too small or too regular to estimate the discounts of order {order}: "
        f"{ones}, {twos}, {threes} and {fours} n-grams were counted once to four times; "
        "take more text, a lower order, or --discount-fallback"
    )


def _unigrams(
    adjusted: NDArray[np.int64],
    discounts: Discounts,
    begin: int,
    frequencies: NDArray[np.float64],
) -> Level:
    """Words without context; what the discounts took goes to all words alike, ``<unk>`` as well."""
    total = adjusted.sum()
    taken = discounts.of(adjusted)
    probs = (adjusted - taken + taken.sum() / (len(adjusted) - 1)) / total
    probs[begin] = 0.0
    none = np.zeros(len(adjusted), dtype=np.int32)
    words = np.arange(len(adjusted), dtype=np.int32)
    return Level(none, words, none, probs, np.ones(len(adjusted)), frequencies)


def _backoffs(
    level: CountLevel,
    adjusted: NDArray[np.int64],
    discounts: Discounts,
    kept: NDArray[np.bool_],
    contexts: int,
) -> NDArray[np.float64]:
    """The share of each context that shorter contexts give out: discounts and what was cut off."""
    taken = np.where(kept, discounts.of(adjusted), adjusted)
    total = np.bincount(level.prefixes, adjusted, minlength=contexts)
    given = np.bincount(level.prefixes, taken, minlength=contexts)
    return np.where(total > 0, given / np.maximum(total, 1), 1.0)


def _interpolated(
    level: CountLevel,
    adjusted: NDArray[np.int64],
    discounts: Discounts,
    below: Level,
    frequencies: NDArray[np.float64],
) -> Level:
    """p(w | h) = (a(h w) - D) / sum a(h .) + backoff(h) p(w | h') (Chen & Goodman 1998, eq. 24)."""
    total = np.bincount(level.prefixes, adjusted, minlength=len(below))
    own = (adjusted - discounts.of(adjusted)) / total[level.prefixes]
    probs = own + below.backoffs[level.prefixes] * below.probs[level.suffixes]
    none = np.ones(len(level))
    return Level(level.prefixes, level.words, level.suffixes, probs, none, frequencies)
