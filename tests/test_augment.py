"""Speed, level, noise and masks are as drawn, and drawn by the generator alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from speech.augment import (
    NOISE_COLOURS,
    WaveAugment,
    add_noise,
    coloured_noise,
    perturb_speed,
    spec_augment,
)
from speech.config import AugmentConfig

RATE = 16000  # Hz
OFF = AugmentConfig(
    speed_factors=(1.0,), gain_db=0.0, noise_probability=0.0, time_masks=0, frequency_masks=0
)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def tone(hertz: float, seconds: float = 1.0) -> Tensor:
    times = torch.arange(round(seconds * RATE), dtype=torch.float64) / RATE
    return (0.1 * torch.sin(2 * math.pi * hertz * times)).float()


def level_db(samples: Tensor) -> float:
    return 10 * math.log10(samples.double().square().mean().item())


def peak_hertz(samples: Tensor) -> float:
    window = torch.hann_window(len(samples))
    return torch.fft.rfft(samples * window).abs().argmax().item() * RATE / len(samples)


# --- Speed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.1, 1.25])
def test_speed_changes_length_and_pitch(factor: float) -> None:
    samples = tone(800.0)
    faster = perturb_speed(samples, factor)
    assert len(faster) == math.ceil(len(samples) / factor)
    assert peak_hertz(faster) == pytest.approx(800 * factor, abs=2)
    assert level_db(faster) == pytest.approx(level_db(samples), abs=0.1)


def test_own_speed_is_the_file_itself() -> None:
    samples = tone(300.0)
    assert perturb_speed(samples, 1.0) is samples


def test_speeds_are_drawn_alike_often() -> None:
    wave, random = WaveAugment(AugmentConfig(), RATE), generator()
    drawn = [wave.draw_speed(random) for _ in range(900)]
    assert set(drawn) == {0.9, 1.0, 1.1}
    for speed in set(drawn):
        assert 240 < drawn.count(speed) < 360


# --- Level and noise ------------------------------------------------------------------------------


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 8.0, 30.0])
@pytest.mark.parametrize("colour", NOISE_COLOURS)
def test_noise_has_the_ratio_asked_for(snr_db: float, colour: float) -> None:
    speech = tone(500.0)
    noisy = add_noise(speech, 7 * coloured_noise(RATE, colour, generator()), snr_db)
    assert level_db(speech) - level_db(noisy - speech) == pytest.approx(snr_db, abs=0.01)


def test_noise_on_silence_and_silent_noise_are_nothing() -> None:
    silence = torch.zeros(100)
    assert torch.equal(add_noise(silence, torch.randn(100), 10.0), silence)
    assert torch.equal(add_noise(tone(500.0), torch.zeros(RATE), 10.0), tone(500.0))


@pytest.mark.parametrize("colour", NOISE_COLOURS)
def test_spectrum_of_the_noise_falls_as_its_colour_says(colour: float) -> None:
    noise = coloured_noise(1 << 17, colour, generator())
    assert noise.dtype == torch.float32
    assert noise.square().mean().item() == pytest.approx(1, abs=0.1)
    segments = noise.reshape(-1, 4096) * torch.hann_window(4096)
    power = torch.fft.rfft(segments).abs().square().mean(0)
    frequency = torch.arange(len(power))
    part = (frequency > 20) & (frequency < 1800)
    slope, _ = np.polyfit(frequency[part].log().numpy(), power[part].log().numpy(), 1)
    assert slope == pytest.approx(-colour, abs=0.1)


def test_gain_is_uniform_in_decibels() -> None:
    config = AugmentConfig(speed_factors=(1.0,), gain_db=6.0, noise_probability=0.0)
    wave, random, samples = WaveAugment(config, RATE), generator(), tone(500.0, 0.05)
    gains = [level_db(wave.apply(samples, 1.0, random)) - level_db(samples) for _ in range(400)]
    assert -6.001 <= min(gains) < -5.8
    assert 5.8 < max(gains) <= 6.001
    assert np.mean(gains) == pytest.approx(0, abs=0.6)  # 3.5 standard errors


def test_noise_of_an_utterance_is_within_the_configured_ratios() -> None:
    config = AugmentConfig(gain_db=0.0, noise_probability=1.0, noise_snr_db=(5.0, 7.0))
    wave, random, samples = WaveAugment(config, RATE), generator(), tone(500.0, 0.5)
    ratios = []
    for _ in range(100):
        noise = wave.apply(samples, 1.0, random) - samples
        ratios.append(level_db(samples) - level_db(noise))
    assert 4.99 <= min(ratios) < 5.2
    assert 6.8 < max(ratios) <= 7.01


def test_noise_comes_as_often_as_configured() -> None:
    config = AugmentConfig(gain_db=0.0, noise_probability=0.3)
    wave, random, samples = WaveAugment(config, 1000), generator(), torch.ones(10)
    noisy = sum(not torch.equal(wave.apply(samples, 1.0, random), samples) for _ in range(1000))
    assert noisy == pytest.approx(300, abs=60)


def test_noise_is_long_enough_for_any_utterance() -> None:
    config = AugmentConfig(gain_db=0.0, noise_probability=1.0)
    wave, samples = WaveAugment(config, 100), torch.ones(100 * 65)  # the stored noise lasts 20 s
    noisy = wave.apply(samples, 1.0, generator())
    assert noisy.shape == samples.shape
    assert (noisy != samples).all()


def test_everything_off_changes_no_bit() -> None:
    samples = torch.randn(4000)
    assert torch.equal(WaveAugment(OFF, RATE).apply(samples, 1.0, generator()), samples)
    log_mel = torch.randn(50, 8)
    assert torch.equal(spec_augment(log_mel, OFF, generator()), log_mel)


def test_same_seed_same_variation() -> None:
    config = AugmentConfig(noise_probability=1.0)
    samples = tone(500.0)

    def varied(seed: int, noise_seed: int = 1) -> Tensor:
        random = generator(seed)
        wave = WaveAugment(config, RATE, noise_seed)
        speed = wave.draw_speed(random)
        return spec_augment(wave.apply(samples, speed, random).unfold(0, 100, 100), config, random)

    assert torch.equal(varied(3), varied(3))
    others = [varied(4), varied(3, noise_seed=2)]
    assert not any(one.shape == varied(3).shape and torch.equal(one, varied(3)) for one in others)


# --- Masks ----------------------------------------------------------------------------------------


class Script:
    """Stands for a generator: gives the next number and checks the range it is asked for."""

    def __init__(self, draws: Sequence[tuple[int, int]]) -> None:
        self.draws = list(draws)

    def integers(self, high: int) -> int:
        expected, value = self.draws.pop(0)
        assert high == expected
        return value


def test_masks_by_pencil() -> None:
    config = AugmentConfig(frequency_masks=1, frequency_mask_bands=3, time_masks=2,
                           time_mask_frames=5, time_mask_share=0.7)  # fmt: skip
    # 10 frames, 8 bands. A band mask of 0 to 3, here 2, at one of 7 places, here the last. Two
    # masks of at most 10 * 0.7 / 2 = 3 frames: 3 at the last of 8 places, 1 at the first of 10.
    script = Script([(4, 2), (7, 6), (4, 3), (8, 7), (4, 1), (10, 0)])
    log_mel = torch.ones(10, 8)
    masked = spec_augment(log_mel, config, script)  # type: ignore[arg-type]
    assert not script.draws
    expected = torch.ones(10, 8)
    expected[:, 6:] = 0
    expected[7:] = 0
    expected[0] = 0
    assert torch.equal(masked, expected)
    assert log_mel.all()  # the input is as it was


@given(
    st.integers(1, 200), st.integers(1, 12), st.integers(0, 6), st.integers(0, 50),
    st.floats(0, 1), st.integers(0, 3), st.integers(0, 20), st.integers(0, 99),
)  # fmt: skip
@settings(deadline=None, max_examples=150)
def test_masks_keep_their_limits(
    frames: int, bands: int, time_masks: int, mask_frames: int, share: float,
    band_masks: int, mask_bands: int, seed: int,
) -> None:  # fmt: skip
    config = AugmentConfig(
        time_masks=time_masks, time_mask_frames=mask_frames, time_mask_share=share,
        frequency_masks=band_masks, frequency_mask_bands=mask_bands,
    )  # fmt: skip
    masked = spec_augment(torch.ones(frames, bands), config, generator(seed))
    # Time masks cover whole frames, frequency masks whole bands: all else is as it was.
    whole_frames = (masked == 0).all(1)
    whole_bands = (masked == 0).all(0)
    assert torch.equal(masked == 0, whole_frames[:, None] | whole_bands[None, :])
    if not whole_bands.all():
        assert whole_frames.sum() <= min(frames * share, time_masks * mask_frames)
    if not whole_frames.all():
        assert whole_bands.sum() <= band_masks * mask_bands


def test_masks_reach_every_place() -> None:
    config = AugmentConfig()
    random, hits = generator(), torch.zeros(60, 30)
    for _ in range(400):
        hits += spec_augment(torch.ones(60, 30), config, random) == 0
    assert (hits > 0).all()


def test_edges_are_silence_of_a_room_around_the_same_samples() -> None:
    config = dataclasses.replace(OFF, edge_seconds=0.5)
    wave = WaveAugment(config, 1000)
    varied = [wave.apply(torch.ones(400), 1.0, generator(n)) for n in range(200)]
    added = torch.tensor([len(samples) - 400 for samples in varied])
    assert 0 <= int(added.min()) < 10
    assert 800 < int(added.max()) <= 1000
    assert float((added == 0).float().mean()) == pytest.approx(0.25, abs=0.1)  # neither end
    for samples in varied:
        loud = samples > 0.5
        assert int(loud.sum()) == 400
        first = int(loud.nonzero()[0])
        assert bool(loud[first : first + 400].all())
        assert float(samples[~loud].abs().sum()) > 0 or len(samples) == 400  # not digital silence


def test_bands_are_warped_and_filtered_as_asked() -> None:
    ramp = torch.arange(40.0).repeat(5, 1)  # a band's value is its number
    warp = dataclasses.replace(OFF, band_warp=0.2)
    warped = torch.stack([spec_augment(ramp, warp, generator(n)) for n in range(50)])
    factors = warped[:, :, 1:30] / ramp[:, 1:30]
    assert factors.std((1, 2)).max() < 1e-5  # one factor for the whole utterance
    means = factors.mean((1, 2))
    assert 0.8 <= float(means.min()) < 0.85
    assert 1.15 < float(means.max()) <= 1.2
    flat = torch.zeros(5, 40)
    config = dataclasses.replace(OFF, equaliser=0.5)
    curves = torch.stack([spec_augment(flat, config, generator(n)) for n in range(300)])
    assert torch.equal(curves[:, 0], curves[:, 4])  # one filter for the whole utterance
    assert curves[:, 0].diff(dim=1).abs().max() < 0.5  # smooth
    # Three half-waves of variance 1, 1/2 and 1/3, each half as much over the bands.
    assert float(curves.var()) == pytest.approx(0.5**2 * (1 + 1 / 2 + 1 / 3) / 2, rel=0.2)
    assert torch.equal(spec_augment(ramp, OFF, generator()), ramp)
