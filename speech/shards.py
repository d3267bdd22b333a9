"""Transcripts of a long list of recordings, kept in shards that are each there whole or not at all.

A list is cut into shards of so many recordings, always in the same way, so that whoever begins
again finds what is done. A shard is a JSON line a recording, in order: its transcript, or ``audio``
and ``error`` where it has none. Which worker wrote it, and how often others tried, leaves no trace:
a shard's file appears by renaming. Merged, the shards are each recording once, in the list's order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from speech.errors import AudioError, SpeechError, reason_of
from speech.transcript import Transcript, to_json
from speech.whole_file import remove_partial, write_whole

FORMAT = "speech shards, version 1"
PLAN_FILE, SHARD_DIRECTORY = "plan.json", "shards"
MERGED_FILES = {"text": "transcripts.txt", "json": "transcripts.jsonl"}  # by format

Recognise = Callable[[Sequence[str]], Iterator[Transcript | AudioError]]  # in order, by name


@dataclass(frozen=True)
class Shard:
    """A run of the list: the names of its recordings, and its number from 0."""

    number: int
    names: tuple[str, ...]

    def path(self, output: Path) -> Path:
        """Return where its transcripts belong."""
        return output / SHARD_DIRECTORY / f"{self.number:06}.jsonl"


@dataclass(frozen=True)
class Row:
    """What became of a recording: a line of JSON, and why there is no transcript, if so."""

    line: str
    text: str = ""
    error: str | None = None


def cut_shards(names: Sequence[str], size: int) -> list[Shard]:
    """Return the list in shards of `size` recordings; the last one may be smaller."""
    return [
        Shard(number, tuple(names[first : first + size]))
        for number, first in enumerate(range(0, len(names), size))
    ]


def claim(output: Path, names: Sequence[str], settings: Mapping[str, object]) -> None:
    """Write down what `output` is for, or check that it is for this.

    Raises `SpeechError` where other recordings, or other settings, were begun there.
    """
    wanted = {
        "format": FORMAT,
        "recordings": len(names),
        "recordings_sha256": hashlib.sha256("\0".join(names).encode(errors="replace")).hexdigest(),
        **settings,
    }
    path = output / PLAN_FILE
    if not path.exists():
        write_whole(path, json.dumps(wanted, indent=1) + "\n")
        return
    stored = _read_plan(path)
    wanted = json.loads(json.dumps(wanted))  # tuples are lists there
    differing = sorted(key for key in wanted | stored if wanted.get(key) != stored.get(key))
    if differing:
        raise SpeechError(
            f"{output} was begun with other {', '.join(differing)} (see {path}): "
            "begin with the same ones, or name another output directory"
        )


def _read_plan(path: Path) -> dict[str, object]:
    try:
        plan = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SpeechError(f"{path}: cannot read what was begun here: {reason_of(error)}") from error
    if not isinstance(plan, dict):
        raise SpeechError(f"{path}: got a JSON {type(plan).__name__}, needed an object")
    return plan


def unfinished(output: Path, shards: Iterable[Shard]) -> list[Shard]:
    """Return the shards that are missing, or in which recordings have no transcript."""
    return [one for one in shards if any(row is None or row.error for row in _rows(output, one))]


def finish_shard(output: Path, shard: Shard, recognise: Recognise) -> int:
    """Write what is missing of a shard; return how many of its recordings have no transcript.

    `recognise` is asked only for recordings that have none yet.
    """
    rows = _rows(output, shard)
    missing = [index for index, row in enumerate(rows) if row is None or row.error]
    found = recognise([shard.names[index] for index in missing])
    for index, result in zip(missing, found, strict=True):
        rows[index] = _row(shard.names[index], result)
    done = [row for row in rows if row is not None]
    write_whole(shard.path(output), "".join(f"{row.line}\n" for row in done))
    return sum(row.error is not None for row in done)


def merge(output: Path, shards: Iterable[Shard], form: str) -> list[str]:
    """Write all transcripts as one file, in order; return why recordings are not in it.

    `form` is one of MERGED_FILES. Raises `SpeechError` for a shard that is missing.
    """
    errors: list[str] = []
    lines: list[str] = []
    for shard in shards:
        for name, row in zip(shard.names, _rows(output, shard), strict=True):
            if row is None:
                raise SpeechError(f"{shard.path(output)} is missing: run again to go on")
            if row.error is not None:
                errors.append(row.error)
            else:
                lines.append(row.line if form == "json" else f"{name}\t{row.text}")
    write_whole(output / MERGED_FILES[form], "".join(f"{line}\n" for line in lines))
    remove_partial(output / SHARD_DIRECTORY)
    return errors


def _rows(output: Path, shard: Shard) -> list[Row | None]:
    """What is known of each of a shard's recordings; nothing where its file is not there."""
    path = shard.path(output)
    try:
        lines = path.read_text("utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return [None] * len(shard.names)
    rows: list[Row | None] = []
    try:
        for name, line in zip(shard.names, lines, strict=True):
            content = json.loads(line)
            if content["audio"] != name:
                raise ValueError(f"got {content['audio']!r} in place of {name!r}")
            rows.append(Row(line, content.get("text", ""), content.get("error")))
    except (ValueError, KeyError, TypeError) as error:
        raise SpeechError(
            f"{path}: not the {len(shard.names)} transcripts that belong here ({error}): "
            "delete it and run again"
        ) from error
    return rows


def _row(name: str, result: Transcript | AudioError) -> Row:
    if isinstance(result, Transcript):
        return Row(to_json(result), result.text)
    line = json.dumps({"audio": name, "error": str(result)}, ensure_ascii=False)
    return Row(line, error=str(result))
