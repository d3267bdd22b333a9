"""How far back the loss is felt: the gradient at time t with respect to the state k steps earlier.

The loss of a whole utterance is pulled apart by the output frames through which its gradient comes
in: of L_t = <dL / dlogits_t, logits_t>, its first factor held fixed, the gradients over all t add
up to that of L. The norm of dL_t / dh_{t-k} over k, for each layer and direction, says how fast
the past fades from what the network can learn: it is a product of k Jacobians (Bengio et al.,
1994; Pascanu et al., 2013, eq. 5). For that the layers are unrolled from their equations
(`speech.cells`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speech.cells import CellWeights, States, unroll
from speech.errors import ConfigError
from speech.layers import RecurrentLayer, reverse_padded
from speech.model import AcousticModel

HORIZON = "gradient_horizon_frames"
HORIZON_SHARE = 0.01  # of the gradient at k = 0: below it the past counts as out of sight
_FLOAT32 = np.finfo(np.float32)
_FITTED_SHARE = 1e-30  # of the norm at k = 1: what is smaller does not take part in the half-life

Losses = Callable[[Tensor, Tensor], Tensor]  # log-probs (B, T', V) and lengths (B,) to losses (B,)


@dataclass
class Unrolled:
    """A network's forward pass with every state of every layer in autograd's graph."""

    inputs: Tensor  # (B, T', I), what the first layer gets
    logits: Tensor  # (B, T', V)
    lengths: Tensor  # (B,)
    # Name of a layer and direction -> states in the order in which they came about; those of a
    # backward direction begin at each utterance's own last frame.
    states: dict[str, list[States]] = field(default_factory=dict)


def unroll_network(network: AcousticModel, log_mel: Tensor, log_mel_lengths: Tensor) -> Unrolled:
    """Return the pass that ``network(log_mel, log_mel_lengths)`` makes in evaluation, step by step.

    Gradients go back to the states, not to the weights.
    """
    x, lengths = network.subsampler(log_mel, log_mel_lengths)
    x = x.detach().requires_grad_()
    result = Unrolled(x, x, lengths)
    for number, layer in enumerate(network.layers, 1):
        if isinstance(layer, RecurrentLayer):
            x = _unroll_layer(layer, f"layer {number}", network.config.cell, x, result)
        else:
            x = layer(x, lengths)
    if network.lookahead is not None:
        x = network.lookahead(x, lengths)
    result.logits = network.output(network.norm(x))
    return result


def _unroll_layer(
    layer: RecurrentLayer, name: str, cell: str, x: Tensor, result: Unrolled
) -> Tensor:
    x = layer.norm(x)
    states = unroll(cell, x, CellWeights.of(layer.forwards))
    result.states[f"{name} forwards"] = states
    y = torch.stack([state[0] for state in states], 1)
    if layer.backwards is not None:
        states = unroll(cell, reverse_padded(x, result.lengths), CellWeights.of(layer.backwards))
        result.states[f"{name} backwards"] = states
        z = torch.stack([state[0] for state in states], 1)
        y = torch.cat([y, reverse_padded(z, result.lengths)], -1)
    projected: Tensor = layer.projection(y)
    return projected


def gradient_norms(
    network: AcousticModel, log_mel: Tensor, log_mel_lengths: Tensor, losses: Losses, steps: int
) -> dict[str, NDArray[np.float64]]:
    """Return the norm of dL_t / dh_{t-k} for k = 0 ... `steps`, (B, steps + 1), by name of the h.

    Each utterance gives one t: of its last third, for what lies ahead of its first, the frame
    through which the loss pulls most. ``inputs past`` and ``inputs ahead`` are the gradients with
    respect to what the first layer gets. k beyond an utterance is NaN. The network is measured in
    evaluation, without dropout, and keeps its mode; `losses` get float32 log-probs.
    """
    training = network.training
    network.eval()
    with torch.enable_grad():
        unrolled = unroll_network(network, log_mel, log_mel_lengths)
        pull = _pull(unrolled, losses)
        result = dict(_norms_back(unrolled, pull, steps))
        if network.config.bidirectional:
            result |= dict(_norms_ahead(unrolled, pull, steps))
    network.train(training)
    return result


def _pull(unrolled: Unrolled, losses: Losses) -> Tensor:
    """Return dL / dlogits (B, T', V)."""
    logits = unrolled.logits.detach().requires_grad_()
    loss = losses(logits.float().log_softmax(-1), unrolled.lengths)
    pull: Tensor = torch.autograd.grad(loss.sum(), logits)[0]
    return pull


def _norms_back(
    unrolled: Unrolled, pull: Tensor, steps: int
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    frames = _strongest(pull, 2 * unrolled.lengths // 3, unrolled.lengths)
    yield from _norms(unrolled, pull, frames, frames, "forwards", steps)
    of_inputs = _gradients(unrolled, pull, frames, [unrolled.inputs])[0].transpose(0, 1)
    yield "inputs past", _by_distance(_norm(of_inputs), frames, steps)


def _norms_ahead(
    unrolled: Unrolled, pull: Tensor, steps: int
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """The same mirrored: the backward direction counts its steps from an utterance's end."""
    lengths = unrolled.lengths
    frames = _strongest(pull, torch.zeros_like(lengths), (lengths + 2) // 3)
    mirrored = lengths - 1 - frames
    yield from _norms(unrolled, pull, frames, mirrored, "backwards", steps)
    of_inputs = _gradients(unrolled, pull, frames, [unrolled.inputs])[0]
    ahead = reverse_padded(of_inputs, lengths).transpose(0, 1)
    yield "inputs ahead", _by_distance(_norm(ahead), mirrored, steps)


def _norms(
    unrolled: Unrolled, pull: Tensor, frames: Tensor, steps_done: Tensor, way: str, steps: int
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield the norms of all layers of one direction; `frames` are its `steps_done`-th states."""
    names = [name for name in unrolled.states if name.endswith(way)]
    hidden = [state[0] for name in names for state in unrolled.states[name]]
    if not hidden:
        return
    gradients = _gradients(unrolled, pull, frames, hidden)
    count = unrolled.logits.shape[1]
    for number, name in enumerate(names):
        own = torch.stack(gradients[number * count : (number + 1) * count])  # (T', B, H)
        yield name, _by_distance(_norm(own), steps_done, steps)


def _strongest(pull: Tensor, first: Tensor, end: Tensor) -> Tensor:
    """Return (B,): the frame of each row from `first` to before `end` with the largest gradient."""
    place = torch.arange(pull.shape[1], device=pull.device)[None, :]
    inside = (place >= first[:, None]) & (place < end[:, None])
    size: Tensor = pull.norm(dim=-1)
    return size.masked_fill(~inside, -1.0).argmax(1)


def _gradients(
    unrolled: Unrolled, pull: Tensor, frames: Tensor, states: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Return dL_t / d(state) of every state, t being the row's own frame."""
    rows = torch.arange(len(frames), device=frames.device)
    at_frame = torch.zeros_like(unrolled.logits)
    at_frame[rows, frames] = pull[rows, frames].to(at_frame.dtype)
    return torch.autograd.grad(unrolled.logits, states, at_frame, retain_graph=True)


def _norm(gradients: Tensor) -> NDArray[np.float64]:
    """Return the norm over the last axis; divided by the largest first, as squares underflow."""
    exact = gradients.detach().double()
    largest = exact.abs().amax(-1).clamp(min=1e-300)
    norm: NDArray[np.float64] = ((exact / largest[..., None]).norm(dim=-1) * largest).cpu().numpy()
    return norm


def _by_distance(norms: NDArray[np.float64], places: Tensor, steps: int) -> NDArray[np.float64]:
    """Return (B, steps + 1) of norms (T', B): how large it is k steps before each row's place."""
    index = places.cpu().numpy()[:, None] - np.arange(steps + 1)
    rows = np.arange(len(index))[:, None]
    return np.where(index >= 0, norms[np.maximum(index, 0), rows], np.nan)


def scale_recurrent(network: AcousticModel, radius: float) -> None:
    """Scale W_h of every gate and direction so that its spectral radius is `radius`, in place."""
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "weight_hh" in name:
                for gate in torch.split(weight, weight.shape[1]):
                    gate *= radius / spectral_radius(gate)


def spectral_radius(weight: Tensor) -> float:
    """Return the largest absolute eigenvalue of a square matrix."""
    return float(torch.linalg.eigvals(weight.double()).abs().max())


# --- What the norms say ---------------------------------------------------------------------------


@dataclass(frozen=True)
class GradientProfile:
    """Gradients over the distance k, relative to k = 0: the median of many t, and how they vary."""

    ratios: tuple[float, ...]  # median over the probes; entry k
    low: tuple[float, ...]  # a tenth of the probes is below
    high: tuple[float, ...]  # a tenth is above
    probes: int
    # Of all (t, k), k > 0: lost beside the gradient at k = 0 in float32; too small or too large to
    # be a normal float32 at all.
    vanished_share: float
    underflow_share: float
    overflow_share: float

    @property
    def half_life_frames(self) -> float:
        """Steps in which the gradient halves, by the slope of log ratio; inf where it grows."""
        rate = self.rate
        return math.inf if not rate < 1 else math.log(0.5) / math.log(rate) if rate > 0 else 0.0

    @property
    def rate(self) -> float:
        """Factor by which the gradient changes from step to step: least squares of its log."""
        ratios = np.array(self.ratios[1:])
        used = np.isfinite(ratios) & (ratios > _FITTED_SHARE * np.nan_to_num(ratios[:1]))
        used &= np.cumprod(used).astype(bool)  # what comes after a gap is rounding
        if used.sum() < 2:
            return math.nan if not len(ratios) or math.isnan(ratios[0]) else 0.0
        distances = np.arange(1, len(ratios) + 1)[used]
        return float(np.exp(np.polyfit(distances, np.log(ratios[used]), 1)[0]))

    @property
    def horizon_frames(self) -> int:
        """Steps back to the last k before the gradient falls below HORIZON_SHARE of k = 0."""
        seen = np.nan_to_num(np.array(self.ratios)) >= HORIZON_SHARE
        return int(np.cumprod(seen).sum()) - 1

    def to_dict(self, spread: bool = True) -> dict[str, Any]:
        """Return figures and curve as plain data, and how the probes spread if that is wanted."""
        curves = {"low": _short(self.low), "high": _short(self.high)} if spread else {}
        return {
            "rate": self.rate,
            "half_life_frames": self.half_life_frames,
            "horizon_frames": self.horizon_frames,
            "vanished_share": self.vanished_share,
            "underflow_share": self.underflow_share,
            "overflow_share": self.overflow_share,
            "probes": self.probes,
            "ratios": _short(self.ratios),
        } | curves


def _short(values: tuple[float, ...]) -> list[float]:
    """Return the values with as many digits as a figure shows: curves are stored by the hundred."""
    return [float(f"{value:.4g}") for value in values]


def profile(norms: NDArray[np.float64]) -> GradientProfile:
    """Summarise norms (P, K + 1) of P probes; those without a gradient at k = 0 are left out.

    A distance that fewer than half of the probes reach is NaN.
    """
    kept = norms[norms[:, 0] > 0]
    if not len(kept):
        nothing = (math.nan,) * norms.shape[1]
        return GradientProfile(nothing, nothing, nothing, 0, math.nan, math.nan, math.nan)
    reached = np.isfinite(kept) | np.isinf(kept)
    with np.errstate(invalid="ignore", over="ignore"):
        ratios = kept / kept[:, :1]
    few = reached.mean(0) < 0.5
    low, middle, high = (_quantile(ratios, share, few) for share in (0.1, 0.5, 0.9))
    later, later_norms = ratios[:, 1:][reached[:, 1:]], kept[:, 1:][reached[:, 1:]]
    return GradientProfile(
        middle, low, high, len(kept),
        _share(later < _FLOAT32.eps / 2),
        _share(later_norms < _FLOAT32.smallest_normal),
        _share(~(later_norms <= _FLOAT32.max)),
    )  # fmt: skip


def _quantile(
    ratios: NDArray[np.float64], share: float, few: NDArray[np.bool_]
) -> tuple[float, ...]:
    columns = [
        math.nan if lacks else float(np.nanquantile(column, share))
        for column, lacks in zip(ratios.T, few, strict=True)
    ]
    return tuple(columns)


def _share(which: NDArray[np.bool_]) -> float:
    return float(which.mean()) if which.size else math.nan


def horizons(
    network: AcousticModel, log_mel: Tensor, log_mel_lengths: Tensor, losses: Losses, steps: int
) -> dict[str, float]:
    """Return ``gradient_horizon_frames`` of the network, and of each layer and direction.

    That of the network is its farthest layer's; of a feed-forward network, its inputs'. It is at
    most `steps`, and at most what the utterances' lengths allow.
    """
    if steps < 1:
        raise ConfigError(f"a gradient horizon needs at least one step back, got {steps}")
    norms = gradient_norms(network, log_mel, log_mel_lengths, losses, steps)
    found = {name: float(profile(values).horizon_frames) for name, values in norms.items()}
    layers = {name: value for name, value in found.items() if name.startswith("layer")}
    farthest = max((layers or found).values())
    named = {f"{HORIZON}_{name.replace(' ', '_')}": value for name, value in layers.items()}
    return {HORIZON: farthest} | named
