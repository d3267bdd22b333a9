"""Live recognition that hears all audio once: the network and the search go on where they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from speech.beam_stream import BeamStream
from speech.decode import Hypothesis, greedy
from speech.live import KEPT_SECONDS, PAUSE_SECONDS, SILENCE_SECONDS, Update
from speech.network_stream import CHUNK_SECONDS, LOOKAHEAD_SECONDS, NetworkStream
from speech.segment import MAX_SEGMENT_SECONDS, MIN_SEGMENT_SECONDS, quietest_place
from speech.transcribe import Recogniser
from speech.transcript import Word

PARTIAL_SECONDS = 0.1  # of new log-probs before a partial result is made of them

Samples = NDArray[np.float32]


class StreamingRecogniser:
    """A `speech.live.LiveRecogniser` of a recogniser's network and decoder, segment by segment.

    A pause ends a segment, and the next one begins behind it as a recording of its own; what the
    network has not decided on by then it hears again. No more than MAX_SEGMENT_SECONDS and the
    last piece pushed are held.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        chunk_seconds: float = CHUNK_SECONDS,
        lookahead_seconds: float = LOOKAHEAD_SECONDS,
    ) -> None:
        self._recogniser = recogniser
        self._latency = chunk_seconds, lookahead_seconds
        self._sample_rate = recogniser.model.config.features.sample_rate
        self._samples = np.zeros(0, np.float32)  # of the segment
        self._start = 0  # of the segment, in samples of the stream
        self._begin(self._samples)

    def push(self, samples: Samples) -> list[Update]:
        """Take samples (S,) and return what became known: finals in order, then a partial."""
        updates = []
        step = self._count(PAUSE_SECONDS)  # so that a pause is seen where it is
        for first in range(0, len(samples), step):
            piece = samples[first : first + step]
            self._samples = np.concatenate([self._samples, piece])
            self._hear(self._network.push(piece))
            updates += self._updates()
        partials = [update for update in updates if not update.is_final]
        finals = [update for update in updates if update.is_final]
        return finals + (partials[-1:] if updates and not updates[-1].is_final else [])

    def finish(self) -> list[Update]:
        """Return the final result of what is left, if that holds words."""
        self._hear(self._network.finish())
        update = self._update(is_final=True)
        return [update] if update.words else []

    def _begin(self, samples: Samples) -> None:
        """Begin a segment with these samples, which its stream has not heard."""
        self._samples = samples
        self._network = NetworkStream(self._recogniser.model, *self._latency)
        self._search = _Search(self._recogniser)
        self._shown: tuple[Word, ...] = ()
        self._shown_frames = 0
        if len(samples):
            self._hear(self._network.push(samples))

    def _hear(self, log_probs: NDArray[np.float32]) -> None:
        if len(log_probs):
            self._search.push(log_probs)

    def _updates(self) -> list[Update]:
        """Return a partial result where there is something new, or a final one at an endpoint."""
        new = (self._search.frames - self._shown_frames) * self._seconds_per_frame
        if new < PARTIAL_SECONDS and len(self._samples) < self._count(MAX_SEGMENT_SECONDS):
            return []
        self._shown_frames = self._search.frames
        update = self._update(is_final=False)
        heard = self._search.frames * self._seconds_per_frame
        if not update.words:
            if heard > SILENCE_SECONDS:
                self._cut(self._count(heard - KEPT_SECONDS))
            return []
        last = update.words[-1].end - self._start / self._sample_rate
        if heard - last >= PAUSE_SECONDS:
            heard_samples = self._samples[: self._count(heard)]
            return [
                self._end_at(quietest_place(heard_samples, self._count(last), self._sample_rate))
            ]
        if len(self._samples) >= self._count(MAX_SEGMENT_SECONDS):
            earliest = self._count(MIN_SEGMENT_SECONDS)
            heard_samples = self._samples[: self._count(heard)]
            return [self._end_at(quietest_place(heard_samples, earliest, self._sample_rate))]
        if update.words == self._shown:
            return []
        self._shown = update.words
        return [update]

    def _end_at(self, cut: int) -> Update:
        """Return the final result up to a sample of the segment, which ends there."""
        end = (self._start + cut) / self._sample_rate
        update = self._update(is_final=True)
        words = tuple(
            replace(word, end=min(word.end, end))
            for word in update.words
            if (word.start + word.end) / 2 < end
        )
        self._cut(cut)
        return replace(update, end=end, words=words, stable=len(words))

    def _cut(self, place: int) -> None:
        self._start += place
        self._begin(self._samples[place:])

    def _update(self, is_final: bool) -> Update:
        start = self._start / self._sample_rate
        end = start + len(self._samples) / self._sample_rate
        words = tuple(self._recogniser.words(self._search.hypothesis(), start, end))
        stable = len(words) if is_final else _common_words(self._shown, words)
        return Update(is_final, start, end, words, stable)

    @property
    def _seconds_per_frame(self) -> float:
        return self._recogniser.model.seconds_per_frame

    def _count(self, seconds: float) -> int:
        return round(seconds * self._sample_rate)


class _Search:
    """The decoder on one segment: a beam that goes on, or the best path so far."""

    def __init__(self, recogniser: Recogniser) -> None:
        decoder = recogniser.decoder
        self._beam: BeamStream | None = decoder.stream() if decoder else None
        self._certain: list[Hypothesis] = []
        self._log_probs: list[NDArray[np.float32]] = []
        self.frames = 0

    def push(self, log_probs: NDArray[np.float32]) -> None:
        self.frames += len(log_probs)
        if self._beam is None:
            self._log_probs.append(log_probs)
        else:
            self._certain.append(self._beam.push(log_probs))

    def hypothesis(self) -> Hypothesis:
        """Return the best text as if the segment ended here."""
        if not self.frames:
            return Hypothesis((), (), (), (), 0.0, 0.0)
        if self._beam is None:
            self._log_probs = [np.concatenate(self._log_probs)]
            return greedy(self._log_probs[0])
        last = self._beam.partial()
        parts = [*self._certain, last]
        return Hypothesis(
            tuple(token for part in parts for token in part.tokens),
            tuple(frame for part in parts for frame in part.frames),
            tuple(frame for part in parts for frame in part.end_frames),
            tuple(one for part in parts for one in part.confidences),
            last.log_probability,
            last.score,
        )


def _common_words(one: Sequence[Word], other: Sequence[Word]) -> int:
    """Return how many words both begin with."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a.word != b.word:
            break
        count += 1
    return count
