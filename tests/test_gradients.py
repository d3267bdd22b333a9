"""Gradients back in time: against PyTorch's, against theory, and what is made of them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from speech.config import CELLS, ModelConfig
from speech.gradients import (
    HORIZON,
    gradient_norms,
    horizons,
    profile,
    scale_recurrent,
    spectral_radius,
    unroll_network,
)
from speech.layers import GATES
from speech.model import AcousticModel, ctc_losses

TINY = ModelConfig(subsampling=1, conv_channels=2, layers=2, hidden=6, dropout=0.3, projection=4)
BANDS, VOCABULARY = 5, 4


def network(seed: int = 0, **changes: object) -> AcousticModel:
    torch.manual_seed(seed)
    config = dataclasses.replace(TINY, **changes)  # type: ignore[arg-type]
    return AcousticModel(config, BANDS, VOCABULARY).eval()


def ctc(log_probs: Tensor, lengths: Tensor) -> Tensor:
    """Each utterance says the labels 1, 2, 3."""
    count = len(lengths)
    tokens = torch.tensor([1, 2, 3] * count)
    return ctc_losses(log_probs, lengths, tokens, torch.full((count,), 3))


def batch(*lengths: int) -> tuple[Tensor, Tensor]:
    """Random features; each utterance is the same whatever stands beside it."""
    rows = [
        torch.randn(length, BANDS, generator=torch.Generator().manual_seed(n))
        for n, length in enumerate(lengths)
    ]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor(lengths)


# --- Unrolled -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [True, False])
def test_unrolled_equals_the_network(cell: str, bidirectional: bool) -> None:
    model = network(cell=cell, bidirectional=bidirectional)
    log_mel, lengths = batch(9, 20, 14)
    expected, _ = model(log_mel, lengths)
    unrolled = unroll_network(model, log_mel, lengths)
    for row, other, length in zip(unrolled.logits, expected, (9, 20, 14), strict=True):
        ours = row[:length].log_softmax(-1)
        torch.testing.assert_close(ours, other[:length], rtol=0, atol=1e-5)
    ways = ["forwards", "backwards"] if bidirectional else ["forwards"]
    names = [f"layer {n} {way}" for n in (1, 2) for way in ways]
    assert list(unrolled.states) == ([] if cell == "feedforward" else names)


@pytest.mark.parametrize("cell", GATES)
def test_equal_to_gradients_of_pytorchs_layer_cut_in_two(cell: str) -> None:
    """The state k steps before t, taken out of PyTorch's layer and put in again, as a leaf."""
    model = network(cell=cell, layers=1, bidirectional=False, layer_norm=False, projection=0)
    model = model.double()
    log_mel, lengths = batch(18)
    log_mel = log_mel.double()
    found = gradient_norms(model, log_mel, lengths, ctc, 5)["layer 1 forwards"][0]

    x, _ = model.subsampler(log_mel, lengths)
    logits = model.output(model.layers[0](x, lengths)).detach().requires_grad_()
    (pull,) = torch.autograd.grad(ctc(logits.float().log_softmax(-1), lengths).sum(), logits)
    frame = 12 + int(pull[0, 12:].norm(dim=-1).argmax())
    for k in range(1, 6):
        _, state = model.layers[0].carry_on(x[:, : frame - k + 1], None)
        hidden = state[0] if cell == "lstm" else state
        leaf = hidden.detach().requires_grad_()
        y, _ = model.layers[0].carry_on(
            x[:, frame - k + 1 : frame + 1], (leaf, state[1].detach()) if cell == "lstm" else leaf
        )
        (expected,) = torch.autograd.grad((model.output(y)[0, -1] * pull[0, frame]).sum(), leaf)
        assert found[k] == pytest.approx(float(expected.norm()), rel=1e-6)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_an_utterance_alone_equals_itself_in_a_batch(bidirectional: bool) -> None:
    model = network(bidirectional=bidirectional)
    together = gradient_norms(model, *batch(9, 21, 15), ctc, 12)
    log_mel, lengths = batch(9, 21, 15)
    for row in range(3):
        length = lengths[row : row + 1]
        alone = gradient_norms(model, log_mel[row : row + 1, : int(length)], length, ctc, 12)
        for name, norms in together.items():
            np.testing.assert_allclose(norms[row], alone[name][0], rtol=1e-3, atol=1e-7)
    ways = {name.split()[-1] for name in together}
    assert ways == ({"forwards", "backwards", "past", "ahead"} if bidirectional
                    else {"forwards", "past"})  # fmt: skip


def test_what_lies_before_the_beginning_is_unknown() -> None:
    norms = gradient_norms(network(), *batch(4), ctc, 9)
    for values in norms.values():
        known = np.isfinite(values[0])
        assert known[0]
        assert not known[4:].any()


def test_measuring_leaves_the_network_as_it_was() -> None:
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradient_norms(model, *batch(9), ctc, 3)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


# --- Theory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [0.5, 0.9, 1.0, 1.1, 1.5])
def test_a_linear_network_follows_the_power_of_its_radius(radius: float) -> None:
    """In silence all states are zero, where tanh is linear: W_h is a scaled orthogonal matrix."""
    model = network(cell="rnn_tanh", layers=1, layer_norm=False, projection=0, hidden=16).double()
    scale_recurrent(model, radius)
    silence = torch.zeros(1, 90, BANDS, dtype=torch.float64)
    norms = gradient_norms(model, silence, torch.tensor([90]), ctc, 50)
    for name in ("layer 1 forwards", "layer 1 backwards"):
        shape = profile(norms[name])
        np.testing.assert_allclose(shape.ratios, radius ** np.arange(51.0), rtol=1e-4)
        assert shape.rate == pytest.approx(radius)


@pytest.mark.parametrize("cell", GATES)
def test_scaling_sets_the_radius_of_every_gate(cell: str) -> None:
    model = network(cell=cell)
    scale_recurrent(model, 0.7)
    weights = [value for name, value in model.named_parameters() if "weight_hh" in name]
    assert len(weights) == 4
    for weight in weights:
        for gate in weight.detach().chunk(GATES[cell]):
            assert spectral_radius(gate) == pytest.approx(0.7, rel=1e-5)


@pytest.mark.parametrize("context", [0, 3])
def test_a_feed_forward_network_has_the_horizon_of_its_window(context: int) -> None:
    model = network(cell="feedforward", context_frames=context)
    found = horizons(model, *batch(30, 30), ctc, 12)
    assert found == {HORIZON: float(context)}


# --- Profiles -------------------------------------------------------------------------------------


def test_a_profile_by_pencil() -> None:
    norms = np.array([3.0, 5.0, 0.0])[:, None] * 0.5 ** np.arange(9.0)
    shape = profile(norms)  # the third has no gradient at all
    assert shape.probes == 2
    assert shape.ratios == pytest.approx(tuple(0.5 ** np.arange(9.0)))
    assert shape.rate == pytest.approx(0.5)
    assert shape.half_life_frames == pytest.approx(1.0)
    assert shape.horizon_frames == 6  # 1/64 is above a hundredth, 1/128 is not
    assert (shape.vanished_share, shape.underflow_share, shape.overflow_share) == (0, 0, 0)


def test_growth_has_no_half_life_and_no_end() -> None:
    shape = profile(2.0 ** np.arange(5.0)[None])
    assert shape.half_life_frames == math.inf
    assert shape.horizon_frames == 4


def test_what_float32_cannot_hold_is_counted() -> None:
    norms = np.array([[1.0, 1e-9, 1e-39, 1e39, np.nan]])
    shape = profile(norms)
    assert shape.vanished_share == pytest.approx(2 / 3)
    assert shape.underflow_share == pytest.approx(1 / 3)
    assert shape.overflow_share == pytest.approx(1 / 3)
    assert math.isnan(shape.ratios[4])


def test_the_slope_is_that_before_the_gradient_is_gone() -> None:
    norms = np.array([[1.0, 0.1, 0.01, 0.0, 0.0, 1e-5]])
    assert profile(norms).rate == pytest.approx(0.1)
    gone = profile(np.array([[1.0, 0.0, 0.0]]))
    assert (gone.rate, gone.half_life_frames, gone.horizon_frames) == (0, 0, 0)


def test_no_gradient_anywhere() -> None:
    shape = profile(np.zeros((2, 4)))
    assert shape.probes == 0
    assert math.isnan(shape.rate)
    assert shape.horizon_frames == -1


def test_the_horizon_of_a_network_is_its_farthest_layers() -> None:
    found = horizons(network(), *batch(40, 50), ctc, 20)
    layers = {name: value for name, value in found.items() if name != HORIZON}
    assert set(layers) == {
        f"{HORIZON}_layer_{n}_{way}" for n in (1, 2) for way in ("forwards", "backwards")
    }
    assert found[HORIZON] == max(layers.values())
