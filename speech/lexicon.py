"""The words of a language model as a trie of characters, for a search that grows words by letters.

The best unigram probability below each node tells the search, inside a word, how good the words are
that it may still become (look-ahead, Ortmanns & Ney 1996).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from speech.tokenizer import BLANK

NO_WORD = -1
NO_NODE = 0  # the root, which is nobody's child


class LexiconArrays(NamedTuple):
    """The trie of K nodes, node 0 the empty beginning; V counts the recogniser's tokens.

    ``children[node, token]`` is the next node or 0, ``words[node]`` the id of the word that ends
    there or -1, ``best_log_probs[node]`` the highest unigram log probability (natural) of the words
    that begin so, the one that ends there included.
    """

    children: NDArray[np.int32]  # (K, V)
    words: NDArray[np.int32]  # (K,)
    best_log_probs: NDArray[np.float32]  # (K,)


@dataclass(frozen=True)
class Lexicon:
    """The word trie, and the words left out because the alphabet cannot spell them."""

    arrays: LexiconArrays
    unspellable: tuple[str, ...]


def build_lexicon(
    words: Sequence[str],
    log_probs: NDArray[np.float32],
    alphabet: Sequence[str],
    without: Iterable[str] = (),
) -> Lexicon:
    """The trie of words (ids are their places) over token i = ``alphabet[i - 1]``.

    ``log_probs`` (W,) are the words' unigram log probabilities. ``without`` names words that are
    not spoken, such as ``</s>``; they are left out silently, and so is no other.
    """
    skipped = set(without)
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    tokens = _spell("".join(words), alphabet)
    foreign = np.bincount(np.repeat(np.arange(len(words)), lengths), tokens == BLANK, len(words))
    spellable = (lengths > 0) & (foreign == 0)
    left_out = np.fromiter((word in skipped for word in words), bool, len(words))
    kept = spellable & ~left_out
    ids = np.flatnonzero(kept).astype(np.int32)
    arrays = _build(
        ids, lengths[kept], tokens[np.repeat(kept, lengths)], log_probs, 1 + len(alphabet)
    )
    unspellable = np.flatnonzero(~spellable & ~left_out)
    return Lexicon(arrays, tuple(words[i] for i in unspellable.tolist()))


def _spell(text: str, alphabet: Sequence[str]) -> NDArray[np.int64]:
    """The token of each character; the blank for a space and for what is not in the alphabet."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    table = np.full(1 + max(codes.max(initial=0), *map(ord, alphabet)), BLANK)
    table[[ord(letter) for letter in alphabet]] = np.arange(BLANK + 1, BLANK + 1 + len(alphabet))
    table[ord(" ")] = BLANK
    return table[codes]


def _build(
    ids: NDArray[np.int32],
    lengths: NDArray[np.int64],
    tokens: NDArray[np.int64],
    log_probs: NDArray[np.float32],
    vocabulary: int,
) -> LexiconArrays:
    """Letter by letter: at each depth, the distinct (node, token) pairs become the next nodes.

    ``tokens`` are those of all words in a row, ``lengths[i]`` of them of word ``ids[i]``.
    """
    firsts = lengths.cumsum() - lengths
    nodes = np.zeros(len(ids), dtype=np.int64)  # where each word stands
    levels: list[NDArray[np.int64]] = []  # the pairs that made each depth's nodes
    count = 1
    for depth in range(int(lengths.max(initial=0))):
        going = np.flatnonzero(lengths > depth)
        pairs = nodes[going] * vocabulary + tokens[firsts[going] + depth]
        distinct, places = np.unique(pairs, return_inverse=True)
        nodes[going] = count + places
        count += len(distinct)
        levels.append(distinct)
    children = np.zeros((count, vocabulary), dtype=np.int32)
    made = np.concatenate([np.zeros(0, dtype=np.int64), *levels])
    children.reshape(-1)[made] = np.arange(1, count)
    words = np.full(count, NO_WORD, dtype=np.int32)
    words[nodes] = ids
    best = np.full(count, -np.inf, dtype=np.float32)
    best[nodes] = log_probs[ids]
    end = count
    for level in reversed(levels):
        start = end - len(level)
        np.maximum.at(best, level // vocabulary, best[start:end])
        end = start
    return LexiconArrays(children, words, best)
