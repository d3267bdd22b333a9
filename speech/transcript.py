"""What was said and when: the transcript of one recording, and its written forms.

All written times are whole milliseconds made by one rounding function. Rounding keeps order, so
times that do not decrease and stay within the recording still do so on paper.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from speech.errors import SpeechError

MAX_LINE_CHARACTERS = 42
MAX_LINES = 2
MIN_SEGMENT_MS = 1_000
MAX_SEGMENT_MS = 7_000
# A silence this long between two words is as good a place to break as any longer one.
FULL_PAUSE_MS = 500
SENTENCE_PAUSE_SECONDS = 0.7


@dataclass(frozen=True)
class Word:
    """One word; ``start`` and ``end`` in seconds of the recording, ``confidence`` in [0, 1]."""

    word: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Alternative:
    """Another text that was considered, and its score (natural log; the higher the likelier)."""

    text: str
    score: float


@dataclass(frozen=True)
class Transcript:
    """The words heard in ``audio`` (a path or name) of ``duration`` seconds.

    ``text`` is the words joined by spaces; ``n_best`` holds it and the next best texts, where more
    than one was asked for. SpeechError where that, the order of the times or a
    confidence does not hold, so that no writer meets a NaN or a time outside the recording.
    """

    audio: str
    duration: float
    text: str
    confidence: float
    words: tuple[Word, ...]
    n_best: tuple[Alternative, ...] = ()

    @classmethod
    def of_words(cls, audio: str, duration: float, words: Sequence[Word]) -> Transcript:
        """Return the transcript of these words; its confidence is their mean, 0 without words."""
        confidence = sum(word.confidence for word in words) / len(words) if words else 0.0
        return cls(audio, duration, " ".join(w.word for w in words), confidence, tuple(words))

    def __post_init__(self) -> None:
        if not 0 <= self.duration < math.inf:
            raise SpeechError(f"{self.audio}: duration must be finite, got {self.duration} s")
        _check_confidence(self.audio, "the transcript", self.confidence)
        spoken = " ".join(word.word for word in self.words)
        if self.text != spoken:
            raise SpeechError(f"{self.audio}: text {self.text!r} is not its words {spoken!r}")
        previous_end = 0.0
        for word in self.words:
            _check_word(self.audio, word, previous_end, self.duration)
            previous_end = word.end


def _check_confidence(audio: str, what: str, confidence: float) -> None:
    if not 0 <= confidence <= 1:
        raise SpeechError(f"{audio}: confidence of {what} must be in [0, 1], got {confidence}")


def _check_word(audio: str, word: Word, earliest: float, latest: float) -> None:
    if word.word.split() != [word.word]:
        raise SpeechError(f"{audio}: a word must hold no spaces, got {word.word!r}")
    _check_confidence(audio, f"word {word.word!r}", word.confidence)
    times = (earliest, word.start, word.end, latest)
    if not all(map(math.isfinite, times)) or not _in_order(times):
        raise SpeechError(
            f"{audio}: word {word.word!r} must lie in order between {earliest} s and {latest} s, "
            f"got {word.start} s to {word.end} s"
        )


def _in_order(times: Sequence[float]) -> bool:
    """Do the times not decrease, as written? Noise far below a millisecond is no disorder."""
    return all(to_milliseconds(a) <= to_milliseconds(b) for a, b in pairwise(times))


def to_milliseconds(seconds: float) -> int:
    """The nearest whole millisecond, halves up."""
    return math.floor(seconds * 1000 + 0.5)


def sentence_case(transcript: Transcript) -> Transcript:
    """The same with a capital at the beginning and after each pause, and for the word I.

    Where sentences end is not known: a pause of SENTENCE_PAUSE_SECONDS stands for it.
    """
    words: list[Word] = []
    end = -math.inf
    for word in transcript.words:
        begins = word.start - end >= SENTENCE_PAUSE_SECONDS
        words.append(replace(word, word=_cased(word.word, begins)))
        end = word.end
    n_best = tuple(
        replace(one, text=" ".join(_cased(w, n == 0) for n, w in enumerate(one.text.split())))
        for one in transcript.n_best
    )
    text = " ".join(word.word for word in words)
    return replace(transcript, text=text, words=tuple(words), n_best=n_best)


def _cased(word: str, begins: bool) -> str:
    return word[:1].upper() + word[1:] if begins or word.partition("'")[0] == "i" else word


# --- Segments -------------------------------------------------------------------------------------


class Segment(NamedTuple):
    """What stands on the screen at once: one or two lines, from start to end."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]


class _Span(NamedTuple):
    text: str
    start_ms: int
    end_ms: int


def to_segments(transcript: Transcript) -> list[Segment]:
    """Subtitles that can be read: at most 2 lines of 42 characters, 1 to 7 s, broken at pauses.

    The breaks are those of least total cost, where a segment costs 1, a break costs up to 1 more
    the shorter its pause, and a pause inside a segment or a showing time under 1 s costs as well.
    Segments do not overlap. One is shorter than 1 s only where its neighbours or the end of the
    recording leave no room, and a word too long for a line stands alone on a longer one.
    """
    words = [
        _Span(word.word, to_milliseconds(word.start), to_milliseconds(word.end))
        for word in transcript.words
    ]
    duration_ms = to_milliseconds(transcript.duration)
    bounds = [0, *_cheapest_breaks(words, duration_ms)]
    groups = [words[first:last] for first, last in pairwise(bounds)]
    starts = [group[0].start_ms for group in groups]
    segments: list[Segment] = []
    for group, limit in zip(groups, [*starts[1:], duration_ms], strict=False):
        earliest = segments[-1].end_ms if segments else 0
        start_ms, end_ms = _showing_time(group, earliest, limit)
        segments.append(Segment(start_ms, end_ms, _lines([word.text for word in group])))
    return segments


def _cheapest_breaks(words: Sequence[_Span], duration_ms: int) -> list[int]:
    """Where segments end (word counts), by dynamic programming over the last break."""
    best_cost = [0.0] + [math.inf] * len(words)
    best_first = [0] * (len(words) + 1)
    for last in range(1, len(words) + 1):
        limit = words[last].start_ms if last < len(words) else duration_ms
        for first in range(last - 1, -1, -1):
            if first < last - 1 and not _fits(words[first:last]):
                break
            cost = best_cost[first] + _segment_cost(words[first:last], limit)
            if cost < best_cost[last]:
                best_cost[last], best_first[last] = cost, first
    breaks = []
    last = len(words)
    while last > 0:
        breaks.append(last)
        last = best_first[last]
    return breaks[::-1]


def _fits(group: Sequence[_Span]) -> bool:
    if group[-1].end_ms - group[0].start_ms > MAX_SEGMENT_MS:
        return False
    texts = [word.text for word in group]
    if sum(map(len, texts)) > MAX_LINES * MAX_LINE_CHARACTERS:
        return False  # most refusals, without trying the line breaks
    return all(len(line) <= MAX_LINE_CHARACTERS for line in _lines(texts))


def _segment_cost(group: Sequence[_Span], limit_ms: int) -> float:
    """1 for the segment, the shortness of the pause after it, silences inside, too short a time."""
    spoken_to = group[-1].end_ms
    unpaused = 1 - min(limit_ms - spoken_to, FULL_PAUSE_MS) / FULL_PAUSE_MS
    inside = sum(
        max(0, after.start_ms - before.end_ms - FULL_PAUSE_MS) for before, after in pairwise(group)
    )
    room = min(limit_ms - group[0].start_ms, MIN_SEGMENT_MS)
    return 1 + unpaused + inside / FULL_PAUSE_MS + 3 * (1 - room / MIN_SEGMENT_MS)


def _showing_time(group: Sequence[_Span], earliest_ms: int, latest_ms: int) -> tuple[int, int]:
    """The time of speech, stretched to 1 s: first into the silence after it, then before it."""
    start, end = group[0].start_ms, group[-1].end_ms
    end = max(end, min(start + MIN_SEGMENT_MS, latest_ms))
    start = min(start, max(end - MIN_SEGMENT_MS, earliest_ms))
    return start, min(end, start + MAX_SEGMENT_MS)


def _lines(words: Sequence[str]) -> tuple[str, ...]:
    """One line where it fits, else two as equal as the words allow."""
    text = " ".join(words)
    if len(text) <= MAX_LINE_CHARACTERS or len(words) == 1:
        return (text,)
    halves = [(" ".join(words[:i]), " ".join(words[i:])) for i in range(1, len(words))]
    return min(halves, key=lambda half: abs(len(half[0]) - len(half[1])))


# --- Writers --------------------------------------------------------------------------------------


def to_text(transcript: Transcript) -> str:
    """The words, without a line end."""
    return transcript.text


def to_json(transcript: Transcript) -> str:
    """One line of JSON: seconds to the millisecond, confidences to four decimals."""
    content: dict[str, object] = {
        "audio": transcript.audio,
        "duration": _seconds(transcript.duration),
        "text": transcript.text,
        "confidence": round(float(transcript.confidence), 4),
        "words": [
            {
                "word": word.word,
                "start": _seconds(word.start),
                "end": _seconds(word.end),
                "confidence": round(float(word.confidence), 4),
            }
            for word in transcript.words
        ],
    }
    if transcript.n_best:
        content["n_best"] = [
            {"text": one.text, "score": round(one.score, 4)} for one in transcript.n_best
        ]
    return json.dumps(content, ensure_ascii=False, allow_nan=False)


def to_srt(transcript: Transcript) -> str:
    """SubRip subtitles; nothing at all for a silent recording."""
    cues = [
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n" + "\n".join(lines) + "\n"
        for number, (start, end, lines) in enumerate(to_segments(transcript), start=1)
    ]
    return "\n".join(cues)


def to_vtt(transcript: Transcript, word_times: bool = True) -> str:
    """WebVTT subtitles (W3C), with &, < and > escaped; in the cues the times of their words."""
    starts = iter(transcript.words)
    cues = ["WEBVTT\n"]
    for segment in to_segments(transcript):
        lines = [html.escape(line, quote=False) for line in segment.lines]
        if word_times:
            lines = _with_times(lines, segment, starts)
        times = f"{_clock(segment.start_ms, '.')} --> {_clock(segment.end_ms, '.')}"
        cues.append(f"\n{times}\n" + "\n".join(lines) + "\n")
    return "".join(cues)


def _with_times(lines: Sequence[str], segment: Segment, words: Iterator[Word]) -> list[str]:
    """The lines with a time before each word that begins later than what stands before it."""
    latest_ms = segment.start_ms
    timed = []
    for line in lines:
        texts = []
        for text in line.split(" "):
            start_ms = to_milliseconds(next(words).start)
            if latest_ms < start_ms < segment.end_ms:  # W3C WebVTT, 4.2: in order, within the cue
                latest_ms = start_ms
                text = f"<{_clock(start_ms, '.')}>{text}"
            texts.append(text)
        timed.append(" ".join(texts))
    return timed


def to_tsv(transcript: Transcript) -> str:
    """Tab-separated segments under a header: start and end in milliseconds, text."""
    rows = [f"{start}\t{end}\t{' '.join(lines)}\n" for start, end, lines in to_segments(transcript)]
    return "".join(["start\tend\ttext\n", *rows])


WRITERS: dict[str, Callable[[Transcript], str]] = {
    "text": to_text,
    "json": to_json,
    "srt": to_srt,
    "vtt": to_vtt,
    "tsv": to_tsv,
}


def _seconds(seconds: float) -> float:
    return to_milliseconds(seconds) / 1000


def _clock(milliseconds: int, mark: str) -> str:
    """HH:MM:SS and milliseconds behind ``mark``; hours grow past two digits where they must."""
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{mark}{milliseconds:03}"
