"""Audio files decoded in processes of their own, for files from strangers.

A file that crashes a decoder, hangs it or swells its memory ends that process and nothing else. The
process answers one block at a time, so that nobody decodes ahead of what is used.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import signal
import threading
import time
from collections.abc import Generator, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from speech.audio import probe_audio, stream_audio
from speech.errors import AudioError, AudioFormatError, SpeechError

_MEMORY_BYTES = 4 << 30  # address space of a decoding process
_SAMPLES, _END, _DAMAGED, _NOT_AUDIO, _TOO_LONG = b"S", b"E", b"D", b"F", b"L"


class AudioLimitError(AudioError):
    """A recording is longer than allowed, or takes longer to decode."""


class _Request(NamedTuple):
    path: str
    sample_rate: int
    max_seconds: float


class DecoderPool:
    """Up to `size` decoding processes, started as they are needed and kept.

    `seconds` bounds the time that one file may spend in its decoder.
    """

    def __init__(self, size: int, seconds: float) -> None:
        self._places = threading.BoundedSemaphore(size)
        self._seconds = seconds
        self._idle: list[_Decoder] = []
        self._closed = False

    def stream(
        self, path: Path, sample_rate: int, max_seconds: float
    ) -> Generator[NDArray[np.float32]]:
        """Yield a file's samples as `speech.audio.stream_audio` does.

        Raises `AudioFormatError` for what is no audio, `AudioLimitError` past `max_seconds` of
        audio or the time allowed, and `AudioError` for damage. No message names the file.
        """
        with self._places:
            decoder = self._take()
            try:
                yield from decoder.stream(
                    _Request(str(path), sample_rate, max_seconds), self._seconds
                )
            finally:
                if decoder.is_alive() and not self._closed:
                    self._idle.append(decoder)
                else:
                    decoder.kill()

    def _take(self) -> _Decoder:
        while self._idle:
            decoder = self._idle.pop()
            if decoder.is_alive():
                return decoder
        return _Decoder()

    def warm_up(self) -> None:
        """Start one process ahead of the first file."""
        self._idle.append(_Decoder())

    def close(self) -> None:
        """End the processes that decode nothing now, and the others after their file."""
        self._closed = True
        while self._idle:
            self._idle.pop().kill()


class _Decoder:
    """The parent's end of one decoding process."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_decode_for_ever, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()

    def stream(self, request: _Request, seconds: float) -> Iterator[NDArray[np.float32]]:
        question: _Request | None = request
        while True:
            asked_at = time.monotonic()
            kind, content = self._ask(question, seconds)
            seconds -= time.monotonic() - asked_at
            question = None  # the next block
            if kind == _SAMPLES:
                yield np.frombuffer(content, np.float32).copy()
            elif kind == _END:
                return
            else:
                raise _ERRORS[kind](content.decode())

    def _ask(self, question: _Request | None, seconds: float) -> tuple[bytes, bytes]:
        """Send a question and return the answer; a process that gives none is killed."""
        try:
            self._connection.send(question)
            if not self._connection.poll(max(seconds, 0)):
                self.kill()
                raise AudioLimitError("decoding the audio took longer than allowed")
            answer = self._connection.recv_bytes()
        except (EOFError, OSError) as error:
            self.kill()
            raise AudioError("the audio is damaged: its decoder crashed") from error
        return answer[:1], answer[1:]


_ERRORS: dict[bytes, type[SpeechError]] = {
    _DAMAGED: AudioError, _NOT_AUDIO: AudioFormatError, _TOO_LONG: AudioLimitError,
}  # fmt: skip


# --- In the decoding process ----------------------------------------------------------------------


def _decode_for_ever(connection: Connection) -> None:
    """Answer requests until the parent is gone. Only bytes go back: a decoder is not trusted."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the group; the parent decides
    with contextlib.suppress(ValueError, OSError):  # a system without this limit, or a lower one
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    answers: Iterator[bytes] = iter(())
    with contextlib.suppress(EOFError, OSError):
        while True:
            request = connection.recv()
            if request is not None:
                answers = _answers(request)
            connection.send_bytes(next(answers))


def _answers(request: _Request) -> Iterator[bytes]:
    try:
        yield from _blocks(request)
    except AudioFormatError:
        yield _NOT_AUDIO + b"not audio in a format that can be read"
    except AudioLimitError as error:
        yield _TOO_LONG + str(error).encode()
    except AudioError as error:
        yield _DAMAGED + _without_content(str(error), request.path).encode()
    except MemoryError:
        yield _DAMAGED + b"the audio needs more memory to decode than allowed"


def _blocks(request: _Request) -> Iterator[bytes]:
    # Before anything is resampled: an hour at 1 Hz is little to read and much to compute.
    _check_length(probe_audio(request.path).duration, request.max_seconds)
    samples = 0
    for block in stream_audio(request.path, request.sample_rate):
        samples += len(block)
        _check_length(samples / request.sample_rate, request.max_seconds)
        yield _SAMPLES + block.tobytes()
    yield _END


def _check_length(seconds: float, max_seconds: float) -> None:
    if seconds > max_seconds:
        raise AudioLimitError(
            f"the audio is {seconds:.0f} s long or longer; at most {max_seconds:.0f} s are taken"
        )


def _without_content(message: str, path: str) -> str:
    """Cut the file's name from a message, and what its first bytes look like."""
    return message.removeprefix(f"{path}: ").partition(": found")[0]
