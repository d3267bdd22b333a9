"""From a hypothesis to words: their spelling, when they were heard, how sure they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from math import inf

from speech.calibration import WordTimes
from speech.confidence import word_confidence
from speech.decode import Hypothesis
from speech.tokenizer import CharTokenizer
from speech.transcript import Word

PAUSE_SECONDS = 0.25  # without a character from here on: a pause


@dataclass(frozen=True)
class WordReader:
    """How the hypotheses of one model become words."""

    tokenizer: CharTokenizer
    seconds_per_frame: float
    word_times: WordTimes = field(default_factory=WordTimes)
    confidence_map: Callable[[float], float] = float  # raw confidences as they are

    def words(self, hypothesis: Hypothesis, start_seconds: float, end_seconds: float) -> list[Word]:
        """Return the words heard from `start_seconds` to `end_seconds` of a recording.

        A word's raw confidence is `word_confidence` of its characters and the spaces beside it. No
        time lies outside the span, though frames may reach into the padding behind it, and no word
        into the next; words keep their order.
        """
        text = self.tokenizer.decode(hypothesis.tokens)
        spans = _word_spans(text)
        starts = self._starts(hypothesis, spans)
        words = []
        for (first, last), (start, limit) in zip(spans, pairwise([*starts, inf]), strict=True):
            end = max(start, min(self._end(hypothesis, last), limit))
            beside = hypothesis.confidences[max(0, first - 1) : last + 1]
            words.append(
                Word(
                    text[first:last],
                    min(start_seconds + max(0.0, start), end_seconds),
                    min(start_seconds + max(0.0, end), end_seconds),
                    self.confidence_map(word_confidence(beside)),
                )
            )
        return words

    def _starts(self, hypothesis: Hypothesis, spans: list[tuple[int, int]]) -> list[float]:
        """Seconds from the beginning of the span to that of each word, none after the next."""
        starts = []
        silent_since = -inf
        for first, last in spans:
            emitted = hypothesis.frames[first] * self.seconds_per_frame
            starts.append(emitted + self._start_offset(emitted - silent_since))
            silent_since = hypothesis.end_frames[last - 1] * self.seconds_per_frame
        return list(accumulate(reversed(starts), min))[::-1]

    def _start_offset(self, silent_seconds: float) -> float:
        if is_pause(silent_seconds):
            return self.word_times.pause_start_offset_seconds
        return self.word_times.start_offset_seconds

    def _end(self, hypothesis: Hypothesis, last: int) -> float:
        frame = hypothesis.end_frames[last - 1]
        return frame * self.seconds_per_frame + self.word_times.end_offset_seconds


def is_pause(seconds: float) -> bool:
    """Whether words that are emitted so far apart have a pause between them."""
    return seconds > PAUSE_SECONDS


def _word_spans(text: str) -> list[tuple[int, int]]:
    """Where each word begins and ends (exclusive) in the text."""
    breaks = [-1, *(place for place, character in enumerate(text) if character == " "), len(text)]
    return [(a + 1, b) for a, b in pairwise(breaks) if b > a + 1]
