from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech.errors import SpeechError
from speech.transcript import (
    WRITERS,
    Alternative,
    Transcript,
    Word,
    sentence_case,
    to_json,
    to_milliseconds,
    to_segments,
    to_srt,
    to_text,
    to_tsv,
    to_vtt,
)


def transcribed(*words: tuple[str, float, float], duration: float = 10.0) -> Transcript:
    spoken = tuple(Word(word, start, end, 0.5) for word, start, end in words)
    return Transcript("a.wav", duration, " ".join(w.word for w in spoken), 0.75, spoken)


def evenly(count: int, word: str = "word", seconds: float = 0.3) -> Transcript:
    """Words that follow each other without pauses."""
    spans = [(word, i * seconds, (i + 1) * seconds) for i in range(count)]
    return transcribed(*spans, duration=count * seconds + 5)


SILENCE = transcribed(duration=2.0)
GREETING = transcribed(
    ("hello", 0.5, 0.9), ("there", 1.0, 1.5), ("good", 4.0, 4.2), ("bye", 4.3, 4.40049)
)


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    """Words of any length and speed with any pauses, like the output of a bad model."""
    steps = draw(
        st.lists(st.tuples(st.integers(1, 60), st.floats(0, 9), st.floats(0, 3)), max_size=40)
    )
    time = 0.0
    words = []
    for letters, seconds, pause in steps:
        words.append(("x" * letters, time + pause, time + pause + seconds))
        time += pause + seconds
    return transcribed(*words, duration=time + draw(st.floats(0.1, 3)))


# --- What a transcript promises -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([("a", 0.0, math.nan)], "word 'a' must lie in order"),
        ([("a", -0.1, 1.0)], "word 'a' must lie in order"),
        ([("a", 2.0, 1.0)], "got 2.0 s to 1.0 s"),
        ([("a", 0.0, 10.1)], "between 0.0 s and 10.0 s"),
        ([("a", 0.0, 2.0), ("b", 1.9, 3.0)], "word 'b' must lie in order between 2.0 s"),
        ([("a b", 0.0, 1.0)], "must hold no spaces"),
        ([("", 0.0, 1.0)], "must hold no spaces"),
    ],
)
def test_impossible_words_are_refused(words: list[tuple[str, float, float]], reason: str) -> None:
    with pytest.raises(SpeechError, match=reason):
        transcribed(*words)


def test_impossible_transcripts_are_refused() -> None:
    with pytest.raises(SpeechError, match="duration must be finite"):
        Transcript("a.wav", math.nan, "", 1.0, ())
    with pytest.raises(SpeechError, match=r"confidence of the transcript must be in \[0, 1\]"):
        Transcript("a.wav", 1.0, "", math.nan, ())
    with pytest.raises(SpeechError, match="confidence of word 'a'"):
        Transcript("a.wav", 1.0, "a", 1.0, (Word("a", 0, 1, 1.5),))
    with pytest.raises(SpeechError, match="text 'b' is not its words 'a'"):
        Transcript("a.wav", 1.0, "b", 1.0, (Word("a", 0, 1, 1.0),))


def test_noise_far_below_a_millisecond_is_no_disorder() -> None:
    transcribed(("a", 0.0, 0.1 + 0.2), ("b", 0.3, 10.0 + 1e-9))


def test_milliseconds_are_rounded_in_order() -> None:
    assert [to_milliseconds(s) for s in (0.0, 0.0004, 0.0005, 1.2345, 3600.9996)] == [
        0, 0, 1, 1235, 3601000,
    ]  # fmt: skip


# --- Writers --------------------------------------------------------------------------------------


def test_text() -> None:
    assert to_text(GREETING) == "hello there good bye"
    assert to_text(SILENCE) == ""


def test_json_is_the_contract() -> None:
    line = to_json(transcribed(("café", 0.12345, 1.0), duration=2.00049))
    assert line == (
        '{"audio": "a.wav", "duration": 2.0, "text": "café", "confidence": 0.75, '
        '"words": [{"word": "café", "start": 0.123, "end": 1.0, "confidence": 0.5}]}'
    )
    assert json.loads(to_json(SILENCE))["words"] == []


def test_json_takes_numbers_of_numpy() -> None:
    words = (Word("a", np.float32(0.5), np.float64(0.75), np.float32(0.1)),)
    transcript = Transcript("a.wav", np.float64(1.0), "a", np.float32(0.25), words)
    assert json.loads(to_json(transcript)) == {
        "audio": "a.wav",
        "duration": 1.0,
        "text": "a",
        "confidence": 0.25,
        "words": [{"word": "a", "start": 0.5, "end": 0.75, "confidence": 0.1}],
    }


def test_srt() -> None:
    assert to_srt(GREETING) == (
        "1\n00:00:00,500 --> 00:00:01,500\nhello there\n"
        "\n"
        "2\n00:00:04,000 --> 00:00:05,000\ngood bye\n"
    )
    assert to_srt(SILENCE) == ""


def test_vtt() -> None:
    assert to_vtt(GREETING, word_times=False) == (
        "WEBVTT\n"
        "\n00:00:00.500 --> 00:00:01.500\nhello there\n"
        "\n00:00:04.000 --> 00:00:05.000\ngood bye\n"
    )
    assert to_vtt(SILENCE) == "WEBVTT\n"
    assert "don't" in to_vtt(transcribed(("don't", 0, 1)))
    assert "<b>" not in to_vtt(transcribed(("<b>&", 0, 1)))
    assert "&lt;b&gt;&amp;" in to_vtt(transcribed(("<b>&", 0, 1)))


def test_vtt_has_the_times_of_words_that_begin_inside_their_cue() -> None:
    spoken = transcribed(("a", 1.0, 1.2), ("b", 1.5, 1.5), ("c", 1.5, 1.9), ("<", 2.0, 3.0))
    assert to_vtt(spoken) == (
        "WEBVTT\n\n00:00:01.000 --> 00:00:03.000\na <00:00:01.500>b c <00:00:02.000>&lt;\n"
    )


def test_sentence_case() -> None:
    spoken = transcribed(
        ("well", 0.0, 0.3), ("i", 0.4, 0.5), ("think", 0.6, 1.0),
        ("so", 2.0, 2.2), ("i'm", 2.3, 2.5), ("in", 2.6, 2.7),
    )  # fmt: skip
    cased = sentence_case(replace(spoken, n_best=(Alternative("i am in", -1.0),)))
    assert cased.text == "Well I think So I'm in"
    assert [word.start for word in cased.words] == [word.start for word in spoken.words]
    assert cased.n_best[0].text == "I am in"
    assert sentence_case(SILENCE) == SILENCE


@given(transcripts())
def test_times_in_vtt_cues_increase_within_their_cue(transcript: Transcript) -> None:
    stamp = re.compile(r"(\d+):(\d\d):(\d\d)\.(\d{3})")
    for cue in to_vtt(transcript).split("\n\n")[1:]:
        parts = [list(map(int, found.groups())) for found in stamp.finditer(cue)]
        start, end, *inside = [((h * 60 + m) * 60 + s) * 1000 + ms for h, m, s, ms in parts]
        assert all(a < b for a, b in pairwise([start, *inside, end + (start == end)]))
    texts = [re.sub(r"<[^>]*>", "", one) for one in to_vtt(transcript).split("\n\n")]
    assert "\n\n".join(texts) == to_vtt(transcript, word_times=False)


def test_tsv() -> None:
    assert to_tsv(GREETING) == "start\tend\ttext\n500\t1500\thello there\n4000\t5000\tgood bye\n"
    assert to_tsv(SILENCE) == "start\tend\ttext\n"


def test_clock_past_an_hour_and_a_hundred_hours() -> None:
    assert "01:01:01,001 --> 01:01:02,001" in to_srt(
        transcribed(("a", 3661.001, 3662.001), duration=4000)
    )
    assert "100:00:00.000 -->" in to_vtt(transcribed(("a", 360000, 360001), duration=400000))


@settings(deadline=None)
@given(transcripts())
def test_no_format_prints_a_nan_or_loses_a_word(transcript: Transcript) -> None:
    for write in WRITERS.values():
        assert "nan" not in write(transcript).lower()
    shown = " ".join(" ".join(segment.lines) for segment in to_segments(transcript))
    assert shown == transcript.text


# --- Segments -------------------------------------------------------------------------------------


def test_segments_break_at_the_pause() -> None:
    # Without the pause 20 short words would fit on one screen of two lines.
    words = [("word", i * 0.2, i * 0.2 + 0.2) for i in range(8)]
    words += [("word", i * 0.2 + 3, i * 0.2 + 3.2) for i in range(8, 13)]
    segments = to_segments(transcribed(*words))
    assert [len(" ".join(segment.lines).split()) for segment in segments] == [8, 5]


def test_segments_too_long_for_the_screen_break_at_their_best_pause() -> None:
    words = [("word", i * 0.2, i * 0.2 + 0.2) for i in range(12)]
    words += [("word", i * 0.2 + 0.3, i * 0.2 + 0.5) for i in range(12, 20)]
    segments = to_segments(transcribed(*words))
    assert [len(" ".join(segment.lines).split()) for segment in segments] == [12, 8]


def test_segments_leave_each_other_time() -> None:
    # 20 words do not fit one screen; nothing but the time to read says where to break.
    words = [("word", i * 0.2, i * 0.2 + 0.2) for i in range(20)]
    segments = to_segments(transcribed(*words, duration=4.0))
    assert all(segment.end_ms - segment.start_ms >= 1000 for segment in segments)


def test_no_segment_ends_before_its_words() -> None:
    segments = to_segments(evenly(8, seconds=1.5))
    assert [segment.start_ms for segment in segments[1:]] == [s.end_ms for s in segments[:-1]]
    assert segments[-1].end_ms == 12000


def test_long_lines_are_halved() -> None:
    (segment,) = to_segments(evenly(10))
    assert segment.lines == ("word word word word word", "word word word word word")
    (segment,) = to_segments(evenly(8))
    assert segment.lines == (" ".join(["word"] * 8),)


def test_short_segments_are_stretched_into_silence() -> None:
    (segment,) = to_segments(transcribed(("yes", 2.0, 2.2), duration=10))
    assert segment[:2] == (2000, 3000)
    # No silence is left behind it, so that it shows a little early.
    (segment,) = to_segments(transcribed(("yes", 2.0, 2.2), duration=2.5))
    assert segment[:2] == (1500, 2500)
    (segment,) = to_segments(transcribed(("yes", 0.1, 0.2), duration=0.5))
    assert segment[:2] == (0, 500)


def test_a_long_word_stands_alone() -> None:
    word = "x" * 60
    segments = to_segments(transcribed(("so", 0, 0.3), (word, 0.3, 9.0), ("on", 9.0, 9.2)))
    assert [segment.lines for segment in segments] == [("so",), (word,), ("on",)]
    assert segments[1].end_ms - segments[1].start_ms <= 7000


def test_silence_has_no_segments() -> None:
    assert to_segments(SILENCE) == []


@settings(deadline=None, max_examples=200)
@given(transcripts())
def test_segments_can_be_read(transcript: Transcript) -> None:
    segments = to_segments(transcript)
    for segment in segments:
        assert 0 <= segment.start_ms <= segment.end_ms <= to_milliseconds(transcript.duration)
        assert segment.end_ms - segment.start_ms <= 7000
        assert len(segment.lines) <= 2
        for line in segment.lines:
            assert len(line) <= 42 or " " not in line
    for before, after in pairwise(segments):
        assert before.end_ms <= after.start_ms


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 200), st.floats(0.1, 0.6))
def test_fluent_speech_is_shown_for_one_to_seven_seconds(count: int, seconds: float) -> None:
    for segment in to_segments(evenly(count, seconds=seconds)):
        assert 1000 <= segment.end_ms - segment.start_ms <= 7000
