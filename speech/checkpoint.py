"""Models and training states on disk: plain data, written whole or not at all.

A model is a directory: ``config.toml``, ``tokens.txt``, ``model.safetensors``, and, once measured,
``calibration.json``. A training state is one file of tensors and numbers, read with
``weights_only``: no pickled code either way.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from speech.calibration import (
    CALIBRATION_FILE,
    Calibration,
    dump_calibration,
    read_calibration,
)
from speech.config import Config, ModelConfig, dump_config, load_config
from speech.errors import ModelError, reason_of
from speech.features import FeatureExtractor
from speech.model import AcousticModel
from speech.shipped import CONFIG_FILE, find_shipped
from speech.tokenizer import CharTokenizer

DEFAULT_MODEL = "base"
TOKENS_FILE, WEIGHTS_FILE = "tokens.txt", "model.safetensors"
STATE_VERSION = 1  # of the training state; a file of another version is refused


@dataclass(frozen=True)
class Model:
    """Everything that turns samples into log-probs, and tokens into text."""

    config: Config
    tokenizer: CharTokenizer
    extractor: FeatureExtractor
    network: AcousticModel
    calibration: Calibration = field(default_factory=Calibration)

    def modules(self) -> nn.ModuleDict:
        """The parts with weights and buffers under the names they have on disk."""
        return nn.ModuleDict({"features": self.extractor, "network": self.network})

    @property
    def seconds_per_frame(self) -> float:
        """Time from one output frame to the next."""
        features = self.config.features
        return self.config.model.subsampling * features.hop_samples / features.sample_rate


def create_model(config: Config, tokenizer: CharTokenizer) -> Model:
    """Return a model with initial weights, drawn from torch's global generator."""
    network = AcousticModel(config.model, config.features.mel_bands, tokenizer.size)
    return Model(config, tokenizer, FeatureExtractor(config.features), network)


def find_model(name_or_path: str | Path) -> Path:
    """Return the directory of a shipped model's name, or of a path to one.

    Raises `ModelError` that lists the names there are.
    """
    return find_shipped(name_or_path, "model", CONFIG_FILE, WEIGHTS_FILE)


def load_model(name_or_path: str | Path = DEFAULT_MODEL) -> Model:
    """Return a model in evaluation mode with float32 weights on the CPU."""
    directory = find_model(name_or_path)
    config = load_config(directory / CONFIG_FILE)
    tokenizer = CharTokenizer.load(directory / TOKENS_FILE)
    with torch.device("meta"):  # shapes only: to draw orthogonal weights takes longer than to read
        network = AcousticModel(config.model, config.features.mel_bands, tokenizer.size)
    model = Model(config, tokenizer, FeatureExtractor(config.features), network)
    read_weights(directory / WEIGHTS_FILE, model.modules())
    model.modules().eval()
    return dataclasses.replace(model, calibration=read_calibration(directory / CALIBRATION_FILE))


def find_initial(name_or_path: str, directory: Path) -> Path:
    """Return the directory of the model a run begins with; relative paths start at `directory`."""
    path = directory / name_or_path
    return find_model(path if path.is_dir() else name_or_path)


def start_from(source: Path, model: Model) -> None:
    """Copy the weights and feature statistics of the model in `source` into `model`.

    A network of one direction may begin with the forward direction of a bidirectional one, and a
    look-ahead be added. Raises `ModelError` unless both have the same features, alphabet and, apart
    from that, dropout and how weights start, the same network.
    """
    start = load_model(source)
    require_same(source, "[features]", start.config.features, model.config.features)
    comparable = _comparable(start.config.model, model.config.model)
    require_same(source, "[model]", comparable, model.config.model)
    theirs, ours = start.tokenizer.alphabet, model.tokenizer.alphabet
    if theirs != ours:
        raise ModelError(f"cannot start from {source}: its alphabet is {theirs!r}, not {ours!r}")
    weights = start.modules().state_dict()
    # Forward units stand first in whatever reads both directions; a new look-ahead stays itself.
    model.modules().load_state_dict(
        {
            key: weights[key][..., : own.shape[-1]] if own.dim() else weights[key]
            for key, own in model.modules().state_dict().items()
            if key in weights
        },
        strict=comparable == start.config.model,
    )


def _comparable(theirs: ModelConfig, ours: ModelConfig) -> ModelConfig:
    """Return their network without what may be left out or added to begin ours with it."""
    if theirs.bidirectional and not ours.bidirectional:
        theirs = dataclasses.replace(theirs, bidirectional=False)
    if not theirs.bidirectional and not theirs.lookahead_frames:
        theirs = dataclasses.replace(theirs, lookahead_frames=ours.lookahead_frames)
    return theirs


# Settings of [model] that have no say in which weights there are, or what they mean once learned.
_FREE_TO_DIFFER = ("dropout", "forget_bias", "recurrent_init")


def require_same(source: Path, table: str, theirs: object, ours: object) -> None:
    """Raise `ModelError` that names the settings in which weights to start from do not fit."""
    different = [
        f"{key} = {value!r}, not {getattr(ours, key)!r}"
        for key, value in vars(theirs).items()
        if key not in _FREE_TO_DIFFER and value != getattr(ours, key)
    ]
    if different:
        raise ModelError(f"cannot start from {source}: its {table} has {'; '.join(different)}")


def save_model(directory: Path, model: Model, dtype: torch.dtype = torch.float32) -> None:
    """Write a model directory; weights as `dtype`, statistics of the features always as float32."""
    save_config(directory, model.config)
    replace_file(directory / TOKENS_FILE, model.tokenizer.save)
    # One of other weights, should there be any, goes before these come.
    save_calibration(directory, model.calibration)
    write_weights(directory / WEIGHTS_FILE, stored_weights(model.modules(), dtype))


def save_config(directory: Path, config: object) -> None:
    """Write a dataclass of tables into a model's directory, which is made."""
    directory.mkdir(parents=True, exist_ok=True)
    text = dump_config(config)
    replace_file(directory / CONFIG_FILE, lambda path: path.write_text(text, encoding="utf-8"))


def stored_weights(modules: nn.ModuleDict, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return weights as `dtype`, and statistics of the features as float32, by name."""
    return {
        key: value.to(torch.float32 if key.startswith("features.") else dtype)
        for key, value in modules.state_dict().items()
    }


def read_weights(path: Path, module: nn.Module) -> None:
    """Load a file of weights, as float32, in place of a module's and set it to evaluation.

    Raises `ModelError` where it cannot be read or holds other weights than the module has.
    """
    try:
        weights = safetensors.torch.load_file(path)
        # Copies: one tensor that is float32 already would keep the whole file mapped.
        state = {key: value.to(torch.float32, copy=True) for key, value in weights.items()}
        module.load_state_dict(state, assign=True)
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelError(f"{path}: cannot read the weights: {reason_of(error)}") from error
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        raise ModelError(f"{path}: weights do not fit {CONFIG_FILE}: {first[0].strip()}") from error
    module.eval()


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors in place of what is there."""
    own = {key: value.detach().cpu().contiguous().clone() for key, value in weights.items()}
    replace_file(path, lambda partial: safetensors.torch.save_file(own, partial))


def save_calibration(directory: Path, calibration: Calibration) -> None:
    """Write what is known of a model into its directory; no file where nothing is."""
    path = directory / CALIBRATION_FILE
    if calibration == Calibration():
        path.unlink(missing_ok=True)
    else:
        text = dump_calibration(calibration)
        replace_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a training state (tensors, numbers, strings, lists, dicts) in place of the last one."""
    replace_file(path, lambda partial: torch.save({"version": STATE_VERSION, **state}, partial))


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote. Raises `ModelError` for a damaged file or another version."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"{path}: no training state to resume from") from None
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: damaged, or holds other things than tensors and numbers"
        ) from error
    except Exception as error:  # each part of a damaged file raises something else
        reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise ModelError(f"{path}: damaged training state: {reason}") from error
    if not isinstance(state, dict) or state.get("version") != STATE_VERSION:
        raise ModelError(f"{path}: not a training state of version {STATE_VERSION}")
    return state


def average_weights(average: list[Tensor], current: list[Tensor], decay: float) -> None:
    """Move `average` towards `current` by a share of 1 - `decay`, in place."""
    torch._foreach_lerp_(average, current, 1 - decay)


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside `path`, flush to disk, rename: a crash leaves the old file or the new one."""
    partial = path.with_name(f".{path.name}.partial")  # one name: the next write takes over
    try:
        write(partial)
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
