"""Several sources read at the same time, each in a thread, while their order stays."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, NoReturn, TypeVar

Source = TypeVar("Source")
Item = TypeVar("Item")

ITEMS_AHEAD = 2  # of each source
_STOP_CHECK_SECONDS = 0.2


def read_ahead(
    sources: Iterable[Source], read: Callable[[Source], Iterator[Item]], jobs: int
) -> Iterator[tuple[Source, Iterator[Item]]]:
    """Yield each source with an iterator over what `read` yields of it, in order.

    The next `jobs` sources are being read, each ITEMS_AHEAD items ahead of whoever listens, who
    takes all of a source before the next one. With one job nothing is read ahead.
    """
    if jobs == 1:
        for source in sources:
            yield source, read(source)
        return
    readers: deque[_Reader[Source, Item]] = deque()
    try:
        for source in sources:
            readers.append(_Reader(source, read))
            if len(readers) == jobs:
                reader = readers.popleft()
                yield reader.source, reader.items()
        while readers:
            reader = readers.popleft()
            yield reader.source, reader.items()
    finally:
        for reader in readers:
            reader.stop()


class _Reader(Generic[Source, Item]):
    """A thread that reads one source into a short queue; its error is raised by `items`."""

    def __init__(self, source: Source, read: Callable[[Source], Iterator[Item]]) -> None:
        self.source = source
        self._read = read
        self._queue: queue.Queue[Callable[[], Item] | None] = queue.Queue(ITEMS_AHEAD)
        self._is_stopped = threading.Event()
        threading.Thread(target=self._run, name="reader", daemon=True).start()

    def items(self) -> Iterator[Item]:
        try:
            while (item := self._queue.get()) is not None:
                yield item()
        finally:
            self.stop()

    def stop(self) -> None:
        self._is_stopped.set()

    def _run(self) -> None:
        try:
            for item in self._read(self.source):
                if not self._put(lambda item=item: item):  # type: ignore[misc]
                    return
        except BaseException as error:
            self._put(_raiser(error))
        self._put(None)

    def _put(self, item: Callable[[], Item] | None) -> bool:
        while not self._is_stopped.is_set():
            try:
                self._queue.put(item, timeout=_STOP_CHECK_SECONDS)
                return True
            except queue.Full:
                continue
        return False


def _raiser(error: BaseException) -> Callable[[], NoReturn]:
    def call() -> NoReturn:
        raise error

    return call
