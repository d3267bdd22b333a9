"""Downloads from servers that drop, lie and corrupt: the right bytes, or one line that says why."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import Fault, FileServer, file_server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speech.download import Patience, RemoteFile, download
from speech.errors import DownloadError

CONTENT = random.Random(1).randbytes(40_000)
PATIENCE = Patience(attempts=3, first_wait_seconds=0.0, timeout_seconds=5.0)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def shared() -> Iterator[FileServer]:
    with file_server() as server:
        yield server


@pytest.fixture
def server(shared: FileServer) -> FileServer:
    shared.files = {"a.bin": CONTENT}
    shared.faults, shared.ranges, shared.default, shared.etag = [], [], Fault(), None
    return shared


def remote(
    server: FileServer, *names: str, size: int | None = len(CONTENT), checksum: str | None = ""
) -> RemoteFile:
    if checksum == "":
        checksum = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    urls = tuple(server.url(name) for name in names or ("a.bin",))
    return RemoteFile("a.bin", urls, size, checksum)


def fetch(wanted: RemoteFile, directory: Path) -> bytes:
    return download(wanted, directory, patience=PATIENCE).read_bytes()


def refusal(wanted: RemoteFile, directory: Path) -> str:
    """The one line, and no file of that name."""
    with pytest.raises(DownloadError) as caught:
        download(wanted, directory, patience=PATIENCE)
    assert not (directory / wanted.name).exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_whole_at_once_with_progress(server: FileServer, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    path = download(remote(server), tmp_path / "new", lambda *row: told.append(row), PATIENCE)
    assert path.read_bytes() == CONTENT
    assert ("downloading a.bin", len(CONTENT), len(CONTENT)) in told
    assert told[-1] == ("verifying a.bin", len(CONTENT), len(CONTENT))
    assert [entry.name for entry in path.parent.iterdir()] == ["a.bin"]


def test_interrupted_twenty_times(server: FileServer, tmp_path: Path) -> None:
    server.faults = [Fault(drop_after=1500 + 31 * number) for number in range(20)]
    assert fetch(remote(server), tmp_path) == CONTENT
    assert len(server.ranges) == 21
    assert server.ranges[:3] == [None, "bytes=1500-", "bytes=3031-"]


def test_interrupted_twenty_times_with_a_call_each(server: FileServer, tmp_path: Path) -> None:
    for number in range(20):
        server.faults = [Fault(drop_after=1000 + number), Fault(status=503), Fault(status=503)]
        server.default = Fault(status=503)
        refusal(remote(server), tmp_path)
    server.default = Fault()
    server.ranges.clear()
    assert fetch(remote(server), tmp_path) == CONTENT
    assert server.ranges == [f"bytes={20 * 1000 + 190}-"]


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    faults=st.lists(
        st.builds(
            Fault,
            drop_after=st.none() | st.integers(0, len(CONTENT)),
            status=st.sampled_from([None, None, None, 429, 503]),
            ignore_range=st.booleans(),
            wrong_range=st.booleans(),
            corrupt_at=st.none() | st.integers(0, len(CONTENT) - 1),
            states_nothing=st.booleans(),
            chunked=st.booleans(),
        ),
        max_size=20,
    ),
    knows_size=st.booleans(),
)
def test_whatever_goes_wrong_the_bytes_are_right_or_there_is_no_file(
    server: FileServer,
    tmp_path_factory: pytest.TempPathFactory,
    faults: list[Fault],
    knows_size: bool,
) -> None:
    wanted = remote(server, size=len(CONTENT) if knows_size else None)
    directory = tmp_path_factory.mktemp("any")
    server.faults = list(faults)
    for _ in range(len(faults) + 1):
        with contextlib.suppress(DownloadError):
            fetch(wanted, directory)
        path = directory / "a.bin"
        assert not path.exists() or path.read_bytes() == CONTENT
    assert path.exists()  # for the server has run out of faults


def test_a_later_call_goes_on(server: FileServer, tmp_path: Path) -> None:
    server.faults = [Fault(drop_after=10_000)] + [Fault(status=503)] * 3
    assert "503" in refusal(remote(server), tmp_path)
    server.ranges.clear()
    assert fetch(remote(server), tmp_path) == CONTENT
    assert server.ranges == ["bytes=10000-"]


def test_another_mirror_goes_on_where_the_first_gave_up(server: FileServer, tmp_path: Path) -> None:
    server.files["b.bin"] = CONTENT
    server.faults = [Fault(), Fault(drop_after=10_000)] + [Fault(drop_after=0)] * 3
    assert fetch(remote(server, "gone.bin", "a.bin", "b.bin"), tmp_path) == CONTENT
    assert server.ranges == [None, None] + ["bytes=10000-"] * 4


def test_every_mirror_says_why_it_failed(server: FileServer, tmp_path: Path) -> None:
    server.files["short.bin"] = CONTENT[:-1]
    server.files["other.bin"] = bytes(len(CONTENT))
    message = refusal(remote(server, "gone.bin", "short.bin", "other.bin"), tmp_path)
    assert f"{server.url('gone.bin')}: 404 Not Found" in message
    assert f"{server.url('short.bin')}: the server states 39999 bytes, needed 40000" in message
    assert f"{server.url('other.bin')}: its sha256 is " in message
    nobody = RemoteFile("a.bin", ("http://127.0.0.1:9/a.bin",), 1)
    assert "cannot be reached" in refusal(nobody, tmp_path)


def test_a_server_without_ranges_is_asked_for_everything(
    server: FileServer, tmp_path: Path
) -> None:
    server.default = Fault(ignore_range=True)
    server.faults = [Fault(drop_after=30_000)]
    assert fetch(remote(server), tmp_path) == CONTENT
    server.default = Fault(wrong_range=True)
    (tmp_path / "again").mkdir()
    (tmp_path / "again/.a.bin.partial").write_bytes(CONTENT[:7])
    assert fetch(remote(server), tmp_path / "again") == CONTENT


def test_a_corrupted_byte_is_fetched_again(server: FileServer, tmp_path: Path) -> None:
    server.faults = [Fault(drop_after=20_000, corrupt_at=5)]
    assert fetch(remote(server), tmp_path) == CONTENT
    assert server.ranges == [None, "bytes=20000-", None]
    md5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
    assert fetch(remote(server, checksum=md5), tmp_path) == CONTENT


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(states=50_000), "the server states 50000 bytes, needed 40000"),
        (Fault(states=30_000), "the server states 30000 bytes, needed 40000"),
        (Fault(drop_after=0), "broken off after 0 of 40000 bytes"),
        (Fault(states_nothing=True, drop_after=100, ignore_range=True), "broken off after 100 of"),
        (
            Fault(chunked=True, drop_after=100, ignore_range=True),
            "broken off after 100 bytes: Incomp",
        ),
        (Fault(corrupt_at=39_999), "its sha256 is "),
        (Fault(status=403), "403 Forbidden"),
        (Fault(status=500), "500 Internal Server Error"),
    ],
)
def test_a_server_that_keeps_failing(
    server: FileServer, tmp_path: Path, fault: Fault, message: str
) -> None:
    server.default = fault
    assert message in refusal(remote(server), tmp_path)


def test_more_than_was_published(server: FileServer, tmp_path: Path) -> None:
    server.files["a.bin"] = CONTENT * 2
    server.default = Fault(states_nothing=True)
    assert "sends more than 40000 bytes" in refusal(remote(server), tmp_path)
    assert (tmp_path / ".a.bin.partial").stat().st_size == 0


def test_without_a_checksum_only_what_the_server_vouches_for_is_gone_on_with(
    server: FileServer, tmp_path: Path
) -> None:
    wanted = remote(server, size=None, checksum=None)
    (tmp_path / ".a.bin.partial").write_bytes(b"from another day")
    server.etag = '"one"'
    server.faults = [Fault(drop_after=10_000)]
    assert fetch(wanted, tmp_path) == CONTENT
    assert server.ranges == [None, "bytes=10000-"]
    for etag in (None, 'W/"one"'):
        server.ranges.clear()
        server.etag, server.faults = etag, [Fault(drop_after=10_000)]
        (tmp_path / "a.bin").unlink()
        assert fetch(wanted, tmp_path) == CONTENT
        assert server.ranges == [None, None]


def test_without_a_checksum_two_versions_are_never_joined(
    server: FileServer, tmp_path: Path
) -> None:
    server.etag, newer = '"one"', CONTENT[::-1]
    server.faults = [Fault(drop_after=10_000, then_serves=newer)]
    assert fetch(remote(server, size=None, checksum=None), tmp_path) == newer
    assert server.ranges == [None, "bytes=10000-"]


def test_what_is_there_is_verified_and_never_overwritten(
    server: FileServer, tmp_path: Path
) -> None:
    (tmp_path / "a.bin").write_bytes(CONTENT)
    assert fetch(remote(server), tmp_path) == CONTENT
    assert server.ranges == []
    (tmp_path / "a.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(DownloadError, match="39999 bytes, needed 40000; move it away"):
        fetch(remote(server), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT[:-1]


def test_a_longer_partial_file_is_started_over(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / ".a.bin.partial").write_bytes(CONTENT + b"more")
    assert fetch(remote(server, size=None), tmp_path) == CONTENT
    assert server.ranges == ["bytes=40004-", None]


def test_two_processes_do_not_write_one_file(server: FileServer, tmp_path: Path) -> None:
    with open(tmp_path / ".a.bin.partial", "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "another process is downloading" in refusal(remote(server), tmp_path)


def test_a_disk_too_small(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("speech.download.shutil.disk_usage", lambda _: usage)
    assert "1000 bytes free, a.bin needs 40000" in refusal(remote(server), tmp_path)
