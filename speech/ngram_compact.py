"""The compact form of a trie on disk: numbers as codes of 8 or 16 bits, links as small offsets.

What can be worked out is not stored. The suffix of the n-gram p w is the child by w of the suffix
of p, so that its place among those children says both the suffix and the word: two bytes where
memory has eight. Probabilities and back-offs of each order share a code book.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speech.errors import LanguageModelError

CODE_BITS = (8, 16)
_LLOYD_ROUNDS = 30
_PIECE = 1 << 16  # contexts unpacked at a time


def pack(
    arrays: dict[str, NDArray[Any]], counts: Sequence[int], bits: int, path: str
) -> dict[str, NDArray[Any]]:
    """The stored arrays of a trie's; single words keep float32.

    LanguageModelError where an n-gram's suffix is not in the model: a file from elsewhere may have
    been pruned so, and then has no compact form.
    """
    suffixes, first_children = arrays["suffixes"], arrays["first_children"]
    child_counts = np.diff(first_children)
    parents = np.repeat(np.arange(len(child_counts)), child_counts)
    heads = first_children[suffixes[parents[counts[0] :]]]
    longer = slice(1 + counts[0], None)
    offsets = suffixes[longer] - heads
    widths = child_counts[suffixes[parents[counts[0] :]]]
    if ((offsets < 0) | (offsets >= widths)).any():
        raise LanguageModelError(
            f"{path}: has n-grams whose last words are not n-grams themselves, so that it cannot "
            "be stored with 8 or 16 bits; store it with 32"
        )
    packed = {
        "child_counts": _narrow(child_counts),
        "offsets": _narrow(offsets),
        "word_log_probs": arrays["log_probs"][: 1 + counts[0]],
        "word_backoffs": arrays["backoffs"][: 1 + counts[0]],
    }
    for order, place in _longer_levels(counts):
        packed |= _coded(f"log_probs_{order}", arrays["log_probs"][place], bits)
        if order < len(counts):
            packed |= _coded(f"backoffs_{order}", arrays["backoffs"][place], bits)
    return packed


def unpack(packed: dict[str, NDArray[Any]], counts: Sequence[int]) -> dict[str, NDArray[Any]]:
    """The arrays of the trie in memory, made piece by piece so that little more is ever needed."""
    child_counts = packed["child_counts"]
    first_children = np.ones(len(child_counts) + 1, dtype=np.int32)
    np.cumsum(child_counts, dtype=np.int32, out=first_children[1:])
    first_children[1:] += 1
    nodes = 1 + sum(counts)
    words, suffixes = np.zeros(nodes, dtype=np.int32), np.zeros(nodes, dtype=np.int32)
    words[1 : 1 + counts[0]] = np.arange(counts[0])
    log_probs = np.empty(nodes, dtype=np.float32)
    backoffs = np.empty(len(child_counts), dtype=np.float32)
    log_probs[: 1 + counts[0]] = packed["word_log_probs"]
    backoffs[: 1 + counts[0]] = packed["word_backoffs"]
    for order, level in _longer_levels(counts):
        for first in range(level.start - counts[order - 2], level.start, _PIECE):
            parents = slice(first, min(first + _PIECE, level.start))
            place = slice(*first_children[[parents.start, parents.stop]].tolist())
            heads = np.repeat(first_children[suffixes[parents]], child_counts[parents])
            start = 1 + counts[0]
            suffixes[place] = heads + packed["offsets"][place.start - start : place.stop - start]
            words[place] = words[suffixes[place]]
            _decode(f"log_probs_{order}", packed, level.start, log_probs, place)
            if order < len(counts):
                _decode(f"backoffs_{order}", packed, level.start, backoffs, place)
    return {
        "words": words,
        "log_probs": log_probs,
        "suffixes": suffixes,
        "backoffs": backoffs,
        "first_children": first_children,
    }


def _longer_levels(counts: Sequence[int]) -> list[tuple[int, slice]]:
    """Each order from 2 on with the nodes it takes."""
    starts = np.cumsum([1, *counts]).tolist()
    return [(n, slice(starts[n - 1], starts[n])) for n in range(2, len(counts) + 1)]


def _narrow(numbers: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers in the fewest bytes that hold the largest."""
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))


def _coded(name: str, values: NDArray[np.float32], bits: int) -> dict[str, NDArray[Any]]:
    book = code_book(values, 1 << bits)
    borders = (book[1:] + book[:-1]) / 2
    codes = np.searchsorted(borders, values).astype(f"u{bits // 8}")
    return {f"{name}_book": book, f"{name}_codes": codes}


def _decode(
    name: str,
    packed: dict[str, NDArray[Any]],
    start: int,
    values: NDArray[np.float32],
    place: slice,
) -> None:
    """Look up the numbers of the nodes at a place of a level that begins at `start`."""
    codes = packed[f"{name}_codes"][place.start - start : place.stop - start]
    values[place] = packed[f"{name}_book"][codes]


def code_book(values: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """At most `size` values, sorted, that stand for all: exact if there are no more of them.

    Lloyd 1982, "Least squares quantization in PCM": each is the mean of the values nearest to it.
    Zero stays itself, for a back-off of 1 is what keeps states few.
    """
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= size:
        return distinct
    weights = np.concatenate([[0], counts.cumsum()]).astype(np.float64)
    sums = np.concatenate([[0.0], (distinct.astype(np.float64) * counts).cumsum()])
    # Begin with as many values to each code, tempered so that rare extremes get codes as well.
    density = np.cbrt(counts / np.maximum(np.gradient(distinct.astype(np.float64)), 1e-9))
    share = (density * np.gradient(distinct.astype(np.float64))).cumsum()
    book = np.interp(np.linspace(0, share[-1], size), share, distinct.astype(np.float64))
    for _ in range(_LLOYD_ROUNDS):
        edges = np.searchsorted(distinct, (book[1:] + book[:-1]) / 2)
        edges = np.concatenate([[0], edges, [len(distinct)]])
        filled = np.diff(weights[edges]) > 0
        means = np.diff(sums[edges])[filled] / np.diff(weights[edges])[filled]
        book = np.unique(means)
    if (distinct == 0).any():
        book[np.abs(book).argmin()] = 0.0
    return np.unique(book.astype(np.float32))
