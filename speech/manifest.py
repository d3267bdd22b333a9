"""Manifests: JSON Lines that name the utterances of one split.

A line is an object with NeMo's keys ``audio_filepath`` (relative to the manifest), ``duration``
(seconds) and ``text`` (as the publisher wrote it), and optionally ``speaker`` and ``id``. Further
keys are left alone, except a non-zero ``offset``: a slice of a longer file is not an utterance
here, and to read the whole file in its place would pair the text with the wrong audio.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from speech.errors import ManifestError, reason_of
from speech.whole_file import write_whole

DURATION_DECIMALS = 4  # a tenth of a millisecond: finer than one sample at 8 kHz
DURATION_TOLERANCE_SECONDS = 0.02  # what encoders pad and lists round
DURATION_TOLERANCE_SHARE = 0.01


@dataclass(frozen=True)
class Utterance:
    """One recording with its transcript; ``source`` says where it stands, for messages."""

    id: str
    audio_path: Path
    duration: float  # seconds
    text: str
    speaker: str | None = None
    source: str = ""  # "train.jsonl:12"

    @property
    def whereabouts(self) -> str:
        """Its line of the manifest and its file's name, for messages."""
        return f"{self.source} ({self.audio_path.name})"


def corpus_name(manifest: Path) -> str:
    """What a manifest is called in results: its folder and name, such as ``fsdd/test``."""
    return f"{manifest.resolve().parent.name}/{manifest.stem}"


def read_manifest(path: str | Path) -> list[Utterance]:
    """The utterances of a manifest, in its order; audio paths are joined to the manifest's folder.

    An utterance without ``id`` is called after its audio path without the suffix. Blank lines are
    passed over. Raises ManifestError with ``file:line`` for anything that is not a manifest line.
    """
    path = Path(path)
    utterances = [
        parse_utterance(line, path.parent, source) for source, line in numbered_lines(path)
    ]
    if not utterances:
        raise ManifestError(f"{path}: holds no utterances; a manifest needs at least one line")
    return utterances


def numbered_lines(path: Path, errors: str = "strict") -> list[tuple[str, str]]:
    """The lines of a UTF-8 text file that are not blank, each with its place ``file:line``.

    Corpora keep their transcripts and lists in such files. Raises ManifestError when the file
    cannot be read; what is not UTF-8 is one of the ``errors`` of `bytes.decode`.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {reason_of(error)}") from error
    try:
        # Split on line feeds only: str.splitlines would also cut at U+2028 inside a text.
        lines = content.decode("utf-8-sig", errors).split("\n")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise ManifestError(f"{path}:{number}: not UTF-8 text") from error
    numbered = ((f"{path}:{number}", line) for number, line in enumerate(lines, start=1))
    return [(source, line.removesuffix("\r")) for source, line in numbered if line.strip()]


def parse_utterance(line: str, directory: Path, source: str) -> Utterance:
    """The utterance on one manifest line; relative audio paths start at ``directory``."""
    fields = _parse_object(line, source)
    audio = _audio_filepath(fields, source)
    speaker = fields.get("speaker")
    return Utterance(
        id=_string(fields, "id", source) if "id" in fields else os.path.splitext(audio)[0],
        audio_path=directory / audio,
        duration=_duration(fields, source),
        text=_string(fields, "text", source),
        speaker=None if speaker is None else _string(fields, "speaker", source),
        source=source,
    )


def read_audio_paths(path: str | Path) -> list[Path]:
    """The audio paths of a manifest in its order, joined to its folder; the other keys may lack.

    Raises ManifestError as `read_manifest` does.
    """
    path = Path(path)
    paths = [
        path.parent / _audio_filepath(_parse_object(line, source), source)
        for source, line in numbered_lines(path)
    ]
    if not paths:
        raise ManifestError(f"{path}: holds no recordings; a manifest needs at least one line")
    return paths


def _audio_filepath(fields: dict[str, object], source: str) -> str:
    if fields.get("offset") not in (None, 0):
        raise ManifestError(
            f"{source}: 'offset' is {fields['offset']!r}; slices of longer files are not "
            "supported, cut them into one file an utterance"
        )
    audio = _string(fields, "audio_filepath", source)
    if not audio:
        raise ManifestError(f"{source}: 'audio_filepath' is empty; it must name an audio file")
    return audio


def _parse_object(line: str, source: str) -> dict[str, object]:
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise _not_json(source, f"{error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:  # numbers or brackets without end
        raise _not_json(source, str(error)) from error
    if not isinstance(fields, dict):
        raise ManifestError(f"{source}: got a JSON {type(fields).__name__}, needed an object")
    return fields


def _not_json(source: str, reason: str) -> ManifestError:
    return ManifestError(f"{source}: not JSON ({reason}); a manifest holds one JSON object a line")


def _string(fields: dict[str, object], key: str, source: str) -> str:
    if key not in fields:
        raise ManifestError(f"{source}: '{key}' is missing; it has {sorted(fields)}")
    value = fields[key]
    if not isinstance(value, str):
        raise ManifestError(f"{source}: '{key}' is {value!r}, needed a string")
    return value


def _duration(fields: dict[str, object], source: str) -> float:
    value = fields.get("duration")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        seconds = float(value) if is_number else math.nan  # type: ignore[arg-type]
    except OverflowError:  # a whole number of hundreds of digits
        seconds = math.inf
    if not math.isfinite(seconds) or seconds <= 0:
        found = repr(value) if "duration" in fields else "missing"
        raise ManifestError(f"{source}: 'duration' is {found}, needed seconds above 0")
    return seconds


def durations_agree(measured: float, stated: float) -> bool:
    """Whether the stated seconds are those of the audio, within 0.02 s or 1 %."""
    tolerance = max(DURATION_TOLERANCE_SECONDS, DURATION_TOLERANCE_SHARE * measured)
    return abs(measured - stated) <= tolerance + 1e-9  # for 0.32 - 0.3


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Write a manifest with audio paths relative to it, so that the folder can be moved whole.

    The file appears complete or not at all: it is written beside its place and then renamed.
    Raises ManifestError when there are no utterances or the place cannot be written.
    """
    path = Path(path)
    lines = [_format_utterance(utterance, path.parent) for utterance in utterances]
    if not lines:
        raise ManifestError(f"{path}: no utterances to write; a manifest needs at least one")
    try:
        write_whole(path, "".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise ManifestError(f"{path}: cannot write the manifest: {reason_of(error)}") from error
    except UnicodeEncodeError as error:
        line = error.object.count("\n", 0, error.start) + 1
        raise ManifestError(
            f"{path}: cannot write line {line}: its text or file name is not valid Unicode"
        ) from error


def _format_utterance(utterance: Utterance, directory: Path) -> str:
    fields: dict[str, object] = {
        "id": utterance.id,
        "audio_filepath": relative_audio_path(utterance.audio_path, directory),
        "duration": round(utterance.duration, DURATION_DECIMALS),
        "text": utterance.text,
    }
    if utterance.speaker is not None:
        fields["speaker"] = utterance.speaker
    return json.dumps(fields, ensure_ascii=False)


def relative_audio_path(audio_path: Path, directory: Path) -> str:
    """``audio_path`` as seen from ``directory``, with forward slashes.

    Where the path must climb (``..``) it climbs from the directory's real place: the operating
    system resolves ``link/..`` to the parent of what the link points to.
    """
    target, base = os.path.abspath(audio_path), os.path.abspath(directory)
    if not Path(target).is_relative_to(base):
        base = os.path.realpath(base)
    return Path(os.path.relpath(target, base)).as_posix()
