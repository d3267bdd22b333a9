"""The word trie: every word spelled letter by letter, and the best word below each node."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from speech.lexicon import NO_NODE, NO_WORD, Lexicon, build_lexicon

ALPHABET = (" ", "'", "a", "b", "c")


def lexicon(*words: str) -> Lexicon:
    log_probs = -np.arange(1, len(words) + 1, dtype=np.float32)
    return build_lexicon(words, log_probs, ALPHABET, without=("</s>",))


def walk(lexicon: Lexicon, word: str) -> int:
    """Return the node of a beginning, 0 where none is."""
    node = 0
    for letter in word:
        node = int(lexicon.arrays.children[node, 1 + ALPHABET.index(letter)])
        if node == NO_NODE:
            break
    return node


def test_by_pencil() -> None:
    trie = lexicon("</s>", "ab", "a", "abc", "bé", "b b", "")
    assert trie.unspellable == ("bé", "b b", "")
    children, words, best = trie.arrays
    assert children.shape == (4, 6)
    assert words.tolist() == [NO_WORD, 2, 1, 3]
    assert best.tolist() == [-2, -2, -2, -4]
    assert walk(trie, "abc") == 3
    assert walk(trie, "ac") == NO_NODE


def test_of_no_words() -> None:
    children, words, best = lexicon().arrays
    assert children.shape == (1, 6)
    assert words.tolist() == [NO_WORD]
    assert best.tolist() == [-np.inf]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(alphabet="'abc", min_size=1, max_size=5), unique=True, min_size=1))
def test_every_word_is_found_and_looked_ahead_to(words: list[str]) -> None:
    trie = lexicon(*words)
    beginnings = {word[:length] for word in words for length in range(len(word) + 1)}
    assert len(trie.arrays.words) == len(beginnings)
    for beginning in beginnings:
        node = walk(trie, beginning)
        expected = words.index(beginning) if beginning in words else NO_WORD
        assert trie.arrays.words[node] == expected
        best = next(i for i, word in enumerate(words) if word.startswith(beginning))
        assert trie.arrays.best_log_probs[node] == -(best + 1)
