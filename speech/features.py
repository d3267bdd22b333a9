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
_GROUP_BANDS = 16


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
        self._groups = _band_groups(weights)
        self.register_buffer("mean", torch.zeros(config.mel_bands))
        self.register_buffer("deviation", torch.ones(config.mel_bands))

    def log_mel(self, samples: Tensor) -> Tensor:
        """Return raw log-mel frames (T, M) of one utterance (S,), before normalisation."""
        if samples.ndim != 1 or samples.numel() == 0:
            raise AudioError(f"features need samples of shape (S,), S > 0, got {samples.shape}")
        frames = num_frames(samples.numel(), self.config)
        whole = self.config.n_fft + (frames - 1) * self.config.hop_samples
        padded = nn.functional.pad(samples, (0, whole - samples.numel()))
        windows = padded.unfold(0, self.config.n_fft, self.config.hop_samples)
        log_mel = padded.new_empty(frames, self.config.mel_bands)
        block = _BLOCK_FRAMES if padded.device.type == "cpu" else frames
        with torch.autocast(samples.device.type, enabled=False):  # it would halve the mel's bits
            for start in range(0, frames, block):
                self._mel_power(windows[start : start + block], log_mel[start : start + block])
        return log_mel.clamp_(min=self.config.log_floor).log_()

    def _mel_power(self, windows: Tensor, power: Tensor) -> None:
        """Fill `power` (n, M) with that of samples (n, n_fft), a frame a row."""
        spectrum = torch.view_as_real(torch.fft.rfft(windows * self.window))  # (n, bins, 2)
        square = spectrum[..., 0].square().addcmul_(spectrum[..., 1], spectrum[..., 1])
        for bins, bands in self._groups:
            torch.mm(square[:, bins], self.mel_weights[bins, bands], out=power[:, bands])

    def normalise(self, log_mel: Tensor) -> Tensor:
        """Return (T, M) with the moving mean taken off and the training deviation divided out."""
        return (log_mel - self._moving_mean(log_mel)).div_(self.deviation)

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
        total = log_mel.double().cumsum(0)  # double: differences of long sums stay exact enough
        total[window:] = total[window:] - total[:-window].clone()
        seen = torch.arange(1, len(log_mel) + 1, device=log_mel.device).clamp(max=window)
        prior = (window - seen).clamp(max=self.config.mean_prior_frames)
        share = 1.0 / (seen + prior).double()  # of one frame in the mean
        return total.mul_(share[:, None]).addr_(prior * share, self.mean.double()).float()


def _band_groups(weights: Tensor) -> list[tuple[slice, slice]]:
    """Return the bins and bands of groups of neighbouring bands; other bins have no weight there.

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
