"""Models and trainings that take a second, for the corpus of ``conftest``; how runs compare."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speech.checkpoint import create_model, load_state, save_model
from speech.config import AugmentConfig, Config, DataConfig, FeatureConfig, ModelConfig, TrainConfig
from speech.task import StepReport
from speech.tokenizer import CharTokenizer

SAMPLE_RATE = 8000  # of the corpora these configurations are for: nothing is resampled
FEATURES = FeatureConfig(
    sample_rate=SAMPLE_RATE, n_fft=256, window_samples=200, hop_samples=80, mel_bands=16,
    max_hz=3800.0,
)  # fmt: skip
MODEL = ModelConfig(subsampling=4, conv_channels=2, layers=2, hidden=12)
TRAIN = TrainConfig(
    epochs=4, batch_seconds=2.0, learning_rate=3e-3, warmup_steps=4, ema_decay=0.9,
    precision="float32", patience=0,
)  # fmt: skip


def tiny_config(manifest: Path, **changes: Any) -> Config:
    """Return a config that trains on a manifest and is judged by it.

    A change is a field of any table: ``tiny_config(manifest, epochs=2, dropout=0.0)``.
    """
    name = str(manifest.absolute())
    config = Config(
        FEATURES, MODEL, AugmentConfig(), DataConfig(train={name: 1.0}, dev=(name,)), TRAIN
    )
    for table in dataclasses.fields(config):
        part = getattr(config, table.name)
        own = {key: changes.pop(key) for key in tuple(changes) if hasattr(part, key)}
        if own:
            part = dataclasses.replace(part, **own)
            config = dataclasses.replace(config, **{table.name: part})
    assert not changes, f"no such settings: {changes}"
    return config


def save_tiny_model(directory: Path, seed: int = 0, **changes: Any) -> Path:
    """Write a model with random weights; what it hears means nothing, but is always the same."""
    torch.manual_seed(seed)
    config = tiny_config(Path("nowhere.jsonl"), **changes)
    save_model(directory, create_model(config, CharTokenizer()))
    return directory


class Recorder:
    """Keeps what a run tells; `at_step` is called after each step."""

    def __init__(self, at_step: Callable[[StepReport], None] = lambda _: None) -> None:
        self.messages: list[str] = []
        self.steps: list[StepReport] = []
        self.rows: list[dict[str, float]] = []
        self._at_step = at_step

    def message(self, text: str) -> None:
        self.messages.append(text)

    def step(self, report: StepReport) -> None:
        self.steps.append(report)
        self._at_step(report)

    def epoch(self, row: dict[str, float]) -> None:
        self.rows.append(row)


def without_times(value: object) -> object:
    """Leave out what a clock measured."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if "wall_seconds" not in str(k)}
    return [without_times(item) for item in value] if isinstance(value, list | tuple) else value


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Return where two stored states differ in any bit."""
    if isinstance(one, Tensor):
        return [] if torch.equal(one, other) and one.dtype == other.dtype else [path]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [path]
        return [d for key in one for d in differences(one[key], other[key], f"{path}/{key}")]
    if isinstance(one, list):
        if len(one) != len(other):
            return [path]
        pairs = zip(one, other, strict=True)
        return [d for n, pair in enumerate(pairs) for d in differences(*pair, f"{path}/{n}")]
    return [] if one == other and type(one) is type(other) else [path]


def assert_same_run(one: Path, other: Path) -> None:
    """Two runs ended in the same state, with the same best model and the same history."""
    states = [without_times(load_state(run / "last.pt")) for run in (one, other)]
    assert differences(*states) == []
    models = [(run / "best" / "model.safetensors").read_bytes() for run in (one, other)]
    assert models[0] == models[1]
    histories = [json.loads((run / "history.json").read_text()) for run in (one, other)]
    assert without_times(histories[0]) == without_times(histories[1])
