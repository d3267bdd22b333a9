"""How a figure was made: the command, what was read, and the versions and machine it ran on."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import speech

PACKAGES = ("torch", "torchaudio", "numpy")


def sha256_of(paths: Sequence[Path]) -> str:
    """Return the SHA-256 of the files' bytes, one file after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def run_facts(
    command: str, files: Mapping[str, Path], settings: Mapping[str, object]
) -> dict[str, object]:
    """Return command, time, checksums of what was read, settings, versions and the machine."""
    return {
        "command": command,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        **settings,
        "sha256": {name: sha256_of([path]) for name, path in files.items()},
        "versions": {
            "speech": speech.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {processor_name()}",
    }


def processor_name() -> str:
    """Return the processor's name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"
