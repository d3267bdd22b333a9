"""Words of a hypothesis: spelling, times, confidences, by pencil and by property."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from speech.calibration import WordTimes
from speech.confidence import ConfidenceMap
from speech.decode import Hypothesis
from speech.tokenizer import CharTokenizer
from speech.transcript import Transcript
from speech.words import WordReader

SECONDS_PER_FRAME = 0.5


def read(
    text: str,
    frames: list[int],
    end_frames: list[int],
    confidences: list[float],
    reader: WordReader | None = None,
    span: tuple[float, float] = (0.0, 99.0),
) -> list[tuple[str, float, float, float]]:
    tokens = tuple(CharTokenizer().encode(text))
    hypothesis = Hypothesis(
        tokens, tuple(frames), tuple(end_frames), tuple(confidences), -1.0, -1.0
    )
    reader = reader or WordReader(CharTokenizer(), SECONDS_PER_FRAME)
    words = reader.words(hypothesis, *span)
    return [(word.word, word.start, word.end, round(word.confidence, 6)) for word in words]


def reader_with(start_offset: float, end_offset: float) -> WordReader:
    times = WordTimes(start_offset, end_offset, pause_start_offset_seconds=start_offset)
    return WordReader(CharTokenizer(), SECONDS_PER_FRAME, times)


def test_a_word_lasts_from_its_first_to_its_last_character() -> None:
    got = read("ab a", [1, 3, 4, 6], [2, 4, 5, 8], [1.0] * 4)
    assert got == [("ab", 0.5, 2.0, 1.0), ("a", 3.0, 4.0, 1.0)]


def test_confidence_is_that_of_the_characters_and_the_spaces_beside_them() -> None:
    got = read("ab c ", [1, 2, 3, 4, 5], [2, 3, 4, 5, 6], [0.5, 0.9, 0.8, 0.7, 0.6])
    assert [word[3] for word in got] == [0.36, 0.336]  # 0.5 * 0.9 * 0.8 and 0.8 * 0.7 * 0.6


def test_a_map_makes_the_confidence_a_probability() -> None:
    reader = WordReader(CharTokenizer(), 0.5, confidence_map=ConfidenceMap(2.0, 0.0))
    assert read("a", [0], [1], [0.75], reader)[0][3] == 0.9  # odds of 3, squared


def test_times_start_at_the_segment_and_end_with_it() -> None:
    got = read("ab a", [1, 3, 4, 6], [2, 4, 5, 8], [1.0] * 4, span=(10.0, 13.5))
    assert got == [("ab", 10.5, 12.0, 1.0), ("a", 13.0, 13.5, 1.0)]


def test_spaces_at_the_ends_and_in_a_row_make_no_words() -> None:
    got = read("  a  b ", list(range(7)), list(range(1, 8)), [1.0] * 7)
    assert got == [("a", 1.0, 1.5, 1.0), ("b", 2.5, 3.0, 1.0)]
    assert read(" ", [0], [1], [1.0]) == []
    assert read("", [], [], []) == []


def test_the_offsets_move_both_ends() -> None:
    got = read("a b", [2, 4, 8], [3, 5, 9], [1.0] * 3, reader_with(-0.2, 0.1))
    assert [word[1:3] for word in got] == [(0.8, 1.6), (3.8, 4.6)]


def test_words_behind_a_pause_begin_by_an_offset_of_their_own() -> None:
    reader = WordReader(CharTokenizer(), 0.25, WordTimes(-0.125, 0.0, 0.0625))
    got = read("a b c", [4, 5, 6, 7, 9], [5, 6, 7, 8, 10], [1.0] * 5, reader)
    assert [word[1] for word in got] == [1.0625, 1.375, 2.3125]  # first; 0.25 s; 0.5 s of silence


def test_no_word_begins_after_the_next() -> None:
    reader = WordReader(CharTokenizer(), 0.25, WordTimes(0.0, 0.0, 1.0))
    assert [word[1] for word in read("a b", [4, 5, 5], [5, 6, 6], [1.0] * 3, reader)] == [1.25] * 2


def test_a_word_ends_where_the_next_begins_and_begins_within_the_recording() -> None:
    got = read("a b", [0, 1, 2], [1, 2, 3], [1.0] * 3, reader_with(-0.25, 0.75), (5.0, 6.4))
    assert [word[1:3] for word in got] == [(5.0, 5.75), (5.75, 6.4)]


@settings(deadline=None)
@given(data=st.data(), text=st.text(" ab", max_size=12))
def test_any_offsets_leave_the_words_in_order_within_the_recording(
    data: st.DataObject, text: str
) -> None:
    size = 2 * len(text)
    bounds = data.draw(
        st.lists(st.integers(0, 40), min_size=size, max_size=size, unique=True).map(sorted)
    )
    offsets = st.floats(-3.0, 3.0)
    times = WordTimes(data.draw(offsets), data.draw(offsets), data.draw(offsets))
    duration = data.draw(st.floats(0.1, 25.0))
    tokens = tuple(CharTokenizer().encode(text))
    hypothesis = Hypothesis(
        tokens, tuple(bounds[::2]), tuple(bounds[1::2]), (0.5,) * len(text), -1.0, -1.0
    )
    words = WordReader(CharTokenizer(), SECONDS_PER_FRAME, times).words(hypothesis, 0.0, duration)
    assert [word.word for word in words] == text.split()
    assert all(0 <= word.start <= word.end <= duration for word in words)
    assert all(one.end <= other.start for one, other in pairwise(words))
    Transcript("any", duration, " ".join(text.split()), 0.0, tuple(words))  # which checks it too
