"""How late, how steady and how dear live results are, and what streaming costs in errors."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from speech.audio import load_audio
from speech.live import LiveRecogniser, Update
from speech.manifest import Utterance
from speech.metrics import ErrorCounts, word_errors
from speech.tokenizer import normalise_text
from speech.transcribe import Recogniser

PIECE_SECONDS = 0.1  # of audio pushed at a time, as a microphone would


@dataclass(frozen=True)
class Shown:
    """The words on the screen from a time on, in seconds after the recording began."""

    at_seconds: float
    words: tuple[str, ...]


@dataclass(frozen=True)
class StreamFigures:
    """What was measured on some recordings at real-time pace.

    `first_latencies` has, for each recording with words, the seconds from the end of its first
    word until anything was shown; `word_latencies`, for each word of the final text, those until it
    stood in its place. `retracted` counts words that were shown and then changed or taken back; a
    last word that grew is none. `compute_seconds` is the processor time spent in the recogniser.
    """

    audio_seconds: float
    compute_seconds: float
    final_words: int
    retracted: int
    first_latencies: tuple[float, ...]
    word_latencies: tuple[float, ...]
    streamed: ErrorCounts
    offline: ErrorCounts

    def to_dict(self) -> dict[str, float | None]:
        """Return the figures as numbers; latencies in seconds, None where there was no word."""
        return {
            "audio_seconds": self.audio_seconds,
            "real_time_factor": self.compute_seconds / self.audio_seconds,
            "first_latency_median": _quantile(self.first_latencies, 0.5),
            "first_latency_95": _quantile(self.first_latencies, 0.95),
            "word_latency_median": _quantile(self.word_latencies, 0.5),
            "word_latency_95": _quantile(self.word_latencies, 0.95),
            "words": self.final_words,
            "retracted": self.retracted,
            "wer_streamed": self.streamed.rate,
            "wer_offline": self.offline.rate,
        }


def measure_stream(
    recogniser: Recogniser,
    utterances: Sequence[Utterance],
    new_live: Callable[[], LiveRecogniser],
    on_utterance: Callable[[Utterance], None] = lambda _: None,
) -> StreamFigures:
    """Return the figures of live recognisers on utterances, each pushed in pieces.

    The pace is simulated: a piece is pushed when its last sample would have come, or when the one
    before is done, after the processor time that it took: what else the machine does makes nothing
    late. Raises `speech.errors.AudioError` for audio that cannot be read.
    """
    sample_rate = recogniser.model.config.features.sample_rate
    audio = compute = 0.0
    retracted, first, late = 0, [], []
    words_in_all = 0
    streamed = offline = ErrorCounts(0, 0, 0, 0)
    for utterance in utterances:
        samples = load_audio(utterance.audio_path, sample_rate).samples
        timeline = _Timeline()
        seconds = timeline.play(new_live(), samples, sample_rate)
        audio += len(samples) / sample_rate
        compute += seconds
        words_in_all += len(timeline.finals)
        retracted += count_retracted(timeline.shown)
        latencies = word_latencies(timeline.shown, timeline.finals)
        late += latencies
        if timeline.finals:
            something = next(one.at_seconds for one in timeline.shown if one.words)
            first.append(something - timeline.finals[0][1])
        reference = normalise_text(utterance.text)
        streamed += word_errors(reference, " ".join(word for word, _ in timeline.finals))
        offline += word_errors(reference, recogniser.transcribe(utterance.audio_path).text)
        on_utterance(utterance)
    return StreamFigures(audio, compute, words_in_all, retracted, tuple(first), tuple(late),
                         streamed, offline)  # fmt: skip


class _Timeline:
    """What was on the screen when, and the final words with their ends."""

    def __init__(self) -> None:
        self.shown: list[Shown] = []
        self.finals: list[tuple[str, float]] = []

    def play(self, live: LiveRecogniser, samples: NDArray[np.float32], sample_rate: int) -> float:
        """Push samples (S,) at real-time pace; return the seconds computed."""
        size = round(PIECE_SECONDS * sample_rate)
        computed = clock = 0.0
        for start in range(0, len(samples) + size, size):
            piece = samples[start : start + size]
            came = min(start + size, len(samples)) / sample_rate
            began = time.process_time()
            updates = live.push(piece) if len(piece) else live.finish()
            took = time.process_time() - began
            computed += took
            clock = max(clock, came) + took
            self._show(updates, clock)
        return computed

    def _show(self, updates: Sequence[Update], at_seconds: float) -> None:
        for update in updates:
            if update.is_final:
                self.finals += [(word.word, word.end) for word in update.words]
            partial = () if update.is_final else tuple(word.word for word in update.words)
            self.shown.append(Shown(at_seconds, (*(word for word, _ in self.finals), *partial)))


def count_retracted(shown: Sequence[Shown]) -> int:
    """Return how many words were on the screen and then changed or went away.

    A last word that becomes a longer one has grown, which is no change.
    """
    return sum(_retracted(before.words, after.words) for before, after in pairwise(shown))


def _retracted(before: Sequence[str], after: Sequence[str]) -> int:
    kept = 0
    while kept < min(len(before), len(after)) and before[kept] == after[kept]:
        kept += 1
    lost = len(before) - kept
    grew = lost == 1 and kept < len(after) and after[kept].startswith(before[kept])
    return 0 if grew else lost


def word_latencies(shown: Sequence[Shown], finals: Sequence[tuple[str, float]]) -> list[float]:
    """Return, for each final word and its end, the seconds until it first stood in its place."""
    latencies = []
    for place, (word, end) in enumerate(finals):
        at = next(s.at_seconds for s in shown if len(s.words) > place and s.words[place] == word)
        latencies.append(at - end)
    return latencies


def _quantile(values: Sequence[float], share: float) -> float | None:
    if not values:
        return None
    return statistics.median(values) if share == 0.5 else float(np.quantile(values, share))
