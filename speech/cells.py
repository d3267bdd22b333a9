"""Recurrent cells from their equations, one step of time after the other.

What `torch.nn.RNN`, ``GRU`` and ``LSTM`` compute inside fused kernels stands here line by line, so
that it can be read, and so that every state in between can be looked at (`speech.gradients`).
x_t is the input at time t, h_t the hidden state, y_t the output; W_x, W_h and W_y are the weights
from input to hidden, from hidden to hidden and from hidden to output, b_h and b_y the biases.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

States = tuple[Tensor, ...]  # h_t (B, H); of an LSTM h_t and the cell's memory c_t


class CellWeights(NamedTuple):
    """The weights of one layer in one direction; G gates lie one below the other."""

    W_x: Tensor  # (G H, I)
    W_h: Tensor  # (G H, H)
    b_x: Tensor  # (G H,), a second bias that PyTorch has; only a GRU needs two
    b_h: Tensor  # (G H,)

    @classmethod
    def of(cls, layer: nn.RNNBase) -> CellWeights:
        """Return the weights of a layer of PyTorch's, themselves, not copies."""
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        return cls(*(layer.get_parameter(name) for name in names))


def rnn_step(
    x_t: Tensor, state: States, weights: CellWeights, f: Callable[[Tensor], Tensor]
) -> States:
    """Return h_t = f(W_x x_t + W_h h_{t-1} + b_h) (Elman, 1990), f being tanh or ReLU."""
    (h,) = state
    W_x, W_h, b_x, b_h = weights
    return (f(x_t @ W_x.T + h @ W_h.T + b_x + b_h),)


def rnn_tanh_step(x_t: Tensor, state: States, weights: CellWeights) -> States:
    """Return `rnn_step` with tanh."""
    return rnn_step(x_t, state, weights, torch.tanh)


def rnn_relu_step(x_t: Tensor, state: States, weights: CellWeights) -> States:
    """Return `rnn_step` with max(0, a)."""
    return rnn_step(x_t, state, weights, torch.relu)


def lstm_step(x_t: Tensor, state: States, weights: CellWeights) -> States:
    """Return h_t and c_t (Hochreiter & Schmidhuber, 1997; forget gate of Gers et al., 2000).

    The memory c_t is a sum, not a product with W_h: where the forget gate f_t is near one, what was
    written stays, and gradients come back along it as they are.
    """
    h, c = state
    W_x, W_h, b_x, b_h = weights
    i, f, g, o = (x_t @ W_x.T + h @ W_h.T + b_x + b_h).chunk(4, dim=-1)
    i_t = torch.sigmoid(i)  # input gate: how much is written
    f_t = torch.sigmoid(f)  # forget gate: how much is kept
    g_t = torch.tanh(g)  # what is written
    o_t = torch.sigmoid(o)  # output gate: how much is shown
    c_t = f_t * c + i_t * g_t
    h_t = o_t * torch.tanh(c_t)
    return h_t, c_t


def gru_step(x_t: Tensor, state: States, weights: CellWeights) -> States:
    """Return h_t of a gated recurrent unit (Cho et al., 2014, as PyTorch has it)."""
    (h,) = state
    W_x, W_h, b_x, b_h = weights
    x_r, x_z, x_n = (x_t @ W_x.T + b_x).chunk(3, dim=-1)
    h_r, h_z, h_n = (h @ W_h.T + b_h).chunk(3, dim=-1)
    r_t = torch.sigmoid(x_r + h_r)  # reset gate: how much of the past the new state sees
    z_t = torch.sigmoid(x_z + h_z)  # update gate: how much of the past stays
    n_t = torch.tanh(x_n + r_t * h_n)
    return ((1 - z_t) * n_t + z_t * h,)


STEPS: dict[str, Callable[[Tensor, States, CellWeights], States]] = {
    "lstm": lstm_step,
    "gru": gru_step,
    "rnn_tanh": rnn_tanh_step,
    "rnn_relu": rnn_relu_step,
}


def unroll(cell: str, x: Tensor, weights: CellWeights) -> list[States]:
    """Return the states after each frame of x (B, T, I), beginning with zeros."""
    zeros = x.new_zeros(len(x), weights.W_h.shape[1])
    state: States = (zeros, zeros) if cell == "lstm" else (zeros,)
    states = []
    for x_t in x.unbind(1):
        state = STEPS[cell](x_t, state, weights)
        states.append(state)
    return states


def read_out(h_t: Tensor, W_y: Tensor, b_y: Tensor) -> Tensor:
    """Return y_t = W_y h_t + b_y (B, V) of h_t (B, H)."""
    return h_t @ W_y.T + b_y
