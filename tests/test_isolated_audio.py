"""Decoding in processes of their own: the same samples, and no file that harms another."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speech.audio import load_audio
from speech.errors import AudioError, AudioFormatError
from speech.isolated_audio import AudioLimitError, DecoderPool

RATE = 8000


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    pool = DecoderPool(size=1, seconds=60.0)
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audio") / "secret name.flac"
    noise = np.random.default_rng(0).normal(scale=0.1, size=70 * 11025)
    soundfile.write(path, noise, 11025)
    return path


def decode(pool: DecoderPool, path: Path, max_seconds: float = 100.0) -> np.ndarray:
    return np.concatenate(list(pool.stream(path, RATE, max_seconds)))


def test_samples_are_those_of_load_audio(pool: DecoderPool, recording: Path) -> None:
    np.testing.assert_array_equal(decode(pool, recording), load_audio(recording, RATE).samples)


def test_abandoned_file_leaves_the_decoder_free(pool: DecoderPool, recording: Path) -> None:
    stream = pool.stream(recording, RATE, 100.0)
    next(stream)
    stream.close()
    assert len(decode(pool, recording)) == 70 * RATE


def test_too_long_is_found_by_the_header(pool: DecoderPool, recording: Path) -> None:
    with pytest.raises(AudioLimitError, match=r"70 s long or longer; at most 60 s"):
        decode(pool, recording, max_seconds=60.0)


def test_low_rate_does_not_swell(pool: DecoderPool, tmp_path: Path) -> None:
    """1,000,000 samples at 1000 Hz are 17 minutes: a megabyte to upload, 32 MB to compute."""
    path = tmp_path / "slow.wav"
    soundfile.write(path, np.zeros(1_000_000), 1000, subtype="PCM_U8")
    with pytest.raises(AudioLimitError, match="1000 s long"):
        decode(pool, path)


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"", AudioFormatError), (b"my secret diary" * 99, AudioFormatError),
     (b"RIFF\x00\x00\x00\x00WAVEsecret", AudioError), (b"fLaC" + b"secret" * 99, AudioError)],
)  # fmt: skip
def test_errors_name_neither_file_nor_content(
    pool: DecoderPool, tmp_path: Path, content: bytes, error: type[AudioError]
) -> None:
    path = tmp_path / "hidden"
    path.write_bytes(content)
    with pytest.raises(error) as caught:
        decode(pool, path)
    message = str(caught.value)
    assert message
    assert "hidden" not in message
    assert "secret" not in message
    assert b"secret".hex(" ") not in message


def test_truncated_file_says_so(pool: DecoderPool, recording: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.flac"
    content = recording.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError, match="damaged or truncated"):
        decode(pool, path)


def test_crash_harms_one_file_only(recording: Path) -> None:
    before = {child.pid for child in active_children()}
    pool = DecoderPool(size=1, seconds=60.0)
    stream = pool.stream(recording, RATE, 100.0)
    next(stream)
    (process,) = {child.pid for child in active_children()} - before
    os.kill(process, signal.SIGKILL)
    with pytest.raises(AudioError, match="its decoder crashed"):
        next(stream)
    assert len(decode(pool, recording)) == 70 * RATE
    pool.close()


def test_time_is_bounded(recording: Path) -> None:
    pool = DecoderPool(size=1, seconds=0.0)
    with pytest.raises(AudioLimitError, match="took longer than allowed"):
        decode(pool, recording)
    pool.close()
