"""Reading several sources at a time: order, errors, bounds, threads that end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import islice

import pytest

from speech.read_ahead import ITEMS_AHEAD, read_ahead


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_all_items_of_all_sources_come_in_order(jobs: int) -> None:
    def read(source: int) -> Iterator[int]:
        time.sleep(0.01 * (source % 3))
        yield from range(source)

    taken = [(source, list(items)) for source, items in read_ahead(range(9), read, jobs)]
    assert taken == [(source, list(range(source))) for source in range(9)]


def test_sources_are_read_side_by_side_and_not_far_ahead() -> None:
    both = threading.Barrier(2, timeout=30)
    read_items = 0

    def read(source: int) -> Iterator[int]:
        nonlocal read_items
        both.wait()  # only passed if two are read at the same time
        for item in range(100):
            read_items += 1
            yield item

    reading = read_ahead(range(2), read, 2)
    _, items = next(reading)
    assert next(items) == 0
    time.sleep(0.1)
    assert read_items <= 2 * (ITEMS_AHEAD + 2)
    reading.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("jobs", [1, 3])
def test_an_error_is_raised_where_its_source_is_taken(jobs: int) -> None:
    def read(source: int) -> Iterator[int]:
        yield source
        if source == 1:
            raise ValueError("bad")

    reading = read_ahead(range(3), read, jobs)
    assert list(next(reading)[1]) == [0]
    _, items = next(reading)
    assert next(items) == 1
    with pytest.raises(ValueError, match="bad"):
        next(items)
    assert list(next(reading)[1]) == [2]


def test_threads_end_when_nobody_listens() -> None:
    def endless(_: int) -> Iterator[int]:
        while True:
            yield 0

    reading = read_ahead(range(10), endless, 4)
    _, items = next(reading)
    assert list(islice(items, 5)) == [0] * 5
    items.close()  # type: ignore[attr-defined]
    reading.close()  # type: ignore[attr-defined]
    for _ in range(100):
        if not any(thread.name == "reader" for thread in threading.enumerate()):
            return
        time.sleep(0.05)
    raise AssertionError("reader threads are left")
