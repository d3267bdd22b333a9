"""The shipped sample is what its manifest and its card say."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path, PurePosixPath

import pytest

from speech.audio import load_audio, probe_audio
from speech.manifest import Utterance, read_manifest
from speech.tokenizer import CharTokenizer, normalise_text

DATA = Path(__file__).parent.parent / "data"
SAMPLE = DATA / "sample"
CARD = (SAMPLE / "README.md").read_text(encoding="utf-8")
UTTERANCES = read_manifest(SAMPLE / "manifest.jsonl")
MAX_BYTES = 1_500_000

each_utterance = pytest.mark.parametrize("utterance", UTTERANCES, ids=lambda one: one.id)


def table_rows(title: str) -> dict[str, list[str]]:
    """First cell -> other cells of the table under a heading of the card ("" is its top)."""
    section = CARD.split(f"## {title}\n")[1] if title else CARD
    lines = section.split("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in row[1:-1].split("|")] for row in lines if row[:1] == "|"]
    return {name: cells for name, *cells in rows[2:]}


@each_utterance
def test_duration_is_that_of_the_decoded_audio(utterance: Utterance) -> None:
    rate = probe_audio(utterance.audio_path).sample_rate
    samples = load_audio(utterance.audio_path, rate).samples
    assert len(samples) / rate == pytest.approx(utterance.duration, abs=1e-4)
    assert 2 <= utterance.duration <= 6


@each_utterance
def test_audio_is_loud_enough_to_hear(utterance: Utterance) -> None:
    samples = load_audio(utterance.audio_path, 16_000).samples
    assert 0.4 < abs(samples).max() < 1


@each_utterance
def test_text_is_written_english_inside_the_alphabet(utterance: Utterance) -> None:
    assert re.fullmatch(r"[A-Z][A-Za-z', ]+[.?!]", utterance.text)
    assert CharTokenizer().encode(normalise_text(utterance.text))


def test_ids_texts_and_files_stand_once_and_nothing_else_lies_there() -> None:
    assert len({one.id for one in UTTERANCES}) == len(UTTERANCES)
    assert len({normalise_text(one.text) for one in UTTERANCES}) == len(UTTERANCES)
    assert {one.audio_path for one in UTTERANCES} == set((SAMPLE / "audio").iterdir())


def test_audio_paths_are_relative_and_stay_inside_the_sample() -> None:
    for line in (SAMPLE / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        path = PurePosixPath(json.loads(line)["audio_filepath"])
        assert not path.is_absolute()
        assert ".." not in path.parts


def test_card_states_the_manifest_totals() -> None:
    totals = {
        "utterances": len(UTTERANCES),
        "seconds": round(sum(one.duration for one in UTTERANCES), 1),
        "speakers": len({one.speaker for one in UTTERANCES}),
    }
    stated = {name: float(cells[0]) for name, cells in table_rows("").items() if name in totals}
    assert stated == totals


def test_card_counts_the_utterances_of_each_speaker() -> None:
    stated = {speaker: int(cells[0]) for speaker, cells in table_rows("Voices").items()}
    assert stated == Counter(one.speaker for one in UTTERANCES)


def test_card_counts_the_files_of_each_format() -> None:
    infos = [(one.audio_path.suffix[1:], probe_audio(one.audio_path)) for one in UTTERANCES]
    real = Counter((suffix, info.sample_rate, info.channels) for suffix, info in infos)
    stated = {
        (name, int(rate.split()[0]), int(channels)): int(files)
        for name, (files, rate, channels, _) in table_rows("Formats").items()
    }
    assert stated == real


def test_the_sample_is_small_and_data_shows_a_line_of_its_manifest() -> None:
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()) < MAX_BYTES
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    assert (SAMPLE / "manifest.jsonl").read_text(encoding="utf-8").splitlines()[0] in readme
    assert f"{len(UTTERANCES)} synthetic utterances" in readme
