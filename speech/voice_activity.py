"""Where in a recording somebody may be speaking; when in doubt, there.

A frame's level is taken in bands, and each band's floor is the quietest tenth of a second within
five seconds around: what stays at its floor is silence or steady noise, hum or a held tone. Speech
rises above the floor in several bands at once, and for longer than a click (Sohn, Kim & Sung,
"A statistical model-based voice activity detection", 1999, also average over bands what a frame
has more than the noise; the floor follows Martin's minimum statistics, 1994).

The detector keeps audio out of the network, it does not tell speech from music: what changes as
fast as speech is left for the network to hear.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

FRAME_SECONDS = 0.02
FLOOR_SECONDS = 5.0  # to either side: the floor is the quietest place within
FLOOR_FRAMES = 5  # that place is so long
SHORTEST_FLOOR_SECONDS = 4.0  # in less audio speech may have no pause that shows the floor
EXCESS_DB = 5.0  # mean over the bands, above the floor
MEDIAN_FRAMES = 7  # over which it is the median: a click is no voice
SILENCE_DB = -80.0  # of full scale, in one band: no floor lies lower
BANDS = 8
LOWEST_HZ, HIGHEST_HZ = 120.0, 6000.0
_MOST_EXCESS_DB = 30.0  # one loud band is no speech
_TINY = 1e-12  # power far below SILENCE_DB
_PIECE_FRAMES = 256  # whose spectra are in memory at a time

Voice = NDArray[np.bool_]


class VoiceDetector:
    """Decides frame by frame, in audio that comes in pieces; how it was cut changes nothing.

    Frame i lies at samples ``i * frame_samples`` to ``(i + 1) * frame_samples``. Decisions come
    some seconds late, when what is around has been seen; no more than those seconds are kept.
    """

    def __init__(self, sample_rate: int, excess_db: float = EXCESS_DB) -> None:
        """Take audio of a rate; `excess_db` is what makes a frame voice."""
        self._excess_db = excess_db
        self.frame_samples = round(FRAME_SECONDS * sample_rate)
        self._window = np.hanning(2 * self.frame_samples).astype(np.float32)
        self._edges = _band_edges(sample_rate, len(self._window))
        self._reach = round(FLOOR_SECONDS / FRAME_SECONDS)
        self._samples = np.zeros(0, np.float32)  # of frames that are not whole
        # The neighbours of a median; before the recording there is silence.
        self._excess = np.zeros(MEDIAN_FRAMES // 2, np.float32)
        self._levels = np.zeros((0, BANDS), np.float32)
        self._first = 0  # frame of the first level kept
        self._decided = 0  # frames

    def push(self, samples: NDArray[np.float32]) -> Voice:
        """Take samples (S,); return the decisions that are now possible, following the last."""
        self._samples = np.concatenate([self._samples, samples])
        count = max(0, len(self._samples) // self.frame_samples - 1)
        self._take_levels(count)
        known = self._first + len(self._levels)
        return self._median(self._excess_until(known - self._reach - FLOOR_FRAMES), False)

    def finish(self) -> Voice:
        """Return the decisions that are left; a last frame may reach beyond the audio."""
        count = -(-len(self._samples) // self.frame_samples)
        missing = (count + 1) * self.frame_samples - len(self._samples)
        self._samples = np.pad(self._samples, (0, missing))
        self._take_levels(count)
        return self._median(self._excess_until(self._first + len(self._levels)), True)

    def _take_levels(self, count: int) -> None:
        """Add the band levels in dB (count, BANDS) of the first frames that wait."""
        if not count:
            return
        frames = sliding_window_view(self._samples, len(self._window))[:: self.frame_samples]
        pieces = [frames[n : min(n + _PIECE_FRAMES, count)] for n in range(0, count, _PIECE_FRAMES)]
        self._levels = np.concatenate([self._levels, *map(self._band_levels, pieces)])
        self._samples = self._samples[count * self.frame_samples :]

    def _band_levels(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the levels in dB (T, BANDS) of windows of samples (T, window)."""
        spectra = np.fft.rfft(frames * self._window)
        power = np.square(np.abs(spectra)) * (4 / np.square(self._window.sum()))
        bands = np.add.reduceat(power, self._edges, axis=1)[:, :BANDS]
        return np.asarray(10 * np.log10(bands + _TINY), np.float32)

    def _excess_until(self, end: int) -> NDArray[np.float32]:
        """Return how far the frames up to `end` rise above the floor, mean over bands, in dB."""
        if end <= self._decided:
            return np.zeros(0, np.float32)
        floor = self._floor(self._decided, end)
        levels = self._levels[self._decided - self._first : end - self._first]
        excess = np.clip(levels - np.maximum(floor, SILENCE_DB), 0, _MOST_EXCESS_DB).mean(axis=1)
        self._decided = end
        keep = max(self._first, end - self._reach)
        self._levels, self._first = self._levels[keep - self._first :], keep
        return np.asarray(excess)

    def _floor(self, start: int, end: int) -> NDArray[np.float32]:
        """Return the lowest level of each band (end - start, BANDS) within reach of each frame."""
        if len(self._levels) * FRAME_SECONDS < SHORTEST_FLOOR_SECONDS:
            return np.full((end - start, BANDS), SILENCE_DB, np.float32)
        quiet = sliding_window_view(self._levels, FLOOR_FRAMES, axis=0).mean(axis=-1)
        offset = start - self._first
        before = np.full((max(0, self._reach - offset), BANDS), np.inf, np.float32)
        around = np.concatenate([before, quiet[max(0, offset - self._reach) :]])
        wanted = end - start + 2 * self._reach
        after = np.full((max(0, wanted - len(around)), BANDS), np.inf, np.float32)
        around = np.concatenate([around, after])[:wanted]
        return _sliding_min(around, 2 * self._reach + 1)

    def _median(self, excess: NDArray[np.float32], is_last: bool) -> Voice:
        """Return whether the median of each frame and its neighbours is voice, as far as known."""
        side = MEDIAN_FRAMES // 2
        end = np.zeros(side if is_last else 0, np.float32)
        around = np.concatenate([self._excess, excess, end])
        self._excess = around[max(0, len(around) - 2 * side) :]
        if len(around) < MEDIAN_FRAMES:
            return np.zeros(0, bool)
        medians = np.median(sliding_window_view(around, MEDIAN_FRAMES), axis=1)
        return np.asarray(medians > self._excess_db)


def _band_edges(sample_rate: int, window_samples: int) -> NDArray[np.int64]:
    """Return the first bin of each band, and the one behind the last: equal steps of pitch."""
    highest = min(HIGHEST_HZ, 0.45 * sample_rate)
    hz = np.geomspace(LOWEST_HZ, highest, BANDS + 1)
    bins = np.round(hz * window_samples / sample_rate).astype(np.int64)
    return np.maximum.accumulate(np.maximum(bins, bins[0] + np.arange(BANDS + 1)))


def _sliding_min(values: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Return the minimum of each `width` consecutive rows, in steps that double."""
    covered = 1
    while covered < width:
        step = min(covered, width - covered)
        values = np.minimum(values[:-step], values[step:])
        covered += step
    return values
