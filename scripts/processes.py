"""Measured child processes, for the scripts that measure: how long one took, how much it held."""

from __future__ import annotations

import dataclasses
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from speech.errors import SpeechError

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclasses.dataclass(frozen=True)
class Child:
    wall_seconds: float
    peak_bytes: int


# A process's peak memory counts that of the one it was forked from, here a large one: so a small
# Python in between starts the command, and says on its own stdout how long and how much it took.
# It first takes the cores that it may use, which the command inherits.
LAUNCHER = """
import os, sys, time
if sys.argv[1]:
    os.sched_setaffinity(0, map(int, sys.argv[1].split(",")))
said = os.dup(1)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
began = time.perf_counter()
_, status, usage = os.wait4(os.spawnv(os.P_NOWAIT, sys.argv[2], sys.argv[2:]), 0)
wall = time.perf_counter() - began
os.write(said, f"{wall} {usage.ru_maxrss * 1024}".encode())
sys.exit(os.waitstatus_to_exitcode(status) != 0)
"""


def run_child(command: Sequence[str]) -> Child:
    """Run a process to its end, on any core; raise with what it said if it fails."""
    (child,) = run_children([command])
    return child


def run_children(
    commands: Sequence[Sequence[str]], cores: int | None = None, show: bool = False
) -> list[Child]:
    """Run processes side by side to their ends, on so many cores together; all where not given.

    Their stderr is shown as it comes, or kept and raised with if one fails. None sees a GPU where
    cores are counted.
    """
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    affinity = ""
    if cores is not None:
        affinity = ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores]))
        environment["CUDA_VISIBLE_DEVICES"] = ""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, affinity, *command], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=None if show else subprocess.PIPE,
        )
        for command in commands
    ]  # fmt: skip
    said = [process.communicate() for process in running]
    for command, process, (_, errors) in zip(commands, running, said, strict=True):
        if process.returncode:
            raise SpeechError(f"{' '.join(command)}: {(errors or 'failed').strip()}")
    return [Child(float(wall), int(peak)) for wall, peak in (out.split() for out, _ in said)]


def processor_name() -> str:
    """Return the processor's model, in general terms."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
