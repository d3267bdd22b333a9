"""Gradients made visible: how they vanish and grow, by spectral radius, cell and layer.

Networks with one recurrent layer of equal size, W_h scaled to a spectral radius, hear real
utterances and are asked for their texts. Theory: where tanh is linear the gradient changes by the
radius at every step; in general by the radius times the root mean square of tanh' over the
units, for W_h is a scaled orthogonal matrix (mean-field theory: Poole et al., 2016, eq. 6; Chen et
al., 2018, for recurrent networks).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from speech.checkpoint import Model, load_model
from speech.dataset import Batch, Example, SampleCache, batch_by_seconds, collate, encode_utterance
from speech.errors import ManifestError
from speech.features import pad_features
from speech.gradients import (
    GradientProfile,
    gradient_norms,
    profile,
    scale_recurrent,
    unroll_network,
)
from speech.layers import frame_mask
from speech.manifest import corpus_name, read_manifest
from speech.model import AcousticModel, count_parameters, ctc_losses, match_parameters
from speech.study_results import store_study

RADII = (0.5, 0.9, 1.0, 1.1, 1.5)
# So faint that tanh is linear even where radius 1.5 amplifies it over a whole utterance; float64
# carries it.
WEAK_DRIVE = 1e-120
# Name of a network -> its cell, and a factor on W_x: how loud it hears.
NETWORKS = {
    "rnn_tanh, faint inputs": ("rnn_tanh", WEAK_DRIVE),
    "rnn_tanh": ("rnn_tanh", 1.0),
    "lstm": ("lstm", 1.0),
}
GRADIENTS_FILE = "gradients.json"

_BATCH_SECONDS = 30.0  # every state of every step is kept
_SHORTEST_SECONDS = 2.0  # an utterance shorter than that has no past to speak of


@dataclass(frozen=True)
class GradientStudy:
    """What is measured: utterances, how far back, and networks of what size."""

    manifests: tuple[Path, ...]
    models: tuple[str, ...]  # trained checkpoints; the others use the features of the first
    utterances: int = 32
    steps: int = 250  # output frames back
    hidden: int = 256  # units of the LSTM; the others have as many weights as it
    radii: tuple[float, ...] = RADII
    clip_norm: float = 5.0
    seed: int = 1


def run_gradient_study(
    study: GradientStudy, output: Path, advance: Callable[[float], None] = lambda _: None
) -> dict[str, Any]:
    """Measure, write figures and pictures into `output`, and return the figures.

    `advance` is called with the share of the work that was done since it was called last.
    """
    models = [load_model(name) for name in study.models]
    model = models[0]
    batches = list(read_batches(study, model))
    work = 1 / (len(NETWORKS) * len(study.radii) + len(models))
    by_radius: dict[str, dict[str, Any]] = {name: {} for name in NETWORKS}
    for name in NETWORKS:
        for radius in study.radii:
            network = radius_network(study, model, name, radius)
            by_radius[name][f"{radius:g}"] = measure_radius(network, batches, study, radius)
            advance(work)
    checkpoints = []
    for name, trained in zip(study.models, models, strict=True):
        own = batches if trained is model else list(read_batches(study, trained))
        layers = profiles(trained.network.double(), own, study.steps)
        cell = trained.config.model.cell
        checkpoints.append({"model": name, "cell": cell, "layers": _plain(layers, spread=True)})
        advance(work)
    figures = {
        "radius": by_radius,
        "half_life_ratio": half_life_ratio(by_radius),
        "checkpoints": checkpoints,
        "seconds_per_frame": model.seconds_per_frame,
        "manifests": [corpus_name(manifest) for manifest in study.manifests],
        "utterances": sum(len(batch.utterances) for batch in batches),
        "steps": study.steps,
        "clip_norm": study.clip_norm,
    }
    store_study(figures, output / GRADIENTS_FILE)
    return figures


def read_batches(study: GradientStudy, model: Model) -> Iterator[Batch]:
    """Yield batches of utterances drawn from the manifests, none too short to have a past."""
    found = [
        Example(utterance, encode_utterance(utterance, model.tokenizer))
        for manifest in study.manifests
        for utterance in read_manifest(manifest)
        if utterance.duration >= _SHORTEST_SECONDS and utterance.text.strip()
    ]
    if not found:
        names = ", ".join(map(str, study.manifests))
        raise ManifestError(f"no utterance of {_SHORTEST_SECONDS} s or more in {names}")
    count = min(study.utterances, len(found))
    drawn = np.random.default_rng(study.seed).choice(len(found), count, replace=False)
    examples = [found[index] for index in sorted(drawn.tolist())]
    cache = SampleCache(None, model.config.features.sample_rate)
    for indices in batch_by_seconds([e.utterance.duration for e in examples], _BATCH_SECONDS):
        chosen = [examples[index] for index in indices]
        with torch.no_grad():
            features = [model.extractor.extract(cache.load(e.utterance.audio_path)) for e in chosen]
        yield collate(*pad_features(features), chosen)


def radius_network(study: GradientStudy, model: Model, name: str, radius: float) -> AcousticModel:
    """Return an untrained one-way network of one layer in float64, W_h scaled to `radius`."""
    cell, drive = NETWORKS[name]
    base = dataclasses.replace(
        model.config.model, cell="lstm", layers=1, hidden=study.hidden, bidirectional=False,
        projection=0, dropout=0.0,
    )  # fmt: skip
    sizes = model.config.features.mel_bands, model.tokenizer.size
    config = match_parameters(
        dataclasses.replace(base, cell=cell), count_parameters(base, *sizes), *sizes
    )
    torch.manual_seed(study.seed)
    network = AcousticModel(config, *sizes).double().eval()
    scale_recurrent(network, radius)
    with torch.no_grad():
        network.get_parameter("layers.0.forwards.weight_ih_l0").mul_(drive)
    return network


def measure_radius(
    network: AcousticModel, batches: Sequence[Batch], study: GradientStudy, radius: float
) -> dict[str, Any]:
    """Return the profiles of a network, the theory's rate, and the gradient of its weights."""
    norm = weight_gradient_norm(network, batches)
    figures: dict[str, Any] = {
        "layers": _plain(profiles(network, batches, study.steps), spread=False),
        "hidden": network.config.hidden,
        "weight_gradient_norm": norm,  # per character, as a training step has it
        "clipped_to": min(1.0, study.clip_norm / norm) if norm > 0 else 1.0,
    }
    if network.config.cell == "rnn_tanh":
        figures["predicted_rate"] = radius * mean_slope(network, batches)
    return figures


def profiles(
    network: AcousticModel, batches: Sequence[Batch], steps: int
) -> dict[str, GradientProfile]:
    """Return a profile of each layer and direction over the utterances of all batches."""
    norms: dict[str, list[NDArray[np.float64]]] = {}
    for batch in batches:
        measured = gradient_norms(
            network, batch.log_mel.double(), batch.log_mel_lengths, _losses(batch), steps
        )
        for name, values in measured.items():
            norms.setdefault(name, []).append(values)
    return {name: profile(np.concatenate(parts)) for name, parts in norms.items()}


def _losses(batch: Batch) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda log_probs, lengths: ctc_losses(
        log_probs, lengths, batch.tokens, batch.token_lengths
    )


def mean_slope(network: AcousticModel, batches: Sequence[Batch]) -> float:
    """Return the root mean square of tanh' = 1 - h^2 over units and frames of the first layer."""
    total, count = 0.0, 0
    for batch in batches:
        with torch.no_grad():
            unrolled = unroll_network(network, batch.log_mel.double(), batch.log_mel_lengths)
        hidden = torch.stack([h for (h,) in unrolled.states["layer 1 forwards"]], 1)
        own = hidden[frame_mask(unrolled.lengths, hidden.shape[1])]
        total += float((1 - own.square()).square().sum())
        count += own.numel()
    return math.sqrt(total / count)


def weight_gradient_norm(network: AcousticModel, batches: Sequence[Batch]) -> float:
    """Return the norm over all weights of the gradient of the mean loss per character."""
    network.zero_grad()
    characters = sum(int(batch.token_lengths.sum()) for batch in batches)
    for batch in batches:
        log_probs, lengths = network(batch.log_mel.double(), batch.log_mel_lengths)
        loss = _losses(batch)(log_probs, lengths).sum() / characters
        loss.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    norm = float(nn.utils.get_total_norm(gradients))
    network.zero_grad()
    return norm


def half_life_ratio(by_radius: dict[str, dict[str, Any]]) -> float | None:
    """Return how many times longer an LSTM's half-life is than an RNN's, W_h being orthogonal.

    None where one of them has none, or radius 1, at which both are initialised, is not measured.
    """
    found = [by_radius[name].get("1") for name in ("rnn_tanh", "lstm")]
    if any(one is None for one in found):
        return None
    rnn, lstm = (one["layers"]["layer 1 forwards"]["half_life_frames"] for one in found if one)
    return float(lstm / rnn) if rnn > 0 and math.isfinite(rnn) and math.isfinite(lstm) else None


def _plain(found: dict[str, GradientProfile], spread: bool) -> dict[str, Any]:
    return {name: one.to_dict(spread) for name, one in found.items()}
