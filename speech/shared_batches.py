"""Dynamic batches: utterances that many callers hand in one by one are computed together.

Nobody waits for a batch to fill: a thread that is free takes what waits. Alone, a caller is served
at once; under load batches grow by themselves.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
T = TypeVar("T")

LEAST_FILLING = 0.5  # of a batch's longest utterance: shorter ones would mostly be padding


class BatchReport(NamedTuple):
    """What one batch was: its utterances, its samples with padding, and the time it took."""

    utterances: int
    samples: int
    wall_seconds: float


class _Waiting(NamedTuple):
    samples: Samples
    result: Future[object]


class Batcher(Generic[T]):
    """Threads that share a queue of utterances and take them in batches of like length.

    `recognise` maps sample vectors (S,) to one result each; `batch_samples` bounds a batch, padding
    included. The oldest utterance is always in the next batch, so that none starves. An utterance
    whose future was cancelled is left out.
    """

    def __init__(
        self,
        recognise: Callable[[Sequence[Samples]], Sequence[T]],
        threads: int,
        batch_samples: int,
        on_batch: Callable[[BatchReport], None] = lambda report: None,
        initialise_thread: Callable[[], None] = lambda: None,
    ) -> None:
        self._recognise = recognise
        self._batch_samples = batch_samples
        self._on_batch = on_batch
        self._initialise_thread = initialise_thread
        self._queue: list[_Waiting] = []
        self._idle = 0
        self._closing = False
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._work, name=f"batch-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, samples: Samples) -> Future[T]:
        """Return the future result of one utterance (S,)."""
        result: Future[T] = Future()
        with self._changed:
            if self._closing:
                raise RuntimeError("the batcher is closed")
            self._queue.append(_Waiting(samples, result))  # type: ignore[arg-type]
            self._changed.notify()
        return result

    @property
    def waiting(self) -> int:
        """How many utterances are in no batch yet."""
        return len(self._queue)

    def close(self) -> None:
        """Finish what was submitted, then end the threads."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        self._initialise_thread()
        while batch := self._take():
            started = time.monotonic()
            self._run(batch)
            longest = max(len(one.samples) for one in batch)
            seconds = time.monotonic() - started
            self._on_batch(BatchReport(len(batch), longest * len(batch), seconds))

    def _take(self) -> list[_Waiting]:
        """Wait for utterances and return a batch of them; nothing when all is done."""
        with self._changed:
            while True:
                while not self._queue and not self._closing:
                    self._idle += 1
                    self._changed.wait()
                    self._idle -= 1
                if not self._queue:
                    return []
                share = -(-len(self._queue) // (1 + self._idle))
                chosen = choose([len(one.samples) for one in self._queue], share,
                                self._batch_samples)  # fmt: skip
                batch = [self._queue[index] for index in chosen]
                self._queue = [one for i, one in enumerate(self._queue) if i not in set(chosen)]
                batch = [one for one in batch if one.result.set_running_or_notify_cancel()]
                if batch:
                    return batch

    def _run(self, batch: Sequence[_Waiting]) -> None:
        """Compute a batch; where that fails, one by one, so that only the culprit fails."""
        try:
            results = self._recognise([one.samples for one in batch])
            for one, result in zip(batch, results, strict=True):
                one.result.set_result(result)
        except BaseException as error:
            if len(batch) == 1:
                batch[0].result.set_exception(error)
                return
            for one in batch:
                if not one.result.done():
                    self._run([one])


def choose(lengths: Sequence[int], most: int, batch_samples: int) -> list[int]:
    """Return the indices of the next batch: the first, and those nearest to it in length.

    At most `most` of them, and `batch_samples` with padding (a longer one stands alone).
    """
    nearest = sorted(range(len(lengths)), key=lambda i: (abs(lengths[i] - lengths[0]), i))
    chosen: list[int] = []
    shortest = longest = lengths[0]
    for index in nearest[:most]:
        shortest, longest = min(shortest, lengths[index]), max(longest, lengths[index])
        too_much = (len(chosen) + 1) * longest > batch_samples
        if chosen and (too_much or shortest < LEAST_FILLING * longest):
            break
        chosen.append(index)
    return chosen
