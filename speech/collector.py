"""Python's garbage collector while a command starts and ends, where it has nothing to find.

Modules are some hundred thousand objects that live until the end. To search them for garbage while
they are loaded, and again as Python ends, takes half a second of a short command.
"""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Collect no garbage while modules and models are loaded."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def skip_last_collection() -> None:
    """Let Python end without a search of all that is there: the system takes its memory anyway."""
    atexit.unregister(gc.freeze)  # once is enough
    atexit.register(gc.freeze)
