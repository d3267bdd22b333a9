"""Sounds that hold no speech, for counting the words that a recogniser hears in them.

Everything is made by a seeded generator from formulas, so that the test is the same everywhere.
Levels are in dB below full scale, of the root mean square.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speech.errors import SpeechError

Samples = NDArray[np.float32]
Random = np.random.Generator

SIGNAL_SECONDS = 20.0
LOUD_DB, MEDIUM_DB, QUIET_DB = -20.0, -40.0, -60.0
NOTES_HZ = tuple(220.0 * 2 ** (step / 12) for step in (0, 2, 3, 5, 7, 8, 10, 12, 14, 15))  # A minor
BEATS_PER_SECOND = 2.0


@dataclass(frozen=True)
class Signal:
    """A sound without speech: `kind` is its row in the table, `name` tells it from its like."""

    kind: str  # silence, noise, hum, clicks, tones or music
    name: str
    samples: Samples


def nonspeech_signals(
    sample_rate: int, seed: int = 0, seconds: float = SIGNAL_SECONDS
) -> Iterator[Signal]:
    """Yield the 30 signals of the standard test, ten minutes in all, one at a time."""
    count = round(seconds * sample_rate)
    if count < sample_rate:
        raise SpeechError(f"signals need at least a second, got {seconds} s at {sample_rate} Hz")
    yield Signal("silence", "digital silence", np.zeros(count, np.float32))
    for number, (kind, name, level_db, make) in enumerate(_RECIPES):
        random = np.random.default_rng([seed, number])
        samples = _at(level_db, make(count, sample_rate, random))
        yield Signal(kind, f"{name} at {level_db:g} dB", samples)


def _at(level_db: float, signal: NDArray[np.float64]) -> Samples:
    """The signal at a root mean square of so many dB below full scale, never past full scale."""
    scaled = signal * 10 ** (level_db / 20) / np.sqrt(np.mean(signal**2))
    return np.asarray(scaled / max(1.0, np.abs(scaled).max()), dtype=np.float32)


def _noise(exponent: float) -> Callable[[int, int, Random], NDArray[np.float64]]:
    """Noise whose power falls with frequency to the power of `exponent`: 0 white, 1 pink, 2 brown.

    Below 20 Hz there is none, which keeps brown noise from being a slow drift.
    """

    def make(count: int, sample_rate: int, random: Random) -> NDArray[np.float64]:
        spectrum = np.fft.rfft(random.normal(size=count))
        hz = np.fft.rfftfreq(count, 1 / sample_rate)
        shape = np.where(hz < 20, 0.0, np.maximum(hz, 20) ** (-exponent / 2))
        return np.asarray(np.fft.irfft(spectrum * shape, count))

    return make


def _hum(mains_hz: float) -> Callable[[int, int, Random], NDArray[np.float64]]:
    """Mains hum: the fundamental and its first overtones, over a little hiss."""

    def make(count: int, sample_rate: int, random: Random) -> NDArray[np.float64]:
        times = np.arange(count) / sample_rate
        tones = sum(np.sin(2 * np.pi * mains_hz * k * times) / k for k in (1, 2, 3, 5, 7))
        return np.asarray(tones + 0.01 * random.normal(size=count))

    return make


def _tone(hz: float, *more_hz: float) -> Callable[[int, int, Random], NDArray[np.float64]]:
    """A pure tone, or a chord of them, that swells and falls once in four seconds."""

    def make(count: int, sample_rate: int, random: Random) -> NDArray[np.float64]:
        times = np.arange(count) / sample_rate
        swell = 0.6 - 0.4 * np.cos(2 * np.pi * times / 4)
        return np.asarray(swell * sum(np.sin(2 * np.pi * f * times) for f in (hz, *more_hz)))

    return make


def _clicks(per_second: float) -> Callable[[int, int, Random], NDArray[np.float64]]:
    """Single clicks at random times, each a damped oscillation of a few milliseconds."""

    def make(count: int, sample_rate: int, random: Random) -> NDArray[np.float64]:
        starts = random.integers(count, size=round(per_second * count / sample_rate))
        return _strokes(starts, count, lambda: _burst(random, sample_rate, 0.004), random)

    return make


def _keyboard(count: int, sample_rate: int, random: Random) -> NDArray[np.float64]:
    """Typing: a press and a softer release, some seven keys a second with pauses between words."""
    gaps = random.gamma(2.0, 0.07, size=count) + (random.random(count) < 0.15) * 0.4
    presses = np.cumsum(gaps)
    presses = presses[presses < count / sample_rate - 0.2]
    starts = (np.concatenate([presses, presses + 0.08]) * sample_rate).astype(np.int64)
    strokes = _strokes(starts, count, lambda: _burst(random, sample_rate, 0.015), random)
    return strokes + 0.003 * random.normal(size=count)


def _music(drums: bool) -> Callable[[int, int, Random], NDArray[np.float64]]:
    """A plucked melody that walks up and down a scale over held chords; with drums, or without."""

    def make(count: int, sample_rate: int, random: Random) -> NDArray[np.float64]:
        melody = np.zeros(count)
        beat = round(sample_rate / BEATS_PER_SECOND)
        place = len(NOTES_HZ) // 2
        for number, start in enumerate(range(0, count, beat // 2)):
            place = int(np.clip(place + random.integers(-2, 3), 0, len(NOTES_HZ) - 1))
            _add(melody, start, _pluck(2 * NOTES_HZ[place], beat, sample_rate))
            if number % 8 == 0:
                root = int(random.integers(0, 5))
                for note in NOTES_HZ[root : root + 5 : 2]:
                    _add(melody, start, 0.5 * _pluck(note, 4 * beat, sample_rate, 1.5))
            if drums:
                _add(melody, start, _drum(number, sample_rate, random))
        return melody

    return make


def _pluck(
    hz: float, count: int, sample_rate: int, decay_seconds: float = 0.35
) -> NDArray[np.float64]:
    times = np.arange(count) / sample_rate
    overtones = sum(np.sin(2 * np.pi * hz * k * times) / k**1.5 for k in range(1, 6))
    return np.asarray(overtones * np.exp(-times / decay_seconds) * np.minimum(1, times / 0.005))


def _drum(number: int, sample_rate: int, random: Random) -> NDArray[np.float64]:
    """A bass drum on the first and third beat, a snare on the others, a hi-hat between them."""
    times = np.arange(round(0.25 * sample_rate)) / sample_rate
    if number % 4 == 0:
        return np.asarray(2 * np.sin(2 * np.pi * 55 * times) * np.exp(-times / 0.08))
    hiss = random.normal(size=len(times))
    return np.asarray(hiss * np.exp(-times / (0.06 if number % 4 == 2 else 0.015)) * 0.6)


def _burst(random: Random, sample_rate: int, decay_seconds: float) -> NDArray[np.float64]:
    times = np.arange(round(6 * decay_seconds * sample_rate)) / sample_rate
    ringing = np.sin(2 * np.pi * random.uniform(800, 3000) * times) + random.normal(size=len(times))
    return np.asarray(ringing * np.exp(-times / decay_seconds))


def _strokes(
    starts: NDArray[np.int64], count: int, make: Callable[[], NDArray[np.float64]], random: Random
) -> NDArray[np.float64]:
    signal = np.zeros(count)
    for start in starts:
        _add(signal, int(start), random.uniform(0.3, 1.0) * make())
    return signal


def _add(signal: NDArray[np.float64], start: int, part: NDArray[np.float64]) -> None:
    """Add a part in place; what reaches past the end is left out."""
    end = min(len(signal), start + len(part))
    signal[start:end] += part[: end - start]


_RECIPES: tuple[tuple[str, str, float, Callable[[int, int, Random], NDArray[np.float64]]], ...] = (
    ("silence", "faint hiss", -80.0, _noise(0)),
    *(
        ("noise", f"{name} noise", level_db, _noise(exponent))
        for name, exponent in (("white", 0), ("pink", 1), ("brown", 2))
        for level_db in (LOUD_DB, MEDIUM_DB, QUIET_DB)
    ),
    *(("hum", f"{hz} Hz hum", db, _hum(hz)) for hz in (50, 60) for db in (LOUD_DB, MEDIUM_DB)),
    *(("clicks", f"{rate:g} clicks a second", -30.0, _clicks(rate)) for rate in (1, 5, 20)),
    *(("clicks", "keyboard", db, _keyboard) for db in (-30.0, -45.0)),
    *(("tones", f"{hz} Hz tone", -20.0, _tone(hz)) for hz in (220, 440, 1000, 3000)),
    ("tones", "minor chord", LOUD_DB, _tone(220.0, 261.6, 329.6)),
    ("tones", "major chord", MEDIUM_DB, _tone(261.6, 329.6, 392.0, 523.3)),
    *(("music", "melody", db, _music(False)) for db in (LOUD_DB, MEDIUM_DB)),
    *(("music", "melody with drums", db, _music(True)) for db in (LOUD_DB, MEDIUM_DB)),
)

SIGNALS = 1 + len(_RECIPES)
