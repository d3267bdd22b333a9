"""Files of fixed content from servers that drop, lie or corrupt: whole and verified, or not at all.

What has arrived stands in ``.NAME.partial`` and is gone on with by an HTTP range request (RFC 9110,
section 14) in the next attempt or the next call, on any mirror: the published checksum decides in
the end. A file without a published checksum is gone on with only inside one call and only where the
server vouches by an ETag that it is still the same. The file gets its name when it is verified.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from speech.errors import DownloadError, reason_of

BLOCK_BYTES = 1 << 20
ROUNDS = 2  # downloads from one mirror whose checksum may be wrong
SIZE_LIMIT_BYTES = 1 << 30  # of a file whose size nobody published
LONGEST_WAIT_SECONDS = 60.0
UNREACHABLE_ATTEMPTS = 3  # as many as one without a connection counts for
_WORTH_ANOTHER_TRY = frozenset({408, 425, 429, 500, 502, 503, 504})
_RANGE_NOT_SATISFIABLE = 416
_PARTIAL_CONTENT = 206

Progress = Callable[[str, int, int], None]  # what is done, how much of it, of how much (0: unknown)


@dataclass(frozen=True)
class RemoteFile:
    """A file that never changes, and the servers that have it, in the order they are tried."""

    name: str
    urls: tuple[str, ...]
    size: int | None = None  # bytes
    checksum: str | None = None  # "sha256:..." or "md5:..."


@dataclass(frozen=True)
class Patience:
    """How long a server that fails is asked again; the waits double from ``first_wait_seconds``."""

    attempts: int = 6  # in which the file does not grow
    first_wait_seconds: float = 1.0
    timeout_seconds: float = 60.0  # without a byte


class _DroppedError(Exception):
    """The connection or the server failed in a way that another attempt may mend."""


class _UnreachableError(_DroppedError):
    """There was no connection at all, which seldom mends within a minute."""


def download(
    remote: RemoteFile,
    directory: Path,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Path:
    """``directory/remote.name``, whole and verified; what is there already is verified too.

    Raises DownloadError with what every mirror did, or where the disk is too small or another
    process downloads the same file.
    """
    path = directory / remote.name
    if path.exists():
        complaint = _complaint(path, remote, progress)
        if complaint:
            raise DownloadError(f"{path}: not the published file: {complaint}; move it away")
        return path
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / f".{remote.name}.partial"
    with _only_writer(partial) as file:
        if remote.checksum is None:
            file.truncate(0)
        _from_any_mirror(remote, partial, file, progress, patience or Patience())
        os.fsync(file.fileno())
        os.replace(partial, path)
    return path


def _from_any_mirror(
    remote: RemoteFile,
    partial: Path,
    file: BinaryIO,
    progress: Progress | None,
    patience: Patience,
) -> None:
    failures = []
    for url in remote.urls:
        for _ in range(ROUNDS):
            try:
                _Transfer(url, remote, file, progress, patience).run()
            except DownloadError as error:
                failures.append(str(error))
                break
            complaint = _complaint(partial, remote, progress)
            if not complaint:
                return
            failures.append(f"{url}: {complaint}")
            file.truncate(0)
    unique = "; ".join(dict.fromkeys(failures))
    raise DownloadError(f"{remote.name}: no server gave it whole: {unique}")


@contextlib.contextmanager
def _only_writer(partial: Path) -> Iterator[BinaryIO]:
    with open(partial, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DownloadError(f"{partial}: another process is downloading this file") from error
        yield file


def _complaint(path: Path, remote: RemoteFile, progress: Progress | None) -> str:
    """What about the file differs from what is published; empty where nothing does."""
    size = path.stat().st_size
    if remote.size is not None and size != remote.size:
        return f"{size} bytes, needed {remote.size}"
    if remote.checksum is None:
        return ""
    algorithm, _, expected = remote.checksum.partition(":")
    digest, done = hashlib.new(algorithm), 0
    with open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            done += len(block)
            if progress is not None:
                progress(f"verifying {remote.name}", done, size)
    found = digest.hexdigest()
    return "" if found == expected else f"its {algorithm} is {found}, needed {expected}"


class _Transfer:
    """One mirror's attempts to complete a file that is open for appending."""

    def __init__(
        self,
        url: str,
        remote: RemoteFile,
        file: BinaryIO,
        progress: Progress | None,
        patience: Patience,
    ) -> None:
        self._url = url
        self._remote = remote
        self._file = file
        self._progress = progress
        self._patience = patience
        self._etag = ""
        if remote.checksum is None:
            file.truncate(0)  # another mirror may have another file

    def run(self) -> None:
        """Complete the file; DownloadError when the server refuses or fails too often."""
        furthest, idle = self._length(), 0
        while True:
            try:
                self._attempt()
                return
            except _DroppedError as error:
                tries = UNREACHABLE_ATTEMPTS if isinstance(error, _UnreachableError) else 1
                idle = 0 if self._length() > furthest else idle + tries
                furthest = max(furthest, self._length())
                if idle >= self._patience.attempts:
                    raise DownloadError(f"{self._url}: {error}") from error
            wait = self._patience.first_wait_seconds * 2 ** max(0, idle - 1)
            time.sleep(min(wait, LONGEST_WAIT_SECONDS))

    def _length(self) -> int:
        return self._file.seek(0, os.SEEK_END)

    def _attempt(self) -> None:
        size = self._remote.size
        if size is not None and self._length() > size:
            self._file.truncate(0)
        if self._length() == size:
            return
        with self._answer() as response:
            try:
                end = self._end_of(response)
                self._copy(response, end)
            except (http.client.HTTPException, OSError) as error:
                reason = f"{type(error).__name__} {error}".strip()
                raise _DroppedError(f"broken off after {self._length()} bytes: {reason}") from error

    def _answer(self) -> http.client.HTTPResponse:
        """The server's answer to a request for what is missing."""
        headers = {"User-Agent": "speech", "Accept-Encoding": "identity"}
        start = self._length()
        if start and (self._remote.checksum or self._etag):
            headers["Range"] = f"bytes={start}-"
            if self._etag:
                headers["If-Range"] = self._etag
        request = urllib.request.Request(self._url, headers=headers)
        try:
            response = urllib.request.urlopen(request, timeout=self._patience.timeout_seconds)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == _RANGE_NOT_SATISFIABLE:
                self._file.truncate(0)
            elif error.code not in _WORTH_ANOTHER_TRY:
                raise DownloadError(f"{self._url}: {error.code} {error.reason}") from error
            raise _DroppedError(f"{error.code} {error.reason}") from error
        except (http.client.HTTPException, OSError) as error:
            reason = getattr(error, "reason", error)
            raise _UnreachableError(f"cannot be reached: {reason}") from error
        if not isinstance(response, http.client.HTTPResponse):
            raise DownloadError(f"{self._url}: leads to {response.url}, which is not HTTP")
        return response

    def _end_of(self, response: http.client.HTTPResponse) -> int | None:
        """How long the file will be by the server's word; starts over where the server does."""
        begins, end = 0, None
        stated = response.headers.get("Content-Length", "")
        if response.status == _PARTIAL_CONTENT:
            begins, end = _content_range(response.headers.get("Content-Range", ""))
        elif stated.isdecimal():
            end = int(stated)
        self._refuse_size(begins, end)
        etag = response.headers.get("ETag", "")
        self._etag = "" if etag.startswith("W/") else etag
        if begins != self._length():
            self._file.truncate(0)
            if begins:
                raise _DroppedError(f"asked for a range, got one from byte {begins}")
        return end

    def _refuse_size(self, begins: int, end: int | None) -> None:
        size = self._remote.size
        if end is None:
            return
        if size is not None and end != size:
            raise DownloadError(f"{self._url}: the server states {end} bytes, needed {size}")
        if size is None and end > SIZE_LIMIT_BYTES:
            raise DownloadError(f"{self._url}: the server states {end} bytes, too many for this")
        folder = Path(self._file.name).parent
        free, missing = shutil.disk_usage(folder).free, end - begins
        if missing > free:
            raise DownloadError(f"{folder}: {free} bytes free, {self._remote.name} needs {missing}")

    def _copy(self, response: http.client.HTTPResponse, end: int | None) -> None:
        """Append what comes; the connection's end is the file's only if all has come."""
        limit = end or self._remote.size or SIZE_LIMIT_BYTES
        length = self._length()
        while block := response.read1(BLOCK_BYTES):
            length += len(block)
            if length > limit:
                self._file.truncate(0)
                raise DownloadError(f"{self._url}: sends more than {limit} bytes")
            self._write(block)
            if self._progress is not None:
                total = end or self._remote.size or 0
                self._progress(f"downloading {self._remote.name}", length, total)
        needed = end or self._remote.size
        if needed is not None and length < needed:
            raise _DroppedError(f"broken off after {length} of {needed} bytes")

    def _write(self, block: bytes) -> None:
        try:
            self._file.write(block)
            self._file.flush()
        except OSError as error:
            raise DownloadError(
                f"{self._file.name}: cannot be written: {reason_of(error)}"
            ) from error


def _content_range(value: str) -> tuple[int, int | None]:
    """First byte and whole length (None for ``*``) of a Content-Range header."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", value)
    if match is None:
        raise _DroppedError(f"answered with an unreadable range {value!r}")
    return int(match[1]), None if match[2] == "*" else int(match[2])
