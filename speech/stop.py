"""SIGINT and SIGTERM as a flag, for work that wants to end in a good place."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

INTERRUPTED = 130  # exit status of a command that one of them ended, as shells have it


@dataclass
class StopFlag:
    """Whether the work was asked to stop."""

    is_set: bool = False


@contextmanager
def stop_signals() -> Iterator[StopFlag]:
    """Turn the first SIGINT or SIGTERM into a flag; a second one acts as usual.

    Outside the main thread signals are the caller's business, and the flag stays as it is.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    old = {
        number: signal.getsignal(number) or signal.SIG_DFL
        for number in (signal.SIGINT, signal.SIGTERM)
    }

    def on_signal(number: int, frame: FrameType | None) -> None:
        flag.is_set = True
        signal.signal(number, old[signal.Signals(number)])

    for number in old:
        signal.signal(number, on_signal)
    try:
        yield flag
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
