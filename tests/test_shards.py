"""Shards: cut in one way, written whole, filled up, refused where they are not what they say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speech.errors import AudioError, SpeechError
from speech.shards import Shard, claim, cut_shards, finish_shard, merge, unfinished
from speech.transcript import Transcript, Word
from speech.whole_file import write_whole

NAMES = ("b.wav", "a.wav", "c.wav", "b.wav", "d.wav")  # five, one of them twice
SHARDS = cut_shards(NAMES, 2)


class Recogniser:
    """Hears the file's own name; keeps what it was asked for, fails where it is told to."""

    def __init__(self, broken: Sequence[str] = ()) -> None:
        self.asked: list[str] = []
        self._broken = broken

    def __call__(self, names: Sequence[str]) -> Iterator[Transcript | AudioError]:
        for name in names:
            self.asked.append(name)
            if name in self._broken:
                yield AudioError(f"{name}: broken")
            else:
                yield Transcript.of_words(name, 1.0, [Word(name.removesuffix(".wav"), 0, 1, 0.5)])


def finish(output: Path, shards: Sequence[Shard] = SHARDS, broken: Sequence[str] = ()) -> list[str]:
    recogniser = Recogniser(broken)
    for shard in shards:
        finish_shard(output, shard, recogniser)
    return recogniser.asked


def merged(output: Path, form: str = "text") -> list[str]:
    assert merge(output, SHARDS, form) == []
    return (output / {"text": "transcripts.txt", "json": "transcripts.jsonl"}[form]).read_text(
        "utf-8"
    ).splitlines()  # fmt: skip


def test_a_list_is_cut_into_runs() -> None:
    assert [shard.names for shard in SHARDS] == [
        ("b.wav", "a.wav"), ("c.wav", "b.wav"), ("d.wav",),
    ]  # fmt: skip
    assert [shard.path(Path("out")).name for shard in SHARDS] == [
        "000000.jsonl", "000001.jsonl", "000002.jsonl",
    ]  # fmt: skip


@given(st.lists(st.text()), st.integers(1, 9))
def test_shards_joined_are_the_list(names: list[str], size: int) -> None:
    shards = cut_shards(names, size)
    assert [name for shard in shards for name in shard.names] == names
    assert [shard.number for shard in shards] == list(range(len(shards)))
    assert all(len(shard.names) == size for shard in shards[:-1])


def test_merged_stands_each_recording_once_in_the_order_of_the_list(tmp_path: Path) -> None:
    assert finish(tmp_path, SHARDS[::-1]) == ["d.wav", "c.wav", "b.wav", "b.wav", "a.wav"]
    assert merged(tmp_path) == [
        "b.wav\tb", "a.wav\ta", "c.wav\tc", "b.wav\tb", "d.wav\td",
    ]  # fmt: skip
    rows = [json.loads(line) for line in merged(tmp_path, "json")]
    assert [(row["audio"], row["text"]) for row in rows] == [(n, n[0]) for n in NAMES]


def test_what_is_missing_is_known_and_done_shards_are_left_alone(tmp_path: Path) -> None:
    assert unfinished(tmp_path, SHARDS) == SHARDS
    finish(tmp_path, [SHARDS[1]])
    assert unfinished(tmp_path, SHARDS) == [SHARDS[0], SHARDS[2]]
    with pytest.raises(SpeechError, match=r"000000\.jsonl is missing: run again"):
        merge(tmp_path, SHARDS, "text")
    assert not (tmp_path / "transcripts.txt").exists()
    assert finish(tmp_path, [SHARDS[1]]) == []  # a worker that comes late finds nothing to do


def test_recordings_without_a_transcript_are_named_and_tried_again(tmp_path: Path) -> None:
    finish(tmp_path, broken=["c.wav"])
    assert merge(tmp_path, SHARDS, "text") == ["c.wav: broken"]
    assert len((tmp_path / "transcripts.txt").read_text().splitlines()) == 4
    assert unfinished(tmp_path, SHARDS) == [SHARDS[1]]
    assert finish(tmp_path, unfinished(tmp_path, SHARDS)) == ["c.wav"]
    assert merged(tmp_path)[2] == "c.wav\tc"


@pytest.mark.parametrize("damage", ["", "{}\n{}\n", "not JSON\n", "swapped"])
def test_a_shard_that_holds_something_else_is_refused(tmp_path: Path, damage: str) -> None:
    finish(tmp_path)
    path = SHARDS[0].path(tmp_path)
    if damage == "swapped":
        damage = "".join(f"{line}\n" for line in path.read_text().splitlines()[::-1])
    path.write_text(damage)
    with pytest.raises(SpeechError, match=r"000000\.jsonl: not the 2 transcripts .* delete it"):
        unfinished(tmp_path, SHARDS)


def test_a_worker_killed_while_it_wrote_leaves_no_shard_and_no_trace(tmp_path: Path) -> None:
    path = SHARDS[0].path(tmp_path)
    path.parent.mkdir()
    (path.parent / f".{path.name}.1234abcd.partial").write_text('{"audio": "b.w')
    assert unfinished(tmp_path, SHARDS) == SHARDS
    finish(tmp_path)
    merged(tmp_path)
    assert sorted(one.name for one in path.parent.iterdir()) == [
        shard.path(tmp_path).name for shard in SHARDS
    ]


def test_an_output_directory_is_for_one_list_and_one_setting(tmp_path: Path) -> None:
    settings = {"model": "base", "options": {"hot_words": ()}}
    claim(tmp_path, NAMES, settings)
    claim(tmp_path, NAMES, settings)
    with pytest.raises(SpeechError, match="begun with other model "):
        claim(tmp_path, NAMES, settings | {"model": "other"})
    with pytest.raises(SpeechError, match="begun with other recordings_sha256 "):
        claim(tmp_path, NAMES[::-1], settings)
    (tmp_path / "plan.json").write_text("[]")
    with pytest.raises(SpeechError, match="got a JSON list, needed an object"):
        claim(tmp_path, NAMES, settings)


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "file", "new \udc80")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
