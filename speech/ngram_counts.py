"""Counting n-grams: which stand in a text and how often, order by order, in bounded memory.

The n-grams of one order are numbered in the order of (prefix's number, last word), so that a whole
n-gram packs into one 64-bit key. A block of the text at a time is sorted and its counts merged into
those so far; besides them only two numbers a word are kept, where its n-grams begin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.int64]
BLOCK_WORDS = 4_000_000
NO_NGRAM = -1


@dataclass(frozen=True)
class CountLevel:
    """The N n-grams of one order: prefix and suffix in the level below, last word, count."""

    prefixes: NDArray[np.int32]
    words: NDArray[np.int32]
    suffixes: NDArray[np.int32]
    counts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.words)


def count_ngrams(
    ids: NDArray[np.int32],
    vocabulary: int,
    order: int,
    begin: int,
    advance: Callable[[float], None] = lambda _: None,
    block: int = BLOCK_WORDS,
) -> list[CountLevel]:
    """The n-grams up to `order` of sentences that lie end to end, each begun by the id `begin`.

    No n-gram reaches over the beginning of a sentence. Level 0 has the whole vocabulary, words that
    do not occur with count 0. ``advance`` is told the words that one order has passed.
    """
    levels = [_count_words(ids, vocabulary)]
    starts = ids  # number of the n-gram that begins at each word
    for length in range(2, order + 1):
        lasts = ids[length - 1 :]
        keys, counts = _count_keys(starts, lasts, vocabulary, begin, advance, block)
        suffixes = np.empty(len(keys), dtype=np.int32)
        longer = np.full(len(ids), NO_NGRAM, dtype=np.int32)
        for places, block_keys in _blocks(starts, lasts, vocabulary, begin, block):
            numbers = _find(block_keys, keys)
            longer[places] = numbers
            suffixes[numbers] = starts[places + 1]
        prefixes, words = np.divmod(keys, vocabulary)
        levels.append(
            CountLevel(prefixes.astype(np.int32), words.astype(np.int32), suffixes, counts)
        )
        starts = longer
    return levels


def _count_words(ids: NDArray[np.int32], vocabulary: int) -> CountLevel:
    none = np.zeros(vocabulary, dtype=np.int32)
    words = np.arange(vocabulary, dtype=np.int32)
    return CountLevel(none, words, none, np.bincount(ids, minlength=vocabulary))


def _blocks(
    starts: NDArray[np.int32], lasts: NDArray[np.int32], vocabulary: int, begin: int, block: int
) -> Iterator[tuple[NDArray[np.int64], Keys]]:
    """Block by block the places where a longer n-gram begins, and its key."""
    for first in range(0, len(lasts), block):
        last = lasts[first : first + block]
        start = starts[first : first + len(last)]
        places = np.flatnonzero((start != NO_NGRAM) & (last != begin))
        yield places + first, start[places].astype(np.int64) * vocabulary + last[places]


def _count_keys(
    starts: NDArray[np.int32],
    lasts: NDArray[np.int32],
    vocabulary: int,
    begin: int,
    advance: Callable[[float], None],
    block: int,
) -> tuple[Keys, NDArray[np.int64]]:
    """The distinct keys, sorted, and their counts.

    Parts are merged once the last is no longer much smaller than the one before: each key is then
    moved a number of times that grows with the logarithm of the number of blocks only.
    """
    parts: list[tuple[Keys, NDArray[np.int64]]] = [
        (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    ]
    for number, (_, keys) in enumerate(_blocks(starts, lasts, vocabulary, begin, block)):
        parts.append(_sum_equal(np.sort(keys), np.ones(len(keys), dtype=np.int64)))
        while len(parts) > 1 and 2 * len(parts[-1][0]) > len(parts[-2][0]):
            parts.append(_merge(parts.pop(), parts.pop()))
        advance(min(block, len(lasts) - number * block))
    while len(parts) > 1:
        parts.append(_merge(parts.pop(), parts.pop()))
    return parts[0]


def _merge(
    a: tuple[Keys, NDArray[np.int64]], b: tuple[Keys, NDArray[np.int64]]
) -> tuple[Keys, NDArray[np.int64]]:
    keys, counts = np.concatenate([a[0], b[0]]), np.concatenate([a[1], b[1]])
    order = np.argsort(keys, kind="stable")  # two sorted runs: this only merges them
    return _sum_equal(keys[order], counts[order])


def _sum_equal(keys: Keys, counts: NDArray[np.int64]) -> tuple[Keys, NDArray[np.int64]]:
    if not len(keys):
        return keys, counts
    firsts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[firsts], np.add.reduceat(counts, firsts)


def _find(keys: Keys, among: Keys) -> NDArray[np.int32]:
    """The place of each key among sorted ones; in order of size, for the processor's cache."""
    order = np.argsort(keys)
    places = np.empty(len(keys), dtype=np.int32)
    places[order] = np.searchsorted(among, keys[order])
    return places
