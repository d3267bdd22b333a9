"""The layers: both directions equal PyTorch's packed ones, initial weights, states carried on."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from speech.config import RECURRENT_INITS, ModelConfig
from speech.layers import GATES, Lookahead, RecurrentLayer, init_recurrent, reverse_padded

HIDDEN, INPUTS = 8, 6
LENGTHS = (1, 7, 20, 33)
PLAIN = ModelConfig(hidden=HIDDEN, layer_norm=False, dropout=0.0)
ORACLES = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn_tanh": nn.RNN,
    "rnn_relu": lambda *sizes, **ways: nn.RNN(*sizes, nonlinearity="relu", **ways),
}


def layer_of(**changes: object) -> RecurrentLayer:
    torch.manual_seed(0)
    return RecurrentLayer(INPUTS, dataclasses.replace(PLAIN, **changes))  # type: ignore[arg-type]


# --- Both directions ------------------------------------------------------------------------------


def test_reverse_padded_by_pencil() -> None:
    x = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])[:, :, None]
    reverse = reverse_padded(x, torch.tensor([3, 1]))
    assert reverse[:, :, 0].tolist() == [[3, 2, 1, 4], [5, 6, 7, 8]]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4))
@settings(deadline=None, max_examples=30)
def test_reverse_padded_is_its_own_inverse(lengths: list[int]) -> None:
    x, sizes = torch.randn(len(lengths), 6, 2, requires_grad=True), torch.tensor(lengths)
    assert torch.equal(reverse_padded(reverse_padded(x, sizes), sizes), x)
    weights = torch.randn_like(x)
    (gradient,) = torch.autograd.grad((reverse_padded(x, sizes) * weights).sum(), x)
    assert torch.equal(gradient, reverse_padded(weights, sizes))


def test_reverse_padded_gradient() -> None:
    x = torch.randn(3, 5, 2, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([5, 2, 1])
    assert torch.autograd.gradcheck(lambda x: reverse_padded(x, lengths).square(), x)


@pytest.mark.parametrize("cell", GATES)
def test_layer_equals_a_packed_bidirectional_one(cell: str) -> None:
    layer = layer_of(cell=cell)
    assert layer.backwards is not None
    oracle = ORACLES[cell](INPUTS, HIDDEN, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for ours, suffix in ((layer.forwards, ""), (layer.backwards, "_reverse")):
            for name, weight in ours.named_parameters():
                weight += 0.1 * torch.randn_like(weight)  # biases that are not zero
                oracle.get_parameter(name + suffix).copy_(weight)
    batch = nn.utils.rnn.pad_sequence([torch.randn(n, INPUTS) for n in LENGTHS], batch_first=True)
    lengths = torch.tensor(LENGTHS)
    packed = nn.utils.rnn.pack_padded_sequence(
        batch, lengths, batch_first=True, enforce_sorted=False
    )
    expected, _ = nn.utils.rnn.pad_packed_sequence(oracle(packed)[0], batch_first=True)
    ours = layer(batch, lengths)
    for row, other, length in zip(ours, expected, LENGTHS, strict=True):
        torch.testing.assert_close(row[:length], other[:length], rtol=0, atol=1e-5)


@pytest.mark.parametrize("cell", GATES)
def test_what_is_carried_on_equals_the_whole(cell: str) -> None:
    layer = layer_of(cell=cell, bidirectional=False).eval()
    x = torch.randn(2, 11, INPUTS)
    whole = layer(x, torch.tensor([11, 11]))
    first, state = layer.carry_on(x[:, :4], None)
    second, _ = layer.carry_on(x[:, 4:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=0, atol=1e-6)


# --- Initialisation -------------------------------------------------------------------------------


def is_as_promised(kind: str, weight: Tensor) -> bool:
    identity = torch.eye(len(weight))
    bound = math.sqrt(6 / (2 * len(weight)))
    return {
        "orthogonal": torch.allclose(weight @ weight.T, identity, atol=1e-5),
        "identity": torch.equal(weight, identity),
        "xavier": bool(0.95 * bound < weight.abs().max() <= bound),
        "small_normal": bool(0.009 < weight.std() < 0.011),
    }[kind]


@pytest.mark.parametrize("kind", RECURRENT_INITS)
@pytest.mark.parametrize("cell", GATES)
def test_recurrent_weights_start_gate_by_gate(cell: str, kind: str) -> None:
    layer = layer_of(cell=cell, recurrent_init=kind, hidden=64)
    assert layer.backwards is not None
    for way in (layer.forwards, layer.backwards):
        gates = way.get_parameter("weight_hh_l0").chunk(GATES[cell])
        assert [is_as_promised(other, gates[0]) for other in RECURRENT_INITS].count(True) <= 2
        assert all(is_as_promised(kind, gate) for gate in gates)  # the identity is orthogonal too
        for one, other in itertools.combinations(gates, 2):
            assert torch.allclose(one, other) is (kind == "identity")


@pytest.mark.parametrize("cell", GATES)
def test_biases_begin_at_zero_but_an_lstms_forget_gate(cell: str) -> None:
    way = layer_of(cell=cell, forget_bias=2.0).forwards
    bias = way.get_parameter("bias_ih_l0") + way.get_parameter("bias_hh_l0")
    expected = [0.0, 2.0, 0.0, 0.0] if cell == "lstm" else [0.0] * GATES[cell]
    assert [gate.unique().tolist() for gate in bias.chunk(GATES[cell])] == [[x] for x in expected]


def test_init_fills_in_place() -> None:
    weight = torch.zeros(3, 3)
    init_recurrent(weight, "identity")
    assert torch.equal(weight, torch.eye(3))


# --- Look-ahead -----------------------------------------------------------------------------------


def test_lookahead_by_pencil() -> None:
    ahead = Lookahead(1, 2)
    assert ahead.weight.tolist() == [[1], [0], [0]]
    ahead.weight.data = torch.tensor([[1.0], [10], [100]])
    x = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, math.nan]])[:, :, None]
    y = ahead(x, torch.tensor([4, 2]))
    assert y[0, :, 0].tolist() == [321, 432, 43, 4]
    assert y[1, :2, 0].tolist() == [65, 6]
