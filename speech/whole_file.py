"""Text files that are there as a whole or not at all, whatever is killed while one is written."""

from __future__ import annotations

import os
from pathlib import Path

PARTIAL_SUFFIX = ".partial"


def write_whole(path: Path, text: str) -> None:
    """Write UTF-8 text beside `path`, flush it to disk and rename it; makes the folder.

    Several processes, also of several machines, may write the same path: one of them wins. One that
    is killed leaves a hidden file behind, see `remove_partial`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.urandom(4).hex()}{PARTIAL_SUFFIX}")
    try:
        with open(partial, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def remove_partial(directory: Path) -> None:
    """Delete what killed writers left in a folder; nobody may be writing there."""
    for path in directory.glob(f".*{PARTIAL_SUFFIX}"):
        path.unlink(missing_ok=True)
