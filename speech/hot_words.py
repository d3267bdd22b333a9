"""Words and phrases a user expects, as an automaton that hands out their weight letter by letter.

The automaton of Aho & Corasick 1975, "Efficient string matching", over the phrases with a space
before and behind, so that they match whole words only. Each state promises the share of a phrase's
weight that its letters make up; a phrase that breaks off loses the promise, one that ends is paid.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from speech.errors import TextError, reason_of
from speech.tokenizer import CharTokenizer, normalise_text

DEFAULT_WEIGHT = 4.0


@dataclass(frozen=True)
class HotWord:
    """A word or phrase in normalised spelling, and what it adds to a hypothesis's score (nats)."""

    phrase: str
    weight: float = DEFAULT_WEIGHT

    @classmethod
    def parse(cls, text: str) -> HotWord:
        """Read ``PHRASE=WEIGHT`` or ``PHRASE``. TextError for an empty phrase or no number."""
        phrase, equals, number = text.rpartition("=")
        if not equals:
            phrase, number = text, str(DEFAULT_WEIGHT)
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not math.isfinite(weight):
            raise TextError(f"hot word {text!r}: the weight must be a number, got {number!r}")
        normalised = normalise_text(phrase)
        if not normalised:
            raise TextError(f"hot word {text!r}: needs a word, as in 'JOHN DASHWOOD=4'")
        return cls(normalised, weight)


def read_hot_words(path: Path) -> list[HotWord]:
    """Read a hot word a line; empty lines and lines that begin with # are comments."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TextError(f"{path}: cannot read hot words: {reason_of(error)}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                found.append(HotWord.parse(line.strip()))
            except TextError as error:
                raise TextError(f"{path}:{number}: {error}") from None
    return found


class HotStates(NamedTuple):
    """The automaton: N states, of which 0 has read nothing; a text is read from `begin` on."""

    following: NDArray[np.int32]  # (N, V) the state after a token
    promised: NDArray[np.float64]  # (N,) for the letters of phrases that may go on
    paid: NDArray[np.float64]  # (N,) for the phrases that end with this state's space


def build_hot_states(hot_words: Sequence[HotWord], tokenizer: CharTokenizer) -> HotStates:
    """The automaton of the hot words; TextError names one that the alphabet cannot spell."""
    trie: list[dict[int, int]] = [{}]
    promised, paid = [0.0], [0.0]
    for hot in hot_words:
        tokens = _spell(hot, tokenizer)
        state = 0
        for depth, token in enumerate(tokens):
            if token not in trie[state]:
                trie[state][token] = len(trie)
                trie.append({})
                promised.append(0.0)
                paid.append(0.0)
            state = trie[state][token]
            share = depth / (len(tokens) - 2)  # the letters without the spaces around them
            if depth < len(tokens) - 1:
                promised[state] = max(promised[state], hot.weight * share)
        paid[state] += hot.weight
    following = _complete(trie, promised, paid, tokenizer.size)
    return HotStates(following, np.array(promised), np.array(paid))


def _spell(hot: HotWord, tokenizer: CharTokenizer) -> list[int]:
    try:
        return tokenizer.encode(f" {hot.phrase} ")
    except TextError as error:
        raise TextError(f"hot word {hot.phrase!r}: {error}") from None


def _complete(
    trie: Sequence[Mapping[int, int]], promised: list[float], paid: list[float], vocabulary: int
) -> NDArray[np.int32]:
    """The transitions for every token: those of the trie, else of the longest suffix in it.

    What the suffixes promise and pay is added on the way (the best promise, all payments).
    """
    following = np.zeros((len(trie), vocabulary), dtype=np.int32)
    queue = deque((state, 0, token) for token, state in trie[0].items())
    following[0, list(trie[0])] = list(trie[0].values())
    while queue:
        state, above, token = queue.popleft()
        suffix = (
            int(following[above, token])
            if above != state and state not in (trie[0].values())
            else 0
        )
        following[state] = following[suffix]
        promised[state] = max(promised[state], promised[suffix])
        paid[state] += paid[suffix]
        for following_token, child in trie[state].items():
            queue.append((child, suffix, following_token))
            following[state, following_token] = child
    return following
