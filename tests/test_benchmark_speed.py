"""The benchmark of ratios: what it counts, and that each part runs."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import benchmark_speed as script
import pytest
import torch
from conftest import write_tiny_corpus
from tiny import SAMPLE_RATE, save_tiny_model
from torch import nn

from speech.checkpoint import load_model
from speech.manifest import read_manifest

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))


def test_operations_by_hand(tmp_path: Path) -> None:
    model = load_model(save_tiny_model(tmp_path / "model", layers=1, hidden=3))
    # 10 frames of 16 bands; both convolutions halve time and bands: (5, 8), then (3, 4).
    convolutions = (1 * 2 * 5 * 3) * 5 * 8 + (2 * 2 * 5 * 3) * 3 * 4
    recurrent = 2 * 4 * 3 * (2 * 4 + 3) * 3  # directions, gates, units, inputs and units, steps
    output = 2 * 3 * model.tokenizer.size * 3
    assert script.operations(model, 10) == 2 * (convolutions + recurrent + output)


def test_every_product_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "MATRIX_SIZES", (16,))
    assert len(script.products(16, torch.float32)) == 4
    assert script.matrix_rate(torch.float32) > 0


def test_int8_of_torch_is_smaller() -> None:
    linear = nn.Sequential(nn.Linear(256, 256))
    assert script.megabytes(script.quantised(linear)) < script.megabytes(linear) / 3


@pytest.mark.slow
@pytest.mark.skipif(not HAS_ONNX, reason="needs the extra [onnx]")
def test_ratios_and_forms_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "MATRIX_SIZES", (64,))
    manifest = write_tiny_corpus(tmp_path / "corpus", 3, sample_rate=SAMPLE_RATE)
    model = save_tiny_model(tmp_path / "model")
    parts = [f"--only={part}" for part in ("acoustic", "transcribe", "features", "int8")]
    command = ["benchmark_speed", str(manifest), "--model", str(model), *parts]
    monkeypatch.setattr(sys, "argv", [*command, "--output", str(tmp_path / "speed.json")])
    script.main()
    figures = json.loads((tmp_path / "speed.json").read_text())
    assert figures["audio_seconds"] == pytest.approx(
        sum(one.duration for one in read_manifest(manifest))
    )
    assert [row["name"] for row in figures["acoustic"]] == ["float32", "bfloat16"]
    for part in ("acoustic", "transcribe", "features"):
        assert all(row["ratio"] > 0 for row in figures[part])
    rows = {row["name"]: row for row in figures["int8"]}
    assert list(rows) == [
        "torch float32", "torch bfloat16", "torch int8", "onnxruntime float32", "onnxruntime int8",
    ]  # fmt: skip
    assert rows["torch float32"]["wer"] == rows["onnxruntime float32"]["wer"]
    lines = capsys.readouterr().out.splitlines()
    assert lines == script.table(figures)
    assert sum(line.startswith("| onnxruntime") for line in lines) == 2
