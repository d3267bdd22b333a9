"""Recordings transcribed by a cluster, as the command line tells it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from speech.errors import SpeechError
from speech.progress import progress_bar

if TYPE_CHECKING:
    from speech.cluster import Job
    from speech.decoder import DecoderOptions
    from speech.recordings import Recording

SHARD_SIZE = 100  # recordings: minutes of work where they are minutes long
ERRORS_SHOWN = 20


class ClusterWork(NamedTuple):
    """What the options of the command ask for."""

    output: Path
    model: str
    options: DecoderOptions
    precision: str
    threads: int
    sentence_case: bool
    form: str
    address: str | None
    shard_size: int


def transcribe_on_cluster(recordings: Sequence[Recording], work: ClusterWork) -> None:
    """Transcribe what is not done yet, merge, and name what has no transcript."""
    from speech import cluster, shards

    names = [str(recording.path) for recording in recordings]
    job = _job(work)
    shards.claim(work.output, names, {**job.settings(), "shard_size": work.shard_size})
    every = shards.cut_shards(names, work.shard_size)
    left = shards.unfinished(work.output, every)
    if len(left) < len(every):
        _warn(f"{len(every) - len(left)} of {len(every)} shards are done already")
    if left:
        total = sum(len(one.names) for one in left)
        # Ray tells of workers' ends on stdout.
        with redirect_stdout(sys.stderr), progress_bar("transcribing", total) as advance:
            cluster.transcribe_on_cluster(
                job, left, work.address, lambda shard: advance(len(shard.names)), _warn
            )
    errors = shards.merge(work.output, every, work.form)
    for error in errors[:ERRORS_SHOWN]:
        _warn(error)
    if errors:
        raise SpeechError(f"{len(errors)} of {len(names)} files could not be transcribed")


def _job(work: ClusterWork) -> Job:
    from speech.checkpoint import load_model
    from speech.cluster import Job, model_sha256

    options: DecoderOptions = work.options.resolved(load_model(work.model).tokenizer)
    return Job(
        Path.cwd(), work.output.absolute(), work.model, model_sha256(work.model),
        options, work.precision, work.threads, work.sentence_case,
    )  # fmt: skip


def _warn(message: str) -> None:
    print(f"speech: {message}", file=sys.stderr, flush=True)
