"""Optimiser steps of a configured network, measured for a plan (`speech.plan`).

Real trainings on noise of the right length, each in processes of its own, so that their memory is
their own: what a step costs does not depend on what is said.
"""

from __future__ import annotations

import dataclasses
import os
import resource
import socket
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from speech.checkpoint import create_model
from speech.config import Config, DataConfig
from speech.dataset import select_examples
from speech.errors import TrainingError
from speech.hallucinations import write_wav
from speech.manifest import Utterance, write_manifest
from speech.plan import Measurement, Step
from speech.provenance import processor_name
from speech.run import BEST_MODEL, LAST_STATE
from speech.stop import StopFlag
from speech.task import StepReport
from speech.tokenizer import CharTokenizer
from speech.train import RecogniserTask
from speech.trainer import Trainer
from speech.workers import Workers, usable_cores

WARM_UP_STEPS = 1
LEAST_STEPS = 3
CHARACTERS_PER_SECOND = 14.0  # of read English
LISTED_UTTERANCES = 1000  # whose memory is measured
DRAWS = 20_000  # of an epoch, which the measurement will not come to the end of
ENDLESS = 10**9  # minutes between checkpoints, epochs
MANIFEST = "manifest.jsonl"


class _Share(NamedTuple):
    """One of the processes to be measured."""

    config: Config
    utterances: int  # in its share of each batch
    utterance_seconds: float
    seconds: float  # to go on for
    rank: int = 0
    size: int = 1
    port: int = 0


class _Found(NamedTuple):
    step: Step
    state_bytes: float
    model_bytes: float


def measure(
    config: Config,
    utterance_seconds: float,
    shares: Sequence[int],
    pair_share: int,
    seconds: float,
    on_part: Callable[[], None] = lambda: None,
) -> Measurement:
    """Return what steps cost with each of `shares` utterances in a batch, and with two workers.

    Takes about `seconds`, and the time to start; `on_part` is called ``len(shares) + 1`` times. Two
    workers are measured where there are cores, or GPUs, for both. A worker computes with as many
    threads as OMP_NUM_THREADS says, or one, as under ``torchrun``.
    """
    began = time.monotonic()
    each = seconds / (len(shares) + 1)
    alone: dict[int, _Found] = {}
    for share in shares:
        (alone[share],) = _run([_Share(config, share, utterance_seconds, each)])
        on_part()
    pair = _pair(config, pair_share, utterance_seconds, each) if _has_room_for_two() else None
    on_part()
    largest = alone[max(shares)]
    return Measurement(
        {share: found.step for share, found in alone.items()},
        pair,
        pair_share,
        sum(p.numel() for p in create_model(config, CharTokenizer()).network.parameters()),
        largest.state_bytes,
        largest.model_bytes,
        _example_bytes(config, utterance_seconds),
        _machine(),
        time.monotonic() - began,
    )


def _pair(config: Config, share: int, utterance_seconds: float, seconds: float) -> float:
    """Return the time of a step of two workers, each with such a share."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    found = _run([_Share(config, share, utterance_seconds, seconds, rank, 2, port)
                  for rank in (0, 1)])  # fmt: skip
    return max(one.step.seconds for one in found)


def _has_room_for_two() -> bool:
    if torch.cuda.is_available():
        return torch.cuda.device_count() > 1
    return usable_cores() >= 2 * _threads()


def _threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", "1"))


def _machine() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{processor_name()}, {_threads()} thread(s) a worker"


def _run(work: Sequence[_Share]) -> list[_Found]:
    """Measure side by side, each in a new process."""
    with ProcessPoolExecutor(len(work), get_context("spawn")) as pool:
        try:
            return list(pool.map(_measure_share, work))
        except BrokenProcessPool as error:
            raise TrainingError(
                f"a step with {work[0].utterances} utterances of {work[0].utterance_seconds:.1f} s "
                "could not be measured: the process was killed, perhaps for want of memory"
            ) from error


# --- In the processes -----------------------------------------------------------------------------


class _Clock:
    """An observer that keeps the times of steps, and asks for the end when there are enough."""

    def __init__(self, seconds: float, stop: StopFlag) -> None:
        self.times: list[float] = []
        self._stop = stop
        self._seconds = seconds

    def message(self, text: str) -> None:
        """Nobody reads it."""

    def step(self, report: StepReport) -> None:
        """Keep how long it took."""
        self.times.append(report.wall_seconds)
        enough = len(self.times) >= WARM_UP_STEPS + LEAST_STEPS
        self._stop.is_set = enough and sum(self.times[WARM_UP_STEPS:]) >= self._seconds

    def epoch(self, row: dict[str, float]) -> None:
        """There is none."""

    def median(self) -> float:
        """Return the typical time of a step once things are warm."""
        return statistics.median(self.times[WARM_UP_STEPS:])


def _measure_share(share: _Share) -> _Found:
    """Train on noise for a while; return what a step took, and the sizes of what is stored."""
    torch.set_num_threads(_threads())
    os.environ |= {"RANK": str(share.rank), "LOCAL_RANK": str(share.rank),
                   "WORLD_SIZE": str(share.size), "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(share.port)}  # fmt: skip
    workers = Workers.from_environment()
    with tempfile.TemporaryDirectory() as directory:
        found = _train_on_noise(share, Path(directory), workers)
    workers.leave()
    return found


def _train_on_noise(share: _Share, directory: Path, workers: Workers) -> _Found:
    count = share.utterances * share.size
    config = _config(share.config, count, share.utterance_seconds)
    write_noise(directory, config, count, count, share.utterance_seconds)
    stop = StopFlag()
    clock = _Clock(share.seconds, stop)
    output = directory / "run"
    output.mkdir()
    trainer = Trainer(config, lambda: RecogniserTask(config, directory), output, clock, workers)
    trainer.run(stop)
    trainer.task.save(output / BEST_MODEL, trainer.average)
    state = output / LAST_STATE  # which only the first worker writes
    model_bytes = sum(path.stat().st_size for path in (output / BEST_MODEL).iterdir())
    return _Found(
        Step(clock.median(), _peak_bytes(workers)),
        state.stat().st_size if state.exists() else 0,
        model_bytes,
    )


def _config(config: Config, utterances: int, utterance_seconds: float) -> Config:
    """Return the config with noise for data and batches of just so many utterances."""
    data = DataConfig(
        train={MANIFEST: DRAWS / utterances}, cache="cache",
        max_seconds=2 * utterance_seconds, min_seconds=0.0,
    )  # fmt: skip
    train = dataclasses.replace(
        config.train, batch_seconds=(utterances + 0.5) * utterance_seconds, init_from="",
        epochs=ENDLESS, end_epoch=0, checkpoint_minutes=ENDLESS, easy_first_epochs=0,
        max_bad_steps=ENDLESS,
    )  # fmt: skip
    return dataclasses.replace(config, data=data, train=train)


def write_noise(
    directory: Path, config: Config, files: int, listed: int, utterance_seconds: float
) -> None:
    """Write recordings of noise and a manifest that lists them, over and over, with texts."""
    random = np.random.default_rng(0)
    rate = config.features.sample_rate
    frame_rate = rate / config.features.hop_samples / config.model.subsampling
    characters = int(min(CHARACTERS_PER_SECOND, frame_rate / 2) * utterance_seconds)
    for number in range(files):
        noise = random.normal(scale=0.1, size=round(utterance_seconds * rate))
        write_wav(directory / f"{number}.wav", noise.clip(-0.9, 0.9).astype(np.float32), rate)
    text = ("abcdefg " * characters)[:characters].strip() or "a"
    write_manifest(
        directory / MANIFEST,
        (
            Utterance(f"speaker-{number}", directory / f"{number % files}.wav", utterance_seconds,
                      text)
            for number in range(listed)
        ),
    )  # fmt: skip


def _example_bytes(config: Config, utterance_seconds: float) -> float:
    """Return the memory that each worker keeps of an utterance of the corpus, all the time."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_noise(directory, config, 1, LISTED_UTTERANCES, utterance_seconds)
        model = create_model(config, CharTokenizer())
        data = _config(config, LISTED_UTTERANCES, utterance_seconds).data
        tracemalloc.start()
        selection = select_examples(
            data, directory, model.tokenizer, model.extractor, config.model.subsampling
        )
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return size / len(selection.examples)


def _peak_bytes(workers: Workers) -> float:
    """Return the most memory that was in use: the GPU's, or the process's own."""
    if workers.device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(workers.device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0  # Linux counts kibibytes
