"""Batches of anything: examples of like size packed within a budget, and made ahead of need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from queue import Queue
from threading import Event, Thread
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

T = TypeVar("T")
B = TypeVar("B")

MAX_MEMBERS = 64  # of a batch packed to be fast: more gain nothing


def pack(
    sizes: Sequence[float] | NDArray[np.float64] | NDArray[np.int64],
    order: Sequence[int],
    budget: float,
) -> list[list[int]]:
    """Cut `order` into runs whose longest member times their number stays within `budget`.

    That product is what a padded batch costs. An example larger than the budget makes a batch of
    its own.
    """
    batches: list[list[int]] = []
    longest = 0.0
    for index in order:
        longest = max(longest, float(sizes[index]))
        if not batches or longest * (len(batches[-1]) + 1) > budget:
            batches.append([])
            longest = float(sizes[index])
        batches[-1].append(index)
    return batches


def pack_fast(
    sizes: Sequence[float], budget: float, overhead: float, alone: float
) -> list[list[int]]:
    """Return the batches of indices, smallest first, that take the least time.

    A batch takes its longest member's size, which the others are padded to, times their number and
    `overhead`: a recurrent layer's step takes as long for no utterance as for so many. One by
    itself takes its size times `alone`. Batches keep `budget` as in `pack`, and have at most
    MAX_MEMBERS. By dynamic programming over sorted sizes.
    """
    order = sorted(range(len(sizes)), key=lambda index: sizes[index])
    costs, begins = (
        [0.0],
        [0],
    )  # of the best batches of the first so many, and where the last begins
    for end in range(1, len(order) + 1):
        longest = sizes[order[end - 1]]
        options = []
        for count in range(1, min(end, MAX_MEMBERS) + 1):
            if count > 1 and longest * count > budget:
                break
            weight = alone if count == 1 else count + overhead
            options.append((costs[end - count] + longest * weight, end - count))
        cost, begin = min(options)
        costs.append(cost)
        begins.append(begin)
    batches: list[list[int]] = []
    end = len(order)
    while end:
        batches.append(order[begins[end] : end])
        end = begins[end]
    return batches[::-1]


def batches_of_like_size(
    sizes: NDArray[np.float64] | NDArray[np.int64],
    budget: float,
    random: np.random.Generator,
    in_order: bool = False,
) -> list[list[int]]:
    """Return batches of indices packed within `budget`, in random order or the smallest first.

    Which examples of like size share a batch changes from draw to draw.
    """
    order = np.argsort(sizes * random.uniform(0.9, 1.1, len(sizes)), kind="stable")
    batches = pack(sizes, order.tolist(), budget)
    return batches if in_order else [batches[i] for i in random.permutation(len(batches))]


def costliest_first(
    batches: list[list[int]], sizes: NDArray[np.float64] | NDArray[np.int64]
) -> list[list[int]]:
    """Return the batches with the largest one in front: what will not fit fails at once."""
    if not batches:
        return []
    probe = max(range(len(batches)), key=lambda b: len(batches[b]) * sizes[batches[b]].max())
    return [batches[probe], *batches[:probe], *batches[probe + 1 :]]


def prefetch(make: Callable[[T], B], work: Sequence[T], depth: int = 4) -> Iterator[B]:
    """Yield ``make(item)`` for each item in order, made ahead of need by a thread.

    The thread computes on one core and leaves the others to the network. An error in `make` is
    raised where the batch would have come.
    """
    queue: Queue[B | BaseException | None] = Queue(depth)
    stop = Event()

    def produce() -> None:
        torch.set_num_threads(1)  # of this thread, and of those that begin later
        try:
            for item in work:
                if stop.is_set():
                    return
                queue.put(make(item))
            queue.put(None)
        except BaseException as error:
            queue.put(error)

    thread = Thread(target=produce, daemon=True)
    thread.start()
    try:
        while (batch := queue.get()) is not None:
            if isinstance(batch, BaseException):
                raise batch
            yield batch
    finally:
        stop.set()
        while thread.is_alive():  # it may wait for room in the queue
            while not queue.empty():
                queue.get_nowait()
            thread.join(0.01)
