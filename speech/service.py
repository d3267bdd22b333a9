"""One recogniser at the service of many clients: batches over all of them, limits for each.

`Service` is what stands behind the HTTP interface (`speech.serve_app`): it decodes uploads in
processes of their own, cuts them into segments, recognises the segments of all clients together,
and joins each client's words again.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from speech.audio_source import Samples
from speech.decode import Hypothesis
from speech.isolated_audio import DecoderPool
from speech.join import WordJoiner
from speech.live import LiveRecogniser, RepeatingRecogniser
from speech.network_stream import streams_exactly
from speech.openai_format import ApiError
from speech.segment import Segment, segment_stream, voice_segments
from speech.shared_batches import Batcher, BatchReport
from speech.streaming import StreamingRecogniser
from speech.transcribe import Recogniser
from speech.transcript import Transcript, Word
from speech.workers import usable_cores

T = TypeVar("T")

BATCH_SECONDS = 40.0  # audio in one batch, padding included: who comes next waits for it
SEGMENTS_IN_FLIGHT = 4  # of one recording: its share of the batches, and of memory
DECODERS = 8  # processes at most
RETRY_AFTER_SECONDS = 2
UPLOAD_NAME = "upload"  # what a transcript calls a recording: a client's names are its own


@dataclass(frozen=True)
class Limits:
    """What a client may ask for, and all of them together."""

    upload_bytes: int = 100 << 20
    audio_seconds: float = 4 * 3600.0
    concurrency: int = 32  # recordings recognised at the same time: batches of many are cheap
    queue: int = 128  # further requests that wait, uploads included
    per_client: int = 128  # requests of one address
    live_sessions: int = 8
    upload_seconds: float = 120.0
    decode_seconds: float = 120.0
    request_seconds: float = 900.0
    shutdown_seconds: float = 60.0


class Admission:
    """Who may come in, counted. Belongs to one event loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._turns = asyncio.Semaphore(limits.concurrency)
        self._clients: Counter[str] = Counter()
        self.requests = 0  # in the house: uploading, waiting or at work
        self.live_sessions = 0
        self.draining = asyncio.Event()

    @asynccontextmanager
    async def request(self, client: str) -> AsyncIterator[None]:
        """Count a request while it lasts. Raises `ApiError` 429 or 503 where it is one too many."""
        self._check_draining()
        if self._clients[client] >= self._limits.per_client:
            raise _busy(429, "too_many_requests", "too many requests of this client at a time")
        if self.requests >= self._limits.concurrency + self._limits.queue:
            raise _busy(503, "queue_full", "the server is busy and its queue is full")
        self.requests += 1
        self._clients[client] += 1
        try:
            yield
        finally:
            self.requests -= 1
            self._clients[client] -= 1
            self._clients += Counter()  # forgets who is not here

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until a recording may be recognised."""
        async with self._turns:
            yield

    @asynccontextmanager
    async def live_session(self) -> AsyncIterator[None]:
        """Count a live session while it lasts. Raises `ApiError` 503 where it is one too many."""
        self._check_draining()
        if self.live_sessions >= self._limits.live_sessions:
            raise _busy(503, "queue_full", "the server has as many live sessions as it takes")
        self.live_sessions += 1
        try:
            yield
        finally:
            self.live_sessions -= 1

    def _check_draining(self) -> None:
        if self.draining.is_set():
            raise _busy(503, "shutting_down", "the server is shutting down")


def _busy(status: int, code: str, message: str) -> ApiError:
    return ApiError(status, code, message, retry_after_seconds=RETRY_AFTER_SECONDS)


class Job:
    """One recording being recognised; `cancel` ends it from another thread."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.path = path
        self.ends_at = time.monotonic() + seconds
        self.in_flight: deque[tuple[Segment, Future[Hypothesis]]] = deque()
        self.samples = 0  # read so far
        self._is_cancelled = threading.Event()

    def cancel(self) -> None:
        """Drop what is not computed yet."""
        self._is_cancelled.set()
        for _, result in tuple(self.in_flight):
            result.cancel()

    def check(self) -> None:
        """Raise where the job should not go on."""
        if self._is_cancelled.is_set():
            raise CancelledError
        if time.monotonic() > self.ends_at:
            raise ApiError(503, "processing_timeout", "recognition took longer than allowed")

    def counted(self, blocks: Iterable[Samples]) -> Iterator[Samples]:
        """Yield the blocks and count their samples. Raises where the job should not go on."""
        for block in blocks:
            self.check()
            self.samples += len(block)
            yield block

    def next_result(self) -> tuple[Segment, Hypothesis]:
        """Wait for the oldest segment in flight."""
        segment, result = self.in_flight[0]
        try:
            hypothesis = result.result(max(0.0, self.ends_at - time.monotonic()))
        except TimeoutError:
            self.check()
            raise
        self.in_flight.popleft()
        return segment, hypothesis


class Service:
    """A recogniser with its batches, decoders, threads and a directory for uploads."""

    def __init__(
        self,
        recogniser: Recogniser,
        limits: Limits,
        threads: int | None = None,
        on_batch: Callable[[BatchReport], None] = lambda report: None,
    ) -> None:
        self.recogniser = recogniser
        self.limits = limits
        self.sample_rate = recogniser.model.config.features.sample_rate
        workers = 1 if recogniser.device.type == "cuda" else threads or usable_cores()
        self.batcher = Batcher(recogniser.recognise, workers, int(BATCH_SECONDS * self.sample_rate),
                               on_batch, lambda: torch.set_num_threads(1))  # fmt: skip
        self._decoders = DecoderPool(min(DECODERS, limits.concurrency), limits.decode_seconds)
        self._decoders.warm_up()
        self._threads = ThreadPoolExecutor(limits.concurrency, "request")
        self._live_threads = ThreadPoolExecutor(
            limits.live_sessions, "live", torch.set_num_threads, (1,)
        )
        self._directory = tempfile.TemporaryDirectory(prefix="speech-")

    def close(self) -> None:
        """Finish what was begun and let go of everything."""
        self._threads.shutdown()
        self._live_threads.shutdown()
        self.batcher.close()
        self._decoders.close()
        self._directory.cleanup()

    def store(self, upload: BinaryIO) -> Path:
        """Return a file of our own with what was uploaded; whoever asks removes it."""
        with tempfile.NamedTemporaryFile(dir=self._directory.name, delete=False) as file:
            shutil.copyfileobj(upload, file)
        return Path(file.name)

    async def transcribe(
        self, path: Path, on_words: Callable[[Sequence[Word]], None] = lambda words: None
    ) -> Transcript:
        """Return the transcript of a stored upload; `on_words` hears of its words as they come.

        Raises `speech.errors.AudioError` for what cannot be decoded and `ApiError` past the time
        allowed. Cancelled, it gives up what was not begun.
        """
        job = Job(path, self.limits.request_seconds)
        loop = asyncio.get_running_loop()

        def tell(words: Sequence[Word]) -> None:
            loop.call_soon_threadsafe(on_words, words)

        try:
            return await loop.run_in_executor(self._threads, self._run, job, tell)
        except asyncio.CancelledError:
            job.cancel()
            raise

    def _run(self, job: Job, on_words: Callable[[Sequence[Word]], None]) -> Transcript:
        words: list[Word] = []
        joiner = WordJoiner()
        try:
            for segment, hypothesis in self._recognised(job):
                end = segment.start_seconds + len(segment.samples) / self.sample_rate
                heard = self.recogniser.words(hypothesis, segment.start_seconds, end)
                words += (settled := joiner.add(heard, segment.joins_at_seconds))
                on_words(settled)
            words += (last := joiner.finish())
            on_words(last)
        finally:
            job.cancel()
        return Transcript.of_words(UPLOAD_NAME, job.samples / self.sample_rate, words)

    def _recognised(self, job: Job) -> Iterator[tuple[Segment, Hypothesis]]:
        """Yield a recording's segments in order with what was heard, a few ahead in the batches."""
        limit = self.limits.audio_seconds
        with closing(self._decoders.stream(job.path, self.sample_rate, limit)) as blocks:
            find_pauses = self.recogniser.detector  # as for files on the command line
            for segment in voice_segments(job.counted(blocks), self.sample_rate, find_pauses):
                job.in_flight.append((segment, self.batcher.submit(segment.samples)))
                if len(job.in_flight) == SEGMENTS_IN_FLIGHT:
                    yield job.next_result()
        while job.in_flight:
            yield job.next_result()

    async def posteriors(self, path: Path, max_seconds: float) -> NDArray[np.float32]:
        """Return the log-probs (T', V) of a stored upload of at most `max_seconds`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._posteriors, path, max_seconds)

    def _posteriors(self, path: Path, max_seconds: float) -> NDArray[np.float32]:
        torch.set_num_threads(1)
        with closing(self._decoders.stream(path, self.sample_rate, max_seconds)) as blocks:
            segments = segment_stream(blocks, self.sample_rate)
            return np.concatenate([self.recogniser.log_probs([s.samples])[0] for s in segments])

    # --- Live ---------------------------------------------------------------------------------

    def live_recogniser(self) -> LiveRecogniser:
        """Return a recogniser for one live stream.

        It hears all audio once where the network allows that; else its calls wait for shared
        batches.
        """
        if streams_exactly(self.recogniser.model):
            return StreamingRecogniser(self.recogniser)
        return RepeatingRecogniser(self._recognise_piece, self.sample_rate)

    def _recognise_piece(self, samples: Samples, start: float, end: float) -> list[Word]:
        return self.recogniser.words(self.batcher.submit(samples).result(), start, end)

    async def in_live_thread(self, call: Callable[[], T]) -> T:
        """Run a call of a live recogniser where it may wait."""
        return await asyncio.get_running_loop().run_in_executor(self._live_threads, call)
