"""Word times against the truth: by pencil, and of the shipped model on the sample."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speech.audio import load_audio
from speech.calibration import WordTimes
from speech.decoder import GREEDY
from speech.errors import SpeechError
from speech.manifest import read_manifest
from speech.transcribe import Recogniser
from speech.transcript import Word
from speech.word_times import TimeErrors, fit_word_times, sum_time_errors, time_errors

SAMPLE = Path(__file__).parent.parent / "data" / "sample"
SAMPLE_RATE = 16_000
MAX_MEDIAN_SECONDS = 0.06


def words(*timed: tuple[str, float, float]) -> list[Word]:
    return [Word(word, start, end, 1.0) for word, start, end in timed]


def test_only_words_heard_right_are_judged() -> None:
    spoken = words(("the", 0.0, 1.0), ("old", 1.0, 2.0), ("clock", 2.0, 3.0), ("ticks", 3.0, 4.0))
    heard = words(("the", 0.25, 1.5), ("clog", 2.0, 3.0), ("ticks", 2.5, 3.75), ("on", 4.0, 5.0))
    errors = time_errors(spoken, heard)
    assert errors == TimeErrors((0.25, -0.5), (0.5, -0.25), after_pause=(True, False))
    assert (errors.median_start, errors.median_end) == (0.375, 0.375)


def test_the_offsets_take_the_median_away() -> None:
    starts = (0.0, 0.25, 2.0, math.nan, -0.5, -0.125, -0.125)
    ends = (-1.0, -0.5, 0.0, math.nan, math.nan, -0.75, math.nan)
    after_pause = (False, False, False, False, True, True, True)
    assert fit_word_times(TimeErrors(starts, ends, after_pause)) == WordTimes(-0.25, 0.625, 0.125)
    assert fit_word_times(TimeErrors((0.5,), (math.nan,), (False,))) == WordTimes(-0.5, 0.0, 0.0)


def test_recordings_without_a_right_word_give_no_errors() -> None:
    one, none = TimeErrors((0.5,), (0.25,), (True,)), TimeErrors((), (), ())
    two = TimeErrors((0.5, 0.5), (0.25, 0.25), (True, True))
    assert sum_time_errors([none, one, one]) == two
    with pytest.raises(SpeechError, match="no word was heard right"):
        sum_time_errors([none])


def known_words() -> dict[str, list[Word]]:
    """When Festival says each word of its utterances in the sample."""
    lines = (SAMPLE / "word_times.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return {row["id"]: words(*map(tuple, row["words"])) for row in rows}


def test_word_times_of_the_sample_are_those_of_its_texts() -> None:
    utterances = {one.id: one for one in read_manifest(SAMPLE / "manifest.jsonl")}
    known = known_words()
    assert len(known) == sum("festival" in name for name in utterances) >= 5
    for name, timed in known.items():
        spoken = [word.word for word in timed]
        assert (
            spoken
            == utterances[name].text.lower().translate({ord(c): None for c in ",.?!"}).split()
        )
        times = [time for word in timed for time in (word.start, word.end)]
        assert times == sorted(times)
        assert times[0] > 0
        assert times[-1] < utterances[name].duration


def test_the_shipped_model_knows_when_words_begin(tmp_path: Path) -> None:
    """The sample's utterances whose words have known times, joined with known pauses."""
    utterances = {one.id: one for one in read_manifest(SAMPLE / "manifest.jsonl")}
    pieces: list[np.ndarray] = []
    spoken: list[Word] = []
    position = 0
    for number, (name, timed) in enumerate(known_words().items()):
        pause = np.zeros(round((0.4 + 0.13 * number) * SAMPLE_RATE), np.float32)
        samples = load_audio(utterances[name].audio_path, SAMPLE_RATE).samples
        pieces += [pause, samples]
        shift = (position + len(pause)) / SAMPLE_RATE
        spoken += [dataclasses.replace(w, start=w.start + shift, end=w.end + shift) for w in timed]
        position += len(pause) + len(samples)
    soundfile.write(tmp_path / "joined.wav", np.concatenate(pieces), SAMPLE_RATE)
    errors = time_errors(
        spoken, Recogniser.load(options=GREEDY).transcribe(tmp_path / "joined.wav").words
    )
    assert len(errors.starts) > len(spoken) / 4, "too few words heard right to judge their times"
    assert errors.median_start <= MAX_MEDIAN_SECONDS
    assert abs(float(np.median(errors.starts))) <= MAX_MEDIAN_SECONDS / 2  # no constant part left
    assert errors.median_end <= 1.5 * MAX_MEDIAN_SECONDS
