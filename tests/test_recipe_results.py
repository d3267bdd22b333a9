"""The table of recipes: made from its rows, which are made from stored results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import recipe_results

from speech.results import Evaluation, score_pair

CONFIG = "models/base/stage1.toml"


def dev_result(lm: str) -> Evaluation:
    """Two readers of four words each: one error, and three."""
    texts = (("226", "a b c d", "a b c x"), ("6848", "a b c d", "a"))
    scores = tuple(
        score_pair(name, reference, heard, speaker=name, corpus=recipe_results.DEV)
        for name, reference, heard in texts
    )
    return Evaluation(scores, 1.0, 1.0, "m", "sha", lm)


def test_the_shipped_table_is_that_of_the_stored_rows() -> None:
    text = recipe_results.TABLE.read_text("utf-8")
    rows = recipe_results.read_rows()
    assert rows
    assert recipe_results.written(text, rows) == text


@pytest.mark.parametrize(("lm", "kind"), [("none", "greedy"), ("english", "LM")])
def test_the_speaker_that_nothing_is_chosen_by_stands_apart(lm: str, kind: str) -> None:
    (found,) = recipe_results.result_figures(dev_result(lm)).items()
    assert found[0] == f"{recipe_results.DEV}, {kind}"
    assert found[1]["wer"] == 4 / 8
    assert found[1]["apart"] == {"wer": 3 / 4, "words": 4}


def test_a_row_shows_what_was_measured_and_says_what_was_not() -> None:
    row = {
        "name": "x", "change": "all", "after": "", "config": CONFIG, "parameters": 1234567,
        "training_hours": 1.0, "audio_hours": 20.0, "epochs": 2, "validation_wer": 0.5,
        "on": "2 CPU cores", "command": "speech train", "figures": recipe_results.result_figures(
            dev_result("none")
        ),
    }  # fmt: skip
    cells = recipe_results.table([row]).splitlines()[2].strip("| ").split(" | ")
    assert len(cells) == len(recipe_results.HEAD)
    assert cells[2:6] == ["random weights", "[stage1.toml](base/stage1.toml)", "1", "1,234,567"]
    assert cells[8].startswith("50.00 (")
    assert cells[9:] == ["75.00", *["not measured"] * 4]


def test_hours_are_those_of_all_epochs(tmp_path: Path) -> None:
    epochs = [
        {"wall_seconds": 1800.0, "audio_seconds": 3600.0, "dev_wer": 0.9},
        {"wall_seconds": 1800.0, "audio_seconds": 3600.0},
        {"wall_seconds": 3600.0, "audio_seconds": 3600.0, "dev_wer": 0.7},
    ]
    (tmp_path / "history.json").write_text(json.dumps(epochs))
    assert recipe_results.run_figures(tmp_path) == {
        "epochs": 3, "training_hours": 2.0, "audio_hours": 3.0, "validation_wer": 0.7,
    }  # fmt: skip
