"""Recordings transcribed by a Ray cluster: shards of a list, each by whichever worker is free.

The driver, where the command was called, hands shards out and waits; workers read the recordings
and write the shards themselves (`speech.shards`). So all machines need the same version of this
package and the same folders under the same paths. A worker that dies costs the shard it was at,
which another one takes; a driver that dies costs the shards that were not yet written.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import speech
from speech.environment import prepare_environment
from speech.errors import AudioError, ConfigError, SpeechError
from speech.shards import Shard, finish_shard
from speech.transcript import Transcript, sentence_case

if TYPE_CHECKING:
    from speech.decoder import DecoderOptions
    from speech.transcribe import Recogniser

ATTEMPTS = 3  # at a shard whose worker died, before the others go on without it
WAITING_SHARDS = 2  # handed out for each worker, so that none is idle while the driver counts
LISTENER_SECONDS = 10.0  # that a cluster's head may take to answer
_SHARED_HINT = "all machines need the same files under the same paths"


@dataclass(frozen=True)
class Job:
    """All that a worker has to know besides its shard; paths start at `directory`."""

    directory: Path  # that the command was called in
    output: Path
    model: str
    model_sha256: str
    options: DecoderOptions
    precision: str = "float32"
    threads: int = 1  # of a worker, which as many of its machine's cores are reserved for
    sentence_case: bool = False
    version: str = speech.__version__

    def settings(self) -> dict[str, object]:
        """Return what the transcripts depend on, as plain data."""
        left_out = {"directory", "output", "threads"}
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in left_out}


def transcribe_on_cluster(
    job: Job,
    shards: Sequence[Shard],
    address: str | None = None,
    on_shard: Callable[[Shard], None] = lambda shard: None,
    on_message: Callable[[str], None] = lambda message: None,
) -> None:
    """Finish all shards; `on_shard` hears of each that is, `on_message` of workers that died.

    `address` is that of a Ray cluster's head; without, it is the one that Ray finds (RAY_ADDRESS,
    or one running on this machine), or a new one on this machine alone. Raises `SpeechError` where
    a shard was given up, and what a worker raised where it cannot work at all.
    """
    with _connected(address) as ray:
        _require_room(ray, job.threads)
        lost = _hand_out(ray, job, shards, on_shard, on_message)
    if lost:
        raise SpeechError(
            f"{len(lost)} of {len(shards)} shards are not done, {ATTEMPTS} workers died with each: "
            f"the first one is {lost[0].number}, from {lost[0].names[0]} to {lost[0].names[-1]}"
        )


def _hand_out(
    ray: Any,
    job: Job,
    shards: Sequence[Shard],
    on_shard: Callable[[Shard], None],
    on_message: Callable[[str], None],
) -> list[Shard]:
    """Give every shard to a worker; return those that workers died with too often."""
    work = ray.remote(num_cpus=job.threads, max_retries=0)(_finish)
    left = list(reversed(shards))
    running: dict[Any, Shard] = {}
    deaths: Counter[int] = Counter()
    while left or running:
        while left and len(running) < WAITING_SHARDS * _places(ray, job.threads):
            shard = left.pop()
            running[work.remote(job, shard)] = shard
        done, _ = ray.wait(list(running))
        for one in done:
            shard = running.pop(one)
            if reason := _outcome(ray, one):
                deaths[shard.number] += 1
                on_message(f"a worker died with shard {shard.number} ({reason})")
                if deaths[shard.number] < ATTEMPTS:
                    left.append(shard)
            else:
                on_shard(shard)
    return [shard for shard in shards if deaths[shard.number] == ATTEMPTS]


def _outcome(ray: Any, done: Any) -> str:
    """Return how the worker died, or nothing where it did not; raise what it raised."""
    try:
        ray.get(done)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, SpeechError):
            raise cause from None
        raise SpeechError(f"a worker failed: {type(cause).__name__}: {cause}") from error
    except ray.exceptions.RayError as error:
        return type(error).__name__
    return ""


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Join a cluster, or make one of this machine, and leave it. Ray's own log is in its files."""
    if address is not None:
        _require_listener(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster of ours tells nobody
    try:
        import ray
    except ImportError as error:
        raise SpeechError(
            f"a cluster needs Ray ({error}): pip install 'lstm-speech[cluster]'"
        ) from None
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise SpeechError(f"no Ray cluster at {address or 'this machine'}: {reason}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Refuse at once what Ray would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return  # a name that Ray knows, such as auto
    try:
        socket.create_connection((host, int(port)), LISTENER_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise SpeechError(f"no Ray cluster at {address}: {error}") from error


def _machines(ray: Any) -> list[float]:
    """Return the cores of each machine that takes part."""
    return [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]


def _places(ray: Any, threads: int) -> int:
    """Return how many workers find room; at least 1, as machines may come back."""
    return max(1, sum(int(cores // threads) for cores in _machines(ray)))


def _require_room(ray: Any, threads: int) -> None:
    most = max(_machines(ray), default=0.0)
    if most < threads:
        raise ConfigError(f"a worker of {threads} threads needs as many cores on one machine of "
                          f"the cluster; the largest has {most:g}")  # fmt: skip


# --- In the workers -------------------------------------------------------------------------------


def _finish(job: Job, shard: Shard) -> int:
    """Write a shard; return how many of its recordings have no transcript."""
    prepare_environment()
    try:
        os.chdir(job.directory)  # this process works for this job only
    except OSError as error:
        raise SpeechError(f"{job.directory}: {error.strerror}: {_SHARED_HINT}") from error
    recogniser = _recogniser(job)

    def recognise(names: Sequence[str]) -> Iterator[Transcript | AudioError]:
        for result in recogniser.transcribe_many(names, job.threads):
            is_cased = job.sentence_case and isinstance(result, Transcript)
            yield sentence_case(result) if is_cased else result  # type: ignore[arg-type]

    return finish_shard(job.output, shard, recognise)


@functools.lru_cache(maxsize=1)
def _recogniser(job: Job) -> Recogniser:
    """Load the model, once a process; it must be the one that the driver has."""
    from speech.transcribe import Recogniser

    if speech.__version__ != job.version:
        raise SpeechError(
            f"a machine of the cluster has speech {speech.__version__}, this one {job.version}"
        )
    if model_sha256(job.model) != job.model_sha256:
        raise SpeechError(f"model {job.model} differs on a machine of the cluster: {_SHARED_HINT}")
    return Recogniser.load(job.model, job.threads, job.precision, job.options)


def model_sha256(name_or_path: str) -> str:
    """Return the checksum of all that a model's directory tells a recogniser."""
    from speech.calibration import CALIBRATION_FILE
    from speech.checkpoint import TOKENS_FILE, WEIGHTS_FILE, find_model
    from speech.provenance import sha256_of
    from speech.shipped import CONFIG_FILE

    directory = find_model(name_or_path)
    names = (CONFIG_FILE, TOKENS_FILE, WEIGHTS_FILE, CALIBRATION_FILE)
    return sha256_of([directory / name for name in names if (directory / name).exists()])
