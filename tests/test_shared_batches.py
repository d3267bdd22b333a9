"""Dynamic batches: the same results as alone, nobody starves, a culprit fails alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech.shared_batches import LEAST_FILLING, Batcher, BatchReport, Samples, choose

BATCH_SAMPLES = 100


def of_length(length: int) -> Samples:
    return np.full(length, length, np.float32)


def lengths(samples: Sequence[Samples]) -> list[int]:
    return [len(one) for one in samples]


@pytest.fixture
def make() -> Iterator[Callable[..., Batcher[int]]]:
    """Make batchers, which are closed at the end."""
    made: list[Batcher[int]] = []

    def make(
        recognise: Callable[[Sequence[Samples]], Sequence[int]],
        threads: int = 1,
        on_batch: Callable[[BatchReport], None] = lambda report: None,
    ) -> Batcher[int]:
        made.append(Batcher(recognise, threads, BATCH_SAMPLES, on_batch))
        return made[-1]

    yield make
    for batcher in made:
        batcher.close()


def test_batch_is_the_oldest_and_what_is_like_it() -> None:
    # 3 x 30 samples fill a batch of 100; 10 is less than half of 30 and would be padding
    assert choose([30, 10, 28, 30, 29], 5, 100) == [0, 3, 4]
    assert choose([30, 10], 5, 100) == [0]
    assert choose([10, 30, 10, 10], 2, 100) == [0, 2]
    assert choose([500, 10], 5, 100) == [0]


@given(st.lists(st.integers(1, 120), min_size=1, max_size=30), st.integers(1, 30))
@settings(deadline=None)
def test_batch_keeps_its_bounds(lengths: list[int], most: int) -> None:
    chosen = choose(lengths, most, BATCH_SAMPLES)
    assert chosen[0] == 0
    assert len(chosen) == len(set(chosen)) <= most
    own = [lengths[i] for i in chosen]
    assert len(own) == 1 or max(own) * len(own) <= BATCH_SAMPLES
    assert min(own) >= LEAST_FILLING * max(own)


def test_everybody_gets_the_own_result(make: Callable[..., Batcher[int]]) -> None:
    batcher = make(lengths, threads=3)
    wanted = [1 + n * 37 % 90 for n in range(200)]
    results = [batcher.submit(of_length(length)) for length in wanted]
    assert [result.result(10) for result in results] == wanted


class Gate:
    """A recogniser that begins when it is opened, and keeps what it was given."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, samples: Sequence[Samples]) -> list[int]:
        self.batches.append(lengths(samples))
        self.entered.set()
        assert self.opened.wait(10)
        return lengths(samples)


def test_what_waits_is_computed_together(make: Callable[..., Batcher[int]]) -> None:
    gate = Gate()
    reports: list[BatchReport] = []
    batcher = make(gate, on_batch=reports.append)
    results = [batcher.submit(of_length(20))]
    assert gate.entered.wait(10)
    results += [batcher.submit(of_length(20)) for _ in range(7)]
    assert batcher.waiting == 7
    gate.opened.set()
    assert [result.result(10) for result in results] == [20] * 8
    assert [len(batch) for batch in gate.batches] == [1, 5, 2]  # 5 x 20 = BATCH_SAMPLES
    batcher.close()
    assert [(report.utterances, report.samples) for report in reports] == [
        (1, 20),
        (5, 100),
        (2, 40),
    ]


def test_cancelled_utterance_is_left_out(make: Callable[..., Batcher[int]]) -> None:
    gate = Gate()
    batcher = make(gate)
    first = batcher.submit(of_length(1))
    assert gate.entered.wait(10)
    gone, last = batcher.submit(of_length(50)), batcher.submit(of_length(60))
    assert gone.cancel()
    gate.opened.set()
    assert (first.result(10), last.result(10)) == (1, 60)
    assert gate.batches == [[1], [60]]


def test_only_the_culprit_fails(make: Callable[..., Batcher[int]]) -> None:
    def recognise(samples: Sequence[Samples]) -> list[int]:
        if 13 in lengths(samples):
            raise ZeroDivisionError
        return lengths(samples)

    batcher = make(recognise)
    results = [batcher.submit(of_length(length)) for length in (12, 13, 14, 12)]
    with pytest.raises(ZeroDivisionError):
        results[1].result(10)
    assert [results[n].result(10) for n in (0, 2, 3)] == [12, 14, 12]


def test_closing_finishes_what_was_submitted(make: Callable[..., Batcher[int]]) -> None:
    gate = Gate()
    batcher = make(gate, threads=2)
    results = [batcher.submit(of_length(90)) for _ in range(5)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    gate.opened.set()
    closing.join(10)
    assert [result.result(0) for result in results] == [90] * 5
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(of_length(1))
