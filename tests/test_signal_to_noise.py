"""The signal-to-noise ratio of mixtures that were mixed at a known one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from speech.signal_to_noise import HIGHEST_DB, LOWEST_DB, signal_to_noise_db

RATE = 16000
SECONDS = 12


def syllables(seed: int = 0) -> NDArray[np.float64]:
    """Bursts of a buzz, as loud as chance has it, with pauses between some of them."""
    random = np.random.default_rng(seed)
    times = np.arange(SECONDS * RATE) / RATE
    buzz = sum(np.sin(2 * np.pi * 120 * k * times) / k for k in range(1, 20))
    bursts = [
        np.hanning(RATE // 5) * random.uniform(0.2, 1) * (random.random() < 0.75)
        for _ in range(SECONDS * 5)
    ]
    return np.asarray(buzz * np.concatenate(bursts))


def noise(colour: str, seed: int = 1) -> NDArray[np.float64]:
    white = np.random.default_rng(seed).normal(size=SECONDS * RATE)
    if colour == "white":
        return white
    spectrum = np.fft.rfft(white)
    return np.fft.irfft(spectrum / np.sqrt(np.arange(1, len(spectrum) + 1)))  # pink


def mixture(db: float, colour: str, gain: float = 0.1) -> NDArray[np.float32]:
    clean, noisy = syllables(), noise(colour)
    scale = np.sqrt((clean**2).mean() / (noisy**2).mean() / 10 ** (db / 10))
    return (gain * (clean + scale * noisy)).astype(np.float32)


@pytest.mark.parametrize(
    ("colour", "db", "tolerance_db"),
    [("white", db, 1.0) for db in (-5, 0, 5, 10, 20, 30, 40)]
    + [("pink", db, 2.5) for db in (5, 10, 20, 30, 40)],  # below 5 dB see the module
)
def test_known_mixtures(colour: str, db: float, tolerance_db: float) -> None:
    estimate = signal_to_noise_db([mixture(db, colour)], RATE)
    assert estimate == pytest.approx(db, abs=tolerance_db)


def test_loudness_offset_and_blocks_do_not_matter() -> None:
    samples = mixture(15, "white")
    whole = signal_to_noise_db([samples], RATE)
    assert signal_to_noise_db([samples * 8], RATE) == pytest.approx(whole, abs=1e-3)
    assert signal_to_noise_db([samples + np.float32(0.25)], RATE) == pytest.approx(whole, abs=0.05)
    blocks = np.split(samples, [RATE // 2, 3 * RATE])
    assert signal_to_noise_db(blocks, RATE) == pytest.approx(whole, abs=0.1)


def test_the_ends_of_the_scale() -> None:
    assert signal_to_noise_db([syllables().astype(np.float32)], RATE) == HIGHEST_DB
    hiss = signal_to_noise_db([noise("white").astype(np.float32)], RATE)
    assert hiss is not None
    assert LOWEST_DB <= hiss < -5


@pytest.mark.parametrize("seconds", [0, 0.01, 0.2])
def test_too_short_is_unknown(seconds: float) -> None:
    samples = mixture(10, "white")[: round(seconds * RATE)]
    assert signal_to_noise_db([samples], RATE) is None
    assert signal_to_noise_db([], RATE) is None


def test_silence_is_unknown() -> None:
    assert signal_to_noise_db([np.zeros(RATE, np.float32)], RATE) is None
