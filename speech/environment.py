"""What the environment says: to the libraries beneath torch when they are loaded, and to us."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

_M_ARENA_MAX = -8  # of glibc's malloc.h


def prepare_environment() -> None:
    """Set what suits a recogniser, where the user has not; call it before torch is imported."""
    # Threads that wait must not spin: a second process on the machine would slow both many times.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # oneDNN keeps code for every shape it has met, megabytes each; lengths of speech hardly recur.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
    if "MALLOC_ARENA_MAX" not in os.environ:
        _share_one_heap()


def _share_one_heap() -> None:
    """Let all threads fill each other's holes in memory, where the C library is glibc."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def cache_directory() -> Path:
    """Return where this user keeps what can be computed again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "speech"
