"""Who prepares batches ahead of need, and how many examples go into one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speech.batching import MAX_MEMBERS, pack, pack_fast, prefetch
from speech.errors import AudioError


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), max_size=40), st.integers(1, 60))
def test_packed_batches_hold_everything_within_the_budget(sizes: list[int], budget: int) -> None:
    order = np.argsort(sizes, kind="stable").tolist()
    batches = pack(sizes, order, budget)
    assert [index for batch in batches for index in batch] == order
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(sizes[index] for index in batch) <= budget


def test_packing_by_hand() -> None:
    assert pack([3, 3, 4, 9], [0, 1, 2, 3], 8) == [[0, 1], [2], [3]]


def cost(batches: list[list[int]], sizes: list[int], overhead: float, alone: float) -> float:
    return sum(
        max(sizes[i] for i in batch) * (alone if len(batch) == 1 else len(batch) + overhead)
        for batch in batches
    )


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 30), max_size=9), st.integers(1, 60), st.sampled_from([0, 1, 2.5]),
    st.sampled_from([1, 2, 3.5]),
)  # fmt: skip
def test_fast_batches_cost_least_of_all(
    sizes: list[int], budget: int, overhead: float, alone: float
) -> None:
    batches = pack_fast(sizes, budget, overhead, alone)
    order = [index for batch in batches for index in batch]
    assert order == np.argsort(sizes, kind="stable").tolist()
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(sizes[index] for index in batch) <= budget
    for cuts in range(1 << max(0, len(order) - 1)):  # a bit between two neighbours: cut there
        other: list[list[int]] = [[]]
        for place, index in enumerate(order):
            other[-1].append(index)
            if cuts >> place & 1 and place < len(order) - 1:
                other.append([])
        if order and all(len(b) == 1 or len(b) * sizes[b[-1]] <= budget for b in other):
            least = cost(batches, sizes, overhead, alone)
            assert least <= cost(other, sizes, overhead, alone) + 1e-9


def test_fast_batches_by_hand() -> None:
    sizes = [9, 1, 1, 8]
    assert pack_fast(sizes, 100, 1, 2) == [[1, 2], [3, 0]]  # 3 + 27, all in one: 45
    assert pack_fast(sizes, 100, 100, 101) == [[1, 2, 3, 0]]  # 936, in two: 102 + 918
    assert pack_fast(sizes, 100, 1, 1.4) == [[1], [2], [3], [0]]  # 26.6
    assert [len(batch) for batch in pack_fast([1.0] * 100, 1e9, 2.5, 3.5)] in ([36, 64], [64, 36])
    assert MAX_MEMBERS == 64


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("count", [0, 1, 30])
@pytest.mark.parametrize("depth", [1, 4])
def test_prefetch_keeps_the_order(count: int, depth: int) -> None:
    assert list(prefetch(abs, range(count), depth)) == list(range(count))


def test_prefetch_raises_where_the_batch_would_have_come() -> None:
    def make(number: int) -> int:
        if number == 3:
            raise AudioError("file 3 is broken")
        return number

    batches = prefetch(make, range(9))
    assert [next(batches) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(AudioError, match="file 3 is broken"):
        next(batches)
    assert list(batches) == []


def test_prefetch_runs_ahead_but_not_away() -> None:
    made: list[int] = []

    def make(number: int) -> int:
        made.append(number)
        return number

    batches = prefetch(make, range(100), depth=3)
    assert made == []  # nothing before the first is asked for
    next(batches)
    wait_until(lambda: len(made) == 5)  # one given, three waiting, one in hand
    time.sleep(0.05)
    assert len(made) == 5
    batches.close()


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_prefetch_closed_early_ends_its_thread(taken: int) -> None:
    before, made = threading.active_count(), []

    def make(number: int) -> int:
        made.append(number)
        return number

    batches = prefetch(make, range(1000), depth=2)
    for _ in range(taken):
        next(batches)
    batches.close()
    assert threading.active_count() == before
    assert len(made) < taken + 9  # what was on its way; the rest is not made first


def test_prefetch_leaves_the_callers_threads_alone() -> None:
    before = torch.get_num_threads()
    assert len(list(prefetch(abs, range(3)))) == 3
    assert torch.get_num_threads() == before
