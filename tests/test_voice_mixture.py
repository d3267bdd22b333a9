from __future__ import annotations

import numpy as np
import pytest

from speech.voice_mixture import FRAME_SECONDS, mix, sounds, speech_frames

RATE = 8000
WIDTH = round(FRAME_SECONDS * RATE)


def tone(frames: int, level: float = 0.3) -> np.ndarray:
    times = np.arange(frames * WIDTH) / RATE
    return (level * np.sin(2 * np.pi * 900 * times)).astype(np.float32)


def silence(frames: int) -> np.ndarray:
    return np.full(frames * WIDTH, 1e-5, np.float32)


def test_energy_tells_speech_from_pauses() -> None:
    samples = np.concatenate([silence(20), tone(30), silence(20), tone(10), silence(5)])
    found = speech_frames(samples, RATE)
    expected = np.repeat([False, True, False, True, False], [20, 30, 20, 10, 5])
    assert np.abs(found.astype(int) - expected).sum() <= 2  # where a tone begins and ends


def test_short_gaps_are_speech_and_short_sounds_are_not() -> None:
    samples = np.concatenate([silence(20), tone(20), silence(5), tone(20), silence(20), tone(1),
                              silence(20)])  # fmt: skip
    found = speech_frames(samples, RATE)
    assert found[21:64].all()
    assert not found[67:].any()


@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_ratio_and_truth_are_those_asked_for(snr_db: float) -> None:
    (sound, *_) = [one for one in sounds(RATE, 0, ()) if one.name.startswith("white")]
    spoken = np.concatenate([silence(10), tone(50), silence(10)])

    def clip(with_sound: bool) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(3)
        one = mix(random, lambda _: spoken, sound if with_sound else None, 10.0, RATE, snr_db)
        return one.samples, one.speech

    clean, truth = clip(False)
    mixed, again = clip(True)
    assert np.array_equal(truth, again)
    assert 0.2 < truth.mean() < 0.95
    inside = np.repeat(truth, WIDTH)[: len(clean)]
    ratio = 10 * np.log10(np.square(clean[inside]).mean() / np.square(mixed - clean).mean())
    assert ratio == pytest.approx(snr_db, abs=0.5)
    assert np.square(clean[inside]).mean() > 100 * np.square(clean[~inside]).mean()


def test_a_sound_alone_is_no_speech() -> None:
    sound = sounds(RATE, 0, ())[0]
    one = mix(np.random.default_rng(0), None, sound, 2.0, RATE, 10.0)
    assert len(one.speech) == 100
    assert not one.speech.any()
    assert 0 < np.abs(one.samples).max() <= 1


def test_held_out_sounds_are_by_themselves() -> None:
    held_out = ("keyboard", "hum")
    heard = {sound.name for sound in sounds(RATE, 0, held_out)}
    kept = {sound.name for sound in sounds(RATE, 0, held_out, only=True)}
    assert {name.split(" at ")[0] for name in kept} == {"keyboard", "50 Hz hum", "60 Hz hum"}
    assert not heard & kept
    assert len(heard | kept) >= 25
