"""Short files through Ray on two local nodes, one worker killed, against one process.

    python scripts/measure_cluster.py [--files 10000] [--model base] [--lm none]
        [--precision float32] [--work DIR]

The files are cut from data/sample at random, 1 to 3 s each at a random level, so that no two are
alike; the seed is fixed. `speech transcribe` then hears them over a cluster of two nodes of one
core each, where one worker is killed when a third of the shards is done, in one process with one
thread, and in one process with a thread a core. Printed are the wall times, start-up included, and
whether every transcript is there once, in the manifest's order, and what one process hears. Exit
status 1 where not. Needs the extra `cluster`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from command import run_command
from processes import REPOSITORY, processor_name

from speech.checkpoint import find_model
from speech.errors import SpeechError
from speech.language_model import find_language_model
from speech.manifest import Utterance, read_manifest, write_manifest
from speech.results import NO_LANGUAGE_MODEL

SAMPLE = REPOSITORY / "data" / "sample" / "manifest.jsonl"
SECONDS = (1.0, 3.0)
LEVEL_DB = (-12.0, 0.0)
SEED = 1
NODES = 2
MARK = "SPEECH_CLUSTER_OF"  # in the environment of a cluster's processes, to know our own


def make_files(directory: Path, count: int) -> Path:
    """Write the files and return their manifest; the same ones every time."""
    random = np.random.default_rng(SEED)
    recordings = [soundfile.read(one.audio_path, dtype="float32") for one in read_manifest(SAMPLE)]
    utterances = []
    for number in range(count):
        samples, rate = recordings[random.integers(len(recordings))]
        length = min(len(samples), round(random.uniform(*SECONDS) * rate))
        start = random.integers(len(samples) - length + 1)
        piece = samples[start : start + length] * 10 ** (random.uniform(*LEVEL_DB) / 20)
        path = directory / "audio" / f"{number // 1000:02}" / f"{number:05}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, piece, rate, "PCM_16")
        utterances.append(Utterance(f"{number:05}", path, length / rate, ""))
    write_manifest(directory / "manifest.jsonl", utterances)
    return directory / "manifest.jsonl"


@contextmanager
def local_cluster() -> Iterator[Any]:
    """A head that does no work, and nodes of one core each; `busy_workers` finds their workers."""
    try:
        from ray.cluster_utils import Cluster
    except ImportError as error:
        raise SpeechError(f"needs Ray ({error}): pip install '.[cluster]'") from error
    ours = {"PYTHONPATH": str(REPOSITORY), "RAY_USAGE_STATS_ENABLED": "0", MARK: str(os.getpid())}
    before = os.environ | {name: "" for name in ours if name not in os.environ}
    os.environ |= ours
    cluster = Cluster()
    try:
        try:
            for cores in (0, *[1] * NODES):  # the first one is the head
                cluster.add_node(num_cpus=cores)
        except Exception as error:  # Ray raises nothing more precise
            reason = "it waits 20 s for its own helpers, and a busy machine takes longer"
            raise SpeechError(f"Ray did not start ({reason}): {error}") from error
        yield cluster
    finally:
        cluster.shutdown()
        os.environ |= before


def busy_workers() -> list[int]:
    """Return the processes of this one's cluster that are at a shard."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            title = (process / "cmdline").read_bytes()
            variables = (process / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if title.startswith(b"ray::_finish") and f"{MARK}={os.getpid()}".encode() in variables:
            found.append(int(process.name))
    return found


def kill_a_worker(process: subprocess.Popen[Any]) -> int:
    """Kill a worker that is at a shard, while the command runs; return which, 0 where none was."""
    while process.poll() is None:
        for pid in busy_workers()[:1]:
            os.kill(pid, signal.SIGKILL)
            return pid
    return 0


@dataclasses.dataclass(frozen=True)
class Measured:
    seconds: float
    lines: list[str]  # PATH<TAB>TEXT


def transcribe(arguments: Sequence[str], threads: int) -> Measured:
    """Hear the files in one process."""
    began = time.perf_counter()
    done = subprocess.run(
        [*arguments, "--threads", str(threads)], stdout=subprocess.PIPE, text=True, check=True
    )
    return Measured(time.perf_counter() - began, done.stdout.splitlines())


def transcribe_on_cluster(arguments: Sequence[str], output: Path, files: int) -> Measured:
    """Hear the files on two nodes, one worker of which is killed."""
    size = max(2, min(100, files // 20))
    with local_cluster() as cluster:
        began = time.perf_counter()
        command = [*arguments, "--engine", "ray", "--cluster", cluster.address,
                   "--output-dir", str(output), "--shard-size", str(size)]  # fmt: skip
        process = subprocess.Popen(command)
        while process.poll() is None and count_shards(output) < files / size / 3:
            time.sleep(0.05)
        killed = kill_a_worker(process)
        if process.wait() or not killed:
            raise SpeechError("the command failed, or ended before a worker could be killed")
        seconds = time.perf_counter() - began
    print(f"killed worker {killed}; {count_shards(output)} shards of {size}")
    return Measured(seconds, (output / "transcripts.txt").read_text("utf-8").splitlines())


def count_shards(output: Path) -> int:
    return len(list((output / "shards").glob("[0-9]*.jsonl")))


def measure(directory: Path, files: int, model: str, lm: str, precision: str) -> bool:
    """Print the figures; return whether all transcripts are as they should be."""
    find_model(model)
    if lm != NO_LANGUAGE_MODEL:
        find_language_model(lm)
    manifest = make_files(directory, files)
    utterances = read_manifest(manifest)
    audio_seconds = sum(one.duration for one in utterances)
    print(f"{files} files, {audio_seconds:.0f} s; {processor_name()}, {os.cpu_count()} cores")
    arguments = [sys.executable, "-m", "speech", "transcribe", str(manifest),
                 "--model", model, "--lm", lm, "--precision", precision]  # fmt: skip
    runs = {  # the cluster first: Ray gives up where a busy machine lets it wait for 30 s
        f"Ray, {NODES} nodes of one core": transcribe_on_cluster(
            arguments, directory / "out", files
        ),
        "one process, one thread": transcribe(arguments, 1),
        f"one process, {os.cpu_count()} threads": transcribe(arguments, os.cpu_count() or 1),
    }
    ray, alone, _ = runs.values()
    for name, run in runs.items():
        share = run.seconds / alone.seconds
        print(f"{name:28} {run.seconds:8.1f} s   {audio_seconds / run.seconds:6.0f} s of audio a "
              f"second   {share:.2f} of one thread's time")  # fmt: skip
    in_order = [line.split("\t")[0] for line in ray.lines] == [
        str(one.audio_path) for one in utterances
    ]
    same = sum(one == other for one, other in zip(alone.lines, ray.lines, strict=False))
    print(f"every transcript once, in order: {in_order}; {same} of {files} as in one process")
    seconds = {name: round(run.seconds, 1) for name, run in runs.items()}
    print(json.dumps({"files": files, "audio_seconds": round(audio_seconds, 1),
                      "wall_seconds": seconds, "in_order": in_order, "same": same}))  # fmt: skip
    return in_order and same == files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--model", default="base")
    parser.add_argument("--lm", default="none", help="none decodes greedily")
    parser.add_argument("--precision", default="float32", help="the same for all, to compare")
    parser.add_argument("--work", type=Path, help="for the files; else a temporary directory")
    given = parser.parse_args()
    os.environ["PYTHONPATH"] = str(REPOSITORY)
    with tempfile.TemporaryDirectory() as scratch:
        fine = measure(given.work or Path(scratch), given.files, given.model, given.lm,
                       given.precision)  # fmt: skip
    sys.exit(not fine)


if __name__ == "__main__":
    run_command(main)
