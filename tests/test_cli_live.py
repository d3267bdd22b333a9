"""Live results on the command line: files, samples on stdin, figures."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import write_tiny_corpus
from tiny import SAMPLE_RATE, save_tiny_model

from speech import cli
from speech.cli_live import pcm_blocks
from speech.manifest import read_manifest


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), bidirectional=False)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_corpus(tmp_path_factory.mktemp("corpus"), 2, sample_rate=SAMPLE_RATE)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["speech", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0)


def test_a_streamed_file_has_the_text_of_the_whole(
    model: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = read_manifest(manifest)[0].audio_path
    assert run(monkeypatch, "transcribe", path, "--model", model) == 0
    whole = capsys.readouterr().out
    assert run(monkeypatch, "transcribe", path, "--model", model, "--stream") == 0
    assert capsys.readouterr().out == whole
    assert (
        run(monkeypatch, "transcribe", path, "--model", model, "--stream", "--format", "json") == 0
    )
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["type"] for row in rows} == {"partial", "final"}
    assert " ".join(row["text"] for row in rows if row["type"] == "final") + "\n" == whole
    assert rows[-1]["words"][0].keys() == {"word", "start", "end", "confidence"}


def test_stream_refuses_what_it_cannot_do(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "transcribe", "a", "b", "--stream") == 2
    assert run(monkeypatch, "transcribe", "a", "--stream", "--format", "srt") == 2


def test_samples_on_stdin_however_they_come() -> None:
    class Dribble(io.BytesIO):
        def read1(self, size: int | None = -1) -> bytes:  # odd numbers of bytes
            return super().read(333)

    values = np.arange(-2000, 2000, dtype="<i2")
    blocks = list(pcm_blocks(Dribble(values.tobytes()), 16000))
    np.testing.assert_array_equal(np.concatenate(blocks) * 32768, values)
    resampled = np.concatenate(list(pcm_blocks(Dribble(values.tobytes()), 8000)))
    assert len(resampled) == 2000


def test_measure_stream_prints_its_figures(
    model: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "measure-stream", manifest, "--model", model) == 0
    assert "words taken back" in capsys.readouterr().out
    assert run(monkeypatch, "measure-stream", manifest, "--model", model, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["wer_streamed"] == figures["wer_offline"]


def test_listening_without_sounddevice_says_what_is_needed(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert run(monkeypatch, "listen", "--model", model) == 1
    assert "lstm-speech[microphone]" in capsys.readouterr().err
