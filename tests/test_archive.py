"""Archives to folders: in their place only when whole, whatever stops the work."""

from __future__ import annotations

import fcntl
import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import Fault, FileServer, file_server

from speech import archive as archive_module
from speech.archive import MARKER, Archive, install, install_local, root_in
from speech.download import Patience, RemoteFile
from speech.errors import ArchiveError, DownloadError

PATIENCE = Patience(attempts=2, first_wait_seconds=0.0, timeout_seconds=5.0)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with file_server() as server:
        yield server


def packed(**files: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content.encode()))
    return buffer.getvalue()


def serve(
    server: FileServer, name: str, content: bytes, root: str, is_flat: bool = False
) -> Archive:
    server.files[name] = content
    checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
    file = RemoteFile(name, (server.url(name),), len(content), checksum)
    return Archive(file, root, is_flat)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_parts_of_a_corpus_share_a_folder(server: FileServer, tmp_path: Path) -> None:
    for part in ("dev", "test"):
        content = packed(**{f"Libri__{part}__1__a.txt": part, "Libri__LICENCE": "free", "T": part})
        one = serve(server, f"{part}.tar.gz", content, f"Libri/{part}")
        assert install(one, tmp_path / "new", patience=PATIENCE) == tmp_path / f"new/Libri/{part}"
    assert set(names(tmp_path / "new")) == {
        "Libri/LICENCE", f"Libri/dev/{MARKER}", "Libri/dev/1/a.txt", f"Libri/test/{MARKER}",
        "Libri/test/1/a.txt", "T", "dev.tar.gz", "test.tar.gz",
    }  # fmt: skip


def test_an_archive_without_a_folder_gets_one(server: FileServer, tmp_path: Path) -> None:
    flat = serve(server, "words.tar.gz", packed(yes__a="x", list="y"), "words", is_flat=True)
    assert root_in(tmp_path, flat) == tmp_path
    assert install(flat, tmp_path) == root_in(tmp_path, flat) == tmp_path / "words"
    assert names(tmp_path / "words") == [MARKER, "list", "yes/a"]


def test_what_is_whole_is_not_touched_again(server: FileServer, tmp_path: Path) -> None:
    one = serve(server, "a.tar.gz", packed(corpus__a="x"), "corpus")
    install(one, tmp_path)
    server.files.clear()
    (tmp_path / "a.tar.gz").unlink()
    assert install(one, tmp_path) == tmp_path / "corpus"
    assert len(server.ranges) == 1


def test_a_folder_of_somebody_else_is_left_alone(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    one = serve(server, "a.tar.gz", packed(corpus__a="x"), "corpus")
    with pytest.raises(ArchiveError, match="corpus: exists already, and nothing says that it is"):
        install(one, tmp_path)
    assert names(tmp_path) == []


class Killed(BaseException):
    pass


@pytest.mark.parametrize("doing", ["downloading", "verifying", "unpacking"])
def test_killed_at_any_point_and_called_again(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doing: str
) -> None:
    """Nothing cleans up after a killed process: neither do ours here."""
    one = serve(server, "a.tar.gz", packed(corpus__a="x" * 999, corpus__b="y"), "corpus")
    rmtree = archive_module.shutil.rmtree
    monkeypatch.setattr(archive_module.shutil, "rmtree", lambda *_, **__: None)

    def kill(what: str, done: int, total: int) -> None:
        if what.startswith(doing):
            raise Killed

    with pytest.raises(Killed):
        install(one, tmp_path, kill)
    assert not (tmp_path / "corpus").exists()
    monkeypatch.setattr(archive_module.shutil, "rmtree", rmtree)
    assert names(install(one, tmp_path)) == [MARKER, "a", "b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "corpus"]


@pytest.mark.parametrize("name", ["_move_others", "unpack"])
def test_a_disk_that_fills_up(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    one = serve(server, "a.tar.gz", packed(corpus__a="x"), "corpus")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(archive_module, name, full)
        with pytest.raises(OSError, match="No space left"):
            install(one, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]
    assert names(install(one, tmp_path)) == [MARKER, "a"]


def test_another_archive_than_was_meant(server: FileServer, tmp_path: Path) -> None:
    one = serve(server, "a.tar.gz", packed(other__a="x"), "corpus")
    with pytest.raises(ArchiveError, match=r"a\.tar\.gz: holds no folder 'corpus'"):
        install(one, tmp_path)
    assert names(tmp_path) == ["a.tar.gz"]


def test_two_processes_do_not_unpack_one_archive(server: FileServer, tmp_path: Path) -> None:
    one = serve(server, "a.tar.gz", packed(corpus__a="x"), "corpus")
    (tmp_path / "a.tar.gz").write_bytes(server.files["a.tar.gz"])
    with open(tmp_path / "a.tar.gz", "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ArchiveError, match="another process is unpacking"):
            install(one, tmp_path)
    install(one, tmp_path)


def test_without_a_checksum_a_damaged_archive_is_fetched_anew(
    server: FileServer, tmp_path: Path
) -> None:
    content = packed(corpus__a="x" * 99)
    server.files["a.tar.gz"] = content
    one = Archive(RemoteFile("a.tar.gz", (server.url("a.tar.gz"),)), "corpus")
    server.faults = [Fault(corrupt_at=len(content) - 5)]
    with pytest.raises(ArchiveError, match="damaged"):
        install(one, tmp_path)
    assert names(tmp_path) == []
    assert names(install(one, tmp_path)) == [MARKER, "a"]


def test_a_verified_archive_stays_and_a_wrong_one_is_named(
    server: FileServer, tmp_path: Path
) -> None:
    one = serve(server, "a.tar.gz", packed(corpus__a="x"), "corpus")
    (tmp_path / "a.tar.gz").write_bytes(b"half")
    with pytest.raises(DownloadError, match="not the published file: 4 bytes, needed"):
        install(one, tmp_path)
    assert names(tmp_path) == ["a.tar.gz"]


def test_an_archive_that_the_user_has(tmp_path: Path) -> None:
    path = tmp_path / "cv-corpus-17.0-en.tar.gz"
    path.write_bytes(packed(en__clips__a="x"))
    for _ in range(2):
        assert install_local(path) == tmp_path / "cv-corpus-17.0-en"
    assert names(tmp_path / "cv-corpus-17.0-en") == [MARKER, "en/clips/a"]
    path.rename(tmp_path / "corpus.rar")
    with pytest.raises(ArchiveError, match=r"needed a name that ends in \.tar\.gz, \.tgz"):
        install_local(tmp_path / "corpus.rar")
