"""Check: each kind of finding by a manifest that has just that, and silence about a good one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from speech.check import KINDS, MOST_LINES, CheckReport, check_manifests
from speech.config import FeatureConfig
from speech.errors import ManifestError
from speech.tokenizer import CharTokenizer

RATE_HZ = 16000


def sound(path: Path, seconds: float, seed: int = 0, level: float = 0.1) -> None:
    rng = np.random.default_rng(seed)
    samples = level * rng.uniform(-1, 1, round(seconds * RATE_HZ))
    soundfile.write(path, samples, RATE_HZ, subtype="PCM_24")


class Corpus:
    """A folder whose manifests grow line by line, each with a sound of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sounds = 0

    def add(self, split: str = "train", seconds: float = 1.0, **fields: object) -> Path:
        self.sounds += 1
        audio = self.folder / f"{self.sounds}.wav"
        sound(audio, seconds, self.sounds)
        line = {"id": str(self.sounds), "audio_filepath": audio.name, "duration": seconds}
        with (self.folder / f"{split}.jsonl").open("a") as file:
            file.write(json.dumps(line | {"text": f"hello {split}"} | fields) + "\n")
        return audio

    def check(self, *splits: str, **settings: object) -> list[tuple[str, str, str]]:
        """(source without the folder, kind, message) of every finding."""
        return relative(self.report(*splits, **settings), self.folder)

    def report(self, *splits: str, **settings: object) -> CheckReport:
        paths = [self.folder / f"{split}.jsonl" for split in splits or ("train",)]
        return check_manifests(paths, **settings)  # type: ignore[arg-type]


def relative(report: CheckReport, folder: Path) -> list[tuple[str, str, str]]:
    return [
        (f.source.replace(f"{folder}/", ""), f.kind, f.message.replace(f"{folder}/", ""))
        for f in report.findings
    ]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path)


def test_a_good_corpus_has_no_findings(corpus: Corpus) -> None:
    corpus.add(seconds=2.0, speaker="anna", text="Dr. Smith paid $2.")
    corpus.add(speaker="anna", text="yes")
    corpus.add(speaker="anna", text="yes")
    corpus.add("dev", 2.0, speaker="ben")
    calls: list[int] = []
    report = corpus.report("train", "dev", progress=lambda: calls.append(1), threads=2)
    assert report == CheckReport((), 4, 6.0)
    assert len(calls) == 4


def test_unreadable_audio(corpus: Corpus) -> None:
    corpus.add().unlink()
    path = corpus.add()
    path.write_bytes(path.read_bytes()[:-1000])
    corpus.add()
    report = corpus.report()
    assert relative(report, corpus.folder) == [
        ("train.jsonl:1", "audio", "1.wav: cannot open the audio file: no such file or directory"),
        (
            "train.jsonl:2",
            "audio",
            "2.wav: truncated wav pcm_24: the header states 48000 bytes, 47000 are there",
        ),
    ]
    assert (report.utterances, report.seconds) == (3, 1.0)


def test_silence(corpus: Corpus) -> None:
    sound(corpus.add(), 1.0, level=0.9e-3)
    sound(corpus.add(), 1.0, seed=9, level=0.02)
    ((source, kind, message),) = corpus.check()
    assert (source, kind) == ("train.jsonl:1", "silence")
    assert message == "1.wav peaks at 9.0e-04 of full scale"


def test_wrong_durations(corpus: Corpus) -> None:
    for duration in (1.02, 1.03, 0.98, 0.97):
        corpus.add(duration=duration)
    corpus.add(seconds=10.0, duration=10.1)
    assert corpus.check() == [
        ("train.jsonl:2", "duration", "1.030 s stated, the audio has 1.000 s"),
        ("train.jsonl:4", "duration", "0.970 s stated, the audio has 1.000 s"),
    ]


def test_texts(corpus: Corpus) -> None:
    corpus.add(text="Привет")
    corpus.add(text=" ... ")
    corpus.add(text="Fine.")
    (first, second) = corpus.check()
    assert first[:2] == ("train.jsonl:1", "alphabet")
    assert "is not in the alphabet" in first[2]
    assert second == ("train.jsonl:2", "empty text", "nothing is left of ' ... '")


def test_the_models_alphabet_counts(corpus: Corpus) -> None:
    corpus.add(text="no")
    assert corpus.check() == []
    ((_, kind, _),) = corpus.check(tokenizer=CharTokenizer("yes"))
    assert kind == "alphabet"


@pytest.mark.parametrize(
    ("text", "needed"), [("abcdefghij", 10), ("abcdefghi", 9), ("aabbccd", 10)]
)
def test_transcripts_too_long_for_their_frames(corpus: Corpus, text: str, needed: int) -> None:
    """1,600 samples and a window of 400 every 160 make 9 frames: one of them to an output frame."""
    corpus.add(seconds=0.1, text=text)
    features = FeatureConfig(n_fft=400, mel_bands=40)
    findings = corpus.check(features=features, subsampling=1)
    if needed <= 9:
        assert findings == []
    else:
        message = f"{len(text)} characters need {needed} output frames, 0.10 s give 9"
        assert findings == [("train.jsonl:1", "too long", message)]
    ((_, kind, message),) = corpus.check(features=features, subsampling=2)
    assert (kind, message[-6:]) == ("too long", "give 5")


def test_duplicate_ids_and_audio(corpus: Corpus) -> None:
    corpus.add(id="a")
    path = corpus.add(id="a")
    shutil.copy(path, corpus.add())
    samples, _ = soundfile.read(path, dtype="int32")
    soundfile.write(corpus.folder / "4.flac", samples, RATE_HZ, subtype="PCM_24")
    corpus.add("dev", id="a", audio_filepath="4.flac")
    assert corpus.check("train", "dev") == [
        ("train.jsonl:2", "duplicate id", "'a' is also the id of train.jsonl:1"),
        ("train.jsonl:3", "duplicate audio", "3.wav sounds as 2.wav of train.jsonl:2"),
        ("dev.jsonl:1", "duplicate audio", "4.flac sounds as 2.wav of train.jsonl:2"),
    ]


def test_copies(corpus: Corpus) -> None:
    """Of one reader's takes of a sentence only the one that was encoded anew is told."""
    first, second = recording(0), recording(1)
    other_take = 0.7 * first + 0.7 * second
    for speaker, text, samples in (
        ("anna", "Please, not again!", first),
        ("anna", "please not again", other_take),
        ("anna", "please not again", first),  # the same samples: duplicate audio
        ("anna", "please not now", 0.9 * first),
        ("ben", "please not again", 0.8 * first),
        ("carl", "not again", 0.7 * first),
        ("carl", "not again", 0.6 * first),
        ("anna", "please not again", np.append(0.95 * first, second)),  # goes on
        (None, "please not again", 0.5 * first),
        (None, "please not again", 0.4 * first),
    ):
        path = corpus.add(speaker=speaker, text=text, duration=len(samples) / RATE_HZ)
        soundfile.write(path, samples, RATE_HZ, subtype="PCM_24")
    soundfile.write(corpus.folder / "copy.ogg", 0.3 * first, RATE_HZ)
    corpus.add(
        "dev", audio_filepath="copy.ogg", duration=2.0, speaker="anna", text="please not again"
    )
    assert corpus.check("train", "dev") == [
        ("train.jsonl:3", "duplicate audio", "3.wav sounds as 1.wav of train.jsonl:1"),
        ("dev.jsonl:1", "copy",
         "copy.ogg rises and falls as 1.wav of train.jsonl:1, with the same text"),
        ("dev.jsonl:1", "shared speaker", "'anna' also speaks in train.jsonl:1"),
    ]  # fmt: skip


def recording(seed: int) -> NDArray[np.float64]:
    """Two seconds of noise whose level changes every tenth."""
    rng = np.random.default_rng(seed)
    levels = np.repeat(rng.uniform(0, 0.5, 20), RATE_HZ // 10)
    return levels * rng.uniform(-1, 1, 2 * RATE_HZ)


def test_shared_speakers(corpus: Corpus) -> None:
    for split, speaker in (
        ("train", "anna"), ("train", "ben"), ("train", None), ("train", "anna"),
        ("dev", "carl"), ("dev", "anna"), ("dev", "anna"), ("dev", None),
        ("test", "carl"), ("test", "anna"),
    ):  # fmt: skip
        corpus.add(split, speaker=speaker)
    assert corpus.check("train", "dev", "test") == [
        ("dev.jsonl:2", "shared speaker", "'anna' also speaks in train.jsonl:1"),
        ("test.jsonl:1", "shared speaker", "'carl' also speaks in dev.jsonl:1"),
        ("test.jsonl:2", "shared speaker", "'anna' also speaks in train.jsonl:1"),
    ]


def test_bad_lines_are_all_found_and_the_others_checked(corpus: Corpus) -> None:
    corpus.add(text=3)
    corpus.add(duration=9.0)
    corpus.add(duration="long")
    findings = corpus.check()
    assert [finding[:2] for finding in findings] == [
        ("train.jsonl:1", "line"),
        ("train.jsonl:2", "duration"),
        ("train.jsonl:3", "line"),
    ]
    assert findings[0][2] == "'text' is 3, needed a string"


MALFORMED = {
    b"{": "not JSON",
    b"[" * 100_000: "not JSON",
    b'{"duration": ' + b"1" * 5000 + b"}": "not JSON",
    b'{"audio_filepath": "a.wav", "duration": ' + b"1" * 400 + b', "text": "a"}': "'duration' is 1",
    b"3": "got a JSON int, needed an object",
    b"\xff\xfe": "not UTF-8 text",
    b'{"audio_filepath": "a.wav", "text": "Caf\xe9", "duration": 1}': "not UTF-8 text",
    b"{}": "'audio_filepath' is missing",
}


def test_every_malformed_line_is_told(corpus: Corpus) -> None:
    corpus.add()
    path = corpus.folder / "train.jsonl"
    path.write_bytes(path.read_bytes() + b"\n".join(MALFORMED) + b"\n")
    corpus.add(text="?")
    report = corpus.report()
    *lines, last = relative(report, corpus.folder)
    assert [line[:2] for line in lines] == [
        (f"train.jsonl:{number}", "line") for number in range(2, 2 + len(MALFORMED))
    ]
    for (_, _, found), expected in zip(lines, MALFORMED.values(), strict=True):
        assert found.startswith(expected)
        assert "\n" not in found
    assert last[:2] == (f"train.jsonl:{2 + len(MALFORMED)}", "empty text")
    assert report.utterances == 2


def test_malformed_lines_without_end_are_counted(corpus: Corpus) -> None:
    (corpus.folder / "train.jsonl").write_text("no manifest\n" * (MOST_LINES + 7))
    corpus.add("dev")
    findings = corpus.check("train", "dev")
    assert len(findings) == MOST_LINES + 1
    last = f"train.jsonl:{MOST_LINES + 1}", "line", "and 7 more such lines from here on"
    assert findings[-1] == last


def test_a_manifest_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="cannot be read"):
        check_manifests([tmp_path / "gone.jsonl"])
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ManifestError, match=r"empty\.jsonl: holds nothing"):
        check_manifests([tmp_path / "empty.jsonl"])


@pytest.mark.parametrize("name", ["\0.wav", "\ud800.wav", "a" * 300])
def test_names_that_no_file_can_have(corpus: Corpus, name: str) -> None:
    corpus.add(audio_filepath=name)
    ((source, kind, message),) = corpus.check()
    assert (source, kind) == ("train.jsonl:1", "audio")
    assert "\n" not in message


def test_the_order_is_that_of_the_lines(corpus: Corpus) -> None:
    for number in range(12):
        corpus.add(text="?", id="a", speaker="anna" if number == 5 else None)
    sources = [source for source, _, _ in corpus.check(threads=4)]
    assert sources == [f"train.jsonl:{n}" for n in range(1, 13) for _ in range(1 if n == 1 else 2)]


def test_relative_manifest_paths(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus.add(text="?")
    monkeypatch.chdir(corpus.folder)
    assert [f.source for f in check_manifests(["./train.jsonl"]).findings] == ["train.jsonl:1"]


def test_the_kinds_are_explained() -> None:
    source = Path(check_manifests.__code__.co_filename).read_text()
    assert all(source.count(f'"{kind}"') >= 2 for kind in KINDS)
