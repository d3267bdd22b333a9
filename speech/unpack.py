"""Tar (plain, gzip, bzip2) and zip archives to files, trusting nothing that they say.

Only regular files, folders and links that stay inside are unpacked. A path or a link that leads
out, a device, more bytes or members than allowed, an archive that ends early or is damaged
anywhere is an ArchiveError, and nothing remains. ``tarfile`` takes a damaged header for the end
of the archive, so what follows the last member has to be zeros up to the end of the file; reading
to the end also makes gzip and bzip2 check their sums.
"""

from __future__ import annotations

import bz2
import gzip
import io
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from speech.errors import ArchiveError

EXPANSION_LIMIT = 10  # unpacked bytes a packed byte; speech packs by 1 to 3
EXPANSION_SLACK_BYTES = 64 << 20  # for small archives
MEMBER_LIMIT = 10_000_000
READ_LIMIT_BYTES = 1 << 20  # that may be asked for at once: tar's long names and attributes too
TAR_BLOCK_BYTES = 512

Progress = Callable[[str, int, int], None]  # what is done, how much of it, of how much

_DAMAGED = (
    tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, gzip.BadGzipFile,
    NotImplementedError, RuntimeError, ValueError, UnicodeError,
)  # fmt: skip


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


def is_archive(path: Path) -> bool:
    """Whether ``path`` is a file that begins as an archive which can be unpacked here."""
    if not path.is_file():
        return False
    try:
        with open(path, "rb") as file:
            if _is_zip(file):
                return True
            head = _decompressed(file).read(TAR_BLOCK_BYTES)
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except (OSError, *_DAMAGED):
        return False
    return True


def unpack(
    archive: Path,
    directory: Path,
    byte_limit: int | None = None,
    member_limit: int = MEMBER_LIMIT,
    progress: Progress | None = None,
) -> None:
    """Unpack ``archive`` into the new folder ``directory``: all of it, or there is no folder.

    ``byte_limit`` bounds the unpacked bytes, as does what the disk has free; without one it is ten
    times the packed bytes and 64 MiB.
    """
    packed = archive.stat().st_size
    directory.mkdir(parents=True)
    free = shutil.disk_usage(directory).free
    limit = byte_limit or EXPANSION_LIMIT * packed + EXPANSION_SLACK_BYTES
    try:
        with open(archive, "rb") as file:
            target = _Target(archive, directory, min(limit, free), member_limit)
            told = _Told(file, packed, f"unpacking {archive.name}", progress)
            (_unpack_zip if _is_zip(told) else _unpack_tar)(told, target)
            target.link()
    except BaseException as error:
        shutil.rmtree(directory, ignore_errors=True)
        if isinstance(error, _DAMAGED):
            raise ArchiveError(f"{archive}: damaged or cut off: {error}") from error
        if isinstance(error, OSError):
            raise ArchiveError(f"{archive}: cannot be unpacked: {error}") from error
        raise


class _Target:
    """The folder that is written: it holds no link until everything else stands."""

    def __init__(self, archive: Path, directory: Path, byte_limit: int, member_limit: int) -> None:
        self.archive = archive
        self.byte_limit = byte_limit
        self._directory = directory
        self._bytes = 0
        self._member_limit = self._members_left = member_limit
        self._symbolic: list[tuple[Path, str]] = []

    def place(self, name: str) -> Path:
        """Where a member goes; counts it."""
        self._members_left -= 1
        if self._members_left < 0:
            raise ArchiveError(f"{self.archive}: more members than allowed, at {name!r}")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name:
            raise ArchiveError(f"{self.archive}: the path {name!r} leads out of the archive")
        return self._directory / path

    def folder(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)

    def file(self, path: Path, size: int, source: _Readable) -> None:
        """Write ``size`` bytes of ``source``; a name that came already is an error."""
        self._bytes += size
        if self._bytes > self.byte_limit:
            raise ArchiveError(
                f"{self.archive}: unpacks to more than the {self.byte_limit} bytes that are "
                "allowed or free"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        left = size
        with open(path, "xb") as file:
            while left:
                block = source.read(min(left, READ_LIMIT_BYTES))
                if not block:
                    raise ArchiveError(f"{self.archive}: cut off inside {path.name}")
                file.write(block)
                left -= len(block)

    def hard_link(self, path: Path, name: str) -> None:
        """A second name of a file that has been unpacked."""
        first = self.place(name)
        if not first.is_file():
            raise ArchiveError(f"{self.archive}: {path.name} is a link to {name!r}, not in it")
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(first, path)

    def symbolic_link(self, path: Path, target: str) -> None:
        self._symbolic.append((path, target))

    def link(self) -> None:
        """Make the symbolic links, last of all, and see where each of them really leads."""
        if self._members_left == self._member_limit:
            raise ArchiveError(f"{self.archive}: holds nothing")
        root = self._directory.resolve()
        for path, _ in self._symbolic:  # as long as none of the folders above can be a link
            path.parent.mkdir(parents=True, exist_ok=True)
        for path, target in self._symbolic:
            path.symlink_to(target)
        for path, target in self._symbolic:
            try:
                is_relative = not os.path.isabs(target)
                inside = is_relative and path.resolve(strict=True).is_relative_to(root)
            except (OSError, RuntimeError):  # it leads nowhere, or in a circle
                inside = False
            if not inside:
                raise ArchiveError(
                    f"{self.archive}: the link {path.name} leads to {target!r}, "
                    "which is not in the archive"
                )


def _unpack_tar(file: BinaryIO, target: _Target) -> None:
    stream = _Stream(_decompressed(file), target)
    with tarfile.open(fileobj=stream, mode="r:") as tar:
        for member in tar:
            _unpack_member(tar, member, target)
            tar.members.clear()  # type: ignore[attr-defined]  # otherwise it keeps every header
    stream.expect_end()


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, target: _Target) -> None:
    path = target.place(member.name)
    if member.isdir():
        target.folder(path)
    elif member.issym():
        target.symbolic_link(path, member.linkname)
    elif member.islnk():
        target.hard_link(path, member.linkname)
    elif member.isreg() and not member.issparse():
        source = tar.extractfile(member)
        assert source is not None
        target.file(path, member.size, source)
    else:
        raise ArchiveError(f"{target.archive}: {member.name!r} is a device, a pipe or the like")


def _unpack_zip(file: BinaryIO, target: _Target) -> None:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            path = target.place(member.filename)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                name = member.filename
                raise ArchiveError(f"{target.archive}: {name!r} is a link, a device or the like")
            if member.is_dir():
                target.folder(path)
                continue
            with archive.open(member) as source:
                target.file(path, member.file_size, source)
                if source.read(1):
                    raise ArchiveError(f"{target.archive}: {path.name} is longer than stated")


def _is_zip(file: BinaryIO) -> bool:
    """By its beginning: zipfile looks at the end, where a tar may well hold a zip."""
    head = file.read(4)
    file.seek(0)
    return head in (b"PK\x03\x04", b"PK\x05\x06")


def _decompressed(file: BinaryIO) -> BinaryIO:
    head = file.read(3)
    file.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return gzip.open(file)  # type: ignore[return-value]
    if head == b"BZh":
        return bz2.open(file)  # type: ignore[return-value]
    return file


class _Stream(io.RawIOBase):
    """A decompressed tar, read forwards: bounded in all and at once, and checked behind its end."""

    def __init__(self, source: BinaryIO, target: _Target) -> None:
        self._source = source
        self._target = target
        self._position = 0
        self._last = b""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes; tarfile asks for a header at once, however long it says it is."""
        archive, limit = self._target.archive, self._target.byte_limit
        if not 0 <= size <= READ_LIMIT_BYTES:
            raise ArchiveError(f"{archive}: a header of {size} bytes")
        if self._position > 2 * limit + READ_LIMIT_BYTES:  # headers and padding besides the files
            raise ArchiveError(
                f"{archive}: unpacks to more than the {limit} bytes that are allowed or free"
            )
        self._last = self._source.read(size)
        self._position += len(self._last)
        return self._last

    def tell(self) -> int:
        """How many bytes have been read."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Read forwards to ``offset``."""
        while self._position < offset and self.read(min(offset - self._position, READ_LIMIT_BYTES)):
            pass
        if self._position != offset or whence != os.SEEK_SET:
            raise tarfile.ReadError("unexpected end")
        return self._position

    def expect_end(self) -> None:
        """Raise ArchiveError unless an empty header was read last and nothing but zeros follows."""
        if self._last != bytes(TAR_BLOCK_BYTES):
            found = "no end" if not self._last else "a damaged header"
            raise ArchiveError(f"{self._target.archive}: damaged or cut off: {found}")
        while block := self.read(READ_LIMIT_BYTES):
            if block.strip(b"\0"):
                raise ArchiveError(f"{self._target.archive}: damaged: bytes behind its end")


class _Told(io.BufferedReader):
    """A file that tells how much of it has been read."""

    def __init__(
        self, file: io.BufferedReader, size: int, label: str, progress: Progress | None
    ) -> None:
        super().__init__(file.raw)
        self._size = size
        self._label = label
        self._progress = progress

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes."""
        block = super().read(size)
        if self._progress is not None:
            self._progress(self._label, self.tell(), self._size)
        return block
