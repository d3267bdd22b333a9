"""Log-probs of audio that arrives in pieces.

A network of one direction computes exactly what it computes of the whole: convolutions get the
frames that they reach to, layers go on from their state, a look-ahead waits for what it sees. A
bidirectional one is latency-controlled (Zhang et al., "Highway long short-term memory RNNs for
distant speech recognition", 2016): forward layers carry their state on as well, backward ones begin
LOOKAHEAD_SECONDS behind each chunk, which is what that costs in latency; what it costs in errors
``speech measure-stream`` measures.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speech.checkpoint import Model
from speech.errors import ConfigError
from speech.features import FeatureStream
from speech.layers import RecurrentLayer, State
from speech.model import AcousticModel

CHUNK_SECONDS = 0.64  # of a bidirectional network; one of one direction takes what comes
LOOKAHEAD_SECONDS = 0.96

Samples = NDArray[np.float32]
LogProbs = NDArray[np.float32]


def streams_exactly(model: Model) -> bool:
    """Whether a `NetworkStream` of a model computes what the network computes of the whole."""
    config = model.config.model
    return config.cell != "feedforward" and not config.bidirectional


class NetworkStream:
    """One utterance on its way through a network; keeps no more than a chunk with what is ahead.

    Raises `ConfigError` for feed-forward layers.
    """

    def __init__(
        self,
        model: Model,
        chunk_seconds: float = CHUNK_SECONDS,
        lookahead_seconds: float = LOOKAHEAD_SECONDS,
    ) -> None:
        layers = list(model.network.layers)
        if not all(isinstance(layer, RecurrentLayer) for layer in layers):
            raise ConfigError("only recurrent networks stream, got model.cell = 'feedforward'")
        self._layers: list[RecurrentLayer] = layers  # type: ignore[assignment]
        self._network = model.network
        self._features = FeatureStream(model.extractor)
        self._subsampling = _SubsamplerStream(model)
        is_exact = streams_exactly(model)
        frames = 1 / model.seconds_per_frame
        self._chunk = 1 if is_exact else max(1, round(chunk_seconds * frames))
        self._lookahead = 0 if is_exact else round(lookahead_seconds * frames)
        self._takes_all = is_exact
        self._states: list[State | None] = [None] * len(self._layers)
        self._outputs = _LookaheadStream(self._network)
        width = self._network.subsampler.output_size
        self._waiting = next(self._network.parameters()).new_zeros(0, width)  # subsampled

    @property
    def latency_frames(self) -> int:
        """Output frames that must follow before a chunk's first is computed, at most."""
        return self._chunk + self._lookahead

    def push(self, samples: Samples) -> LogProbs:
        """Take samples (S,); return the log-probs (n, V) that they complete, n may be 0."""
        with torch.inference_mode():
            tensor = torch.from_numpy(samples).to(self._waiting.device)
            self._waiting = torch.cat(
                [self._waiting, self._subsampling.push(self._features.push(tensor))]
            )
            return self._compute(is_last=False)

    def finish(self) -> LogProbs:
        """Return the log-probs (n, V) that are left; nothing may be pushed afterwards."""
        with torch.inference_mode():
            last = self._subsampling.finish(self._features.finish())
            self._waiting = torch.cat([self._waiting, last])
            return self._compute(is_last=True)

    def _compute(self, is_last: bool) -> LogProbs:
        found = [np.zeros((0, self._network.output.out_features), np.float32)]
        while len(self._waiting) >= (1 if is_last else self.latency_frames):
            count = min(self._chunk, len(self._waiting))
            if self._takes_all or (is_last and len(self._waiting) <= self.latency_frames):
                count = len(self._waiting)
            ahead = self._waiting[: count + self._lookahead]
            self._waiting = self._waiting[count:]
            found.append(self._log_probs_of(self._outputs.push(self._layers_of(ahead, count))))
        if is_last:
            found.append(self._log_probs_of(self._outputs.finish()))
        return np.concatenate(found)

    def _layers_of(self, x: Tensor, count: int) -> Tensor:
        """Return (count, H) of the first frames of x (n, I), which sees all of x."""
        x = x[None]  # (n, I) -> (1, n, I)
        for number, layer in enumerate(self._layers):
            x, self._states[number] = layer.carry_on_chunk(x, self._states[number], count)
        return x[0, :count]

    def _log_probs_of(self, x: Tensor) -> LogProbs:
        network = self._network
        logits = network.output(network.norm(x))
        return np.asarray(logits.float().log_softmax(-1).cpu().numpy())


class _LookaheadStream:
    """What leaves the layers in pieces: each frame once, as soon as all that it sees is there."""

    def __init__(self, network: AcousticModel) -> None:
        self._lookahead = network.lookahead
        self._frames = network.output.weight.new_zeros(0, network.output.in_features)

    def push(self, x: Tensor) -> Tensor:
        """Take frames (n, H); return those (m, H) that they complete."""
        if self._lookahead is None:
            return x
        self._frames = torch.cat([self._frames, x])
        count = max(0, len(self._frames) - self._lookahead.frames)
        complete = self._lookahead.of_padded(self._frames[None])[0] if count else x[:0]
        self._frames = self._frames[count:]
        return complete

    def finish(self) -> Tensor:
        """Return the frames (m, H) that are left: they see zeros beyond the end."""
        ahead = self._lookahead.frames if self._lookahead is not None else 0
        return self.push(self._frames.new_zeros(ahead, self._frames.shape[1]))


class _SubsamplerStream:
    """The convolutions on frames that arrive in pieces: each output frame once, as of the whole."""

    def __init__(self, model: Model) -> None:
        self._subsampler = model.network.subsampler
        self._factor = model.config.model.subsampling
        self._reach = self._subsampler.reach
        self._frames = model.extractor.mean.new_zeros(0, model.config.features.mel_bands)
        self._first = 0  # output frame that the first frame kept belongs to
        self._done = 0  # output frames returned

    def push(self, log_mel: Tensor) -> Tensor:
        """Take frames (T, M); return the output frames (n, C * bands) that they complete."""
        self._frames = torch.cat([self._frames, log_mel])
        seen = self._first * self._factor + len(self._frames)
        return self._outputs(max(self._done, (seen - 1 - self._reach) // self._factor + 1))

    def finish(self, log_mel: Tensor) -> Tensor:
        """Take the last frames; return the output frames that are left."""
        self._frames = torch.cat([self._frames, log_mel])
        seen = self._first * self._factor + len(self._frames)
        return self._outputs(max(self._done, -(-seen // self._factor)))

    def _outputs(self, end: int) -> Tensor:
        if end == self._done:
            return self._frames.new_zeros(0, self._subsampler.output_size)
        lengths = torch.tensor([len(self._frames)], device=self._frames.device)
        outputs, _ = self._subsampler(self._frames[None], lengths)
        new: Tensor = outputs[0, self._done - self._first : end - self._first]
        self._done = end
        first = max(self._first, end - -(-self._reach // self._factor))
        self._frames = self._frames[(first - self._first) * self._factor :]
        self._first = first
        return new
