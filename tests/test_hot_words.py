"""Hot words as they are written, and the automaton that hands out their weight."""

from __future__ import annotations

from pathlib import Path

import pytest

from speech.errors import TextError
from speech.hot_words import DEFAULT_WEIGHT, HotWord, build_hot_states, read_hot_words
from speech.tokenizer import CharTokenizer

TOKENIZER = CharTokenizer()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("JOHN DASHWOOD=4", HotWord("john dashwood", 4.0)),
        ("Marianne", HotWord("marianne", DEFAULT_WEIGHT)),
        (" o'clock = -2.5", HotWord("o'clock", -2.5)),
        ("e=mc=3", HotWord("e equals mc", 3.0)),
    ],
)
def test_parse(text: str, expected: HotWord) -> None:
    assert HotWord.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("john=much", "must be a number, got 'much'"),
        ("john=nan", "must be a number"),
        ("=4", "needs a word"),
        ("...", "needs a word"),
    ],
)
def test_what_is_no_hot_word(text: str, message: str) -> None:
    with pytest.raises(TextError, match=message):
        HotWord.parse(text)


def test_a_file_of_hot_words(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("# people\n\nJohn Dashwood=4\nMarianne\n", "utf-8")
    assert read_hot_words(path) == [HotWord("john dashwood", 4.0), HotWord("marianne")]
    path.write_text("Marianne\nJohn=4=\n", "utf-8")
    with pytest.raises(TextError, match=r"names\.txt:2: hot word 'John=4='"):
        read_hot_words(path)
    with pytest.raises(TextError, match="cannot read hot words"):
        read_hot_words(tmp_path / "nothing.txt")


def walk(hot_words: list[HotWord], text: str) -> tuple[list[float], float]:
    """What is promised after each character of a text from its first, and what was paid in all."""
    states = build_hot_states(hot_words, TOKENIZER)
    state, promised, paid = int(states.following[0, TOKENIZER.encode(" ")[0]]), [], 0.0
    for token in TOKENIZER.encode(text):
        state = int(states.following[state, token])
        promised.append(round(float(states.promised[state]), 6))
        paid += float(states.paid[state])
    return promised, paid


def test_the_weight_is_handed_out_letter_by_letter_and_paid_at_the_end() -> None:
    """Seven characters of "jo bell", each a seventh of 7; paid only with the space behind."""
    hot = [HotWord("jo bell", 7.0)]
    assert walk(hot, "jo bell") == ([1, 2, 3, 4, 5, 6, 7], 0)
    assert walk(hot, "jo bell ") == ([1, 2, 3, 4, 5, 6, 7, 0], 7)
    assert walk(hot, "jo bells") == ([1, 2, 3, 4, 5, 6, 7, 0], 0)
    assert walk(hot, "jo jo b") == ([1, 2, 3, 1, 2, 3, 4], 0)
    assert walk(hot, "xjo b") == ([0, 0, 0, 0, 0], 0)


def test_phrases_overlap_and_lie_inside_one_another() -> None:
    hot = [HotWord("new york", 8.0), HotWord("york times", 10.0), HotWord("york", 4.0)]
    promised, paid = walk(hot, "new york times ")
    assert paid == 8 + 4 + 10
    assert promised[7] == 8  # "new york", more than "york" or "york times" promise
    assert promised[8] == 5  # "york " of "york times": the other two are paid
    assert walk([HotWord("a", -3.0)], "a ") == ([0, 0], -3)


def test_a_hot_word_that_the_alphabet_cannot_spell() -> None:
    with pytest.raises(TextError, match="hot word 'naïve'"):
        build_hot_states([HotWord("naïve", 1.0)], TOKENIZER)


def test_a_file_that_is_not_there_is_named_once(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    with pytest.raises(TextError) as caught:
        read_hot_words(path)
    assert str(caught.value) == f"{path}: cannot read hot words: no such file or directory"
