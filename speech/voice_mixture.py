"""Speech and pauses mixed with sounds, so that it is known where somebody speaks.

What is speech is read off the clean recordings, where its energy stands out by tens of decibels,
before anything is mixed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speech.nonspeech import Random, Samples, Signal, nonspeech_signals

FRAME_SECONDS = 0.02  # of the truth
RANGE_DB = 35.0  # speech reaches so far below its loud frames
ABOVE_FLOOR_DB = 6.0  # and no closer to the recording's own floor
LONGEST_GAP_SECONDS = 0.2  # a shorter one, of a stop consonant for instance, is speech
SHORTEST_SPEECH_SECONDS = 0.06
SPEECH_DB = -26.0  # of full scale: the usual level of a recording's speech
LEVEL_DB = 8.0  # by which that varies either way
PAUSE_SECONDS = (0.1, 3.0)
HISS_DB = (-85.0, -60.0)  # of full scale, under everything
ALONE_DB = (-60.0, -15.0)  # of full scale: a sound without speech
SPEED = (0.8, 1.25)  # by which sounds are played, so that no pitch is always the same
_TINY = 1e-12

Truth = NDArray[np.bool_]


@dataclass(frozen=True)
class Mixture:
    """Samples (S,) and, for each frame of FRAME_SECONDS, whether somebody speaks in it."""

    samples: Samples
    speech: Truth


def speech_frames(samples: Samples, sample_rate: int) -> Truth:
    """Return which frames of a clean recording (S,) hold speech, by their energy."""
    width = round(FRAME_SECONDS * sample_rate)
    count = -(-len(samples) // width)
    frames = np.pad(samples, (0, count * width - len(samples))).reshape(count, width)
    frames = np.diff(
        frames, axis=1, prepend=frames[:, :1]
    )  # what is slower than a voice counts less
    levels = 10 * np.log10(np.square(frames, dtype=np.float64).mean(1) + _TINY)
    loud, floor = np.quantile(levels, 0.95), np.quantile(levels, 0.05)
    found = levels > max(loud - RANGE_DB, min(floor + ABOVE_FLOOR_DB, loud - ABOVE_FLOOR_DB))
    found = _without_runs(found, False, round(LONGEST_GAP_SECONDS / FRAME_SECONDS))
    return _without_runs(found, True, round(SHORTEST_SPEECH_SECONDS / FRAME_SECONDS))


def _without_runs(frames: Truth, value: bool, shortest: int) -> Truth:
    """Return frames with runs of `value` shorter than `shortest` turned, but those at the ends."""
    edges = np.flatnonzero(np.diff(frames)) + 1
    starts, ends = [0, *edges.tolist()], [*edges.tolist(), len(frames)]
    turned = frames.copy()
    for start, end in zip(starts[1:-1], ends[1:-1], strict=True):
        if frames[start] == value and end - start < shortest:
            turned[start:end] = not value
    return turned


def sounds(sample_rate: int, seed: int, without: Sequence[str], only: bool = False) -> list[Signal]:
    """Return the sounds without speech, less those of some kinds or names; or `only` those."""
    return [
        signal
        for signal in nonspeech_signals(sample_rate, seed)
        if signal.kind != "silence"
        and any(part in (signal.kind, signal.name.split(" at ")[0]) for part in without) == only
    ]


def mix(
    random: Random,
    utterance: Callable[[Random], Samples] | None,
    sound: Signal | None,
    seconds: float,
    sample_rate: int,
    snr_db: float,
) -> Mixture:
    """Return a clip of utterances with pauses, over a sound at `snr_db`; both may be missing.

    The ratio is of the power of the speech where there is any to that of the sound all over.
    """
    count = round(seconds * sample_rate)
    clean, truth = np.zeros(count, np.float32), np.zeros(_frames(count, sample_rate), bool)
    if utterance is not None:
        _speak(random, utterance, clean, truth, sample_rate)
    hiss = random.standard_normal(count) * 10 ** (random.uniform(*HISS_DB) / 20)
    mixed = clean + hiss
    if sound is not None:
        part = _cut(random, sound.samples, count)
        mixed = mixed + part * _scale(random, clean, truth, part, snr_db, sample_rate)
    return Mixture(np.clip(mixed, -1, 1).astype(np.float32), truth)


def _frames(samples: int, sample_rate: int) -> int:
    return -(-samples // round(FRAME_SECONDS * sample_rate))


def _speak(
    random: Random,
    utterance: Callable[[Random], Samples],
    clean: Samples,
    truth: Truth,
    sample_rate: int,
) -> None:
    """Fill a clip with utterances and pauses; each begins with a frame, that truth stays exact."""
    width = round(FRAME_SECONDS * sample_rate)
    at = _pause(random)
    while at < len(truth):
        samples = utterance(random)[: len(clean) - at * width]
        spoken = speech_frames(samples, sample_rate)
        level = 10 ** ((SPEECH_DB + random.uniform(-LEVEL_DB, LEVEL_DB)) / 20)
        power = np.square(samples, dtype=np.float64).mean()
        clean[at * width : at * width + len(samples)] = samples * level / np.sqrt(power + _TINY)
        truth[at : at + len(spoken)] = spoken
        at += len(spoken) + _pause(random)


def _pause(random: Random) -> int:
    """Return a pause in frames; short ones are as probable as long ones."""
    shortest, longest = np.log(PAUSE_SECONDS)
    return round(float(np.exp(random.uniform(shortest, longest))) / FRAME_SECONDS)


def _cut(random: Random, samples: Samples, count: int) -> NDArray[np.float64]:
    """Return a part (count,) of a sound from anywhere, at another speed, repeated at need."""
    speed = random.uniform(*SPEED)
    places = (random.uniform(0, len(samples)) + speed * np.arange(count)) % len(samples)
    return np.asarray(np.interp(places, np.arange(len(samples)), samples))


def _scale(
    random: Random,
    clean: Samples,
    truth: Truth,
    part: NDArray[np.float64],
    snr_db: float,
    rate: int,
) -> float:
    power = np.square(part).mean() + _TINY
    if not truth.any():
        return float(10 ** (random.uniform(*ALONE_DB) / 20) / np.sqrt(power))
    spoken = np.repeat(truth, round(FRAME_SECONDS * rate))[: len(clean)]
    speech_power = np.square(clean[spoken], dtype=np.float64).mean()
    return float(np.sqrt(speech_power / power * 10 ** (-snr_db / 10)))
