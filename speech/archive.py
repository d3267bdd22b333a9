"""Archives to folders: downloaded, verified, unpacked, and only then in their place.

An archive is unpacked into ``.NAME.unpacking`` and moved by renaming, the folder that holds the
corpus last; inside lies the marker ``.complete`` with what it was made from. A folder without the
marker is somebody else's, whole or not, and is left alone.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from speech.download import Patience, Progress, RemoteFile, download
from speech.errors import ArchiveError
from speech.unpack import unpack

MARKER = ".complete"
OPENSLR_SERVERS = (
    "https://www.openslr.org",
    "https://openslr.trmal.net",
    "https://openslr.elda.org",
    "https://openslr.magicdatatech.com",
)
_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar", ".zip")


@dataclass(frozen=True)
class Archive:
    """A published archive and the folder that it becomes.

    ``root`` is that folder as the archive names it; where the archive has no folder of its own
    (``is_flat``), its members are put into ``root``.
    """

    file: RemoteFile
    root: str
    is_flat: bool = False


def openslr_urls(resource: int, name: str) -> tuple[str, ...]:
    """Where OpenSLR and its mirrors have the file ``name`` of a resource."""
    return tuple(f"{server}/resources/{resource}/{name}" for server in OPENSLR_SERVERS)


def install(
    archive: Archive,
    directory: Path,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Path:
    """``directory/archive.root``, downloaded and unpacked unless that was done before.

    The packed file stays in ``directory``. Raises DownloadError, or ArchiveError where the archive
    cannot be unpacked or the folder exists and is not known to be whole.
    """
    root = directory / archive.root
    if _is_complete(root):
        return root
    packed = download(archive.file, directory, progress, patience)
    try:
        _unpack_into_place(packed, directory, archive, progress)
    except ArchiveError:
        if archive.file.checksum is None:  # perhaps cut off on its way: the next call starts anew
            packed.unlink()
        raise
    return root


def install_local(packed: Path, progress: Progress | None = None) -> Path:
    """The folder beside an archive that the user has, named like it without its suffix."""
    name = next((packed.name.removesuffix(s) for s in _SUFFIXES if packed.name.endswith(s)), "")
    if not name:
        raise ArchiveError(f"{packed}: needed a name that ends in {', '.join(_SUFFIXES)}")
    root = packed.with_name(name)
    if not _is_complete(root):
        local = Archive(RemoteFile(packed.name, ()), name, is_flat=True)
        _unpack_into_place(packed, packed.parent, local, progress)
    return root


def root_in(directory: Path, archive: Archive) -> Path:
    """The folder of the archive in ``directory``, or ``directory`` where it is that folder."""
    nested = directory / archive.root
    return nested if nested.is_dir() else directory


def _is_complete(root: Path) -> bool:
    if not root.exists():
        return False
    if not (root / MARKER).is_file():
        raise ArchiveError(
            f"{root}: exists already, and nothing says that it is whole; move it away, or prepare "
            "it as it is without a download"
        )
    return True


def _unpack_into_place(
    packed: Path, directory: Path, archive: Archive, progress: Progress | None
) -> None:
    staging = directory / f".{packed.name}.unpacking"
    with _locked(packed):
        if _is_complete(directory / archive.root):  # by the process that had the lock
            return
        shutil.rmtree(staging, ignore_errors=True)  # of a call that was killed
        try:
            unpack(
                packed, staging / archive.root if archive.is_flat else staging, progress=progress
            )
            root = staging / archive.root
            if not root.is_dir():
                raise ArchiveError(f"{packed}: holds no folder {archive.root!r}")
            (root / MARKER).write_text(f"{packed.name} {archive.file.checksum or 'no checksum'}\n")
            _move_others(staging, directory, root)
            os.rename(root, directory / archive.root)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _locked(packed: Path) -> Iterator[None]:
    with open(packed, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ArchiveError(f"{packed}: another process is unpacking it") from error
        yield


def _move_others(staging: Path, directory: Path, root: Path) -> None:
    """Move what was unpacked beside the folder ``root``, such as a corpus' licence."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in sorted(staging.iterdir()):
        target = directory / path.name
        if path in root.parents:
            _move_others(path, target, root)
        elif path != root and not (path.is_dir() and target.exists()):
            os.replace(path, target)
