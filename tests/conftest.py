"""What several test modules share: a corpus that a small model can learn within seconds."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

import speech.decoder
from speech import cli

ALPHABET = "abcdefghijklmnopqrstuvwxyz'"
CHARACTER_SECONDS = 0.1
LOWEST_HZ = 300.0
STEP_HZ = 130.0  # the 27 tones end at 3680 Hz, below half of 8 kHz
WORDS = ("ab", "bad", "cab", "dea", "abba", "ace")
WORDS_PER_UTTERANCE = 2


def pytest_configure() -> None:
    """Hear Ctrl-C even where a shell started the tests in the background, which ignores it.

    Children inherit what is ignored; the tests of signals send them to themselves and to children.
    And compute in float32: what a self-test finds depends on the machine and on what else it does.
    """
    os.environ["SPEECH_PRECISION"] = "float32"
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Give torch one thread: the tests' tensors are small, and sums keep their order."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(autouse=True)
def _greedy_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests name the language model they want: what ships is better, and slower to load."""
    monkeypatch.setattr(speech.decoder, "SHIPPED_LANGUAGE_MODEL", "none")


class Result(NamedTuple):
    """What a command left behind."""

    status: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        return self.stdout.splitlines()


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Call the command as the shell does, in this process: importing torch takes seconds."""

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["speech", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        captured = capsys.readouterr()
        status = exit_.value.code
        assert isinstance(status, int)
        assert "Traceback" not in captured.err
        return Result(status, captured.out, captured.err)

    return call


def spell(text: str, sample_rate: int, noise: np.random.Generator) -> NDArray[np.float32]:
    """Return samples (S,) in which each letter is a swelling tone of its own, a space is silence.

    Between two equal letters the tone falls to nothing, as CTC needs to hear them as two.
    """
    count = round(CHARACTER_SECONDS * sample_rate)
    times = np.arange(count) / sample_rate
    swell = 0.5 * np.hanning(count)
    tones = [
        np.sin(2 * np.pi * (LOWEST_HZ + STEP_HZ * ALPHABET.index(letter)) * times) * swell
        if letter != " "
        else np.zeros(count)
        for letter in text
    ]
    samples = np.concatenate(tones)
    return (samples + noise.normal(scale=1e-3, size=len(samples))).astype(np.float32)


def write_tiny_corpus(
    directory: Path, utterances: int = 6, *, sample_rate: int = 16000, seed: int = 0
) -> Path:
    """Write wav files of 0.5 to 0.9 s and return their manifest; same arguments, same bytes."""
    random = np.random.default_rng(seed)
    (directory / "audio").mkdir(parents=True)
    lines = []
    for number in range(utterances):
        text = " ".join(random.choice(WORDS, size=WORDS_PER_UTTERANCE))
        samples = spell(text, sample_rate, random)
        name = f"audio/{number:03d}.wav"
        soundfile.write(directory / name, samples, sample_rate)
        duration = len(samples) / sample_rate
        entry = {"audio_filepath": name, "duration": duration, "text": text}
        lines.append(json.dumps(entry | {"speaker": f"tone-{number % 2}"}))
    manifest = directory / "manifest.jsonl"
    manifest.write_text("\n".join(lines) + "\n", "utf-8")
    return manifest


@pytest.fixture
def tiny_corpus() -> Callable[..., Path]:
    """`write_tiny_corpus`: ``manifest = tiny_corpus(tmp_path / "train", utterances=4, seed=1)``."""
    return write_tiny_corpus
