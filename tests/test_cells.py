"""Cells from their equations equal PyTorch's: forward, and gradients through time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from speech.cells import (
    STEPS,
    CellWeights,
    lstm_step,
    read_out,
    rnn_tanh_step,
    unroll,
)

B, T, INPUTS, H, V = 3, 50, 5, 7, 4
TOLERANCE = 1e-5
LAYERS = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn_tanh": nn.RNN,
    "rnn_relu": lambda *sizes, **ways: nn.RNN(*sizes, nonlinearity="relu", **ways),
}


def weights_of(*values: float) -> CellWeights:
    """One unit, one input: a gate after the other, W_x, W_h and b_h of each."""
    rows = torch.tensor(values).view(-1, 3)
    return CellWeights(rows[:, :1], rows[:, 1:2], torch.zeros(len(rows)), rows[:, 2])


def test_an_rnn_by_pencil() -> None:
    states = unroll("rnn_tanh", torch.tensor([[[1.0], [0.0]]]), weights_of(2.0, 3.0, 0.5))
    first = math.tanh(2.5)
    assert states[0][0].item() == pytest.approx(first)
    assert states[1][0].item() == pytest.approx(math.tanh(3 * first + 0.5))


def test_an_lstm_that_keeps_what_it_holds() -> None:
    """Gates i, f, g, o: with f open and i shut the memory stays, and so does its gradient."""
    shut, open_ = -50.0, 50.0
    weights = weights_of(0, 0, shut, 0, 0, open_, 0, 0, 1.0, 0, 0, open_)
    c = torch.tensor([[0.7]], requires_grad=True)
    state = (torch.zeros(1, 1), c)
    for _ in range(100):
        state = lstm_step(torch.randn(1, 1), state, weights)
    assert state[1].item() == pytest.approx(0.7)
    (gradient,) = torch.autograd.grad(state[1], c)
    assert gradient.item() == pytest.approx(1.0)


def test_a_linear_recurrence_multiplies_the_gradient_at_every_step() -> None:
    h = torch.tensor([[0.0]], requires_grad=True)  # where tanh has the slope 1
    state = (h,)
    for _ in range(10):
        state = rnn_tanh_step(torch.zeros(1, 1), state, weights_of(0, 0.5, 0))  # type: ignore[assignment]
    (gradient,) = torch.autograd.grad(state[0], h)
    assert gradient.item() == pytest.approx(0.5**10)


@pytest.mark.parametrize("cell", STEPS)
def test_equal_to_pytorch_with_gradients_through_time(cell: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[cell](INPUTS, H, batch_first=True)
    output = nn.Linear(H, V)
    x = torch.randn(B, T, INPUTS, requires_grad=True)
    pull = torch.randn(B, T, V)  # of a loss on every y_t
    parameters = [x, *layer.parameters(), *output.parameters()]

    hidden, _ = layer(x)
    theirs = output(hidden)
    expected = torch.autograd.grad((theirs * pull).sum(), parameters)

    W_y, b_y = output.weight, output.bias
    states = unroll(cell, x, CellWeights.of(layer))
    ours = torch.stack([read_out(state[0], W_y, b_y) for state in states], 1)
    found = torch.autograd.grad((ours * pull).sum(), parameters)

    torch.testing.assert_close(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=TOLERANCE, atol=TOLERANCE * scale(other))


def scale(gradient: Tensor) -> float:
    """The size of a gradient: one that sums over 50 frames is rounded in proportion to it."""
    return max(1.0, float(gradient.abs().max()))


@pytest.mark.parametrize("cell", STEPS)
def test_gradient_of_the_last_output_reaches_the_first_input(cell: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[cell](INPUTS, H, batch_first=True)
    x = torch.randn(1, 12, INPUTS, dtype=torch.float64, requires_grad=True)
    layer = layer.double()
    (expected,) = torch.autograd.grad(layer(x)[0][0, -1].sum(), x)
    states = unroll(cell, x, CellWeights.of(layer))
    (found,) = torch.autograd.grad(states[-1][0].sum(), x)
    assert expected[0, 0].any() or cell == "rnn_relu"
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)
