"""The processes that train together: one, or as many as ``torchrun`` started.

Everything that needs to know of the others goes through `Workers`; with one process its methods
return at once, so that the trainer is written once.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from speech.errors import ConfigError, WorkerLostError

T = TypeVar("T")
B = TypeVar("B")


@dataclass(frozen=True)
class Workers:
    """This process among `size`, counted from 0, and the device it computes on."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def from_environment(cls, timeout_minutes: float = 10.0) -> Workers:
        """Join the processes that ``torchrun`` started; alone, be the only one.

        Communicates by nccl on GPUs and gloo on CPUs, and waits for the others so long at most. Who
        joins must `leave` at the end. Raises `WorkerLostError` where the others cannot be reached.
        """
        local = int(os.environ.get("LOCAL_RANK", 0))
        cuda = torch.cuda.is_available()
        device = torch.device("cuda", local) if cuda else torch.device("cpu")
        if int(os.environ.get("WORLD_SIZE", 1)) == 1:
            return cls(0, 1, device)
        if cuda:
            torch.cuda.set_device(device)  # where nccl puts what it sends
        if not dist.is_initialized():
            # DistributedDataParallel imports this module, whose default arguments would keep the
            # process group, and gloo's threads with it, beyond `leave`.
            importlib.import_module("torch.distributed.nn.functional")
            with lost_workers():
                dist.init_process_group(
                    "nccl" if cuda else "gloo", timeout=timedelta(minutes=timeout_minutes)
                )
        return cls(dist.get_rank(), dist.get_world_size(), device)

    def leave(self) -> None:
        """End what `from_environment` began, once nothing refers to a distributed module any more.

        A gloo thread that is alive while Python exits may abort the process after all is done
        (pytorch issue 190489).
        """
        if self.size > 1 and dist.is_initialized():
            gc.collect()  # modules in parallel refer to themselves
            with lost_workers():
                dist.barrier()
            dist.destroy_process_group()

    def part(self, items: Sequence[T]) -> list[T]:
        """Return this worker's items; with fewer items than workers, the first one again."""
        return list(items[self.rank :: self.size]) or list(items[:1])

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sums over all workers."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        with lost_workers():
            dist.all_reduce(total)
        return list(total.tolist())

    def gather(self, value: T) -> list[T]:
        """Return the values of all workers, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with lost_workers():
            dist.all_gather_object(values, value)
        return values

    def from_first(self, value: T) -> T:
        """Return the value that the first worker has."""
        if self.size == 1:
            return value
        values: list[Any] = [value]
        with lost_workers():
            dist.broadcast_object_list(values, device=self.device)
        return cast(T, values[0])

    def to_device(self, batch: B) -> B:
        """Return a dataclass with its tensors on this worker's device."""
        if self.device.type == "cpu":
            return batch
        moved = {
            f.name: getattr(batch, f.name).to(self.device, non_blocking=True)
            for f in dataclasses.fields(batch)  # type: ignore[arg-type]
            if isinstance(getattr(batch, f.name), Tensor)
        }
        return dataclasses.replace(batch, **moved)  # type: ignore[type-var]

    def precision(self, name: str) -> torch.dtype | None:
        """Return the dtype for autocast, or None for plain float32.

        ``auto`` is bfloat16 where the processor multiplies it natively.
        """
        if name == "float32":
            return None
        if name == "auto":
            return torch.bfloat16 if self._has_bfloat16() else None
        if name == "float16" and self.device.type == "cpu":
            raise ConfigError("train.precision float16 needs a GPU; on a CPU take bfloat16 or auto")
        return torch.bfloat16 if name == "bfloat16" else torch.float16

    def gather_random_states(self) -> list[list[Tensor]]:
        """Return the random generators' states of all workers, by rank."""
        return self.gather(self.random_state())

    def random_state(self) -> list[Tensor]:
        """Return the states of this worker's random generators: [CPU] or [CPU, GPU]."""
        own = [torch.get_rng_state()]
        if self.device.type == "cuda":
            own.append(torch.cuda.get_rng_state(self.device))
        return own

    def restore_random_state(self, states: Sequence[Sequence[Tensor]]) -> None:
        """Set this worker's random generators from `gather_random_states`."""
        if self.rank >= len(states):
            return  # another one's state would draw the same masks twice: go on as seeded
        own = states[self.rank]
        torch.set_rng_state(own[0])
        if self.device.type == "cuda" and len(own) > 1:
            torch.cuda.set_rng_state(own[1], self.device)

    def _has_bfloat16(self) -> bool:
        if self.device.type == "cuda":
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def default_device() -> torch.device:
    """Return where a process by itself computes: a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device, precision: torch.dtype | None) -> torch.autocast:
    """Return the context in which a network computes as `Workers.precision` says."""
    return torch.autocast(device.type, precision or torch.bfloat16, enabled=precision is not None)


@contextmanager
def lost_workers() -> Iterator[None]:
    """Turn what is raised where another worker does not answer into a `WorkerLostError`."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        if not (isinstance(error, dist.DistError) or "gloo" in reason):
            raise
        raise WorkerLostError(f"lost contact with another worker: {reason}") from error


def usable_cores() -> int:
    """Return how many cores this process may use, which can be fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
