"""Live audio to text that grows: partial results while somebody speaks, final ones at pauses.

`LiveRecogniser` is what a server or a microphone needs to know of recognition. Behind it stands
`RepeatingRecogniser`: it recognises the growing segment anew with the offline model, at intervals,
and ends it at a pause; or `speech.streaming.StreamingRecogniser`, which hears all audio once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from speech.segment import MAX_SEGMENT_SECONDS, MIN_SEGMENT_SECONDS, quietest_place
from speech.transcript import Word

Samples = NDArray[np.float32]

PARTIAL_SECONDS = 0.4  # of new audio before the segment is recognised again
PARTIAL_SHARE = 0.1  # and that share of the segment, so that long ones do not cost ever more
PAUSE_SECONDS = 0.8  # of no word behind the last one end a segment
SILENCE_SECONDS = 4.0  # a segment without words is not kept for longer
KEPT_SECONDS = 1.0  # of it, as a word may just have begun


@dataclass(frozen=True)
class Update:
    """What was heard from `start` to `end` (seconds of the stream): still changing, or final.

    Of a partial result, the first `stable` words were the same in the one before.
    """

    is_final: bool
    start: float
    end: float
    words: tuple[Word, ...]
    stable: int = 0

    @property
    def text(self) -> str:
        """The words, joined by spaces."""
        return " ".join(word.word for word in self.words)


class LiveRecogniser(Protocol):
    """Samples in as they come, updates out. Called by one thread at a time; calls may compute."""

    def push(self, samples: Samples) -> list[Update]:
        """Take samples (S,) and return what became known: finals in order, then a partial."""

    def finish(self) -> list[Update]:
        """Return the finals that are left; nothing may be pushed afterwards."""


class RepeatingRecogniser:
    """Recognises the segment so far again and again with a model that hears it as a whole.

    `recognise` maps samples (S,) and their start and end in seconds to words. Costs about
    ``1 / PARTIAL_SHARE`` times what recognising once does. No more than MAX_SEGMENT_SECONDS are
    held.
    """

    def __init__(
        self, recognise: Callable[[Samples, float, float], Sequence[Word]], sample_rate: int
    ) -> None:
        self._recognise = recognise
        self._sample_rate = sample_rate
        self._samples = np.zeros(0, np.float32)
        self._start = 0  # of the segment, in samples of the stream
        self._heard = 0  # how much of the segment the last partial covered

    def push(self, samples: Samples) -> list[Update]:
        """Take samples (S,) and return what became known: finals in order, then a partial."""
        self._samples = np.concatenate([self._samples, samples])
        updates = []
        while len(self._samples) > self._count(MAX_SEGMENT_SECONDS):
            updates.append(self._cut_long())
        interval = max(self._count(PARTIAL_SECONDS), int(PARTIAL_SHARE * len(self._samples)))
        if len(self._samples) - self._heard >= interval:
            updates.append(self._update())
        return [update for update in updates if update.words or not update.is_final]

    def finish(self) -> list[Update]:
        """Return the final result of what is left, if that holds words."""
        update = self._words_until(len(self._samples))
        self._drop(len(self._samples))
        return [replace(update, is_final=True)] if update.words else []

    def _update(self) -> Update:
        """A partial result of the segment, or the final one where a pause ends it."""
        update = self._words_until(len(self._samples))
        self._heard = len(self._samples)
        if not update.words:
            self._forget_silence()
            return update
        last = round(update.words[-1].end * self._sample_rate) - self._start
        if len(self._samples) - last < self._count(PAUSE_SECONDS):
            return update
        cut = quietest_place(self._samples, last, self._sample_rate)
        self._drop(cut)
        return replace(update, is_final=True, end=self._seconds(self._start))

    def _cut_long(self) -> Update:
        """End a segment that goes on without pause in the quietest place of its second half."""
        whole = self._samples[: self._count(MAX_SEGMENT_SECONDS)]
        cut = quietest_place(whole, self._count(MIN_SEGMENT_SECONDS), self._sample_rate)
        update = self._words_until(cut)
        self._drop(cut)
        return replace(update, is_final=True)

    def _words_until(self, count: int) -> Update:
        start, end = self._seconds(self._start), self._seconds(self._start + count)
        words = self._recognise(self._samples[:count], start, end) if count else ()
        return Update(False, start, end, tuple(words))

    def _forget_silence(self) -> None:
        if len(self._samples) > self._count(SILENCE_SECONDS):
            self._drop(len(self._samples) - self._count(KEPT_SECONDS))
            self._heard = len(self._samples)

    def _drop(self, count: int) -> None:
        self._samples = self._samples[count:]
        self._start += count
        self._heard = 0

    def _count(self, seconds: float) -> int:
        return round(seconds * self._sample_rate)

    def _seconds(self, samples: int) -> float:
        return samples / self._sample_rate
