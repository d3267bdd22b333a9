"""The signal-to-noise ratio of a recording, estimated from the energies of its frames.

Speech pauses: in natural speech a tenth of the short frames and more hold no speech. The noise is
taken to be what these quietest frames hold, throughout the recording, and the rest of the power to
be speech, in the manner of NIST's ``stnr -quick``, which reads noise and signal off the histogram
of frame energies. So the figure is too low where a recording is cut tight around its words, and it
says nothing about noise that comes and goes or about an echo. On mixtures of pausing speech with
white noise it is right within 1 dB from -5 to 40 dB; the power of pink noise wavers more from frame
to frame, and ratios below 5 dB then come out too high.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

FRAME_SECONDS = 0.03
NOISE_QUANTILE = 0.1
NORMAL_QUANTILE = -1.2816  # of a standard normal variable at NOISE_QUANTILE
FEWEST_FRAMES = 10
# Beyond these the estimate says no more than "hardly any speech" and "hardly any noise".
LOWEST_DB, HIGHEST_DB = -10.0, 60.0


def signal_to_noise_db(blocks: Iterable[NDArray[np.float32]], sample_rate: int) -> float | None:
    """The ratio in dB of the samples (S,) of all blocks, within -10 to 60; None where unknown.

    Unknown is the ratio of less than 0.3 s, and of silence. The power of Gaussian noise in frames
    of n samples has a standard deviation of sqrt(2 / n) of its mean: the quantile is corrected for
    the share by which it lies below the mean.
    """
    frame_samples = round(FRAME_SECONDS * sample_rate)
    powers = np.concatenate([np.zeros(0), *(_frame_powers(b, frame_samples) for b in blocks)])
    if len(powers) < FEWEST_FRAMES or not powers.any():
        return None
    bias = 1 + NORMAL_QUANTILE * math.sqrt(2 / frame_samples)
    noise = float(np.quantile(powers, NOISE_QUANTILE)) / bias
    speech = float(powers.mean()) - noise
    if noise <= 0:
        return HIGHEST_DB
    if speech <= 0:
        return LOWEST_DB
    return min(HIGHEST_DB, max(LOWEST_DB, 10 * math.log10(speech / noise)))


def _frame_powers(samples: NDArray[np.float32], frame_samples: int) -> NDArray[np.float64]:
    """Mean power of each whole frame, less that of a constant offset."""
    whole = len(samples) // frame_samples * frame_samples
    frames = samples[:whole].reshape(-1, frame_samples).astype(np.float64)
    offset = frames.mean() if whole else 0.0
    powers: NDArray[np.float64] = np.square(frames - offset).mean(axis=1)
    return powers
