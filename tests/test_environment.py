"""What the environment is given before torch is loaded, and what a user's own settings keep."""

from __future__ import annotations

import ctypes
import os

import pytest

from speech.environment import prepare_environment


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


def test_another_c_library_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())  # has no mallopt
    prepare_environment()
