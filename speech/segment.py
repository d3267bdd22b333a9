"""Long audio to pieces that fit the network; memory stays constant.

`voice_segments` leaves out where nobody speaks (`speech.voice_activity`), cuts in pauses, and lets
pieces overlap where speech goes on without one. `segment_stream` cuts everything, without overlap.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from speech.voice_activity import Voice, VoiceDetector

MAX_SEGMENT_SECONDS = 30.0  # audio up to this length stays whole
MIN_SEGMENT_SECONDS = 15.0  # no cut before
_PAUSE_SECONDS = 0.2  # a cut is in the middle of the quietest stretch of this length
BREAK_SECONDS = 0.6  # a pause from this length on ends a segment and is left out
PAUSE_SECONDS = 0.3  # a pause from this length on is a place to cut
PADDING_SECONDS = 0.4  # of a pause that is left out, kept beside the voice
OVERLAP_SECONDS = 4.0  # heard twice where there is no pause to cut in


@dataclass(frozen=True)
class Segment:
    """Consecutive samples (S,) of a recording and where they begin in it.

    ``joins_at_seconds`` is set where it overlaps the segment before: there, in the middle of the
    overlap, it had better take over.
    """

    start_seconds: float
    samples: NDArray[np.float32]
    joins_at_seconds: float | None = None


class Detector(Protocol):
    """What says where somebody may be speaking; frame i begins at sample ``i * frame_samples``."""

    frame_samples: int

    def push(self, samples: NDArray[np.float32]) -> Voice:
        """Take samples (S,); return the decisions that are now possible, following the last."""

    def finish(self) -> Voice:
        """Return the decisions that are left; a last frame may reach beyond the audio."""


def segment_stream(blocks: Iterable[NDArray[np.float32]], sample_rate: int) -> Iterator[Segment]:
    """Yield segments whose samples, joined, are those of `blocks`, joined: nothing lost or doubled.

    Each segment but the last is MIN to MAX_SEGMENT_SECONDS long and ends in the quietest place of
    that span. No more than one segment and one block are held at a time.
    """
    longest = int(MAX_SEGMENT_SECONDS * sample_rate)
    start, waiting = 0, np.zeros(0, np.float32)
    for block in blocks:
        waiting = np.concatenate([waiting, block])
        while len(waiting) > longest:
            cut = quietest_place(
                waiting[:longest], int(MIN_SEGMENT_SECONDS * sample_rate), sample_rate
            )
            yield Segment(start / sample_rate, waiting[:cut])
            start, waiting = start + cut, waiting[cut:]
    if len(waiting):
        yield Segment(start / sample_rate, waiting)


def quietest_place(samples: NDArray[np.float32], earliest: int, sample_rate: int) -> int:
    """Return the middle of the stretch of least energy that begins at `earliest` or later."""
    width = min(int(_PAUSE_SECONDS * sample_rate), len(samples) - earliest)
    energy = np.concatenate([[0.0], np.square(samples[earliest:], dtype=np.float64).cumsum()])
    return earliest + int(np.argmin(energy[width:] - energy[:-width])) + width // 2


def voice_segments(
    blocks: Iterable[NDArray[np.float32]],
    sample_rate: int,
    make_detector: Callable[[], Detector | None] = lambda: None,
) -> Iterator[Segment]:
    """Yield segments that hold all voice in `blocks`, in order, each up to MAX_SEGMENT_SECONDS.

    Audio up to that length stays whole if there is voice in it, by levels. In longer audio pauses
    from BREAK_SECONDS on are left out but for padding. Speech without such a pause is cut in the
    middle of its longest pause between MIN and MAX_SEGMENT_SECONDS; where that has none either, two
    segments share OVERLAP_SECONDS around the quietest place. About a minute is held at a time.
    `make_detector` returns what finds the pauses of longer audio; None: levels.
    """
    longest = round(MAX_SEGMENT_SECONDS * sample_rate)
    rest = iter(blocks)
    beginning: list[NDArray[np.float32]] = []
    for block in rest:
        beginning.append(block)
        if sum(map(len, beginning)) > longest:
            break
    else:
        yield from _short_segment(beginning, sample_rate)
        return
    cutter = _Cutter(sample_rate, make_detector() or VoiceDetector(sample_rate))
    for block in itertools.chain(beginning, rest):
        yield from cutter.push(block)
    yield from cutter.finish()


def _short_segment(blocks: list[NDArray[np.float32]], sample_rate: int) -> Iterator[Segment]:
    """Yield audio that needs no cut as it is, unless there is no voice in it."""
    if not blocks:
        return
    samples = np.concatenate(blocks)
    detector = VoiceDetector(sample_rate)
    if detector.push(samples).any() or detector.finish().any():
        yield Segment(0.0, samples)


class _Cutter:
    """Samples and voice decisions that wait to be cut; places are samples of the recording."""

    def __init__(self, sample_rate: int, detector: Detector) -> None:
        self._rate = sample_rate
        self._detector = detector
        self._samples = np.zeros(0, np.float32)
        self._voice = np.zeros(0, bool)
        self._first = 0  # place of the first sample and of the first decision; a frame's beginning
        self._from = 0  # what lies before is in a segment, or silence
        self._joins_at: int | None = None  # then a segment begins at `_from`, voice or not

    def push(self, block: NDArray[np.float32]) -> Iterator[Segment]:
        for start in range(0, len(block), self._count(MAX_SEGMENT_SECONDS)):
            part = block[start : start + self._count(MAX_SEGMENT_SECONDS)]
            self._samples = np.concatenate([self._samples, part])
            self._voice = np.concatenate([self._voice, self._detector.push(part)])
            yield from self._cut(self._first + len(self._voice) * self._detector.frame_samples)

    def finish(self) -> Iterator[Segment]:
        self._voice = np.concatenate([self._voice, self._detector.finish()])
        yield from self._cut(self._first + len(self._samples), is_last=True)

    def _cut(self, known: int, is_last: bool = False) -> Iterator[Segment]:
        """Yield what can be cut now that there are decisions up to the place `known`."""
        if known <= self._count(MAX_SEGMENT_SECONDS) and not is_last:
            return
        while (start := self._next_start(known)) is not None:
            pauses = self._pauses(start, min(known, start + self._count(MAX_SEGMENT_SECONDS)))
            ended = self._end(start, known, pauses, is_last)
            if ended is None:
                break
            end, self._from, joins_at = ended
            yield self._segment(start, end)
            self._joins_at = joins_at
        self._drop(known if start is None else start)

    def _next_start(self, known: int) -> int | None:
        """Return where the next segment begins; None while no more voice is known."""
        if self._from >= known:  # also at the end, in a last frame that the audio does not fill
            return None
        if self._joins_at is not None:
            return self._from
        frame = self._detector.frame_samples
        found = np.flatnonzero(self._voice[max(0, self._from - self._first) // frame :])
        if not len(found):
            self._from = max(self._from, known - self._count(PADDING_SECONDS))
            return None
        voice = self._first + (max(0, self._from - self._first) // frame + int(found[0])) * frame
        return max(self._from, voice - self._count(PADDING_SECONDS))

    def _pauses(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the places where pauses begin and end between `start` and `end`."""
        frame = self._detector.frame_samples
        first = (start - self._first) // frame
        voice = self._voice[first : -(-(end - self._first) // frame)]
        edges = np.flatnonzero(np.diff(np.concatenate([[True], voice, [True]])))
        places = np.clip(self._first + (first + edges) * frame, start, end)
        return list(zip(places[::2].tolist(), places[1::2].tolist(), strict=True))

    def _end(
        self, start: int, known: int, pauses: list[tuple[int, int]], is_last: bool
    ) -> tuple[int, int, int | None] | None:
        """Return where the segment ends, where the next may begin, and where that joins.

        None while that cannot be known.
        """
        padding = self._count(PADDING_SECONDS)
        for begin, end in pauses:
            if begin > start and end - begin >= self._count(BREAK_SECONDS):
                return begin + padding, begin + padding, None
        longest = start + self._count(MAX_SEGMENT_SECONDS)
        if is_last and known <= longest:
            last = pauses[-1][0] + padding if pauses and pauses[-1][1] == known else known
            return min(known, last), known, None
        if known < longest:
            return None
        earliest = start + self._count(MIN_SEGMENT_SECONDS)
        inside = [(max(begin, earliest), end) for begin, end in pauses if end > earliest]
        begin, end = max(inside, key=lambda pause: pause[1] - pause[0], default=(0, 0))
        if end - begin >= self._count(PAUSE_SECONDS):
            return (begin + end) // 2, (begin + end) // 2, None
        half = self._count(OVERLAP_SECONDS / 2)
        heard = self._samples[start - self._first : longest - half - self._first]
        place = start + quietest_place(heard, earliest - start, self._rate)
        return place + half, place - half, place

    def _segment(self, start: int, end: int) -> Segment:
        joins_at = None if self._joins_at is None else self._joins_at / self._rate
        samples = self._samples[start - self._first : end - self._first].copy()
        return Segment(start / self._rate, samples, joins_at)

    def _drop(self, until: int) -> None:
        """Forget what lies before a place, but for padding; whole frames."""
        frame = self._detector.frame_samples
        frames = max(0, until - self._count(PADDING_SECONDS) - self._first) // frame
        self._samples = self._samples[frames * frame :]
        self._voice = self._voice[frames:]
        self._first += frames * frame

    def _count(self, seconds: float) -> int:
        return round(seconds * self._rate)
