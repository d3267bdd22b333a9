"""Samples to normalised log-mel frames, in a form that a live stream computes just the same.

A frame is ``n_fft`` samples under a centred Hann window; frame ``i`` starts at sample ``i * hop``.
No frame looks beyond its own samples, and the end of the audio is padded with zeros until every
sample has been seen. Power is summed in mel bands (Slaney's scale and area normalisation, librosa's
default; Slaney, Auditory Toolbox, 1998) and the natural logarithm taken.

Normalisation is a causal moving mean per band, begun with the mean over the training set, as in
Kaldi's ``OnlineCmvn`` (Povey et al., The Kaldi Speech Recognition Toolkit, 2011); the scale is the
training set's standard deviation. It sees the past only, hence `FeatureStream` equals the whole.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torchaudio
from torch import Tensor, nn

from speech.config import FeatureConfig
from speech.errors import AudioError

# Computed at a time on a CPU: larger temporary tensors leave the cache, and cost fresh pages.
_BLOCK_FRAMES = 256
_GROUP_BANDS = 32
_MOST_SUMMED = 32  # frames that one matrix product adds up


def num_frames(samples: int, config: FeatureConfig) -> int:
    """Return T, the frames of an utterance of `samples` samples; at least 1."""
    beyond_first = max(0, samples - config.n_fft)
    return 1 + -(-beyond_first // config.hop_samples)


class FeatureExtractor(nn.Module):
    """Compute normalised log-mel features.

    Buffers ``mean`` and ``deviation``, both (M,), come from the training set (`fit`) and travel
    with the model's weights. Each utterance is computed by itself, so that its frames do not
    depend, in any bit, on what shares its batch; and in float32 also under autocast, so that they
    do not depend on the network's precision either.
    """

    window: Tensor  # (n_fft,), zero beside the Hann window in its middle
    mel_weights: Tensor  # (n_fft / 2 + 1, M)
    part_weights: Tensor  # (n_fft + 2, M), the same for real and imaginary part
    mean: Tensor
    deviation: Tensor

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        left = (config.n_fft - config.window_samples) // 2
        right = config.n_fft - config.window_samples - left
        window = nn.functional.pad(torch.hann_window(config.window_samples), (left, right))
        weights = torchaudio.functional.melscale_fbanks(
            config.n_fft // 2 + 1, config.min_hz, config.max_hz, config.mel_bands,
            config.sample_rate, norm="slaney", mel_scale="slaney",
        )  # fmt: skip
        # Derived from the config, not learned: they stay out of the weights on disk.
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("mel_weights", weights, persistent=False)
        self.register_buffer("part_weights", weights.repeat_interleave(2, 0), persistent=False)
        self._groups = _band_groups(self.part_weights)
        self.register_buffer("mean", torch.zeros(config.mel_bands))
        self.register_buffer("deviation", torch.ones(config.mel_bands))

    def log_mel(self, samples: Tensor) -> Tensor:
        """Return raw log-mel frames (T, M) of one utterance (S,), before normalisation."""
        if samples.ndim != 1 or samples.numel() == 0:
            raise AudioError(f"features need samples of shape (S,), S > 0, got {samples.shape}")
        frames = num_frames(samples.numel(), self.config)
        log_mel = samples.new_empty(frames, self.config.mel_bands)
        block = _BLOCK_FRAMES if samples.device.type == "cpu" else frames
        with torch.autocast(samples.device.type, enabled=False):  # it would halve the mel's bits
            for start in range(0, frames, block):
                power = log_mel[start : start + block]
                self._mel_power(self._windows(samples, start, len(power)), power)
        return log_mel.clamp_(min=self.config.log_floor).log_()

    def _windows(self, samples: Tensor, start: int, count: int) -> Tensor:
        """Return the samples (count, n_fft) of the frames from `start` on, zeros beyond the end."""
        hop, size = self.config.hop_samples, self.config.n_fft
        seen = samples[start * hop : (start + count - 1) * hop + size]
        missing = (count - 1) * hop + size - len(seen)
        if missing:
            seen = nn.functional.pad(seen, (0, missing))
        return seen.unfold(0, size, hop)

    def _mel_power(self, windows: Tensor, power: Tensor) -> None:
        """Fill `power` (n, M) with that of samples (n, n_fft), a frame a row."""
        spectrum = torch.view_as_real(torch.fft.rfft(windows * self.window))  # (n, bins, 2)
        # The mel product also adds up what is real and what is imaginary: to do that before, over
        # every other number, takes longer than the product itself.
        squares = spectrum.square_().flatten(1)
        for parts, bands in self._groups:
            torch.mm(squares[:, parts], self.part_weights[parts, bands], out=power[:, bands])

    def normalise(self, log_mel: Tensor) -> Tensor:
        """Return (T, M) with the moving mean taken off and the training deviation divided out."""
        mean = self._moving_mean(log_mel)
        return torch.sub(log_mel, mean, out=mean).div_(self.deviation)

    def extract(self, samples: Tensor) -> Tensor:
        """Return the normalised features (T, M) of one utterance (S,)."""
        return self.normalise(self.log_mel(samples))

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``log_mel`` (B, T, M), zero-padded, and ``log_mel_lengths`` (B,).

        `samples` is (B, S) and `lengths` (B,) says how many of each row are the utterance's own.
        """
        rows = zip(samples, lengths.tolist(), strict=True)
        return pad_features([self.extract(row[:length]) for row, length in rows])

    def fit(self, utterances: Iterable[Tensor]) -> None:
        """Set ``mean`` and ``deviation`` to those of the frames of sample vectors (S,).

        The deviation is that of the frames with their moving mean taken off.
        """
        log_mels = [self.log_mel(samples) for samples in utterances]
        self.mean.copy_(torch.cat(log_mels).mean(0))
        centred = torch.cat([frames - self._moving_mean(frames) for frames in log_mels])
        self.deviation.copy_(centred.std(0, unbiased=False).clamp(min=1e-3))

    def _moving_mean(self, log_mel: Tensor) -> Tensor:
        """Mean (T, M) of the last ``mean_window_frames``; the training mean fills a short past."""
        window = self.config.mean_window_frames
        mean = _moving_sum(log_mel, window)
        mean[window:].div_(window)
        begun = mean[:window]
        seen = torch.arange(1, len(begun) + 1, device=mean.device)
        prior = (window - seen).clamp_(max=self.config.mean_prior_frames)
        begun.addr_(prior.to(mean.dtype), self.mean).div_((seen + prior)[:, None])
        return mean


def _moving_sum(frames: Tensor, window: int) -> Tensor:
    """Return the sum (T, M) of the last `window` frames, of as many as there are.

    Between blocks in double, as differences of long sums must stay exact; within a block not.
    """
    size = max(n for n in range(1, _MOST_SUMMED + 1) if window % n == 0)
    bands = frames.shape[1]
    blocks = nn.functional.pad(frames, (0, 0, 0, -len(frames) % size)).view(-1, size, bands)
    with torch.autocast(frames.device.type, enabled=False):
        within = frames.new_ones(size, size).tril() @ blocks  # up to each frame of its block
    ends = within[:, -1].double()
    before = ends.cumsum(0) - ends
    ago = window // size  # blocks
    before -= nn.functional.pad(before, (0, 0, ago, 0))[: len(before)]
    total = within + before.to(frames.dtype)[:, None]
    total[ago:] -= within[:-ago]
    return total.view(-1, bands)[: len(frames)]


def _band_groups(weights: Tensor) -> list[tuple[slice, slice]]:
    """Return the rows and bands of groups of neighbouring bands; other rows have no weight there.

    A band takes in few bins, so that products by groups are a fraction of one product with all.
    """
    groups = []
    for first in range(0, weights.shape[1], _GROUP_BANDS):
        bands = slice(first, min(first + _GROUP_BANDS, weights.shape[1]))
        used = weights[:, bands].abs().sum(1).nonzero().flatten().tolist() or [0]
        groups.append((slice(used[0], used[-1] + 1), bands))
    return groups


class FeatureStream:
    """The same features from audio that arrives in pieces; memory does not grow with the stream."""

    def __init__(self, extractor: FeatureExtractor) -> None:
        self._extractor = extractor
        self._samples = extractor.mean.new_zeros(0)  # not yet covered by a whole frame
        # Raw frames that the moving mean still sees.
        self._history = extractor.mean.new_zeros(0, extractor.config.mel_bands)

    def push(self, samples: Tensor) -> Tensor:
        """Return the frames (T, M) that `samples` (S,) complete; T may be 0."""
        config = self._extractor.config
        self._samples = torch.cat([self._samples, samples])
        frames = max(0, 1 + (len(self._samples) - config.n_fft) // config.hop_samples)
        if frames == 0:
            return self._history[:0]
        whole = config.n_fft + (frames - 1) * config.hop_samples
        log_mel = self._extractor.log_mel(self._samples[:whole])
        self._samples = self._samples[frames * config.hop_samples :]
        return self._normalise(log_mel)

    def finish(self) -> Tensor:
        """Return the last frames (T, M), the end padded with zeros as for a whole utterance."""
        config = self._extractor.config
        covered = config.n_fft - config.hop_samples if len(self._history) else 0
        if len(self._samples) <= covered:
            return self._history[:0]
        return self._normalise(self._extractor.log_mel(self._samples))

    def _normalise(self, log_mel: Tensor) -> Tensor:
        seen = torch.cat([self._history, log_mel])
        self._history = seen[-self._extractor.config.mean_window_frames :]
        return self._extractor.normalise(seen)[-len(log_mel) :]


def pad_features(features: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack (T_i, M) into (B, T, M), zero-padded at the end, with their lengths (B,) int64."""
    lengths = torch.tensor([len(frames) for frames in features], device=features[0].device)
    return nn.utils.rnn.pad_sequence(features, batch_first=True), lengths
