"""Arrays in one file that loads by memory map: magic, header as JSON, then the arrays, checked.

Layout: 8 bytes magic; the length of the header (uint32) and its CRC-32 (uint32), little-endian;
the header, padded so that the arrays begin at a multiple of 64 bytes; the arrays, each padded so.
The header says the version, each array's type, shape and place, the size of the file and the
CRC-32 of everything after it, so that a file cut short or damaged is refused, never read.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speech.errors import LanguageModelError

_ALIGNMENT_BYTES = 64
_PREFIX = struct.Struct("<8sII")
_LARGEST_HEADER_BYTES = 1 << 20


def save_arrays(
    path: Path, magic: bytes, fields: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Write `arrays` and the JSON-able `fields`; a crash leaves the old file or none."""
    blobs = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    places, end, checksum = {}, 0, 0
    for name, blob in blobs.items():
        places[name] = [blob.dtype.newbyteorder("<").str, list(blob.shape), end]
        end += _padded(blob.nbytes)
        checksum = zlib.crc32(_padding(blob.nbytes), zlib.crc32(_bytes(blob), checksum))
    header = json.dumps({**fields, "arrays": places, "bytes": end, "crc32": checksum}).encode()
    header += b" " * (_padded(_PREFIX.size + len(header)) - _PREFIX.size - len(header))
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(_PREFIX.pack(magic, len(header), zlib.crc32(header)) + header)
            for blob in blobs.values():
                file.write(_bytes(blob))
                file.write(_padding(blob.nbytes))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_arrays(
    path: Path, magic: bytes, version: int, kind: str
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The fields and the memory-mapped, read-only arrays that `save_arrays` wrote.

    LanguageModelError says in one line when the file is no `kind`, of another version, cut short,
    or damaged.
    """
    try:
        data = np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError) as error:  # ValueError: an empty file
        reason = getattr(error, "strerror", None) or "it is empty"
        raise LanguageModelError(f"{path}: cannot be read as {kind}: {reason.lower()}") from error
    header, start = _read_header(path, data, magic, kind)
    if header.get("version") != version:
        raise LanguageModelError(
            f"{path}: {kind} of version {header.get('version')}, this program reads {version}"
        )
    body = data[start:]
    if len(body) != header["bytes"]:
        raise LanguageModelError(
            f"{path}: {kind} cut short or run over: {len(data)} bytes, "
            f"needed {start + header['bytes']}"
        )
    if zlib.crc32(body.data) != header["crc32"]:
        raise LanguageModelError(f"{path}: damaged {kind}: its checksum is wrong")
    arrays = {}
    for name, (dtype, shape, place) in header["arrays"].items():
        size = np.dtype(dtype).itemsize * int(np.prod(shape))
        arrays[name] = np.asarray(body[place : place + size]).view(dtype).reshape(shape)
    return header, arrays


def _read_header(
    path: Path, data: NDArray[np.uint8], magic: bytes, kind: str
) -> tuple[dict[str, Any], int]:
    prefix = data[: _PREFIX.size].tobytes()
    if prefix[:8] != magic[: len(prefix)]:
        raise LanguageModelError(
            f"{path}: not {kind}: it begins with {prefix[:8]!r}, not {magic!r}"
        )
    if len(prefix) == _PREFIX.size:
        _, length, checksum = _PREFIX.unpack(prefix)
        text = data[_PREFIX.size : _PREFIX.size + min(length, _LARGEST_HEADER_BYTES)].tobytes()
        if len(text) == length and zlib.crc32(text) == checksum:
            return json.loads(text), _PREFIX.size + length
    raise LanguageModelError(f"{path}: damaged {kind}, or cut short in its header")


def _bytes(array: NDArray[Any]) -> memoryview:
    little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return little_endian.reshape(-1).view(np.uint8).data


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES


def _padding(size: int) -> bytes:
    return bytes(_padded(size) - size)
