"""Voice activity: steady sounds are none, speech-like ones are, however the audio was cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from speech.nonspeech import nonspeech_signals
from speech.voice_activity import FLOOR_SECONDS, FRAME_SECONDS, VoiceDetector

RATE = 8000
FRAME = round(FRAME_SECONDS * RATE)
Samples = NDArray[np.float32]


def voice(*pieces: Samples) -> NDArray[np.bool_]:
    detector = VoiceDetector(RATE)
    return np.concatenate([*(detector.push(piece) for piece in pieces), detector.finish()])


def syllables(seconds: float, level: float, seed: int = 0) -> Samples:
    """Buzzes on a falling pitch, four a second, with overtones as a voice has."""
    times = np.arange(round(seconds * RATE)) / RATE
    pitch = 2 * np.pi * np.cumsum(140 - 20 * (times % 1)) / RATE
    buzz = sum(np.sin(k * pitch) / k for k in range(1, 20))
    return np.asarray(level * buzz * np.sin(np.pi * 4 * times) ** 2, np.float32)


def noise(seconds: float, level: float, seed: int = 0) -> Samples:
    random = np.random.default_rng(seed)
    return np.asarray(level * random.standard_normal(round(seconds * RATE)), np.float32)


@pytest.mark.parametrize("kind", ["silence", "noise", "hum"])
def test_steady_sounds_are_no_voice(kind: str) -> None:
    signals = [signal for signal in nonspeech_signals(RATE, seconds=10.0) if signal.kind == kind]
    assert len(signals) >= 2
    for signal in signals:
        assert voice(signal.samples).mean() < 0.01, signal.name


@pytest.mark.parametrize("noise_level", [0.0, 1e-4, 3e-3, 0.03])
def test_voice_is_found_where_it_is(noise_level: float) -> None:
    samples = noise(20.0, noise_level)
    samples[5 * RATE : 8 * RATE] += syllables(3.0, 0.1)
    heard = np.flatnonzero(voice(samples)) * FRAME_SECONDS
    assert 5.0 <= heard[0] + 0.05 <= 5.3
    assert 7.7 <= heard[-1] <= 8.05
    assert len(heard) * FRAME_SECONDS > 1.5


def test_the_level_of_the_recording_does_not_matter() -> None:
    samples = noise(12.0, 1e-3)
    samples[3 * RATE : 6 * RATE] += syllables(3.0, 0.1)
    decisions = voice(samples)
    assert decisions.any()
    assert (voice(samples * np.float32(0.25)) == decisions).mean() > 0.99


def test_a_single_click_is_no_voice() -> None:
    samples = noise(10.0, 1e-4)
    samples[4 * RATE : 4 * RATE + 40] = 0.5
    assert not voice(samples).any()


def test_in_short_audio_everything_above_silence_may_be_voice() -> None:
    """A word cut out tightly shows no floor of its own."""
    assert voice(noise(0.4, 0.1)).mean() > 0.9
    assert not voice(noise(0.4, 1e-6)).any()


@given(st.integers(0, 12 * RATE), st.lists(st.integers(0, 12 * RATE), max_size=5))
@settings(deadline=None, max_examples=25)
def test_pieces_give_what_the_whole_gives(length: int, cuts: list[int]) -> None:
    samples = noise(12.0, 1e-3)
    samples[RATE : 4 * RATE] += syllables(3.0, 0.1)
    samples = samples[:length]
    whole = voice(samples)
    assert len(whole) == -(-length // FRAME)
    assert (voice(*np.split(samples, sorted(min(cut, length) for cut in cuts))) == whole).all()


def test_what_is_kept_does_not_grow() -> None:
    detector = VoiceDetector(RATE)
    for seed in range(60):
        detector.push(noise(1.0, 0.1, seed))
        assert len(detector._levels) * FRAME_SECONDS < 2 * FLOOR_SECONDS + 2
        assert len(detector._samples) < 3 * FRAME
