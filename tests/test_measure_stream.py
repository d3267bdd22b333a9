"""Figures of live results, by pencil."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import write_tiny_corpus
from tiny import SAMPLE_RATE, save_tiny_model

from speech.decoder import GREEDY
from speech.live import Update
from speech.manifest import read_manifest
from speech.measure_stream import Shown, count_retracted, measure_stream, word_latencies
from speech.streaming import StreamingRecogniser
from speech.transcribe import Recogniser
from speech.transcript import Word


def shown(*texts: str) -> list[Shown]:
    return [Shown(float(n), tuple(text.split())) for n, text in enumerate(texts)]


def test_growing_is_no_retraction() -> None:
    assert count_retracted(shown("", "th", "the", "the c", "the cat sat")) == 0


def test_changed_and_vanished_words_are_counted() -> None:
    assert count_retracted(shown("a", "b", "b c", "b")) == 2
    assert count_retracted(shown("a b c", "a x c d")) == 2  # b and all behind it
    assert count_retracted(shown("a b", "")) == 2


def test_latency_is_until_the_word_stands_in_its_place() -> None:
    screen = shown("", "a", "a be", "a bee")
    assert word_latencies(screen, [("a", 0.5), ("bee", 2.5)]) == [0.5, 0.5]


class Parrot:
    """Says 'a' after its third piece and makes it final at the end."""

    def __init__(self) -> None:
        self.pieces = 0

    def push(self, samples: np.ndarray) -> list[Update]:  # type: ignore[type-arg]
        self.pieces += 1
        return [self.update(False)] if self.pieces == 3 else []

    def finish(self) -> list[Update]:
        return [self.update(True)]

    def update(self, is_final: bool) -> Update:
        return Update(is_final, 0.0, 0.3, (Word("a", 0.1, 0.2, 1.0),))


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory: pytest.TempPathFactory) -> Recogniser:
    directory = save_tiny_model(tmp_path_factory.mktemp("model"), bidirectional=False)
    return Recogniser.load(directory, threads=1, options=GREEDY)


def test_time_passes_as_it_would(recogniser: Recogniser, tmp_path: Path) -> None:
    utterances = read_manifest(write_tiny_corpus(tmp_path, 2, sample_rate=SAMPLE_RATE))
    figures = measure_stream(recogniser, utterances, Parrot)
    assert figures.audio_seconds == pytest.approx(sum(one.duration for one in utterances))
    # The third piece ends at 0.3 s (or with the recording), the word at 0.2 s.
    assert all(0 < one <= 0.1 + 0.1 for one in figures.first_latencies)
    assert (figures.final_words, figures.retracted) == (2, 0)


def test_one_direction_has_the_error_rate_of_the_whole(
    recogniser: Recogniser, tmp_path: Path
) -> None:
    utterances = read_manifest(write_tiny_corpus(tmp_path, 3, sample_rate=SAMPLE_RATE))
    figures = measure_stream(recogniser, utterances, lambda: StreamingRecogniser(recogniser))
    assert figures.streamed == figures.offline
    assert figures.compute_seconds > 0
    assert set(figures.to_dict()) >= {"real_time_factor", "first_latency_median", "retracted"}
