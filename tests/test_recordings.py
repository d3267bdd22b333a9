"""What a command line means: files, directories, patterns; each file once, in order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from speech.errors import SpeechError
from speech.recordings import find_recordings, total_seconds


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.wav", "a.MP3", "notes.txt", "deep/down/a.flac", "deep/x.y.ogg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_a_directory_stands_for_its_audio_and_keeps_places(tree: Path) -> None:
    found = find_recordings([tree])
    assert [one.path.relative_to(tree).as_posix() for one in found] == [
        "a.MP3", "b.wav", "deep/down/a.flac", "deep/x.y.ogg",
    ]  # fmt: skip
    assert [one.place.as_posix() for one in found] == ["a", "b", "deep/down/a", "deep/x.y"]


def test_named_files_come_in_order_and_patterns_add_new_ones(tree: Path) -> None:
    named = [tree / "notes.txt", tree / "b.wav", tree / "gone.wav", tree / "b.wav", tree / "*.wav"]
    assert [one.path.name for one in find_recordings(named)] == [
        "notes.txt", "b.wav", "gone.wav", "b.wav",
    ]  # fmt: skip


def test_patterns_reach_down(tree: Path) -> None:
    assert [one.path.name for one in find_recordings([tree / "**" / "a.*"])] == ["a.MP3", "a.flac"]


def test_a_name_with_signs_of_a_pattern_may_be_a_file(tree: Path) -> None:
    (tree / "a[1].wav").touch()
    assert [one.path.name for one in find_recordings([tree / "a[1].wav"])] == ["a[1].wav"]


def test_a_manifest_stands_for_its_recordings_in_its_order(tree: Path) -> None:
    names = ("deep/x.y.ogg", "../far/away.wav", "gone.wav", "deep/x.y.ogg")
    manifest = tree / "list.jsonl"
    manifest.write_text("".join(f'{{"audio_filepath": "{name}"}}\n' for name in names))
    found = find_recordings([manifest])
    assert [one.path for one in found] == [tree / name for name in names]
    # places stay below an output directory
    assert [one.place.as_posix() for one in found] == ["deep/x.y", "away", "gone", "deep/x.y"]
    manifest.write_text("\n")
    with pytest.raises(SpeechError, match="holds no recordings"):
        find_recordings([manifest])


def test_what_leads_to_nothing_is_said(tree: Path) -> None:
    (tree / "empty").mkdir()
    with pytest.raises(SpeechError, match="no audio files in this directory"):
        find_recordings([tree / "empty"])
    with pytest.raises(SpeechError, match=r"\*\.aac: no file matches"):
        find_recordings([tree / "*.aac"])


def test_seconds_are_those_of_readable_files(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(12_000, np.float32), 8000)
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    assert total_seconds([tmp_path / "a.wav", tmp_path / "broken.wav"]) == pytest.approx(1.5)
