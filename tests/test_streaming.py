"""Streaming recognition: chunks equal the whole, pauses end segments, nothing is held for long."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import SAMPLE_RATE, save_tiny_model

from speech.beam_search import BeamDecoder, BeamSettings
from speech.checkpoint import load_model
from speech.live import Update
from speech.segment import MAX_SEGMENT_SECONDS
from speech.streaming import StreamingRecogniser
from speech.transcribe import Recogniser

Samples = NDArray[np.float32]


def noise(seconds: float, seed: int = 0) -> Samples:
    random = np.random.default_rng(seed)
    return np.asarray(0.1 * random.standard_normal(round(seconds * SAMPLE_RATE)), np.float32)


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory: pytest.TempPathFactory) -> Recogniser:
    directory = save_tiny_model(tmp_path_factory.mktemp("model"), bidirectional=False)
    return Recogniser(load_model(directory), threads=1)


def run(recogniser: Recogniser, samples: Samples, chunk: int) -> list[Update]:
    live = StreamingRecogniser(recogniser)
    updates = []
    for start in range(0, len(samples), chunk):
        updates += live.push(samples[start : start + chunk])
        assert len(live._samples) <= (MAX_SEGMENT_SECONDS + 1) * SAMPLE_RATE
    return updates + live.finish()


def final_text(updates: list[Update]) -> str:
    return " ".join(update.text for update in updates if update.is_final)


@pytest.mark.parametrize("chunk", [400, 3000, 100_000])
def test_an_utterance_in_chunks_gives_what_it_gives_as_a_whole(
    recogniser: Recogniser, chunk: int
) -> None:
    samples = noise(4.0)
    (hypothesis,) = recogniser.recognise([samples])
    words = recogniser.words(hypothesis, 0.0, 4.0)
    assert words  # random weights hear something in noise
    updates = run(recogniser, samples, chunk)
    assert final_text(updates) == " ".join(word.word for word in words)


def test_the_beam_goes_on_too(recogniser: Recogniser) -> None:
    decoder = BeamDecoder(recogniser.model.tokenizer, BeamSettings(beam_size=4))
    searching = Recogniser(recogniser.model, threads=1, decoder=decoder)
    samples = noise(3.0)
    (hypothesis,) = searching.recognise([samples])
    text = " ".join(word.word for word in searching.words(hypothesis, 0.0, 3.0))
    assert final_text(run(searching, samples, 1600)) == text


def test_times_are_in_order_and_stable_words_are_what_was_shown(recogniser: Recogniser) -> None:
    updates = run(recogniser, noise(70.0), 4000)
    finals = [update for update in updates if update.is_final]
    assert len(finals) >= 2  # cut where it is longest, if not before
    times = [t for one in finals for w in one.words for t in (w.start, w.end)]
    assert times == sorted(times)
    assert times[-1] <= 70.0
    for update in updates:
        assert update.stable <= len(update.words)
        assert not update.is_final or update.stable == len(update.words)


def test_silence_is_forgotten(recogniser: Recogniser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recogniser, "words", lambda *_: [])
    live = StreamingRecogniser(recogniser)
    for second in range(30):
        assert live.push(noise(1.0, second)) == []
        assert len(live._samples) <= 7 * SAMPLE_RATE
    assert live.finish() == []
