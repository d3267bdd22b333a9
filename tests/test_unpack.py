"""Archives that lie: what is unpacked is all of it and inside, or there is one line and nothing."""

from __future__ import annotations

import bz2
import gzip
import io
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speech.errors import ArchiveError
from speech.unpack import is_archive, unpack


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def tar_bytes(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info, content in members:
            info.size = info.size or len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def regular(name: str, content: bytes = b"sound") -> tuple[tarfile.TarInfo, bytes]:
    return member(name), content


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, tarfile.SYMTYPE, target), b""


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, tarfile.LNKTYPE, target), b""


def packed(folder: Path, content: bytes, name: str = "a.tar") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def refusal(archive: Path, **limits: int) -> str:
    """The one line; and nothing was written, inside or outside."""
    before = tree(archive.parent)
    with pytest.raises(ArchiveError) as caught:
        unpack(archive, archive.parent / "out", **limits)  # type: ignore[arg-type]
    assert tree(archive.parent) == before
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{archive}: ")


PLAIN = tar_bytes(
    (member("./corpus", tarfile.DIRTYPE), b""),
    regular("./corpus/a.wav"),
    regular("corpus/" + "long" * 40 + "/b.wav", b"x" * 3000),
    (member("corpus/empty", tarfile.DIRTYPE), b""),
)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_every_packing(tmp_path: Path, pack: type) -> None:
    archive = packed(tmp_path, pack(PLAIN))
    told: list[tuple[str, int, int]] = []
    assert is_archive(archive)
    unpack(archive, tmp_path / "out", progress=lambda *row: told.append(row))
    files = {
        name: content for name, content in tree(tmp_path / "out").items() if content is not None
    }
    assert files == {"corpus/a.wav": b"sound", "corpus/" + "long" * 40 + "/b.wav": b"x" * 3000}
    assert (tmp_path / "out/corpus/empty").is_dir()
    size = archive.stat().st_size
    assert told[-1] == ("unpacking a.tar", size, size)


def test_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("corpus")
        archive.writestr("corpus/a.wav", b"sound")
    assert is_archive(tmp_path / "a.zip")
    unpack(tmp_path / "a.zip", tmp_path / "out")
    assert tree(tmp_path / "out") == {"corpus": None, "corpus/a.wav": b"sound"}


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("inner", b"sound")
    content = tar_bytes(regular("a.wav"), regular("b.zip", inner.getvalue()))
    unpack(packed(tmp_path, content), tmp_path / "out")
    assert sorted(tree(tmp_path / "out")) == ["a.wav", "b.zip"]


def test_links_that_stay_inside(tmp_path: Path) -> None:
    """TED-LIUM 3 has these: legacy/train points into data."""
    content = tar_bytes(
        link("legacy/train/sph", "../../data/sph"),  # before what it points to
        regular("data/sph/a.sph"),
        hard_link("data/sph/b.sph", "data/sph/a.sph"),
    )
    unpack(packed(tmp_path, content), tmp_path / "out")
    assert (tmp_path / "out/legacy/train/sph/b.sph").read_bytes() == b"sound"


ESCAPES = {
    "above": regular("../evil"),
    "deep": regular("a/../../evil"),
    "absolute": regular("/tmp/evil"),
    "folder": (member("a/../..", tarfile.DIRTYPE), b""),
    "link": link("a", "../secret"),
    "absolute link": link("a", "/etc/passwd"),
    "absolute link inside": link("a", "{inside}/b"),
    "link to nothing": link("a", "b"),
    "link in a circle": link("a", "a"),
    "hard link": hard_link("a", "../secret"),
    "absolute hard link": hard_link("a", "/etc/passwd"),
    "hard link to nothing": hard_link("a", "b"),
    "character device": (member("a", tarfile.CHRTYPE), b""),
    "block device": (member("a", tarfile.BLKTYPE), b""),
    "pipe": (member("a", tarfile.FIFOTYPE), b""),
    "sparse": (member("a", tarfile.GNUTYPE_SPARSE), b""),
    "too long": regular("n" * 300),
}


@pytest.mark.parametrize("escape", ESCAPES)
def test_what_leads_out_or_is_no_file(tmp_path: Path, escape: str) -> None:
    (tmp_path / "secret").write_text("mine")
    message = refusal(packed(tmp_path, tar_bytes(regular("first"), ESCAPES[escape])))
    assert any(
        part in message
        for part in ("leads out of", "leads to", "not in it", "device", "File name too long")
    )


def test_no_file_goes_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    for through in (regular("a/evil"), link("a/evil", "../first"), hard_link("a/evil", "first")):
        for order in (1, -1):
            members = [link("a", "../outside"), through][::order]
            refusal(packed(tmp_path, tar_bytes(regular("first"), *members)))
            assert not list((tmp_path / "outside").iterdir())


def test_links_that_are_inside_by_name_only(tmp_path: Path) -> None:
    content = tar_bytes(
        regular("secret"),
        link("d/e/f", "../.."),  # the root
        link("a", "d/e/f/../secret"),  # by name d/e/secret, really beside the root
    )
    (tmp_path / "secret").write_text("mine")
    assert "leads to 'd/e/f/../secret'" in refusal(packed(tmp_path, content))


def test_limits(tmp_path: Path) -> None:
    content = tar_bytes(*(regular(f"{number}", b"x" * 100) for number in range(5)))
    archive = packed(tmp_path, content)
    unpack(archive, tmp_path / "whole", byte_limit=500, member_limit=5)
    (tmp_path / "whole").rename(tmp_path / "kept")
    assert "more than the 499 bytes that are allowed" in refusal(archive, byte_limit=499)
    assert "more members than allowed" in refusal(archive, member_limit=4)


def test_bombs(tmp_path: Path) -> None:
    zeros = 70 << 20  # over the slack that small archives have
    bomb = member("zeros", size=zeros).tobuf()
    compressor = zlib.compressobj(1, wbits=31)
    body = compressor.compress(bomb) + compressor.compress(bytes(zeros)) + compressor.flush()
    assert "unpacks to more than" in refusal(packed(tmp_path, body))
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("zeros", bytes(zeros))
    assert "unpacks to more than" in refusal(tmp_path / "a.zip")


def test_a_bomb_in_a_header(tmp_path: Path) -> None:
    """tarfile reads a long name whole into memory, before anything about it can be refused."""
    size = 40 << 20
    header = member("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=size).tobuf(tarfile.GNU_FORMAT)
    archive = packed(tmp_path, gzip.compress(header + bytes(size), 1))
    assert f"a header of {size} bytes" in refusal(archive)


def test_zip_links_lies_and_secrets(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("a")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    assert "'a' is a link" in refusal(path)
    for name in ("../evil", "/evil"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"sound")
        assert "leads out of the archive" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"sound")
    good = path.read_bytes()
    path.write_bytes(good.replace(b"sound", b"noise"))
    assert "damaged or cut off: Bad CRC-32" in refusal(path)
    flags = bytearray(good)
    flags[6] |= 1
    flags[good.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(flags)
    assert "encrypted" in refusal(path)


def test_a_name_that_comes_twice(tmp_path: Path) -> None:
    content = tar_bytes(regular("a"), regular("a", b"other"))
    assert "File exists" in refusal(packed(tmp_path, content))


def test_what_is_no_archive(tmp_path: Path) -> None:
    for content in (b"", b"It was not to be.", bytes(2000), gzip.compress(b"words" * 500)):
        archive = packed(tmp_path, content)
        assert not is_archive(archive)
        message = refusal(archive)
        assert "damaged or cut off" in message or message == "holds nothing"
    assert not is_archive(tmp_path)


def test_the_folder_must_be_new(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError):
        unpack(packed(tmp_path, PLAIN), tmp_path / "out")


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), pack=st.sampled_from([bytes, gzip.compress, bz2.compress]))
def test_cut_off_anywhere(tmp_path: Path, data: st.DataObject, pack: type) -> None:
    whole = pack(PLAIN[: len(PLAIN.rstrip(b"\0")) + 511 & -512] + bytes(1024))
    archive = packed(tmp_path, whole[: data.draw(st.integers(0, len(whole) - 1))])
    if len(whole) - archive.stat().st_size > 512 or pack is not bytes:
        assert "cut off" in refusal(archive)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_byte_of_a_packed_archive(tmp_path: Path, data: st.DataObject) -> None:
    """All but the first ten bytes of gzip, its header, are under its checksum.

    A few bits between the compressed blocks mean nothing: then the content is the same.
    """
    content = bytearray(gzip.compress(PLAIN, mtime=0))
    content[data.draw(st.integers(10, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        same = gzip.decompress(content) == PLAIN
    except (OSError, EOFError, zlib.error):
        same = False
    if not same:
        refusal(packed(tmp_path, bytes(content)))


def test_a_damaged_header_is_not_the_end(tmp_path: Path) -> None:
    content = bytearray(tar_bytes(regular("a"), regular("b"), regular("c")))
    content[1024 + 150] ^= 1  # the checksum in the header of b
    assert "a damaged header" in refusal(packed(tmp_path, bytes(content)))
