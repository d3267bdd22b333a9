"""The calibration beside a model: round trip, absence, and files that hold something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from speech.calibration import (
    Calibration,
    LeastEvidence,
    WordTimes,
    dump_calibration,
    read_calibration,
)
from speech.confidence import ConfidenceMap
from speech.errors import ModelError

CALIBRATION = Calibration(
    WordTimes(-0.045, 0.01, 0.1, {"words": 390}),
    {"none": ConfidenceMap(1.3, 0.6, {"manifest": "dev.jsonl"}), "other": ConfidenceMap(2.0, 0.0)},
    LeastEvidence(0.4, 0.1, 1.5, {"pieces": 1697}),
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(dump_calibration(CALIBRATION))
    assert read_calibration(path) == CALIBRATION


def test_nothing_is_known_without_a_file(tmp_path: Path) -> None:
    assert read_calibration(tmp_path / "calibration.json") == Calibration()
    (tmp_path / "calibration.json").write_text("{}")
    assert read_calibration(tmp_path / "calibration.json") == Calibration()


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        '{"word_times": 3}',
        '{"word_times": {"offset": 1}}',
        '{"word_times": {"start_offset_seconds": "late"}}',
        '{"word_times": {"start_offset_seconds": NaN}}',
        '{"word_times": {"measured": 7}}',
        '{"confidence": {"none": {"slope": 1}}}',
        '{"confidence": {"none": {"slope": -1, "intercept": 0}}}',
        '{"confidence": []}',
        '{"least_evidence": {"confidence": -0.1}}',
        '{"least_evidence": {"per_minute": 1}}',
        '{"confidences": {}}',
    ],
)
def test_anything_else_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(text)
    with pytest.raises(ModelError, match=r"calibration\.json: .*calibration") as caught:
        read_calibration(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("confidences", "seconds", "is_met"),
    [
        ([0.6, 0.4], 1.0, True),  # mean 0.5, no less than asked for
        ([0.6, 0.3], 1.0, False),  # mean 0.45
        ([0.9], 4.0, True),  # 0.225 a second
        ([0.9], 3.0, True),  # 0.3 a second
        ([0.9], 5.0, False),  # 0.18 a second, and 0.9 in all
        ([0.9, 0.9, 0.9], 60.0, True),  # seldom, but 2.7 in all
        ([], 5.0, False),
    ],
)
def test_words_need_evidence(confidences: list[float], seconds: float, is_met: bool) -> None:
    assert LeastEvidence(0.5, 0.22, 2.0).is_met(confidences, seconds) is is_met
    assert LeastEvidence().is_met(confidences, seconds)  # nothing is asked for
