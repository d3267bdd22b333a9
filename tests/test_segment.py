"""Long audio in pieces: nothing lost, limits kept, cut in silence, in constant memory."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from speech.segment import (
    MAX_SEGMENT_SECONDS,
    MIN_SEGMENT_SECONDS,
    OVERLAP_SECONDS,
    PADDING_SECONDS,
    Segment,
    _Cutter,
    quietest_place,
    segment_stream,
    voice_segments,
)
from speech.voice_activity import FRAME_SECONDS, VoiceDetector

RATE = 20  # Hz; low, so that minutes are short vectors


def noise(samples: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(samples).astype(np.float32)


def segments_of(samples: NDArray[np.float32], rate: int, *cuts: int) -> list[Segment]:
    return list(segment_stream(np.split(samples, cuts), rate))


@given(
    st.integers(0, 200 * RATE), st.lists(st.integers(0, 200 * RATE), max_size=6), st.integers(0, 9)
)
@settings(deadline=None, max_examples=100)
def test_joined_segments_are_the_input(length: int, cuts: list[int], seed: int) -> None:
    samples = noise(length, seed)
    places = sorted(min(cut, length) for cut in cuts)
    segments = segments_of(samples, RATE, *places)
    joined = np.concatenate([samples[:0], *(segment.samples for segment in segments)])
    assert np.array_equal(joined, samples)
    start = 0
    for segment in segments:
        assert segment.start_seconds == start / RATE
        start += len(segment.samples)
    for segment in segments[:-1]:
        assert MIN_SEGMENT_SECONDS * RATE <= len(segment.samples) <= MAX_SEGMENT_SECONDS * RATE
    if segments:
        assert 0 < len(segments[-1].samples) <= MAX_SEGMENT_SECONDS * RATE


@given(st.lists(st.integers(0, 100 * RATE), max_size=6))
@settings(deadline=None, max_examples=50)
def test_cuts_do_not_depend_on_the_blocks(cuts: list[int]) -> None:
    samples = noise(100 * RATE)
    whole = segments_of(samples, RATE)
    pieces = segments_of(samples, RATE, *sorted(cuts))
    assert [s.start_seconds for s in pieces] == [s.start_seconds for s in whole]


def test_up_to_the_limit_audio_stays_whole() -> None:
    longest = int(MAX_SEGMENT_SECONDS * RATE)
    assert len(segments_of(noise(longest), RATE)) == 1
    assert len(segments_of(noise(longest + 1), RATE)) == 2
    assert segments_of(noise(0), RATE) == []


@pytest.mark.parametrize("pause_seconds", [15.0, 16.3, 22.0, 29.5])
def test_cut_lands_in_the_pause(pause_seconds: float) -> None:
    rate = 1000
    samples = noise(50 * rate)
    start, end = int(pause_seconds * rate), int((pause_seconds + 0.4) * rate)
    samples[start:end] *= 0.01
    first, *_ = segments_of(samples, rate)
    assert start <= len(first.samples) <= end


def test_a_short_dip_is_no_pause() -> None:
    """Quietest over a stretch: 50 ms of silence in loud speech lose to 300 ms of soft speech."""
    rate = 1000
    samples = noise(50 * rate)
    samples[18000:18050] = 0
    samples[25000:25300] *= 0.3
    first, *_ = segments_of(samples, rate)
    assert 25000 <= len(first.samples) <= 25300


def test_pauses_outside_the_span_are_not_taken() -> None:
    rate = 1000
    samples = noise(50 * rate)
    samples[10000:11000] = 0  # before MIN_SEGMENT_SECONDS
    samples[20000:20400] *= 0.5  # soft speech
    samples[31000:32000] = 0  # after MAX_SEGMENT_SECONDS
    first, *_ = segments_of(samples, rate)
    assert 20000 <= len(first.samples) <= 20400


def test_silence_is_cut_too() -> None:
    lengths = [len(s.samples) for s in segments_of(np.zeros(100 * RATE, np.float32), RATE)]
    assert sum(lengths) == 100 * RATE
    assert max(lengths) <= MAX_SEGMENT_SECONDS * RATE


def test_quietest_place_by_pencil() -> None:
    samples = np.array([0, 0, 0, 5, 1, 1, 5, 0, 1, 5], np.float32)
    # Rate 10: a stretch of 0.2 s is 2 samples. From 3 on the sums of squares are
    # 26, 2, 26, 25, 1, 26, the least that of samples 7 and 8, whose middle is 8.
    assert quietest_place(samples, 3, 10) == 8
    assert quietest_place(samples, 0, 10) == 1


def test_memory_does_not_grow_with_the_recording() -> None:
    rate = 1000

    def blocks(minutes: int) -> Iterator[NDArray[np.float32]]:
        for minute in range(minutes):
            yield noise(60 * rate, minute)

    def peak(minutes: int) -> int:
        tracemalloc.start()
        count = sum(1 for _ in segment_stream(blocks(minutes), rate))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count >= 2 * minutes
        return most

    assert peak(60) < 1.5 * peak(5)


# --- By voice -------------------------------------------------------------------------------------

VOICE_RATE = 8000


def recording(seconds: float, *spoken: tuple[float, float]) -> NDArray[np.float32]:
    """Faint noise, with syllables where something is said."""
    samples = noise(round(seconds * VOICE_RATE)) * np.float32(1e-4)
    times = np.arange(len(samples)) / VOICE_RATE
    buzz = sum(np.sin(2 * np.pi * 130 * k * times) / k for k in range(1, 20))
    said = np.any([(start <= times) & (times < end) for start, end in spoken or [(0, 0)]], axis=0)
    return np.asarray(samples + 0.1 * buzz * np.sin(np.pi * 4 * times) ** 2 * said, np.float32)


def voiced(samples: NDArray[np.float32], *cuts: int) -> list[Segment]:
    return list(voice_segments(np.split(samples, cuts), VOICE_RATE))


def spans(segments: list[Segment]) -> list[tuple[float, float]]:
    return [(s.start_seconds, s.start_seconds + len(s.samples) / VOICE_RATE) for s in segments]


def test_short_audio_stays_whole_and_silence_is_left_out() -> None:
    samples = recording(30.0, (3.0, 5.0), (20.0, 22.0))
    (whole,) = voiced(samples)
    assert np.array_equal(whole.samples, samples)
    assert voiced(recording(30.0)) == []
    assert voiced(recording(300.0)) == []
    assert voiced(samples[:0]) == []


def test_long_pauses_are_left_out_but_for_padding() -> None:
    found = voiced(recording(120.0, (10.0, 15.0), (15.3, 20.0), (60.0, 62.0), (115.0, 120.0)))
    for (start, end), (first, last) in zip(
        spans(found), [(10, 20), (60, 62), (115, 120)], strict=True
    ):
        assert first - PADDING_SECONDS - 0.1 <= start < first
        assert last <= end + 1e-6
        assert end <= last + PADDING_SECONDS + 0.1
    assert all(segment.joins_at_seconds is None for segment in found)


def test_speech_with_short_pauses_is_cut_in_them() -> None:
    spoken = [(start, start + 9.65) for start in np.arange(0.0, 119.0, 10.0)]
    found = voiced(recording(120.0, *spoken))
    assert all(segment.joins_at_seconds is None for segment in found)
    for _, end in spans(found)[:-1]:
        assert 9.6 <= end % 10 <= 10.0
    for (_, end), (start, _) in pairwise(spans(found)):
        assert start == pytest.approx(end)


def test_speech_without_pause_overlaps() -> None:
    found = voiced(recording(120.0, (0.0, 120.0)))
    assert len(found) >= 5
    assert found[0].joins_at_seconds is None
    for (_, end), later, (start, _) in zip(spans(found), found[1:], spans(found)[1:], strict=False):
        assert end - start == pytest.approx(OVERLAP_SECONDS)
        assert later.joins_at_seconds == pytest.approx((start + end) / 2)
    assert spans(found)[-1][1] == pytest.approx(120.0, abs=0.1)


class AllVoice:
    """A detector that hears voice everywhere, in a last frame that the audio does not fill too."""

    frame_samples = 640

    def __init__(self) -> None:
        self.left = 0

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.bool_]:
        frames, self.left = divmod(self.left + len(samples), self.frame_samples)
        return np.ones(frames, bool)

    def finish(self) -> NDArray[np.bool_]:
        return np.ones(int(self.left > 0), bool)


@pytest.mark.parametrize("odd", [0, 1, 639, 640, 3999])
def test_audio_that_ends_in_the_middle_of_a_word_ends(odd: int) -> None:
    samples = noise(64 * VOICE_RATE + odd)
    found = list(itertools.islice(voice_segments([samples], VOICE_RATE, AllVoice), 9))
    assert spans(found)[-1][1] == pytest.approx(len(samples) / VOICE_RATE)
    assert all(len(segment.samples) for segment in found)


@given(
    st.lists(st.tuples(st.floats(0.5, 45.0), st.floats(0.1, 30.0)), min_size=1, max_size=8),
    st.lists(st.integers(0, 200 * VOICE_RATE), max_size=5),
)
@settings(deadline=None, max_examples=20)
def test_all_voice_is_in_some_segment_whatever_the_blocks(
    parts: list[tuple[float, float]], cuts: list[int]
) -> None:
    spoken, now = [], 0.0
    for voice, pause in parts:
        spoken.append((now, now + voice))
        now += voice + pause
    samples = recording(now, *spoken)
    found = voiced(samples)
    for segment, (start, end) in zip(found, spans(found), strict=True):
        first = round(start * VOICE_RATE)
        assert np.array_equal(segment.samples, samples[first : first + len(segment.samples)])
        assert end - start <= MAX_SEGMENT_SECONDS + 1e-6
    for (_, end), later, (start, _) in zip(spans(found), found[1:], spans(found)[1:], strict=False):
        assert (start < end - 1e-6) == (later.joins_at_seconds is not None)
    detector = VoiceDetector(VOICE_RATE)
    heard = np.concatenate([detector.push(samples), detector.finish()])
    for frame in np.flatnonzero(heard):
        middle = (frame + 0.5) * FRAME_SECONDS
        assert any(start <= middle <= end + FRAME_SECONDS for start, end in spans(found)), middle
    pieces = voiced(samples, *sorted(min(cut, len(samples)) for cut in cuts))
    assert spans(pieces) == spans(found)


def test_memory_does_not_grow_with_a_recording_of_speech_or_silence() -> None:
    for spoken in ([(0.0, 60.0)], []):
        minute = recording(60.0, *spoken)
        cutter = _Cutter(VOICE_RATE, VoiceDetector(VOICE_RATE))
        for _ in range(5):
            list(cutter.push(minute))
            assert len(cutter._samples) <= 75 * VOICE_RATE
