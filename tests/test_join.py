"""Joins of overlapping segments: no word lost, none doubled, times in order."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from speech.join import WordJoiner, join_words
from speech.transcript import Word


def word(text: str, start: float, end: float | None = None, confidence: float = 0.9) -> Word:
    return Word(text, start, start + 0.3 if end is None else end, confidence)


def texts(*groups: list[Word]) -> str:
    return " ".join(one.word for group in groups for one in group)


def test_by_pencil_the_common_word_nearest_the_join_takes_over() -> None:
    before = [word("the", 6.0), word("cat", 7.0), word("sat", 8.0), word("o", 9.7)]
    after = [word("hat", 7.0), word("sat", 8.1), word("on", 9.6), word("it", 10.0)]
    first, second = join_words(before, after, 8.0)
    assert (texts(first), texts(second)) == ("the cat sat", "on it")


def test_without_a_common_word_each_keeps_its_side() -> None:
    before, after = [word("a", 7.0), word("b", 8.5)], [word("c", 7.2), word("d", 8.6)]
    assert texts(*join_words(before, after, 8.0)) == "a d"


def test_a_word_across_the_join_heard_differently_stays_once() -> None:
    before, after = [word("there", 7.7, 8.2, 0.4)], [word("their", 7.8, 8.3, 0.8)]
    assert texts(*join_words(before, after, 8.0)) == "their"
    assert texts(*join_words([word("there", 7.7, 8.2, 0.9)], after, 8.0)) == "there"


def test_the_same_word_said_twice_stays_twice() -> None:
    before = [word("very", 7.0), word("very", 7.6)]
    after = [word("very", 7.1), word("very", 7.6), word("good", 8.2)]
    assert texts(*join_words(before, after, 7.5)) == "very very good"


def test_an_empty_side_loses_nothing() -> None:
    words = [word("a", 7.0), word("b", 8.5)]
    assert texts(*join_words(words, [], 8.0)) == "a"
    assert texts(*join_words([], words, 8.0)) == "b"
    assert texts(*join_words([], [], 8.0)) == ""


def test_segments_after_a_pause_are_kept_whole() -> None:
    joiner = WordJoiner()
    assert joiner.add([word("a", 1.0)]) == []
    assert texts(joiner.add([word("a", 3.0)])) == "a"
    assert texts(joiner.finish()) == "a"


@st.composite
def spoken(draw: st.DrawFn) -> list[Word]:
    """Words without long pauses, from a small vocabulary, so that repeats are common."""
    words, now = [], 0.0
    for _ in range(draw(st.integers(1, 80))):
        now += draw(st.floats(0.0, 0.3))
        length = draw(st.floats(0.12, 0.6))
        words.append(word(draw(st.sampled_from("abcde")), now, now + length))
        now += length
    return words


def heard(words: list[Word], start: float, end: float, jitter: list[float]) -> list[Word]:
    """What a segment holds in full, its times a little off; of a word cut off, something else."""
    found = []
    for number, one in enumerate(words):
        off = jitter[number % len(jitter)]
        if start <= one.start and one.end <= end:
            found.append(word(one.word, one.start + off, one.end + off))
        elif one.start < end and start < one.end:
            clipped = (max(start, one.start), min(end, one.end))
            found.append(word("cut", *clipped, confidence=0.2))
    return found


@given(
    spoken(),
    st.lists(st.floats(5.0, 9.0), min_size=10, max_size=10),
    st.floats(1.4, 2.0),
    st.lists(st.floats(-0.04, 0.04), min_size=7, max_size=7),
)
@settings(deadline=None, max_examples=200)
def test_windows_over_any_words_join_to_these_words(
    words: list[Word], steps: list[float], half: float, jitter: list[float]
) -> None:
    joiner, joined = WordJoiner(), []
    place, joins_at = 0.0, None
    for number, step in enumerate([*steps, 1e9]):
        end = place + step
        start = max(0.0, place - half)
        off = jitter[number % 7 :] + jitter[: number % 7]
        joined += joiner.add(heard(words, start, end + half, off), joins_at)
        place = joins_at = end
    joined += joiner.finish()
    assert texts(joined) == texts(words)
    times = [time for one in joined for time in (one.start, one.end)]
    assert all(a <= b + 0.1 for a, b in pairwise(times))  # as they were heard, jitter and all
    for one, true in zip(joined, words, strict=True):
        assert abs(one.start - true.start) < 0.1
