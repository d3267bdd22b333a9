"""The layers between subsampling and output: recurrent ones of every cell, and feed-forward ones.

Padding never leaks: normalisation works within a frame, the backward direction of a bidirectional
layer starts at each utterance's own last frame, and a window over frames sees zeros beyond it.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

# One output (1, B, H); of an LSTM layer output and cell.
State = Tensor | tuple[Tensor, Tensor]
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}  # of a recurrent cell: W_h is (G H, H)
_FORGET_GATE = 1  # of an LSTM's gates i, f, g, o
_SMALL_DEVIATION = 0.01  # of recurrent weights that start as small normal numbers


class LayerSettings(Protocol):
    """What a layer is made of; `ModelConfig` says what each means."""

    @property
    def cell(self) -> str:
        """One of `speech.config.CELLS`."""

    @property
    def hidden(self) -> int:
        """Units per direction."""

    @property
    def bidirectional(self) -> bool:
        """Whether it also reads backwards."""

    @property
    def projection(self) -> int:
        """Units of the linear layer behind it; 0: none."""

    @property
    def layer_norm(self) -> bool:
        """Whether its input is normalised."""

    @property
    def dropout(self) -> float:
        """Of its output."""

    @property
    def recurrent_init(self) -> str:
        """How recurrent weights start, one of `speech.config.RECURRENT_INITS`."""

    @property
    def forget_bias(self) -> float:
        """Initial bias of an LSTM's forget gate."""


class RecurrentLayer(nn.Module):
    """Layer normalisation, a cell in one or both directions, optional projection, dropout.

    With ``bptt_frames`` above zero, gradients in training travel no further back than to the last
    frame whose number is a multiple of it, while the state is carried on: truncated
    back-propagation through time (Williams & Peng, 1990), for layers of one direction.
    """

    def __init__(self, input_size: int, config: LayerSettings) -> None:
        super().__init__()
        self.norm = layer_norm(input_size, config)
        self.forwards = _recurrent(input_size, config)
        self.backwards = _recurrent(input_size, config) if config.bidirectional else None
        self.bptt_frames = 0
        units = config.hidden * (2 if config.bidirectional else 1)
        self.projection, self.output_size = _projection(units, config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return (B, T', output_size) from (B, T', input_size) and lengths (B,)."""
        x = self.norm(x)
        if self.training and self.bptt_frames:
            return self._leave(self._truncated(x))
        y, _ = self.forwards(x)
        if self.backwards is not None:
            # Two one-way passes over padded tensors: PyTorch's fused CPU kernel does not take
            # packed sequences, which are four times slower; reversal keeps padding behind speech.
            z, _ = self.backwards(reverse_padded(x, lengths))
            y = torch.cat([y, reverse_padded(z, lengths)], -1)
        return self._leave(y)

    def carry_on(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Return (B, L, output_size) from (B, L, input_size), and the state to go on from.

        For layers of one direction: what came before in `state` and now in `x` gives what all of
        it gives at once. No state: a beginning.
        """
        y, state = self.forwards(self.norm(x), state)
        return self._leave(y), state

    def carry_on_chunk(self, x: Tensor, state: State | None, count: int) -> tuple[Tensor, State]:
        """Return (B, L, output_size) from (B, L, input_size), and the state after `count` frames.

        What comes behind them is only looked at; a backward direction begins at its end.
        """
        x = self.norm(x)
        y, state = self.forwards(x[:, :count], state)
        if count < x.shape[1]:
            ahead, _ = self.forwards(x[:, count:], state)
            y = torch.cat([y, ahead], 1)
        if self.backwards is not None:
            z, _ = self.backwards(x.flip(1))
            y = torch.cat([y, z.flip(1)], -1)
        return self._leave(y), state

    def _truncated(self, x: Tensor) -> Tensor:
        """Return what the cell returns; no gradient goes from one piece of time to the one before.

        What is saved is the way of the gradient, not memory: CTC needs the whole utterance.
        """
        pieces, state = [], None
        for piece in torch.split(x, self.bptt_frames, 1):
            y, state = self.forwards(piece, state)
            state = (
                state.detach() if isinstance(state, Tensor) else tuple(s.detach() for s in state)
            )
            pieces.append(y)
        return torch.cat(pieces, 1)

    def _leave(self, y: Tensor) -> Tensor:
        dropped: Tensor = self.dropout(self.projection(y))
        return dropped


class FeedForwardLayer(nn.Module):
    """Layer normalisation, a linear layer over a window of frames, ReLU, projection, dropout.

    The window reaches `before` frames back and `after` frames ahead; with 0 and 0 each frame is by
    itself. Linear and ReLU are those of Hinton et al., 2012, deep networks on stacked frames.
    """

    def __init__(self, input_size: int, config: LayerSettings, before: int, after: int) -> None:
        super().__init__()
        self.norm = layer_norm(input_size, config)
        self.window = before, after
        self.linear = nn.Conv1d(input_size, config.hidden, before + 1 + after)
        self.projection, self.output_size = _projection(config.hidden, config)
        self.dropout = nn.Dropout(config.dropout)
        init_rectified(self.linear.weight)
        nn.init.zeros_(self.linear.get_parameter("bias"))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return (B, T', output_size) from (B, T', input_size) and lengths (B,)."""
        own = frame_mask(lengths, x.shape[1])[:, :, None]
        x = self.norm(x).masked_fill(~own, 0.0).transpose(1, 2)  # (B, T', I) -> (B, I, T')
        y = torch.relu(self.linear(nn.functional.pad(x, self.window))).transpose(1, 2)
        dropped: Tensor = self.dropout(self.projection(y))
        return dropped


def stack_layers(
    input_size: int, count: int, config: LayerSettings, context_frames: int = 0
) -> tuple[nn.ModuleList, int]:
    """Return so many layers, each on top of the one before, and the last one's output size.

    Of feed-forward layers the first one sees `context_frames` before its own.
    """
    layers, width = nn.ModuleList(), input_size
    for number in range(count):
        layer = _layer(width, config, 0 if number else context_frames)
        layers.append(layer)
        width = layer.output_size
    return layers, width


def _layer(width: int, config: LayerSettings, before: int) -> RecurrentLayer | FeedForwardLayer:
    if config.cell != "feedforward":
        return RecurrentLayer(width, config)
    return FeedForwardLayer(width, config, before, before if config.bidirectional else 0)


def layer_norm(size: int, config: LayerSettings) -> nn.Module:
    """Return what normalises frames of `size` units, or leaves them as they are."""
    return nn.LayerNorm(size) if config.layer_norm else nn.Identity()


def _projection(units: int, config: LayerSettings) -> tuple[nn.Module, int]:
    """Return the linear layer behind a layer, if there is one, and the size of its output."""
    if not config.projection:
        return nn.Identity(), units
    return nn.Linear(units, config.projection), config.projection


def linear_output(inputs: int, outputs: int) -> nn.Linear:
    """Return a linear layer with Xavier-uniform weights, the last one of a network."""
    output = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(output.weight)
    nn.init.zeros_(output.bias)
    return output


class Lookahead(nn.Module):
    """Let each unit see its own next frames: a convolution along one row of units.

    Row convolution of Deep Speech 2 (Amodei et al., 2016, eq. 9 of section 3.7): a layer of one
    direction sees a few frames of the future, for as much delay. It begins as the identity.
    """

    def __init__(self, units: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        weight = torch.zeros(1 + frames, units)
        weight[0] = 1.0
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return (B, T', H) from (B, T', H) and lengths (B,); zeros follow an utterance's end."""
        own = frame_mask(lengths.to(x.device), x.shape[1])[:, :, None]
        return self.of_padded(nn.functional.pad(x.masked_fill(~own, 0.0), (0, 0, 0, self.frames)))

    def of_padded(self, x: Tensor) -> Tensor:
        """Return (B, n, H) from (B, n + frames, H): the frames with all that they see."""
        count = x.shape[1] - self.frames
        y = self.weight[0] * x[:, :count]
        for n in range(1, 1 + self.frames):
            y = y + self.weight[n] * x[:, n : n + count]
        return y


def reverse_padded(x: Tensor, lengths: Tensor) -> Tensor:
    """Return (B, T', H) with the first ``lengths[b]`` frames of each row in reverse order."""
    steps = torch.arange(x.shape[1], device=x.device)[None, :]
    ends = lengths.to(x.device)[:, None]
    index = torch.where(steps < ends, ends - 1 - steps, steps)
    if not x.requires_grad:
        return _take(x, index)
    reverse: Tensor = _Permute.apply(x, index)  # type: ignore[no-untyped-call]
    return reverse


class _Permute(torch.autograd.Function):
    """Reorder frames by a permutation that is its own inverse, so that backward is forward.

    Autograd's own backward of an indexing adds up in case of repeated indices, which is slow.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        return _take(x, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return _take(gradients[0], index), None


def _take(x: Tensor, index: Tensor) -> Tensor:
    return x[torch.arange(len(x), device=x.device)[:, None], index]


def frame_mask(lengths: Tensor, size: int) -> Tensor:
    """Return a boolean (B, size), true where a frame belongs to its utterance of lengths (B,)."""
    return torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]


def _recurrent(input_size: int, config: LayerSettings) -> nn.RNNBase:
    """One one-way layer of the cell, its weights as `speech.model.AcousticModel` says."""
    layer = _new_recurrent(config.cell, input_size, config.hidden)
    with torch.no_grad():
        for gate in range(GATES[config.cell]):
            rows = slice(gate * config.hidden, (gate + 1) * config.hidden)
            init_recurrent(layer.get_parameter("weight_hh_l0")[rows], config.recurrent_init)
            nn.init.xavier_uniform_(layer.get_parameter("weight_ih_l0")[rows])
        nn.init.zeros_(layer.get_parameter("bias_ih_l0"))
        nn.init.zeros_(layer.get_parameter("bias_hh_l0"))
        if config.cell == "lstm":
            rows = slice(_FORGET_GATE * config.hidden, (_FORGET_GATE + 1) * config.hidden)
            layer.get_parameter("bias_ih_l0")[rows] = config.forget_bias
    return layer


def _new_recurrent(cell: str, input_size: int, hidden: int) -> nn.RNNBase:
    if cell == "lstm":
        return nn.LSTM(input_size, hidden, batch_first=True)
    if cell == "gru":
        return nn.GRU(input_size, hidden, batch_first=True)
    return nn.RNN(input_size, hidden, nonlinearity=cell.removeprefix("rnn_"), batch_first=True)


def init_rectified(weight: Tensor) -> None:
    """Fill the weights before a rectifier in place: He et al., 2015, eq. 10."""
    if not weight.is_meta:
        nn.init.kaiming_normal_(weight, nonlinearity="relu")


def init_recurrent(weight: Tensor, kind: str) -> None:
    """Fill the recurrent weights (H, H) of one gate in place: one of RECURRENT_INITS.

    ``orthogonal``: Saxe et al., 2014; ``identity``: the IRNN of Le, Jaitly & Hinton, 2015;
    ``xavier``: uniform by Glorot & Bengio, 2010, eq. 16; ``small_normal``: deviation 0.01.
    """
    if weight.is_meta:  # no values: to draw them would only load a compiler
        return
    if kind == "orthogonal":
        nn.init.orthogonal_(weight)
    elif kind == "identity":
        nn.init.eye_(weight)
    elif kind == "xavier":
        nn.init.xavier_uniform_(weight)
    else:
        nn.init.normal_(weight, std=_SMALL_DEVIATION)
