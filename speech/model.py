"""The network: convolutional subsampling, stacked layers, linear layer, log-softmax.

Padding never leaks: the convolutions see zeros beyond an utterance's end, and the layers keep it
out as well (`speech.layers`). An utterance's log-probs are therefore the same alone as in any
batch, up to rounding.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor, nn

from speech.config import ModelConfig
from speech.errors import ConfigError
from speech.layers import (
    Lookahead,
    RecurrentLayer,
    frame_mask,
    init_rectified,
    layer_norm,
    linear_output,
    stack_layers,
)
from speech.tokenizer import BLANK

# Subsampling factor -> stride in time of the two convolutions.
_TIME_STRIDES = {1: (1, 1), 2: (2, 1), 3: (3, 1), 4: (2, 2), 6: (3, 2), 8: (4, 2)}
_BAND_STRIDE = 2
_FRAMES_AT_ONCE = 1500  # of log-mel in a convolution without gradients: 15 s


def output_length(frames: int, subsampling: int) -> int:
    """Return T', the output frames of an utterance of `frames` log-mel frames."""
    return -(-frames // subsampling)


class Encoder(nn.Module):
    """Map log-mel frames to what the layers make of them; networks add their own output.

    Initialisation. Recurrent weights start as ``recurrent_init`` says, gate by gate; by default
    orthogonal (Saxe et al., 2014): a product of orthogonal matrices neither shrinks nor grows what
    passes through it, so gradients start without vanishing or exploding. Input weights are
    Xavier-uniform (Glorot & Bengio, 2010, eq. 16) over one gate's fan. The forget gate's bias
    starts at ``forget_bias``, 1 by default, so that the cell remembers until it learns what to
    forget (Jozefowicz et al., 2015).
    """

    def __init__(self, config: ModelConfig, mel_bands: int) -> None:
        super().__init__()
        self.config = config
        self.subsampler = ConvSubsampler(config.subsampling, config.conv_channels, mel_bands)
        self.layers, width = stack_layers(
            self.subsampler.output_size, config.layers, config, config.context_frames
        )
        ahead = config.lookahead_frames
        self.lookahead = Lookahead(width, ahead) if ahead else None
        self.norm = layer_norm(width, config)
        self.encoded_size = width

    def encode(self, log_mel: Tensor, log_mel_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, T', encoded_size), normalised, and lengths (B,) from (B, T, M) and (B,)."""
        x, lengths = self.subsampler(log_mel, log_mel_lengths)
        for layer in self.layers:
            x = layer(x, lengths)
        if self.lookahead is not None:
            x = self.lookahead(x, lengths)
        return self.norm(x), lengths


class AcousticModel(Encoder):
    """Map log-mel frames to log-probabilities of tokens."""

    def __init__(self, config: ModelConfig, mel_bands: int, vocabulary_size: int) -> None:
        super().__init__(config, mel_bands)
        self.output = linear_output(self.encoded_size, vocabulary_size)

    def forward(self, log_mel: Tensor, log_mel_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``log_probs`` (B, T', V) float32, normalised, and ``log_prob_lengths`` (B,).

        `log_mel` is (B, T, M), `log_mel_lengths` (B,) int64. Frames beyond an utterance's length
        hold no meaning, in the input as in the output.
        """
        x, lengths = self.encode(log_mel, log_mel_lengths)
        return self.output(x).float().log_softmax(-1), lengths

    def truncate_gradients(self, frames: int) -> None:
        """In training, let gradients travel back at most `frames` output frames; 0: all the way.

        Raises `ConfigError` for a network that is not recurrent in one direction.
        """
        if not frames:
            return
        for layer in self.layers:
            if not isinstance(layer, RecurrentLayer) or layer.backwards is not None:
                raise ConfigError(
                    f"train.bptt_frames = {frames} needs a recurrent network of one direction, got "
                    f"model.cell = {self.config.cell!r}, "
                    f"model.bidirectional = {str(self.config.bidirectional).lower()}"
                )
            layer.bptt_frames = frames


class UtteranceClassifier(Encoder):
    """Map log-mel frames to log-probabilities of classes, one for the utterance: many to one.

    Its output frames become one vector by their mean, by a mean that attends to some more than to
    others, or by what each direction says when it has heard everything (`pooling`, one of
    `speech.classifier_config.POOLINGS`).
    """

    def __init__(self, config: ModelConfig, mel_bands: int, classes: int, pooling: str) -> None:
        super().__init__(config, mel_bands)
        self.output = linear_output(self.encoded_size, classes)
        self.pool = Attention(self.encoded_size) if pooling == "attention" else _POOLINGS[pooling]

    def forward(self, log_mel: Tensor, log_mel_lengths: Tensor) -> Tensor:
        """Return ``log_probs`` (B, V) float32, normalised, of V classes."""
        x, lengths = self.encode(log_mel, log_mel_lengths)
        pooled = self.pool(x, lengths, _is_halved(self.config))
        return nn.functional.log_softmax(self.output(pooled).float(), -1)


def _is_halved(config: ModelConfig) -> bool:
    """Whether the second half of a layer's output is what the backward direction says."""
    return config.bidirectional and config.cell != "feedforward"


def _mean_of_frames(x: Tensor, lengths: Tensor, is_halved: bool) -> Tensor:
    """Return the mean (B, H) of each utterance's own frames of (B, T', H)."""
    own = frame_mask(lengths.to(x.device), x.shape[1])[:, :, None]
    # Not a product: that would keep a NaN of the padding.
    return x.masked_fill(~own, 0.0).sum(1) / lengths.to(x.device)[:, None]


def _last_of_frames(x: Tensor, lengths: Tensor, is_halved: bool) -> Tensor:
    """Return the last own frame (B, H) of (B, T', H); of the backward half the first one."""
    last = x[torch.arange(len(x), device=x.device), lengths.to(x.device) - 1]
    if not is_halved:
        return last
    half = x.shape[2] // 2
    return torch.cat([last[:, :half], x[:, 0, half:]], -1)


class Attention(nn.Module):
    """A weighted mean of frames: how much each counts is learned from what the layers say of it.

    The weights are a softmax over the utterance's own frames (Raffel & Ellis, 2015, eq. 1-2, with a
    linear score); they start equal.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.score = nn.Linear(size, 1, bias=False)  # a bias would change no weight
        nn.init.zeros_(self.score.weight)

    def forward(self, x: Tensor, lengths: Tensor, is_halved: bool) -> Tensor:
        """Return the weighted mean (B, H) of each utterance's own frames of (B, T', H)."""
        own = frame_mask(lengths.to(x.device), x.shape[1])[:, :, None]
        x = x.masked_fill(~own, 0.0)  # not a product: that would keep a NaN of the padding
        weights = self.score(x).masked_fill(~own, -torch.inf).softmax(1)
        pooled: Tensor = (weights * x).sum(1)
        return pooled


_POOLINGS = {"mean": _mean_of_frames, "last": _last_of_frames}


def count_parameters(config: ModelConfig, mel_bands: int, vocabulary_size: int) -> int:
    """Return how many weights a network has."""
    network = AcousticModel(config, mel_bands, vocabulary_size)
    return sum(parameter.numel() for parameter in network.parameters())


def match_parameters(
    config: ModelConfig, target: int, mel_bands: int, vocabulary_size: int
) -> ModelConfig:
    """Return the network with so many units a layer that its weights are nearest to `target`.

    Weights are a polynomial of second degree in the units, which three small networks determine.
    Raises `ConfigError` where even one unit a layer has more weights than twice the target.
    """

    def count(hidden: int) -> int:
        resized = dataclasses.replace(config, hidden=hidden)
        with torch.random.fork_rng(devices=()):  # whoever seeded torch has not asked for draws
            return count_parameters(resized, mel_bands, vocabulary_size)

    sizes = (1, 2, 3)
    coefficients = np.polyfit(sizes, [count(size) for size in sizes], 2).round()
    roots = np.roots(coefficients - [0, 0, target])
    near = [max(1, int(root.real) + step) for root in roots for step in (0, 1)]
    best = min(near, key=lambda hidden: abs(np.polyval(coefficients, hidden) - target))
    if np.polyval(coefficients, best) > 2 * target:
        raise ConfigError(
            f"no {config.cell} network of {config.layers} layers has {target} weights: what stands "
            f"around the layers has more (model.conv_channels = {config.conv_channels})"
        )
    return dataclasses.replace(config, hidden=best)


def ctc_losses(log_probs: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor) -> Tensor:
    """Return the CTC loss (B,) in nats of each utterance (Graves et al., 2006, eq. 8).

    `log_probs` is (B, T', V); `tokens` (sum of L,) joins the labels of all utterances.
    """
    return nn.functional.ctc_loss(
        log_probs.transpose(0, 1),  # (B, T', V) -> (T', B, V), as PyTorch's loss takes it
        tokens, lengths, token_lengths, blank=BLANK, reduction="none",
    )  # fmt: skip


def consistency_losses(log_probs: Tensor, lengths: Tensor) -> Tensor:
    """Return (B,) in nats: how far two views of each utterance disagree, summed over its frames.

    `log_probs` (2 B, T', V) holds the first views, then the second ones; `lengths` is (2 B,). Each
    view learns from the other as it stands: the mean of both Kullback-Leibler divergences, whose
    first distribution takes no gradient (CR-CTC, Yao et al., 2024, eq. 5).
    """
    padding = ~frame_mask(lengths.to(log_probs.device), log_probs.shape[1])
    # Before anything is computed of it, so that no NaN of the padding reaches a gradient.
    one, other = log_probs.masked_fill(padding[:, :, None], 0.0).chunk(2)
    divergences = [
        nn.functional.kl_div(a, b.detach(), reduction="none", log_target=True).sum((1, 2))
        for a, b in ((one, other), (other, one))
    ]
    return torch.stack(divergences).mean(0)


class ConvSubsampler(nn.Module):
    """Two 2-d convolutions with ReLU that shorten time by `factor` and frequency by four."""

    def __init__(self, factor: int, channels: int, mel_bands: int) -> None:
        super().__init__()
        self.strides = _TIME_STRIDES[factor]
        sizes = [1, channels, channels]
        self.convolutions = nn.ModuleList()
        for n, stride in enumerate(self.strides):
            kernel = (2 * stride + 1, 3)  # odd: with half a kernel of padding, ceil(T / stride)
            padding = (stride, 1)
            self.convolutions.append(
                nn.Conv2d(sizes[n], sizes[n + 1], kernel, (stride, _BAND_STRIDE), padding)
            )
        bands = output_length(output_length(mel_bands, _BAND_STRIDE), _BAND_STRIDE)
        self.output_size = channels * bands
        for convolution in self.convolutions:
            init_rectified(convolution.get_parameter("weight"))
            nn.init.zeros_(convolution.get_parameter("bias"))

    @property
    def reach(self) -> int:
        """Log-mel frames that output frame t sees on either side of frame ``factor * t``."""
        first, second = self.strides
        return first * second + first

    def forward(self, log_mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, T', C * bands) and lengths (B,) from (B, T, M) and (B,)."""
        if torch.is_grad_enabled() or log_mel.device.type != "cpu":
            return self._convolve(log_mel, lengths)
        # Between the convolutions stands by far the most that the network ever holds.
        rows = max(1, _FRAMES_AT_ONCE // max(1, log_mel.shape[1]))
        parts = zip(torch.split(log_mel, rows), torch.split(lengths, rows), strict=True)
        found = [self._convolve(*part) for part in parts]
        return torch.cat([x for x, _ in found]), torch.cat([lengths for _, lengths in found])

    def _convolve(self, log_mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        x = log_mel.unsqueeze(1)  # (B, 1, T, M)
        for stride, convolution in zip(self.strides, self.convolutions, strict=True):
            own = frame_mask(lengths, x.shape[2])[:, None, :, None]
            # Not a product: that would keep a NaN of the padding.
            x = convolution(x.masked_fill(~own, 0.0)).relu_()
            lengths = (lengths + stride - 1) // stride
        return x.transpose(1, 2).flatten(2), lengths  # (B, C, T', bands) -> (B, T', C * bands)
