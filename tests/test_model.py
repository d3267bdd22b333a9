"""The network: lengths, independence of the batch, initialisation, directions, the CTC loss."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import speech.model
from speech.config import CELLS, SUBSAMPLINGS, ModelConfig
from speech.decode import label_log_probability
from speech.errors import ConfigError
from speech.model import (
    AcousticModel,
    ConvSubsampler,
    consistency_losses,
    count_parameters,
    ctc_losses,
    match_parameters,
    output_length,
)

TINY = ModelConfig(subsampling=2, conv_channels=4, layers=2, hidden=8, dropout=0.0)
BANDS, VOCABULARY = 8, 5
LENGTHS = (1, 7, 20, 33)  # frames of the utterances in a test batch
FLOAT32_TOLERANCE = 1e-5  # of log-probs; both are rounding, of sums in another order
BFLOAT16_TOLERANCE = 0.05


def network(seed: int = 0, **changes: object) -> AcousticModel:
    torch.manual_seed(seed)
    config = dataclasses.replace(TINY, **changes)  # type: ignore[arg-type]
    return AcousticModel(config, BANDS, VOCABULARY).eval()


def utterances(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, BANDS, generator=generator) for length in LENGTHS]


def padded(rows: list[Tensor], padding: float, extra: int = 0) -> tuple[Tensor, Tensor]:
    """Stack (T_i, M) into (B, T, M) with `padding` in the place of nothing."""
    lengths = torch.tensor([len(row) for row in rows])
    batch = torch.full((len(rows), int(lengths.max()) + extra, rows[0].shape[1]), padding)
    for place, row in zip(batch, rows, strict=True):
        place[: len(row)] = row
    return batch, lengths


# --- Lengths --------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", SUBSAMPLINGS)
def test_output_length_is_the_real_length(factor: int) -> None:
    subsampler = ConvSubsampler(factor, channels=1, mel_bands=3)
    frames = list(range(1, 70))
    expected = [output_length(count, factor) for count in frames]
    assert expected == [math.ceil(count / factor) for count in frames]
    with torch.inference_mode():
        for count, output in zip(frames, expected, strict=True):
            x, lengths = subsampler(torch.zeros(1, count, 3), torch.tensor([count]))
            assert x.shape == (1, output, subsampler.output_size), count
            assert lengths.tolist() == [output], count
        batch = torch.zeros(len(frames), max(frames) + 5, 3)
        _, lengths = subsampler(batch, torch.tensor(frames))
    assert lengths.tolist() == expected
    assert lengths.dtype == torch.int64


@pytest.mark.parametrize("factor", SUBSAMPLINGS)
def test_every_output_frame_sees_its_input_frames(factor: int) -> None:
    """Frame i hears the log-mel frames that it stands for, so that times are those of the audio."""
    subsampler = ConvSubsampler(factor, channels=4, mel_bands=3)
    with torch.no_grad():  # nothing below zero, so that no ReLU hides what it hears
        for weight in subsampler.parameters():
            weight.abs_()
    log_mel = torch.rand(1, 10 * factor, 3, requires_grad=True)
    x, _ = subsampler(log_mel, torch.tensor([10 * factor]))
    (gradient,) = torch.autograd.grad(x[0, 5].sum(), log_mel)
    seen = gradient[0].abs().sum(1).nonzero().flatten().tolist()
    assert set(range(5 * factor, 6 * factor)) <= set(seen)
    assert abs((seen[0] + seen[-1]) / 2 - 5 * factor) <= factor


def test_convolutions_of_a_batch_in_parts_are_those_of_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subsampler = ConvSubsampler(4, channels=4, mel_bands=8)
    log_mel, lengths = torch.randn(5, 40, 8), torch.tensor([40, 3, 17, 40, 22])
    whole, frames = subsampler(log_mel, lengths)  # with gradients never in parts
    sizes = []
    subsampler.convolutions[0].register_forward_hook(lambda _, x, y: sizes.append(len(y)))
    monkeypatch.setattr(speech.model, "_FRAMES_AT_ONCE", 80)
    with torch.inference_mode():
        parts, same = subsampler(log_mel, lengths)
    assert sizes == [2, 2, 1]
    torch.testing.assert_close(parts, whole)
    assert torch.equal(same, frames)


# --- Independence of the batch --------------------------------------------------------------------


def worst_difference(model: AcousticModel, padding: float, precision: torch.dtype | None) -> float:
    """Largest difference of a log-prob alone from the same in a padded batch."""
    worst = 0.0
    with torch.inference_mode(), torch.autocast(
        "cpu", precision or torch.bfloat16, enabled=precision is not None
    ):  # fmt: skip
        together, lengths = model(*padded(utterances(), padding, extra=6))
        for index, log_mel in enumerate(utterances()):
            alone, _ = model(log_mel[None], torch.tensor([len(log_mel)]))
            difference = (together[index, : int(lengths[index])] - alone[0]).abs().max()
            assert torch.isfinite(difference)
            worst = max(worst, float(difference))
    return worst


@pytest.mark.parametrize("padding", [0.0, 1e4, math.nan, math.inf])
@pytest.mark.parametrize("factor", SUBSAMPLINGS)
def test_alone_equals_batched(factor: int, padding: float) -> None:
    for bidirectional, layer_norm, projection in itertools.product(
        (True, False), (True, False), (0, 5)
    ):
        model = network(
            subsampling=factor,
            bidirectional=bidirectional,
            layer_norm=layer_norm,
            projection=projection,
        )
        assert worst_difference(model, padding, None) <= FLOAT32_TOLERANCE
        assert worst_difference(model, padding, torch.bfloat16) <= BFLOAT16_TOLERANCE


@pytest.mark.parametrize("padding", [0.0, math.nan])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_alone_equals_batched_whatever_the_cell(
    cell: str, bidirectional: bool, padding: float
) -> None:
    model = network(cell=cell, bidirectional=bidirectional, projection=5, context_frames=3)
    assert worst_difference(model, padding, None) <= FLOAT32_TOLERANCE
    assert worst_difference(model, padding, torch.bfloat16) <= BFLOAT16_TOLERANCE


@pytest.mark.parametrize("padding", [0.0, math.nan])
def test_alone_equals_batched_with_a_lookahead(padding: float) -> None:
    model = network(bidirectional=False, lookahead_frames=4)
    nn.init.normal_(model.get_parameter("lookahead.weight"))
    assert worst_difference(model, padding, None) <= FLOAT32_TOLERANCE
    assert worst_difference(model, padding, torch.bfloat16) <= BFLOAT16_TOLERANCE


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_those_of_the_utterances_alone(cell: str) -> None:
    """Padding takes no part in learning either: gradients of the summed loss add up."""
    model = network(subsampling=2, cell=cell)
    rows, labels = utterances()[1:], [(1, 2), (3,), (4, 4, 1)]

    def gradients(chosen: list[int], padding: float) -> list[Tensor]:
        log_probs, lengths = model(*padded([rows[i] for i in chosen], padding))
        tokens = torch.tensor([token for i in chosen for token in labels[i]])
        counts = torch.tensor([len(labels[i]) for i in chosen])
        loss = ctc_losses(log_probs, lengths, tokens, counts).sum()
        return list(torch.autograd.grad(loss, list(model.parameters())))

    together = gradients([0, 1, 2], math.nan)
    alone = [sum(parts) for parts in zip(*(gradients([i], 0.0) for i in range(3)), strict=True)]
    for ours, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_equals_cpu() -> None:
    model = network()
    with torch.inference_mode():
        on_cpu, _ = model(*padded(utterances(), 0.0))
        on_gpu, lengths = model.cuda()(*(tensor.cuda() for tensor in padded(utterances(), 0.0)))
    for ours, expected, length in zip(on_gpu.cpu(), on_cpu, lengths.tolist(), strict=True):
        torch.testing.assert_close(ours[:length], expected[:length], rtol=0, atol=1e-3)


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_log_probs_are_normalised_float32(precision: torch.dtype | None) -> None:
    enabled = precision is not None
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        log_probs, lengths = network()(*padded(utterances(), 0.0))
    assert log_probs.dtype == torch.float32
    assert log_probs.shape == (len(LENGTHS), output_length(max(LENGTHS), 2), VOCABULARY)
    assert lengths.tolist() == [output_length(length, 2) for length in LENGTHS]
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(log_probs.shape[:2]))


def test_dropout_acts_in_training_only() -> None:
    model = network(dropout=0.5)
    batch = padded(utterances(), 0.0)
    assert torch.equal(model(*batch)[0], model(*batch)[0])
    model.train()
    assert not torch.equal(model(*batch)[0], model(*batch)[0])


# --- Initialisation -------------------------------------------------------------------------------


def lstms(model: nn.Module) -> list[nn.LSTM]:
    return [module for module in model.modules() if isinstance(module, nn.LSTM)]


def test_recurrent_weights_are_orthogonal_gate_by_gate() -> None:
    found = lstms(network())
    assert len(found) == 4  # two layers, two directions
    identity = torch.eye(TINY.hidden)
    for lstm in found:
        gates = lstm.get_parameter("weight_hh_l0").chunk(4)
        for gate in gates:
            torch.testing.assert_close(gate @ gate.T, identity, rtol=0, atol=1e-5)
        for one, other in itertools.combinations(gates, 2):
            assert not torch.allclose(one, other)


def test_input_weights_are_xavier_uniform_over_a_gate() -> None:
    for lstm in lstms(network(hidden=64)):
        weight = lstm.get_parameter("weight_ih_l0")
        bound = math.sqrt(6 / (lstm.input_size + 64))
        for gate in weight.chunk(4):
            assert 0.95 * bound < gate.abs().max() <= bound
            assert gate.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


@pytest.mark.parametrize("forget_bias", [1.0, -0.5])
def test_biases_begin_at_zero_but_the_forget_gate(forget_bias: float) -> None:
    model = network(forget_bias=forget_bias)
    for lstm in lstms(model):
        bias = lstm.get_parameter("bias_ih_l0") + lstm.get_parameter("bias_hh_l0")
        for gate, expected in zip(bias.chunk(4), (0.0, forget_bias, 0.0, 0.0), strict=True):
            assert torch.equal(gate, torch.full((TINY.hidden,), expected))
    assert not model.output.bias.any()


def test_forget_gate_is_the_second() -> None:
    """By PyTorch's equations: with only that bias large, the cell keeps what it holds."""
    lstm = nn.LSTM(1, 1)
    for parameter in lstm.parameters():
        nn.init.zeros_(parameter)
    nn.init.constant_(lstm.get_parameter("bias_ih_l0")[1:2], 50.0)
    _, (_, cell) = lstm(torch.zeros(9, 1, 1), (torch.zeros(1, 1, 1), torch.full((1, 1, 1), 3.0)))
    assert cell.item() == 3.0


def test_same_seed_same_weights() -> None:
    for one, other in zip(network(3).parameters(), network(3).parameters(), strict=True):
        assert torch.equal(one, other)


def test_names_on_disk() -> None:
    """Weights are stored under these names: a change makes every stored model unreadable."""
    assert set(network(layers=1, projection=3).state_dict()) == {
        *(f"subsampler.convolutions.{n}.{leaf}" for n in (0, 1) for leaf in ("weight", "bias")),
        *(f"layers.0.{way}.{kind}_{end}_l0" for way in ("forwards", "backwards")
          for kind in ("weight", "bias") for end in ("ih", "hh")),
        *(f"{place}.{leaf}" for place in ("layers.0.norm", "layers.0.projection", "norm", "output")
          for leaf in ("weight", "bias")),
    }  # fmt: skip


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("projection", [0, 5])
@pytest.mark.parametrize("layer_norm", [True, False])
def test_gradient_reaches_every_weight(
    cell: str, bidirectional: bool, projection: int, layer_norm: bool
) -> None:
    model = network(
        cell=cell, layers=4, bidirectional=bidirectional, projection=projection,
        layer_norm=layer_norm,
    )  # fmt: skip
    log_probs, lengths = model(*padded(utterances()[2:], math.nan))
    tokens, counts = torch.tensor([1, 2, 3, 4]), torch.tensor([2, 2])
    ctc_losses(log_probs, lengths, tokens, counts).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name
    first = model.subsampler.convolutions[0].get_parameter("weight").grad
    assert first is not None
    assert first.norm() > 1e-3


# --- Both directions ------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell != "feedforward"])
def test_one_way_network_does_not_look_ahead(cell: str) -> None:
    """Beyond the convolutions' span nothing of the future is heard; both ways, all of it is."""
    log_mel = torch.randn(1, 60, BANDS)
    changed = log_mel.clone()
    changed[0, -1] += 1
    for bidirectional in (True, False):
        model = network(cell=cell, bidirectional=bidirectional)
        with torch.inference_mode():
            one, _ = model(log_mel, torch.tensor([60]))
            other, _ = model(changed, torch.tensor([60]))
        assert torch.equal(one[0, :20], other[0, :20]) is not bidirectional


@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_feed_forward_network_sees_its_window_and_nothing_else(bidirectional: bool) -> None:
    frames, context = 30, 4
    model = network(cell="feedforward", context_frames=context, bidirectional=bidirectional,
                    subsampling=1)  # fmt: skip
    log_mel = torch.randn(1, frames, BANDS, requires_grad=True)
    log_probs, _ = model(log_mel, torch.tensor([frames]))
    (gradient,) = torch.autograd.grad(log_probs[0, 15, 1], log_mel)
    seen = gradient[0].abs().sum(1).nonzero().flatten().tolist()
    around = sum(model.subsampler.strides)  # frames that the convolutions add on either side
    ahead = context if bidirectional else 0
    assert seen == list(range(15 - context - around, 15 + ahead + around + 1))


# --- Truncated back-propagation -------------------------------------------------------------------


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell != "feedforward"])
def test_truncation_changes_gradients_and_nothing_else(cell: str) -> None:
    log_mel, lengths = padded(utterances(), 0.0)

    def results(frames: int) -> tuple[Tensor, Tensor]:
        model = network(cell=cell, bidirectional=False).train()
        model.truncate_gradients(frames)
        inputs = log_mel.clone().requires_grad_()
        log_probs, _ = model(inputs, lengths)
        (gradient,) = torch.autograd.grad(log_probs[-1, 12, 1], inputs)  # frame 24 of 33
        return log_probs, gradient[-1].abs().sum(1)

    (whole, far), (pieces, near) = results(0), results(5)
    torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-6)
    assert far[:14].all()
    # The piece of 5 begins with output frame 10: frame 20, and 4 before it by the convolutions.
    assert not near[:16].any()
    assert near[16:20].any()


def test_truncation_is_of_training_only() -> None:
    model = network(bidirectional=False)
    model.truncate_gradients(2)
    log_mel = torch.randn(1, 30, BANDS, requires_grad=True)
    log_probs, _ = model(log_mel, torch.tensor([30]))
    (gradient,) = torch.autograd.grad(log_probs[0, -1, 1], log_mel)
    assert gradient[0, 0].any()


@pytest.mark.parametrize(("cell", "bidirectional"), [("lstm", True), ("feedforward", False)])
def test_truncation_needs_a_recurrent_network_of_one_direction(
    cell: str, bidirectional: bool
) -> None:
    model = network(cell=cell, bidirectional=bidirectional)
    with pytest.raises(ConfigError, match=r"train\.bptt_frames = 5 needs .* got model\.cell = "):
        model.truncate_gradients(5)
    model.truncate_gradients(0)


# --- Size -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("projection", [0, 5])
def test_networks_of_equal_size(cell: str, layers: int, projection: int) -> None:
    base = dataclasses.replace(TINY, cell=cell, layers=layers, projection=projection)
    for bidirectional in (True, False):
        config = dataclasses.replace(base, bidirectional=bidirectional)
        matched = match_parameters(config, 50_000, BANDS, VOCABULARY)
        sizes = [
            count_parameters(dataclasses.replace(matched, hidden=matched.hidden + step),
                             BANDS, VOCABULARY)
            for step in (-1, 0, 1)
        ]  # fmt: skip
        differences = [abs(size - 50_000) for size in sizes]
        assert min(differences) == differences[1] < 2500
        assert dataclasses.replace(matched, hidden=config.hidden) == config


def test_a_size_that_the_surroundings_exceed_is_refused() -> None:
    with pytest.raises(ConfigError, match="no lstm network of 2 layers has 50 weights"):
        match_parameters(TINY, 50, BANDS, VOCABULARY)


# --- CTC ------------------------------------------------------------------------------------------


@st.composite
def labelled(draw: st.DrawFn) -> tuple[Tensor, list[int], list[list[int]]]:
    """Log-probs of a few short utterances, their lengths, and labels."""
    count, frames = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    logits = np.random.default_rng(draw(st.integers(0, 999))).normal(size=(count, frames, 3))
    lengths = draw(st.lists(st.integers(1, frames), min_size=count, max_size=count))
    tokens = st.lists(st.integers(1, 2), max_size=4)
    return (torch.from_numpy(logits).float().log_softmax(-1), lengths,
            draw(st.lists(tokens, min_size=count, max_size=count)))  # fmt: skip


@given(labelled())
@settings(deadline=None, max_examples=60)
def test_ctc_loss_is_that_of_all_paths(case: tuple[Tensor, list[int], list[list[int]]]) -> None:
    log_probs, lengths, labels = case
    joined = torch.tensor([token for row in labels for token in row], dtype=torch.int64)
    counts = torch.tensor([len(row) for row in labels])
    losses = ctc_losses(log_probs, torch.tensor(lengths), joined, counts)
    for loss, row, length, tokens in zip(losses, log_probs, lengths, labels, strict=True):
        exact = -label_log_probability(row[:length].numpy(), tokens)
        assert loss.item() == pytest.approx(exact, abs=1e-4)  # infinite where there is no path


def test_consistency_by_pencil() -> None:
    """Frame 1: (1/2, 1/2) against (1/4, 3/4); frame 2 alike; frame 3 is padding."""
    p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])
    nothing = torch.full((2,), torch.nan)
    views = torch.stack([torch.stack([p, q, nothing]), torch.stack([q, q, nothing])]).log()
    views.requires_grad_()
    (loss,) = consistency_losses(views, torch.tensor([2, 2]))
    kl_pq = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    kl_qp = 0.25 * math.log(1 / 2) + 0.75 * math.log(3 / 2)
    assert loss.item() == pytest.approx((kl_pq + kl_qp) / 2)
    loss.backward()
    # Each view is drawn to the other, which stands still: d/da of KL(b || a) is -exp(b).
    assert views.grad is not None
    assert views.grad[0, 0].tolist() == pytest.approx([-0.125, -0.375])
    assert views.grad[1, 0].tolist() == pytest.approx([-0.25, -0.25])
    assert views.grad[:, 2].abs().sum() == 0
