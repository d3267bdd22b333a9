"""Strings of digits: recordings stay in their split, one voice a string, the text its audio's."""

from __future__ import annotations

from pathlib import Path

import make_digit_strings
import numpy as np
import pytest
import soundfile

from speech.manifest import Utterance, read_manifest, write_manifest

RATE = make_digit_strings.SAMPLE_RATE
WORDS = ("one", "two")


@pytest.fixture
def recordings(tmp_path: Path) -> list[Utterance]:
    """Two speakers, two digits, eight recordings each; one is 0.1 s long and two 0.2 s."""
    found = []
    for speaker in ("ada", "bob"):
        for number, word in enumerate(WORDS, 1):
            for index in range(8):
                path = tmp_path / f"{number}_{speaker}_{index}.flac"
                soundfile.write(path, np.full(number * RATE // 10, 0.25), RATE)
                found.append(Utterance(path.stem, path, number / 10, word, speaker))
    return found


def test_dev_takes_the_first_recordings_of_each_speaker_and_digit(
    recordings: list[Utterance],
) -> None:
    test = [one for one in recordings if one.id.endswith("_0")]
    splits = make_digit_strings.split_recordings(
        [one for one in reversed(recordings) if one not in test], test
    )
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 2 * 2 * 2, "dev": 2 * 2 * 5, "test": 2 * 2,
    }  # fmt: skip
    assert {one.id[-1] for one in splits["dev"]} == set("12345")
    assert {one.id[-1] for one in splits["train"]} == set("67")


def test_the_text_tells_what_is_heard(recordings: list[Utterance], tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    strings = list(make_digit_strings.draw_strings(recordings, 12, (3, 7), random))
    assert {part.speaker for part in strings[0].parts} == {"ada"}
    assert {part.speaker for part in strings[1].parts} == {"bob"}
    seconds = make_digit_strings.write_split(strings, tmp_path / "out", "train", random)
    utterances = read_manifest(tmp_path / "out" / "train.jsonl")
    assert sum(one.duration for one in utterances) == pytest.approx(seconds, abs=0.01)
    for one in utterances:
        samples, _ = soundfile.read(one.audio_path)
        digits = [WORDS.index(word) + 1 for word in one.text.split()]
        assert 3 <= len(digits) <= 7
        heard = np.diff(np.flatnonzero(np.diff(np.r_[0, np.abs(samples) > 0.1, 0].astype(int))))
        assert heard[::2].tolist() == [digit * RATE // 10 for digit in digits]
        low, high = make_digit_strings.GAP_SECONDS
        assert all(low * RATE <= gap <= high * RATE for gap in heard[1::2])


def test_the_same_seed_draws_the_same_strings(
    recordings: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_manifest(tmp_path / "train.jsonl", recordings)
    write_manifest(tmp_path / "test.jsonl", recordings[:8])
    monkeypatch.setattr(make_digit_strings, "STRINGS", {"train": 3, "dev": 2, "test": 2})
    written = []
    for name in ("a", "b"):
        output = tmp_path / name
        monkeypatch.setattr("sys.argv", ["", str(tmp_path), "--output", str(output)])
        make_digit_strings.main()
        written.append(
            [(output / f"{split}.jsonl").read_text() for split in ("train", "dev", "test")]
        )
    assert written[0] == written[1]
