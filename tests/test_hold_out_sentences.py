"""Held-out sentences: with all their readings, by number, whatever their spelling."""

from __future__ import annotations

from pathlib import Path

import hold_out_sentences
import pytest

from speech.manifest import Utterance, read_manifest, write_manifest


def test_all_readings_of_a_sentence_are_in_one_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentences = [f"Sentence {letter}." for letter in "abcdefghijklm"]
    again = [sentence.upper() for sentence in reversed(sentences)]
    for reader, texts in {"ann": sentences, "bob": again}.items():
        (tmp_path / reader).mkdir()
        write_manifest(
            tmp_path / reader / "train.jsonl",
            [Utterance(str(n), tmp_path / f"{reader}{n}.flac", 1.0, text, reader)
             for n, text in enumerate(texts)],
        )  # fmt: skip
    manifests = [str(tmp_path / reader / "train.jsonl") for reader in ("ann", "bob")]
    monkeypatch.setattr("sys.argv", ["", *manifests, "--output", str(tmp_path / "out")])
    hold_out_sentences.main()
    splits = {
        name: read_manifest(tmp_path / "out" / f"{name}.jsonl") for name in ("train", "dev", "test")
    }
    held = {name: [one.text for one in split] for name, split in splits.items()}
    assert held["dev"] == ["Sentence a.", "Sentence k.", "SENTENCE K.", "SENTENCE A."]
    assert held["test"] == ["Sentence f.", "SENTENCE F."]
    assert len(held["train"]) == 2 * (13 - 3)
    assert len({one.id for split in splits.values() for one in split}) == 26
    assert splits["test"][1].audio_path.resolve() == tmp_path / "bob7.flac"
