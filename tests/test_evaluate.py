"""Evaluation: nothing left out, counts that add up, what ``speech transcribe`` hears."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from conftest import write_tiny_corpus
from tiny import SAMPLE_RATE, save_tiny_model

from speech.decoder import GREEDY
from speech.errors import AudioError, ManifestError
from speech.evaluate import evaluate
from speech.manifest import read_manifest
from speech.metrics import ErrorCounts
from speech.provenance import sha256_of
from speech.tokenizer import NORMALISER
from speech.transcribe import Recogniser
from speech.transcript import Transcript, Word

KEYS = {
    "wer", "cer", "words", "substitutions", "deletions", "insertions", "wer_interval", "utterances",
    "audio_seconds", "wall_seconds", "real_time_factor", "model", "lm", "manifest_sha256",
    "normaliser",
}  # fmt: skip


class Parrot(Recogniser):
    """Hears what it is told to, by file name, in two seconds of audio each."""

    def __init__(self, heard: dict[str, str]) -> None:
        self.heard = heard
        self.lm_name = "none"
        self.asked: list[str] = []

    def transcribe_many(self, sources: Iterable[str | Path]) -> Iterator[Transcript | AudioError]:
        for source in sources:
            name = Path(source).stem
            self.asked.append(name)
            if name not in self.heard:
                yield AudioError(f"{source}: no such file")
                continue
            words = tuple(Word(word, 1.0, 1.0, 1.0) for word in self.heard[name].split())
            yield Transcript(str(source), 2.0, self.heard[name], 1.0, words)


def write_manifest(path: Path, *rows: tuple[str, float, str]) -> Path:
    lines = [
        json.dumps({"audio_filepath": f"{name}.wav", "duration": duration, "text": text})
        for name, duration, text in rows
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_manifest(
        tmp_path / "dev.jsonl",
        ("one", 1.0, "One, two three!"), ("two", 3.0, "four"), ("three", 2.0, "It's 5."),
    )  # fmt: skip


HEARD = {"one": "one too three", "two": "", "three": "its five six"}


def test_errors_are_counted_on_normalised_texts(manifest: Path) -> None:
    result = evaluate([manifest], Parrot(HEARD), "parrot")
    assert [(s.reference, s.hypothesis) for s in result.scores] == [
        ("one two three", "one too three"), ("four", ""), ("it's five", "its five six"),
    ]  # fmt: skip
    assert [s.words for s in result.scores] == [
        ErrorCounts(1, 0, 0, 3), ErrorCounts(0, 1, 0, 1), ErrorCounts(1, 0, 1, 2),
    ]  # fmt: skip
    figures = result.to_dict()
    assert set(figures) == KEYS
    assert figures["wer"] == pytest.approx(4 / 6)
    assert (figures["words"], figures["utterances"]) == (6, 3)
    counts = (figures["substitutions"], figures["deletions"], figures["insertions"])
    assert counts == (2, 1, 1)
    # w -> o; four left out; the apostrophe left out, " six" put in
    assert figures["cer"] == pytest.approx((1 + 4 + 1 + 4) / (13 + 4 + 9))
    assert figures["audio_seconds"] == 6.0
    assert (figures["model"], figures["lm"], figures["normaliser"]) == (
        "parrot",
        "none",
        NORMALISER,
    )
    assert json.loads(json.dumps(figures)) == figures


def test_the_interval_holds_the_rate(manifest: Path) -> None:
    figures = evaluate([manifest], Parrot(HEARD), "parrot").to_dict()
    low, high = figures["wer_interval"]  # type: ignore[misc]
    assert 0 <= low <= figures["wer"] <= high  # type: ignore[operator]


def test_the_longest_is_first_in_work_and_the_order_stays_that_of_the_manifest(
    manifest: Path,
) -> None:
    parrot, seen = Parrot(HEARD), []
    result = evaluate([manifest], parrot, "parrot", on_utterance=lambda u: seen.append(u.id))
    assert parrot.asked == ["two", "three", "one"]
    assert seen == parrot.asked
    assert [score.name for score in result.scores] == ["one", "two", "three"]


def test_limit_takes_the_first_of_all_manifests(manifest: Path, tmp_path: Path) -> None:
    more = write_manifest(tmp_path / "more.jsonl", ("two", 1.0, "again"))
    for limit, names in ((2, ["one", "two"]), (4, ["one", "two", "three", "two"])):
        result = evaluate([manifest, more], Parrot(HEARD), "parrot", limit)
        assert [score.name for score in result.scores] == names


def test_the_hash_is_that_of_the_manifests(manifest: Path, tmp_path: Path) -> None:
    more = write_manifest(tmp_path / "more.jsonl", ("two", 1.0, "again"))
    data = manifest.read_bytes() + more.read_bytes()
    assert sha256_of([manifest, more]) == hashlib.sha256(data).hexdigest()
    result = evaluate([manifest], Parrot(HEARD), "parrot")
    assert result.manifest_sha256 == hashlib.sha256(manifest.read_bytes()).hexdigest()


def test_unreadable_audio_ends_an_evaluation_with_its_line(manifest: Path) -> None:
    with pytest.raises(AudioError, match=r"dev\.jsonl:2: .*two\.wav: no such file"):
        evaluate([manifest], Parrot({"one": "", "three": ""}), "parrot")


def test_a_manifest_without_utterances_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ManifestError, match=r"empty\.jsonl"):
        evaluate([tmp_path / "empty.jsonl"], Parrot({}), "parrot")


def test_an_evaluation_hears_what_transcribing_hears(tmp_path: Path) -> None:
    manifest = write_tiny_corpus(tmp_path / "corpus", 5, sample_rate=SAMPLE_RATE)
    recogniser = Recogniser.load(save_tiny_model(tmp_path / "model"), threads=2, options=GREEDY)
    result = evaluate([manifest], recogniser, "tiny")
    alone = [recogniser.transcribe(u.audio_path).text for u in read_manifest(manifest)]
    assert [score.hypothesis for score in result.scores] == alone
    assert len(set(alone)) > 1
    assert result.audio_seconds == pytest.approx(sum(u.duration for u in read_manifest(manifest)))
    assert result.to_dict()["real_time_factor"] == result.wall_seconds / result.audio_seconds
