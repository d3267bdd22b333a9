"""An audio source opened for reading, and what its first bytes show of it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from speech.errors import AudioError, reason_of

Samples: TypeAlias = NDArray[np.float32]
Source: TypeAlias = "str | Path | bytes | BinaryIO"

READABLE = "wav, flac, ogg/opus, mp3, aiff, NIST sphere, m4a, aac, webm or mp4"
HEAD_BYTES = 1024  # the fixed header of NIST sphere; the other formats show themselves sooner
_OGG_PAGE_BYTES = 65307  # the largest: 27 + 255 + 255 * 255

# First bytes of files that no reader accepted.
_SIGNATURES = {
    b"RIFF": "a wav or avi that is damaged, truncated or in an unknown encoding",
    b"fLaC": "a flac that is damaged or truncated",
    b"\x1aE\xdf\xa3": "a webm or mkv that is damaged or truncated",
    b"OggS": "an ogg that is damaged or in an unknown encoding",
    b"NIST_1A": "a NIST sphere that is damaged or packed by shorten",
    b"version https://git-lfs": "a Git LFS pointer (the file itself was not fetched)",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
}


@dataclass(frozen=True)
class Decoder:
    """An opened source: what its header states, and its samples as blocks (n, channels)."""

    name: str
    format: str
    sample_rate: int
    channels: int
    stated_frames: int | None  # None where the header does not say
    slack_frames: int  # how many of the stated may be missing
    blocks: Iterator[Samples]


@contextmanager
def opened(source: Source) -> Iterator[tuple[BinaryIO, str]]:
    """The source as a seekable file, with its name for messages."""
    if isinstance(source, str | Path):
        with _open_path(Path(source)) as file:
            yield file, str(source)
    elif isinstance(source, bytes | bytearray | memoryview):
        yield io.BytesIO(source), f"<{len(source)} bytes>"
    else:
        name = str(getattr(source, "name", "<stream>"))
        yield (source if source.seekable() else io.BytesIO(source.read())), name


def _open_path(path: Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except IsADirectoryError as error:
        raise AudioError(f"{path}: a directory; needed an audio file") from error
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise AudioError(f"{path}: cannot open the audio file: {reason_of(error)}") from error


def nameless(file: BinaryIO) -> SimpleNamespace:
    """The file without its name, from which both libraries would guess what it holds."""
    return SimpleNamespace(read=file.read, seek=file.seek, tell=file.tell)


def is_mp3(head: bytes) -> bool:
    """Starts with an ID3 tag or an MPEG audio frame."""
    return head.startswith(b"ID3") or is_mpeg_frame(head)


def is_mpeg_frame(head: bytes) -> bool:
    """Starts with the sync word of an MPEG audio frame of layer II or III."""
    return len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06 in (2, 4)


def check_last_ogg_page(file: BinaryIO, name: str) -> None:
    """Ogg has no length in its header, but a page states its own (RFC 3533, section 6)."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 2 * _OGG_PAGE_BYTES))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    segments = page[26] if len(page) > 26 else 0
    stated = 27 + segments + sum(page[27 : 27 + segments])
    if len(page) < stated:
        raise AudioError(
            f"{name}: truncated ogg: the last page needs {stated} bytes, {len(page)} are there"
        )


def describe(head: bytes) -> str:
    """What the first bytes of an unreadable file look like."""
    for signature, kind in _SIGNATURES.items():
        if head.startswith(signature):
            return kind
    if head[4:8] == b"ftyp":
        return "an mp4 or m4a that is damaged or truncated"
    if is_mp3(head):
        return "an mp3 that is damaged or truncated"
    if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    text = head.decode("utf-8", errors="ignore")  # a character may be cut at the end
    is_text = len(text.encode()) > len(head) - 4 and " ".join(text.split()).isprintable()
    return f"text: {' '.join(text.split())[:30]!r}" if is_text else f"data: {head[:8].hex(' ')}"
