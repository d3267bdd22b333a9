"""A training planned on paper: what a corpus will cost, from steps that were measured.

Every optimiser step takes one batch over all workers (``train.batch_seconds``), so more workers
have fewer utterances each: a plan needs the time of a step for each such share. What is not
measured is an assumption and stands in `Plan.assumptions`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from speech.config import Config

# LibriSpeech's 960 hours (Panayotov et al., 2015): 281,241 training utterances of 960.9 h, and
# 6.3 + 23 + 30 GB of FLAC to download (openslr.org/12).
LIBRISPEECH_UTTERANCE_SECONDS = 12.3
LIBRISPEECH_BYTES_PER_HOUR = 61.7e6
NETWORK_BITS_PER_SECOND = 10e9
ASSUMED_OVERHEAD = 1.1  # of a step of several workers, where two could not be measured
GRADIENT_BYTES = 4  # a parameter's, in float32
SAMPLE_BYTES = 4  # of the cache's float32
SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class Corpus:
    """What is to be trained on, as far as its cost goes."""

    utterances: int
    seconds: float
    audio_bytes: float
    assumptions: tuple[str, ...] = ()

    @classmethod
    def of_hours(cls, hours: float) -> Corpus:
        """Return so many hours of speech like LibriSpeech's."""
        seconds = hours * SECONDS_PER_HOUR
        return cls(
            max(1, round(seconds / LIBRISPEECH_UTTERANCE_SECONDS)),
            seconds,
            hours * LIBRISPEECH_BYTES_PER_HOUR,
            (
                f"utterances of {LIBRISPEECH_UTTERANCE_SECONDS} s and FLAC of "
                f"{LIBRISPEECH_BYTES_PER_HOUR / 1e6:.1f} MB an hour, the means of LibriSpeech",
            ),
        )

    @property
    def utterance_seconds(self) -> float:
        """How long an utterance is, on average."""
        return self.seconds / self.utterances


@dataclass(frozen=True)
class Step:
    """An optimiser step of one worker, measured."""

    seconds: float
    peak_bytes: float  # of memory: the process's, or the GPU's


@dataclass(frozen=True)
class Measurement:
    """What was measured of a configured network on one machine."""

    steps: Mapping[int, Step]  # by utterances in the worker's share
    pair_seconds: float | None  # a step of two workers with `pair_share` each; None: not measured
    pair_share: int
    parameters: int
    state_bytes: float  # of last.pt
    model_bytes: float  # of best/
    example_bytes: float  # of memory, that a worker keeps of each utterance of the corpus
    machine: str
    wall_seconds: float

    @property
    def overhead(self) -> float | None:
        """Time of two workers' step over that of one alone with the same share."""
        if self.pair_seconds is None:
            return None
        return self.pair_seconds / self.steps[self.pair_share].seconds


@dataclass(frozen=True)
class Row:
    """A training by so many workers."""

    workers: int
    busy: int  # of them; the others find no utterance in a batch
    share: int  # utterances of a batch that a busy worker takes
    step_seconds: float
    epoch_hours: float
    worker_bytes: float

    @property
    def total_bytes(self) -> float:
        """Memory of all workers."""
        return self.workers * self.worker_bytes


@dataclass(frozen=True)
class Plan:
    """What a training will take."""

    batch_utterances: int
    steps_per_epoch: int
    rows: tuple[Row, ...]
    audio_bytes: float
    cache_bytes: float
    checkpoint_bytes: float  # the run's directory, while last.pt is being replaced
    assumptions: tuple[str, ...]


def utterances_per_batch(config: Config, corpus: Corpus) -> int:
    """Return how many utterances of mean length make a batch."""
    return max(1, int(config.train.batch_seconds / corpus.utterance_seconds + 1e-9))


def shares(batch_utterances: int, workers: Iterable[int]) -> dict[int, int]:
    """Return the largest share of a batch by number of workers, as `Workers.part` deals it out."""
    return {count: -(-batch_utterances // count) for count in workers}


def make_plan(
    config: Config, corpus: Corpus, measured: Measurement, workers: Sequence[int]
) -> Plan:
    """Return what training `corpus` takes for each number of workers."""
    batch = utterances_per_batch(config, corpus)
    steps = math.ceil(corpus.utterances / batch)
    overhead = ASSUMED_OVERHEAD if measured.overhead is None else max(1.0, measured.overhead)
    rows = []
    for count, share in shares(batch, workers).items():
        step = measured.steps[share]
        seconds = step.seconds
        if count > 1:
            seconds = seconds * overhead + exchange_seconds(measured.parameters, count)
        rows.append(
            Row(
                count, min(count, batch), share, seconds, steps * seconds / SECONDS_PER_HOUR,
                step.peak_bytes + corpus.utterances * measured.example_bytes,
            )
        )  # fmt: skip
    return Plan(
        batch, steps, tuple(rows),
        audio_bytes=corpus.audio_bytes,
        cache_bytes=corpus.seconds * config.features.sample_rate * SAMPLE_BYTES,
        checkpoint_bytes=2 * measured.state_bytes + measured.model_bytes,
        assumptions=(*corpus.assumptions, *_assumptions(measured)),
    )  # fmt: skip


def exchange_seconds(
    parameters: int, workers: int, bits_per_second: float = NETWORK_BITS_PER_SECOND
) -> float:
    """Return how long workers take to add up their gradients, one behind the other in a ring.

    Each sends and receives 2 (W - 1) / W times all gradients (Patarasu & Yuan, 2009).
    """
    sent_bytes = 2 * (workers - 1) / workers * parameters * GRADIENT_BYTES
    return sent_bytes * 8 / bits_per_second


def _assumptions(measured: Measurement) -> list[str]:
    overhead = (
        f"a step of several workers takes {ASSUMED_OVERHEAD} times that of one with the same "
        "share: two could not be measured side by side here"
        if measured.overhead is None
        else f"a step of several workers takes {max(1.0, measured.overhead):.3f} times that of one "
        "with the same share, as measured of two processes on this machine"
    )
    return [
        "each worker is as fast as the one measured, on a machine or core of its own",
        overhead,
        f"gradients go round between machines at {NETWORK_BITS_PER_SECOND / 1e9:g} Gbit/s, after "
        "the step's arithmetic rather than during it",
        "utterances of mean length, batches without padding; reading audio hides behind the "
        "arithmetic, as it does from the cache; validation is not counted",
    ]
