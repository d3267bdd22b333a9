"""Mutated audio files: each one is transcribed or refused in one line; no crash, no hang."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_audio import encode_container, encode_soundfile
from tiny import save_tiny_model

from speech.decoder import GREEDY
from speech.errors import AudioError
from speech.transcribe import Recogniser
from speech.transcript import Transcript

FEW, MANY = 100, 2000
HEAD_BYTES = 256  # most of a header
BOUNDARIES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
PATIENCE_SECONDS = 280


@pytest.fixture(scope="module")
def originals() -> list[tuple[str, bytes]]:
    """A second of sound in each format."""
    return [
        ("wav", encode_soundfile("WAV", "PCM_16", 16000, channels=2)),
        ("flac", encode_soundfile("FLAC", "PCM_16", 16000)),
        ("ogg", encode_soundfile("OGG", "VORBIS", 16000)),
        ("mp3", encode_soundfile("MP3", "MPEG_LAYER_III", 16000)),
        ("m4a", encode_container("ipod", "aac", 16000)),
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


def mutate(content: bytes, random: np.random.Generator) -> bytes:
    """One to four changes, half of them in the header."""
    for _ in range(random.integers(1, 5)):
        end = min(len(content), HEAD_BYTES) if random.random() < 0.5 else len(content)
        if end < 2:
            return content
        first, last = sorted(random.choice(end, 2, replace=False).tolist())
        content = CHANGES[random.integers(len(CHANGES))](content, first, last, random)
    return content


def set_bit(content: bytes, first: int, last: int, random: np.random.Generator) -> bytes:
    bit = 1 << int(random.integers(8))
    return content[:first] + bytes([content[first] ^ bit]) + content[first + 1 :]


def set_number(content: bytes, first: int, last: int, random: np.random.Generator) -> bytes:
    size = int(random.choice([1, 2, 4]))
    value = int(random.choice(BOUNDARIES)) & ((1 << 8 * size) - 1)
    order = "little" if random.random() < 0.5 else "big"
    return content[:first] + value.to_bytes(size, order) + content[first + size :]


def randomise(content: bytes, first: int, last: int, random: np.random.Generator) -> bytes:
    last = min(last, first + 64)
    return content[:first] + random.bytes(last - first) + content[last:]


def cut_off(content: bytes, first: int, last: int, random: np.random.Generator) -> bytes:
    return content[:last]


def take_out(content: bytes, first: int, last: int, random: np.random.Generator) -> bytes:
    return content[:first] + content[last:]


def put_in(content: bytes, first: int, last: int, random: np.random.Generator) -> bytes:
    return content[:first] + random.bytes(int(random.integers(1, 64))) + content[first:]


def repeat(content: bytes, first: int, last: int, random: np.random.Generator) -> bytes:
    return content[:last] + content[first:]


def blank_out(content: bytes, first: int, last: int, random: np.random.Generator) -> bytes:
    return content[:first] + bytes(last - first) + content[last:]


CHANGES = (set_bit, set_number, randomise, cut_off, take_out, put_in, repeat, blank_out)


def write_mutants(folder: Path, originals: list[tuple[str, bytes]], count: int) -> list[Path]:
    paths = []
    for number in range(count):
        name, content = originals[number % len(originals)]
        path = folder / f"{number:04}.{name}"
        path.write_bytes(mutate(content, np.random.default_rng(number)))
        paths.append(path)
    return paths


def test_few(model: Path, originals: list[tuple[str, bytes]], tmp_path: Path) -> None:
    paths = write_mutants(tmp_path, originals, FEW)
    results = list(Recogniser.load(model, threads=1, options=GREEDY).transcribe_many(paths))
    refused = [result for result in results if isinstance(result, AudioError)]
    heard = [result for result in results if isinstance(result, Transcript)]
    assert len(results) == len(refused) + len(heard) == FEW
    assert len(refused) > FEW / 10
    assert len(heard) > FEW / 10
    for error in refused:
        assert len(str(error).splitlines()) == 1


@pytest.mark.slow
def test_many_by_the_command(
    model: Path, originals: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    """One process transcribes them all; every file has its line."""
    paths = write_mutants(tmp_path, originals, MANY)
    command = [sys.executable, "-m", "speech", "transcribe", str(tmp_path), "--model", str(model)]
    done = subprocess.run(
        [*command, "--lm", "none"], capture_output=True, text=True, timeout=PATIENCE_SECONDS,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.returncode == 1, done.stderr[-2000:]
    heard = {line.split("\t")[0] for line in done.stdout.splitlines()}
    refused = {path for path in map(str, paths) if f"{path}:" in done.stderr}
    assert heard | refused == set(map(str, paths))
    assert not heard & refused


@pytest.mark.slow
def test_many_by_the_service(model: Path, originals: list[tuple[str, bytes]]) -> None:
    """Each has an answer, in JSON, that is about the file and not about the server."""
    pytest.importorskip("fastapi")
    statuses = list(serve(model, originals))
    assert len(statuses) == MANY
    assert set(statuses) <= {200, 415, 422}
    assert {200, 415, 422} <= set(statuses)


def serve(model: Path, originals: list[tuple[str, bytes]]) -> Iterator[int]:
    from fastapi.testclient import TestClient
    from serving import tiny_app

    with TestClient(tiny_app(model)) as client:
        for number in range(MANY):
            name, content = originals[number % len(originals)]
            content = mutate(content, np.random.default_rng(number))
            answer = client.post("/v1/audio/transcriptions", data={"model": "tiny"},
                                 files={"file": (f"secret.{name}", content)})  # fmt: skip
            assert answer.json()
            assert "secret" not in answer.text
            yield answer.status_code
