"""The garbage collector rests while a command loads, and does not search all at the end."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from speech.collector import collector_paused

# What is told after the collector should have stopped looking: it would find a cycle's destructor.
CYCLE = """
import sys
from speech.collector import skip_last_collection
class Told:
    def __del__(self): sys.stdout.write("collected")
told = Told()
told.itself = told
del told
{call}
"""


def test_the_collector_rests_and_works_again() -> None:
    with collector_paused():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(KeyError), collector_paused():
        raise KeyError
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(("call", "expected"), [("", "collected"), ("skip_last_collection()", "")])
def test_the_end_searches_nothing(call: str, expected: str) -> None:
    command = [sys.executable, "-c", CYCLE.format(call=call)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == expected
