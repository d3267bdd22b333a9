"""Exported models: the same log-probs and transcripts as torch, from a directory without torch."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Run
from numpy.typing import NDArray
from tiny import FEATURES, save_tiny_model

from speech.audio import load_audio
from speech.checkpoint import Model, load_model
from speech.decode import greedy
from speech.errors import ModelError
from speech.export import export_onnx
from speech.features import num_frames
from speech.manifest import read_manifest
from speech.model import output_length
from speech.onnx_runner import MAX_SECONDS, OnnxRecogniser, read_wav
from speech.transcribe import Recogniser

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

REPOSITORY = Path(__file__).parent.parent
SAMPLE = REPOSITORY / "data" / "sample" / "manifest.jsonl"
# A manifest of real speech for the slow tests, which are skipped without.
REAL_MANIFEST = os.environ.get("SPEECH_TEST_MANIFEST", "")
REAL_UTTERANCES = 50
TOLERANCE = 1e-3  # of log-probs: rounding of float32, through features, all frames and layers
INT8_TOLERANCE = 0.5
SAMPLES = (1, 255, 256, 257, 4000, 9999)  # of the utterances in a test batch
WINDOW_FRAMES = 40  # of the moving mean: the longest utterance has more


def make_model(directory: Path, **changes: object) -> Model:
    window = {"mean_window_frames": WINDOW_FRAMES, "mean_prior_frames": 15}
    model = load_model(save_tiny_model(directory, **{**window, **changes}))
    generator = torch.Generator().manual_seed(1)
    bands = model.config.features.mel_bands
    model.extractor.mean.copy_(torch.randn(bands, generator=generator) - 8.0)
    model.extractor.deviation.copy_(torch.rand(bands, generator=generator) + 1.0)
    return model


def exported(directory: Path, model: Model, int8: bool = False) -> OnnxRecogniser:
    export_onnx(model, directory, "tiny", int8)
    return OnnxRecogniser(directory, threads=1)


def noise(lengths: tuple[int, ...] = SAMPLES) -> list[NDArray[np.float32]]:
    random = np.random.default_rng(0)
    return [random.normal(scale=0.1, size=length).astype(np.float32) for length in lengths]


def torch_log_probs(model: Model, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    return Recogniser(model, threads=1).log_probs([samples])[0]


def worst_difference(model: Model, recogniser: OnnxRecogniser) -> float:
    """Largest difference from torch, which takes each utterance alone, in one batch."""
    assert num_frames(max(SAMPLES), FEATURES) > WINDOW_FRAMES
    found = recogniser.log_probs(noise())
    expected = [torch_log_probs(model, one) for one in noise()]
    assert [one.shape for one in found] == [one.shape for one in expected]
    return max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    "changes",
    [
        {"cell": "lstm", "subsampling": 3, "projection": 5},
        {"cell": "lstm", "bidirectional": False, "lookahead_frames": 2, "layer_norm": False},
        {"cell": "gru"},
        {"cell": "gru", "bidirectional": False, "subsampling": 1},
        {"cell": "rnn_tanh", "subsampling": 8},
        {"cell": "rnn_relu", "bidirectional": False},
        {"cell": "feedforward", "context_frames": 3},
        {"cell": "feedforward", "bidirectional": False, "projection": 5},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_log_probs_equal_torch(changes: dict[str, object], tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", **changes)
    assert worst_difference(model, exported(tmp_path / "onnx", model)) < TOLERANCE


def test_odd_windows_stand_in_the_middle(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", window_samples=201, n_fft=300, hop_samples=77)
    assert worst_difference(model, exported(tmp_path / "onnx", model)) < TOLERANCE


def test_lengths_are_the_librarys(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", subsampling=3)
    recogniser = exported(tmp_path / "onnx", model)
    counts = range(1, 1300, 13)
    found = recogniser.log_probs([np.zeros(count, np.float32) for count in counts])
    expected = [output_length(num_frames(count, FEATURES), 3) for count in counts]
    assert [len(one) for one in found] == expected
    alone = [len(recogniser.log_probs([np.zeros(count, np.float32)])[0]) for count in counts]
    assert alone == expected


@pytest.mark.parametrize("padding", [0.0, 1e4, math.nan])
def test_alone_equals_batched(padding: float, tmp_path: Path) -> None:
    recogniser = exported(tmp_path / "onnx", make_model(tmp_path / "model"))
    lengths = np.array(SAMPLES)
    batch = np.full((len(lengths), lengths.max() + 500), padding, np.float32)
    for row, one in zip(batch, noise(), strict=True):
        row[: len(one)] = one
    together, counts = recogniser._session.run(None, {"samples": batch, "lengths": lengths})
    for row, count, one in zip(together, counts, noise(), strict=True):
        assert np.abs(row[:count] - recogniser.log_probs([one])[0]).max() < TOLERANCE


# --- int8 -----------------------------------------------------------------------------------------


def test_int8_is_small_and_near(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", hidden=96)
    whole = export_onnx(model, tmp_path / "float32", "tiny")
    recogniser = exported(tmp_path / "int8", model, int8=True)
    assert (tmp_path / "int8" / whole.name).stat().st_size < whole.stat().st_size / 2.5
    difference = worst_difference(model, recogniser)
    assert 0 < difference < INT8_TOLERANCE


def test_int8_of_other_cells_is_refused(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", cell="gru")
    with pytest.raises(ModelError, match=r"int8 needs layers of LSTM units.*'gru'"):
        export_onnx(model, tmp_path / "onnx", "tiny", int8=True)
    assert not (tmp_path / "onnx" / "model.onnx").exists()


# --- The directory and its script -----------------------------------------------------------------


def write_wav(path: Path, samples: NDArray[np.float32], rate: int, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", "not compressed"))
        file.writeframes((samples * 32768).round().clip(-32768, 32767).astype("<i2").tobytes())
    return path


def test_text_is_the_greedy_one(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    recogniser = exported(tmp_path / "onnx", model)
    assert recogniser.sample_rate == FEATURES.sample_rate
    for seed in range(20):
        random = np.random.default_rng(seed)
        logits = (
            random.normal(size=(30, model.tokenizer.size)) + 3 * np.eye(model.tokenizer.size)[0]
        )
        log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        expected = model.tokenizer.decode(greedy(log_probs).tokens).strip()
        assert recogniser.text(log_probs) == expected
    assert expected


def test_long_audio_is_cut_in_its_pause_and_nothing_is_lost(tmp_path: Path) -> None:
    recogniser = exported(tmp_path / "onnx", make_model(tmp_path / "model"))
    rate = recogniser.sample_rate
    (samples,) = noise((int(2.2 * MAX_SECONDS * rate),))
    pause = slice(round(0.8 * MAX_SECONDS * rate), round(0.82 * MAX_SECONDS * rate))
    samples[pause] = 0
    pieces = list(recogniser._pieces(samples))
    assert len(pieces) == 3
    assert pause.start < len(pieces[0]) < pause.stop
    assert max(map(len, pieces)) <= MAX_SECONDS * rate
    np.testing.assert_array_equal(np.concatenate(pieces), samples)


def test_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    two = write_wav(tmp_path / "two.wav", np.zeros(200, np.float32), 44100, channels=2)
    with pytest.raises(ValueError, match=r"44100 Hz, 2 channels of 16 bits; needs 8000 Hz.*ffmpeg"):
        read_wav(two, 8000)
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(ValueError, match=r"text\.wav: not a WAV file"):
        read_wav(tmp_path / "text.wav", 8000)


def test_command_writes_a_directory_that_explains_itself(run: Run, tmp_path: Path) -> None:
    directory = save_tiny_model(tmp_path / "model")
    output = tmp_path / "onnx"
    done = run("export", "--format", "onnx", "--model", directory, "--output", output)
    assert done.status == 0, done.stderr
    assert "model.onnx" in done.stderr
    assert {path.name for path in output.iterdir()} == {
        "README.md", "config.toml", "model.onnx", "tokens.txt", "transcribe.py",
    }  # fmt: skip
    readme = (output / "README.md").read_text("utf-8")
    assert "8000 Hz" in readme
    assert all(f"`{name}`" in readme for name in ("samples", "lengths", "log_probs"))
    refused = run("export", "--model", directory, "--output", directory)
    assert (refused.status, refused.lines) == (1, [])
    assert "holds a model to train on" in refused.stderr


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(tmp_path / "model")
    monkeypatch.delitem(sys.modules, "speech.onnx_graph", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModelError, match=r"needs onnx: pip install 'lstm-speech\[onnx\]'"):
        export_onnx(model, tmp_path / "onnx", "tiny")


# Runs a script in a process where these fail to import, as if they were not installed.
ISOLATED = """
import importlib.abc, runpy, sys
walled_off = {"torch", "torchaudio", "speech", "librosa", "onnx", "safetensors"}
class Wall(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in walled_off:
            raise ModuleNotFoundError(f"{name} is walled off", name=name)
sys.meta_path.insert(0, Wall())
sys.path[:] = [place for place in sys.path if place not in ("", sys.argv[1])]
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def transcribe_isolated(directory: Path, wavs: list[Path]) -> list[str]:
    """Return what the exported script prints where torch and this package cannot be imported."""
    script = directory / "transcribe.py"
    command = [sys.executable, "-c", ISOLATED, str(REPOSITORY), str(script), *map(str, wavs)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=directory)
    assert done.returncode == 0, done.stderr
    return [line.partition("\t")[2] for line in done.stdout.splitlines()]


def test_script_needs_no_torch(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    recogniser = exported(tmp_path / "onnx", model)
    wavs = [
        write_wav(tmp_path / f"{number}.wav", one, recogniser.sample_rate)
        for number, one in enumerate(noise((9000, 12000)))
    ]
    expected = torch_texts(model, wavs)
    assert all(expected)
    assert transcribe_isolated(tmp_path / "onnx", wavs) == expected
    (tmp_path / "transcribe.py").write_text("import torch")
    with pytest.raises(AssertionError, match="torch is walled off"):
        transcribe_isolated(tmp_path, wavs)


def torch_texts(model: Model, wavs: list[Path]) -> list[str]:
    """What torch hears in recordings: the greedy transcripts."""
    recogniser, rate = Recogniser(model), model.config.features.sample_rate
    heard = [recogniser.recognise([read_wav(path, rate)])[0] for path in wavs]
    return [model.tokenizer.decode(one.tokens).strip() for one in heard]


@pytest.mark.slow
@pytest.mark.parametrize("manifest", [str(SAMPLE), REAL_MANIFEST], ids=["sample", "real"])
def test_shipped_model_without_torch_hears_the_same(manifest: str, tmp_path: Path) -> None:
    """The greedy transcripts of torch, by a process that cannot import torch."""
    if not manifest:
        pytest.skip("SPEECH_TEST_MANIFEST names no manifest of real speech")
    model = load_model("base")
    utterances = list(itertools.islice(read_manifest(Path(manifest)), REAL_UTTERANCES))
    audio = [load_audio(one.audio_path, model.config.features.sample_rate) for one in utterances]
    assert all(len(one.samples) <= MAX_SECONDS * 16000 for one in audio)
    wavs = [
        write_wav(tmp_path / f"{number:03d}.wav", one.samples, 16000)
        for number, one in enumerate(audio)
    ]
    export_onnx(model, tmp_path / "onnx", "base")
    found = transcribe_isolated(tmp_path / "onnx", wavs)
    expected = torch_texts(model, wavs)
    assert len(found) == len(utterances) >= 20
    assert found == expected
    assert sum(map(len, found)) > 20 * len(found)


@pytest.mark.slow
def test_shipped_model_in_int8_is_a_quarter_and_hears_nearly_the_same(tmp_path: Path) -> None:
    model = load_model("base")
    whole = export_onnx(model, tmp_path / "float32", "base").stat().st_size
    small = export_onnx(model, tmp_path / "int8", "base", int8=True).stat().st_size
    assert small < 0.3 * whole
    recognisers = [OnnxRecogniser(tmp_path / name) for name in ("float32", "int8")]
    same = total = 0
    for utterance in read_manifest(SAMPLE):
        samples = load_audio(utterance.audio_path, 16000).samples
        one, other = (recogniser.transcribe(samples).split() for recogniser in recognisers)
        total += len(one)
        same += len(set(one) & set(other))
    assert same / total > 0.8, json.dumps({"same": same, "total": total})
