"""The arithmetic that a self-test chooses where nobody does, once a machine and model."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import Run
from tiny import save_tiny_model
from torch import Tensor

from speech import precision
from speech.checkpoint import Model, load_model
from speech.precision import (
    WORTH_SECONDS,
    SelfTest,
    choose_precision,
    describe_precision,
    self_test,
)
from speech.transcribe import Recogniser

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return load_model(save_tiny_model(tmp_path / "model"))


class Found:
    """Stands for the self-test: finds what it is told, and counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, gain: float, changed: float) -> None:
        self.result = SelfTest(gain, changed)
        self.count = 0
        monkeypatch.setattr(precision, "self_test", self)

    def __call__(self, model: Model, device: torch.device) -> SelfTest:
        self.count += 1
        return self.result


@pytest.mark.parametrize(
    ("gain", "changed", "expected"),
    [
        (2.0, 0.0, "bfloat16"),
        (1.1, 0.01, "bfloat16"),
        (1.05, 0.0, "float32"),
        (0.3, 0.0, "float32"),
        (2.0, 0.02, "float32"),
        (2.0, float("inf"), "float32"),
    ],
)
def test_what_is_faster_and_hears_the_same_is_taken(
    gain: float, changed: float, expected: str, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Found(monkeypatch, gain, changed)
    assert [choose_precision(model, CPU, WORTH_SECONDS) for _ in range(3)] == [expected] * 3
    assert found.count == 1  # and kept
    assert Recogniser(model, threads=1, precision="auto").precision_name == expected
    assert found.count == 1


def test_little_audio_does_not_wait_for_a_self_test(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Found(monkeypatch, 2.0, 0.0)
    assert choose_precision(model, CPU, WORTH_SECONDS - 0.1) == "float32"
    assert Recogniser(model, threads=1, precision="auto").precision_name == "float32"
    assert found.count == 0  # and float32 is not kept as if it had been found
    assert choose_precision(model, CPU, WORTH_SECONDS) == "bfloat16"
    assert choose_precision(model, CPU, 5.0) == "bfloat16"  # as was found
    assert found.count == 1


@pytest.mark.parametrize(("seconds", "tests"), [(2.0, 0), (0.75, 1)])
def test_a_command_counts_the_audio_of_all_its_files(
    seconds: float, tests: int, run: Run, model: Model, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    found = Found(monkeypatch, 1.0, 0.0)
    monkeypatch.setattr(precision, "WORTH_SECONDS", seconds)
    files = [tmp_path / "a.wav", tmp_path / "b.wav"]
    for file in files:  # half a second each: one in all
        soundfile.write(file, np.zeros(8000, np.float32), 16000)
    model_directory = tmp_path / "model"
    assert not run("transcribe", *files, "--model", model_directory, "--precision", "auto").status
    assert found.count == tests


def test_each_model_has_its_own(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Found(monkeypatch, 2.0, 0.0)
    choose_precision(model, CPU, math.inf)
    with torch.no_grad():
        model.network.output.weight += 1
    choose_precision(model, CPU, math.inf)
    assert found.count == 2
    choose_precision(model, CPU, math.inf)
    assert found.count == 2


def test_doctor_measures_again_and_says_why(
    run: Run, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    Found(monkeypatch, 2.0, 0.0)
    assert choose_precision(model, CPU, math.inf) == "bfloat16"
    Found(monkeypatch, 0.5, 0.1)
    said = describe_precision(model, CPU)
    assert said == (
        "float32: bfloat16 is 0.50 times as fast here (needed: 1.1), "
        "10.0% of the text changed (allowed: 1%)"
    )
    assert choose_precision(model, CPU) == "float32"
    monkeypatch.delenv("SPEECH_PRECISION")
    assert [line for line in run("doctor").lines if line.startswith("precision")] == [
        f"precision auto   {said}"
    ]
    monkeypatch.setenv("SPEECH_PRECISION", "bfloat16")
    assert [line for line in run("doctor").lines if line.startswith("precision")] == [
        f"precision auto   {said}",
        "precision        bfloat16: SPEECH_PRECISION says so, whatever auto finds",
    ]


def test_without_bfloat16_nothing_is_measured(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Found(monkeypatch, 2.0, 0.0)
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: False)
    assert choose_precision(model, CPU, math.inf) == "float32"
    assert describe_precision(model, CPU).startswith("float32: this processor does not")
    assert found.count == 0


@pytest.mark.parametrize("content", ["", "[1]", '{"a": {"gain": 1}}', '{"a": 3}', "\0\1"])
def test_a_damaged_cache_is_measured_again(
    content: str, model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "cache" / "speech" / "precision.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    found = Found(monkeypatch, 2.0, 0.0)
    assert [choose_precision(model, CPU, math.inf) for _ in range(2)] == ["bfloat16"] * 2
    assert found.count == 1
    assert len(json.loads(path.read_text())) == 1


def test_a_cache_that_cannot_be_written_is_no_error(
    model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file where a directory should be")
    Found(monkeypatch, 2.0, 0.0)
    assert choose_precision(model, CPU, math.inf) == "bfloat16"


def test_self_test_times_both_and_compares_what_they_hear(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = self_test(model, CPU)
    assert same.gain > 0
    assert 0 <= same.changed < 1

    def hear(model: Model, log_mel: Tensor, lengths: Tensor, narrow: bool) -> Tensor:
        log_probs = torch.zeros(*log_mel.shape[:2], model.tokenizer.size)
        log_probs[:, 0, 3] = log_probs[:, 2, 4 + narrow] = 1.0  # "ab" and "ac"; a change in two
        return log_probs

    monkeypatch.setattr(precision, "_log_probs", hear)
    assert self_test(model, CPU).changed == 0.5


def test_shipped_model_hears_the_same_in_both() -> None:
    found = self_test(load_model("base"), CPU)
    assert found.changed <= precision.MOST_CHANGED
