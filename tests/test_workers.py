"""Workers that train together: what one does alone, and what is said of those that are lost."""

from __future__ import annotations

import pytest
import torch

from speech.errors import WorkerLostError
from speech.workers import Workers, lost_workers


def worker(rank: int, size: int) -> Workers:
    return Workers(rank, size, torch.device("cpu"))


def test_an_error_of_the_network_is_a_lost_worker() -> None:
    told = "[gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.2]:7\nand more lines"
    with pytest.raises(WorkerLostError, match=r"another worker: .*2\]:7$"), lost_workers():
        raise RuntimeError(told)
    with pytest.raises(WorkerLostError, match="timed out"), lost_workers():
        raise torch.distributed.DistNetworkError("timed out")


def test_an_error_of_our_own_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="shapes do not match"), lost_workers():
        raise RuntimeError("shapes do not match")


def test_alone_there_is_nobody_to_ask() -> None:
    alone = worker(0, 1)
    assert alone.from_first({"step": 3}) == {"step": 3}
    assert alone.gather(5) == [5]
    assert alone.sum([1.0, 2.0]) == [1.0, 2.0]


def test_a_worker_whose_state_is_not_known_draws_as_it_was_seeded() -> None:
    torch.manual_seed(7)
    first = worker(0, 1).random_state()
    torch.manual_seed(8)
    own = torch.get_rng_state()
    worker(1, 2).restore_random_state([first])
    assert torch.equal(torch.get_rng_state(), own)
    worker(0, 2).restore_random_state([first])
    assert torch.equal(torch.get_rng_state(), first[0])
