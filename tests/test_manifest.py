"""Manifests: what is written is read back; what is no manifest line is named with its line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech.errors import ManifestError
from speech.manifest import Utterance, parse_utterance, read_manifest, write_manifest

GOOD: dict[str, object] = {"audio_filepath": "audio/a.wav", "duration": 1.5, "text": "Mr. Smith"}


def write_lines(path: Path, *lines: object) -> Path:
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def test_a_line_of_each_kind(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "dev.jsonl",
        GOOD | {"id": "a-1", "speaker": "George", "lang": "en", "offset": 0},
        "",
        GOOD | {"audio_filepath": "/data/b.c.flac", "duration": 2, "text": "", "speaker": None},
    )
    assert read_manifest(path) == [
        Utterance("a-1", tmp_path / "audio/a.wav", 1.5, "Mr. Smith", "George", f"{path}:1"),
        Utterance("/data/b.c", Path("/data/b.c.flac"), 2.0, "", None, f"{path}:3"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'audio_filepath': 1}", "not JSON"),
        ("[1, 2]", "got a JSON list, needed an object"),
        ({"duration": 1.0, "text": ""}, "'audio_filepath' is missing; it has ['duration', 'text']"),
        ({"audio_filepath": "a.wav", "duration": 1.0}, "'text' is missing"),
        (GOOD | {"audio_filepath": ""}, "'audio_filepath' is empty"),
        (GOOD | {"audio_filepath": 7}, "'audio_filepath' is 7, needed a string"),
        (GOOD | {"text": None}, "'text' is None, needed a string"),
        (GOOD | {"speaker": 12}, "'speaker' is 12, needed a string"),
        (GOOD | {"id": 12}, "'id' is 12, needed a string"),
        (GOOD | {"duration": "1.5"}, "'duration' is '1.5', needed seconds above 0"),
        (GOOD | {"duration": True}, "'duration' is True"),
        (GOOD | {"duration": 0}, "'duration' is 0"),
        (GOOD | {"duration": -1.0}, "'duration' is -1.0"),
        (GOOD | {"duration": float("nan")}, "'duration' is nan"),
        (GOOD | {"duration": float("inf")}, "'duration' is inf"),
        ({"audio_filepath": "a.wav", "text": ""}, "'duration' is missing"),
        (GOOD | {"offset": 3.5}, "'offset' is 3.5; slices of longer files are not supported"),
    ],
)
def test_what_is_no_manifest_line(tmp_path: Path, line: object, message: str) -> None:
    path = write_lines(tmp_path / "train.jsonl", GOOD, line)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no\.jsonl: cannot be read: no such file"):
        read_manifest(tmp_path / "no.jsonl")
    with pytest.raises(ManifestError, match="cannot be read: is a directory"):
        read_manifest(tmp_path)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n \n")
    with pytest.raises(ManifestError, match="holds no utterances"):
        read_manifest(empty)
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes(b'{"text": "a"}\n{"text": "caf\xe9"}\n')
    with pytest.raises(ManifestError, match=r"latin\.jsonl:2: not UTF-8"):
        read_manifest(latin)


def test_a_line_separator_inside_a_text_ends_no_line(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "a.jsonl", json.dumps(GOOD | {"text": "a\u2028b"}, ensure_ascii=False)
    )
    assert [u.text for u in read_manifest(path)] == ["a\u2028b"]


def test_windows_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    line = json.dumps(GOOD).encode()
    path.write_bytes(b"\xef\xbb\xbf" + line + b"\r\n" + line + b"\r\n")
    assert [u.text for u in read_manifest(path)] == ["Mr. Smith"] * 2


utterances = st.builds(
    Utterance,
    id=st.text(min_size=1),
    audio_path=st.from_regex(r"[a-z0-9 ]{1,8}\.wav", fullmatch=True).map(Path),
    duration=st.integers(1, 10**8).map(lambda ticks: ticks / 10**4),
    text=st.text(),
    speaker=st.none() | st.text(),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)  # a busy disk takes a second for each
        yield tmp_path_factory.mktemp("manifests")


@given(st.lists(utterances, min_size=1, max_size=5))
@settings(deadline=None)
def test_what_is_written_is_read_back(folder: Path, written: list[Utterance]) -> None:
    """Any text, also with line separators and control characters, and any speaker."""
    path = folder / "a.jsonl"
    write_manifest(path, (with_audio(folder / u.audio_path, u) for u in written))
    read = read_manifest(path)
    assert [u.source for u in read] == [f"{path}:{i + 1}" for i in range(len(read))]
    plain = [Utterance(u.id, u.audio_path, u.duration, u.text, u.speaker) for u in read]
    assert plain == [with_audio(folder / u.audio_path, u) for u in written]


def with_audio(path: Path, u: Utterance) -> Utterance:
    return Utterance(u.id, path, u.duration, u.text, u.speaker)


def written_path(manifest: Path, audio: Path) -> str:
    write_manifest(manifest, [Utterance("a", audio, 1.0, "a")])
    return str(json.loads(manifest.read_text())["audio_filepath"])


def test_audio_paths_are_relative_to_the_manifest(tmp_path: Path) -> None:
    assert written_path(tmp_path / "a.jsonl", tmp_path / "audio/a.wav") == "audio/a.wav"
    assert written_path(tmp_path / "sub/a.jsonl", tmp_path / "audio/a.wav") == "../audio/a.wav"


def test_audio_paths_climb_from_the_real_place_of_a_linked_folder(tmp_path: Path) -> None:
    (tmp_path / "disk/deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk/deep")
    audio = tmp_path / "audio/a.wav"
    audio.parent.mkdir()
    audio.write_bytes(b"")
    manifest = tmp_path / "link/a.jsonl"
    assert written_path(manifest, audio) == "../../audio/a.wav"
    assert read_manifest(manifest)[0].audio_path.samefile(audio)
    assert written_path(manifest, tmp_path / "link/audio/a.wav") == "audio/a.wav"


def test_relative_places_are_those_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert written_path(Path("out/a.jsonl"), Path("audio/a.wav")) == "../audio/a.wav"


def test_a_manifest_appears_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    write_manifest(path, [Utterance("old", tmp_path / "a.wav", 1.0, "old")])

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ManifestError, match=r"a\.jsonl: cannot write .*: no space left"):
        write_manifest(path, [Utterance("new", tmp_path / "a.wav", 1.0, "new")])
    assert [u.id for u in read_manifest(path)] == ["old"]
    assert os.listdir(tmp_path) == ["a.jsonl"]


def test_a_file_name_that_is_not_unicode(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    good, bad = (Utterance("a", tmp_path / file, 1.0, "a") for file in ("a.wav", name))
    with pytest.raises(ManifestError, match=r"cannot write line 2: .* not valid Unicode"):
        write_manifest(tmp_path / "a.jsonl", [good, bad])
    assert not os.listdir(tmp_path)


def test_nothing_to_write(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no utterances to write"):
        write_manifest(tmp_path / "a.jsonl", [])
    assert not os.listdir(tmp_path)


def test_text_is_readable_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_manifest(path, [Utterance("a", tmp_path / "a.wav", 1.23456, "Äpfel")])
    expected = '{"id": "a", "audio_filepath": "a.wav", "duration": 1.2346, "text": "Äpfel"}\n'
    assert path.read_text(encoding="utf-8") == expected


def test_parse_utterance_joins_the_directory() -> None:
    utterance = parse_utterance(json.dumps(GOOD), Path("/corpus"), "here:1")
    assert utterance.audio_path == Path("/corpus/audio/a.wav")
