"""Variations of training speech: speed, level and noise on samples, masks on log-mel frames.

Every draw comes from a generator that the caller seeds per utterance and epoch: what is drawn does
not depend on the order of loading, on the number of workers, or on a restart in mid-epoch.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torchaudio.transforms
from torch import Tensor

from speech.config import AugmentConfig

NOISE_COLOURS = (0.0, 1.0, 2.0)  # white, pink, brown: power falls as 1 / f ** colour
_NOISE_SECONDS = 20  # length of the noise that utterances cut theirs from
_EQUALISER_WAVES = 3  # half-waves of a random filter's curve over the bands
_ROOM_SNR_DB = (25.0, 60.0)  # of a quiet room, over the whole recording
_SPEED_STEP = 100  # speed factors are taken in hundredths


def perturb_speed(samples: Tensor, factor: float) -> Tensor:
    """Return (S / factor,) samples played `factor` times as fast (Ko et al., Interspeech 2015)."""
    new, old = _SPEED_STEP, round(factor * _SPEED_STEP)
    if new == old:
        return samples
    faster: Tensor = _resampler(old, new)(samples)
    return faster


@lru_cache(maxsize=64)
def _resampler(old: int, new: int) -> torchaudio.transforms.Resample:
    """Return what resamples; to make its filter takes longer than to resample a word."""
    return torchaudio.transforms.Resample(old, new, dtype=torch.float32)


def add_noise(samples: Tensor, noise: Tensor, snr_db: float) -> Tensor:
    """Return `samples` (S,) plus `noise` (S,) at a signal-to-noise ratio of `snr_db` over both."""
    speech_power, noise_power = samples.square().mean(), noise.square().mean()
    scale = (speech_power / noise_power.clamp(min=1e-12) * 10 ** (-snr_db / 10)).sqrt()
    return samples + scale * noise


def coloured_noise(samples: int, colour: float, random: np.random.Generator) -> Tensor:
    """Return noise (S,) of unit power whose spectrum falls as 1 / frequency ** `colour`."""
    spectrum = np.fft.rfft(random.standard_normal(samples))
    frequency = np.maximum(np.arange(len(spectrum)), samples / 1000)  # flat below a thousandth
    noise = np.fft.irfft(spectrum * frequency ** (-colour / 2), samples)
    return torch.from_numpy((noise / noise.std()).astype(np.float32))


class WaveAugment:
    """Speed perturbation, gain, edges and noise on the samples of one utterance."""

    def __init__(self, config: AugmentConfig, sample_rate: int, seed: int = 0) -> None:
        self.config = config
        random = np.random.default_rng([seed, 0x4015E])
        length = _NOISE_SECONDS * sample_rate
        self._rate = sample_rate
        needed = config.noise_probability > 0 or config.edge_seconds > 0
        self._noises = [coloured_noise(length, c, random) for c in NOISE_COLOURS if needed]

    def draw_speed(self, random: np.random.Generator) -> float:
        """Return one of the configured speed factors."""
        return float(random.choice(self.config.speed_factors))

    def apply(self, samples: Tensor, speed: float, random: np.random.Generator) -> Tensor:
        """Return a variation (S / speed,) of `samples` (S,), longer by the edges if there are."""
        samples = perturb_speed(samples, speed)
        gain_db = random.uniform(-self.config.gain_db, self.config.gain_db)
        samples = samples * 10 ** (gain_db / 20)
        if self.config.edge_seconds:
            samples = self._with_edges(samples, random)
        if random.random() < self.config.noise_probability:
            lowest, highest = self.config.noise_snr_db
            snr_db = random.uniform(lowest, highest)
            samples = add_noise(samples, self._cut_noise(len(samples), random), snr_db)
        return samples

    def _with_edges(self, samples: Tensor, random: np.random.Generator) -> Tensor:
        """Return `samples` (S,) with silence before and behind, in the faint noise of a room."""
        longest = self.config.edge_seconds
        before, after = (max(0.0, s) for s in random.uniform(-longest, longest, 2))
        edges = round(before * self._rate), round(after * self._rate)
        padded = torch.nn.functional.pad(samples, edges)
        noise = self._cut_noise(len(padded), random)
        return add_noise(padded, noise, random.uniform(*_ROOM_SNR_DB))

    def _cut_noise(self, length: int, random: np.random.Generator) -> Tensor:
        noise = self._noises[random.integers(len(self._noises))]
        start = int(random.integers(len(noise)))
        repeats = -(-(start + length) // len(noise))
        if repeats > 1:  # only then: it copies all of it
            noise = noise.repeat(repeats)
        return noise[start : start + length]


def spec_augment(log_mel: Tensor, config: AugmentConfig, random: np.random.Generator) -> Tensor:
    """Return (T, M) with bands of time and frequency set to 0, the mean after normalisation.

    SpecAugment (Park et al., Interspeech 2019) without time warping, after another voice and
    another microphone where the config asks for them; the number of time masks grows with the
    utterance and they cover at most ``time_mask_share`` of it (Park et al., ICASSP 2020).
    """
    frames, bands = log_mel.shape
    masked = _other_voice(log_mel, config, random)
    for _ in range(config.frequency_masks):
        width = int(random.integers(min(config.frequency_mask_bands, bands) + 1))
        start = int(random.integers(bands - width + 1))
        masked[:, start : start + width] = 0
    if config.time_masks == 0:
        return masked
    longest = min(config.time_mask_frames, int(frames * config.time_mask_share / config.time_masks))
    for _ in range(config.time_masks):
        width = int(random.integers(longest + 1))
        start = int(random.integers(frames - width + 1))
        masked[start : start + width] = 0
    return masked


def _other_voice(log_mel: Tensor, config: AugmentConfig, random: np.random.Generator) -> Tensor:
    """Return (T, M) as if from a vocal tract of another length, through another microphone.

    The bands are stretched or squeezed by up to ``band_warp`` (vocal tract length perturbation,
    Jaitly & Hinton, 2013), and a smooth random curve is added to them.
    """
    varied = log_mel.clone()
    bands = log_mel.shape[1]
    if config.band_warp:
        factor = 1 + random.uniform(-config.band_warp, config.band_warp)
        places = (torch.arange(bands) * factor).clamp(max=bands - 1)
        below = places.floor().long().clamp(max=bands - 2)
        share = places - below
        varied = torch.lerp(varied[:, below], varied[:, below + 1], share)
    if config.equaliser:
        waves = np.arange(1, _EQUALISER_WAVES + 1)
        heights = random.normal(0, config.equaliser / np.sqrt(waves))
        places_of_bands = (np.arange(bands)[:, None] + 0.5) * np.pi / bands
        curve = np.cos(places_of_bands * waves) @ heights
        varied = varied + torch.from_numpy(curve.astype(np.float32))
    return varied
