"""What the environment is given before torch is loaded, and what a user's own settings keep."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import sys
from pathlib import Path

import pytest

from speech.environment import prepare_environment, return_free_memory, unmap_idle_libraries


@pytest.mark.parametrize(("given", "calls"), [(None, [(-8, 1)]), ("4", [])])
def test_threads_share_a_heap_unless_the_user_says_otherwise(
    given: str | None, calls: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Library:
        def __init__(self, name: None) -> None: ...

        def mallopt(self, option: int, value: int) -> None:
            heard.append((option, value))

    heard: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "environ", {} if given is None else {"MALLOC_ARENA_MAX": given})
    monkeypatch.setattr(ctypes, "CDLL", Library)
    prepare_environment()
    assert heard == calls
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert os.environ["GOMP_SPINCOUNT"] == "3000"
    assert os.environ["LRU_CACHE_CAPACITY"] == "32"


def test_another_c_library_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())  # has no mallopt
    prepare_environment()
    return_free_memory()
    unmap_idle_libraries()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_pages_of_libraries_go_but_for_those_written_to(tmp_path: Path) -> None:
    """Both maps are private: what is written to one stands nowhere else."""
    library = tmp_path / "libcublas.so.13"
    other = tmp_path / "lm.bin"
    for path in (library, other):
        path.write_bytes(bytes(range(256)) * 256)
    maps = {path: mmap.mmap(os.open(path, os.O_RDONLY), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
            for path in (library, other)}  # fmt: skip
    writable = mmap.PROT_READ | mmap.PROT_WRITE
    with (
        open(library, "rb") as file,
        mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, writable) as own,
    ):
        own[:5] = b"moved"
        assert [sum(one[::4096]) for one in maps.values()] == [0, 0]  # touches every page
        assert resident_pages(library)[-1] == resident_pages(other)[0] == own.size() // 4096
        unmap_idle_libraries()
        assert resident_pages(library) == [0, 1]
        assert resident_pages(other) == [own.size() // 4096]
        assert own[:5] == b"moved"
    assert maps[library][:256] == bytes(range(256))


def resident_pages(path: Path) -> list[int]:
    """Pages in memory of each mapping of a file, fewest first."""
    text = Path("/proc/self/smaps").read_text()
    return sorted(
        int(kilobytes) // 4 for kilobytes in re.findall(rf"{path}\n(?:\w+:.*\n)*?Rss: +(\d+)", text)
    )
