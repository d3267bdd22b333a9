"""What libsndfile reads (through ``soundfile``): wav, flac, ogg/opus, aiff, au, caf, sphere."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import BinaryIO

import soundfile

from speech.audio_source import Decoder, Samples, describe, nameless
from speech.errors import AudioError

READ_FRAMES = 65536  # decoded at a time: 4 s at 16 kHz, 256 KiB a channel
_MALFORMED = 3  # libsndfile's SF_ERR_MALFORMED_FILE: a format it knows, damaged
_LENGTH_UNKNOWN_BYTES = 0x7FFF0000  # programs that write to a pipe state sizes from here up
_LENGTH_UNKNOWN_FRAMES = 1 << 62
_RIFF_PADDING_BYTES = 8


def open_soundfile(file: BinaryIO, name: str, head: bytes) -> soundfile.SoundFile | None:
    """The opened file, or None where libsndfile does not know the format or the encoding."""
    try:
        reader = soundfile.SoundFile(_for_libsndfile(file))
    except soundfile.LibsndfileError as error:
        if error.code == _MALFORMED:
            found = describe(head)
            raise AudioError(f"{name}: cannot be read: found {found}") from error
        return None
    if reader.subtype.startswith("MPEG"):  # mp3 in a wav
        reader.close()
        return None
    return reader


def soundfile_decoder(reader: soundfile.SoundFile, name: str, head: bytes) -> Decoder:
    """The opened file with its samples; an AudioError where bytes that it states are missing."""
    form = f"{reader.format} {reader.subtype}".lower()
    _check_stated_size(reader.extra_info, f"{name}: truncated {form}")
    return Decoder(
        name=name,
        format=form,
        sample_rate=reader.samplerate,
        channels=reader.channels,
        stated_frames=_stated_frames(reader, head),
        slack_frames=0,
        blocks=_soundfile_blocks(reader, name),
    )


def _stated_frames(reader: soundfile.SoundFile, head: bytes) -> int | None:
    """Length by the header. Of NIST sphere libsndfile tells what is there, not what is stated."""
    sphere = re.search(rb"^sample_count -i (\d+)", head, re.MULTILINE)
    if sphere and head.startswith(b"NIST_1A"):
        return int(sphere[1])
    frames = int(reader.frames)
    return frames if frames < _LENGTH_UNKNOWN_FRAMES else None


def _check_stated_size(log: str, complaint: str) -> None:
    """libsndfile cuts the stated length down to the bytes there are, and only logs that it did."""
    pattern = r"^\s*(data|SSND|Data Size|riff|Riff size)\s*:\s*(\d+) \(should be (\d+)\)"
    for key, stated_text, found_text in re.findall(pattern, log, re.MULTILINE):
        stated, found = int(stated_text), int(found_text)
        slack = _RIFF_PADDING_BYTES if key.lower().startswith("riff") else 0
        if found + slack < stated < _LENGTH_UNKNOWN_BYTES:
            raise AudioError(f"{complaint}: the header states {stated} bytes, {found} are there")


def _soundfile_blocks(reader: soundfile.SoundFile, name: str) -> Iterator[Samples]:
    frames = 0
    while True:
        try:
            block = reader.read(READ_FRAMES, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            reason = str(error.error_string).removeprefix("Error : ").rstrip(".")
            at = frames / reader.samplerate
            raise AudioError(f"{name}: damaged or truncated near {at:.1f} s: {reason}") from error
        if not len(block):
            return
        yield block
        frames += len(block)


def _for_libsndfile(file: BinaryIO) -> int | SimpleNamespace:
    """A file on disk as a descriptor of its own, which libsndfile closes; others as callbacks.

    A Ctrl-C that falls into a callback from C is lost: nothing could be interrupted reliably.
    """
    if isinstance(file, io.BufferedReader) and isinstance(file.name, str):
        with suppress(OSError):  # renamed or removed since it was opened
            return os.open(file.name, os.O_RDONLY)
    return nameless(file)
