"""What the environment says: to the libraries beneath torch when they are loaded, and to us."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path

_M_ARENA_MAX = -8  # of glibc's malloc.h
_MAPPINGS = Path("/proc/self/smaps")
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \S+ *(.*)")
_LIBRARY = re.compile(r".*\.so(\.[\d.]+)?")


def prepare_environment() -> None:
    """Set what suits a recogniser, where the user has not; call it before torch is imported."""
    # Threads that wait must not spin for long: a second process on the machine would slow both many
    # times. But from one step of a recurrent layer to the next, microseconds, to sleep and be woken
    # takes longer than the step.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    # oneDNN keeps code for every shape it has met, megabytes each; lengths of speech hardly recur.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
    os.environ.setdefault("LRU_CACHE_CAPACITY", "32")  # what torch itself keeps of them, else 1024
    if "MALLOC_ARENA_MAX" not in os.environ:
        _share_one_heap()


def _share_one_heap() -> None:
    """Let all threads fill each other's holes in memory, where the C library is glibc."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def return_free_memory() -> None:
    """Give the system what the C library keeps of memory that was freed, where it is glibc."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def unmap_idle_libraries() -> None:
    """Take out of this process what it has touched of the files of libraries.

    Loading touches 130 MB of the CUDA libraries that nobody calls without a GPU, and 60 MB of a
    compiler that has done its work. The system maps again what is in use, from its cache of files.
    Other systems than Linux are left as they are.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        for start, size in _unwritten_mappings(_LIBRARY):
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), mmap.MADV_DONTNEED)


def _unwritten_mappings(name: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """Where this process maps files of such names whose pages are all as in the file; bytes."""
    found: tuple[int, int] | None = None
    for line in _MAPPINGS.read_text().splitlines():
        if mapping := _MAPPING.fullmatch(line):
            start, end = int(mapping[1], 16), int(mapping[2], 16)
            wanted = "w" not in mapping[3] and name.fullmatch(mapping[4])
            found = (start, end - start) if wanted else None
        elif found and line.startswith("Anonymous:"):
            if line.split()[1] == "0":  # none was written to: relocated tables must stay
                yield found
            found = None


def cache_directory() -> Path:
    """Return where this user keeps what can be computed again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "speech"
