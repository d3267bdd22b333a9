"""Live recognition: partials grow, pauses end segments, nothing is lost or said twice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from speech.live import KEPT_SECONDS, PAUSE_SECONDS, SILENCE_SECONDS, RepeatingRecogniser, Update
from speech.segment import MAX_SEGMENT_SECONDS
from speech.transcript import Word

RATE = 1000
BEEP_SECONDS = 0.3


def beeps(samples: NDArray[np.float32], start: float, end: float) -> list[Word]:
    """A recogniser that hears each beep as a word with the beep's number, its loudness."""
    assert len(samples) == round((end - start) * RATE)
    loud = np.concatenate([[0], samples, [0]])
    edges = np.flatnonzero(np.diff(loud))
    return [
        Word(f"{samples[first]:.0f}", start + first / RATE, start + last / RATE, 1.0)
        for first, last in zip(edges[::2], edges[1::2], strict=True)
    ]


def recording(starts: list[float], seconds: float) -> NDArray[np.float32]:
    samples = np.zeros(round(seconds * RATE), np.float32)
    for number, start in enumerate(starts, start=1):
        first = round(start * RATE)
        samples[first : first + round(BEEP_SECONDS * RATE)] = number
    return samples


def run(samples: NDArray[np.float32], chunk: int) -> list[Update]:
    live = RepeatingRecogniser(beeps, RATE)
    updates = []
    for start in range(0, len(samples), chunk):
        updates += live.push(samples[start : start + chunk])
    return updates + live.finish()


def finals(updates: list[Update]) -> list[str]:
    return [update.text for update in updates if update.is_final]


def test_words_grow_and_become_final_at_a_pause() -> None:
    updates = run(recording([0.5, 1.0, 3.0], 4.0), 100)
    assert finals(updates) == ["1 2", "3"]
    first = next(n for n, update in enumerate(updates) if update.is_final)
    partials = [update.text for update in updates[:first]]
    assert partials == sorted(partials)
    assert "1" in partials
    final = updates[first]
    assert final.words[1].start == pytest.approx(1.0)
    assert 1.3 <= final.end <= 1.3 + PAUSE_SECONDS + 0.5
    assert all(update.start >= final.end for update in updates[first + 1 :])


@given(
    st.lists(st.floats(0.4, 6.0), min_size=1, max_size=12),
    st.integers(20, 5000),
)
@settings(deadline=None, max_examples=30)
def test_each_word_is_final_once_whatever_the_chunks(gaps: list[float], chunk: int) -> None:
    starts = list(np.cumsum(gaps))
    updates = run(recording(starts, starts[-1] + 1.0), chunk)
    assert " ".join(finals(updates)) == " ".join(map(str, range(1, len(starts) + 1)))
    times = [word.start for update in updates if update.is_final for word in update.words]
    assert times == pytest.approx(starts, abs=2 / RATE)


def test_speech_without_pause_is_cut_and_memory_stays() -> None:
    starts = list(np.arange(0.2, 99, 0.5))
    live = RepeatingRecogniser(beeps, RATE)
    texts: list[str] = []
    for block in np.split(recording(starts, 100.0), 200):
        texts += finals(live.push(block))
        assert len(live._samples) <= MAX_SEGMENT_SECONDS * RATE
    texts += finals(live.finish())
    assert len(texts) >= 3
    assert " ".join(texts).split() == [str(n) for n in range(1, len(starts) + 1)]


def test_silence_gives_nothing_and_is_forgotten() -> None:
    live = RepeatingRecogniser(beeps, RATE)
    for _ in range(100):
        updates = live.push(np.zeros(RATE, np.float32))
        assert all(not update.is_final and not update.words for update in updates)
        assert len(live._samples) <= (SILENCE_SECONDS + KEPT_SECONDS) * RATE
    assert live.finish() == []
