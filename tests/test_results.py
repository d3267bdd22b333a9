"""Results: scored texts, and the file that keeps them, which is checked when it is read."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech.errors import SpeechError
from speech.metrics import ErrorCounts
from speech.results import (
    RESULTS_FILE,
    Evaluation,
    read_results,
    render_score,
    score_pair,
    score_texts,
    worst,
    write_results,
)
from speech.transcript import Word

# --- Stored texts ---------------------------------------------------------------------------------


def test_texts_are_scored_line_by_line() -> None:
    scores = score_texts(["Hello, World.", "", "3 cats"], ["hello word", "oh", "three cats"])
    assert [s.words.errors for s in scores] == [1, 1, 0]
    assert [s.name for s in scores] == ["1", "2", "3"]
    assert sum((s.words for s in scores), ErrorCounts()) == ErrorCounts(1, 0, 1, 4)


def test_uneven_numbers_of_texts_are_refused() -> None:
    with pytest.raises(SpeechError, match="2 references but 1 hypotheses"):
        score_texts(["a", "b"], ["a"])


def test_the_worst_have_most_errors_then_the_highest_rate() -> None:
    scores = score_texts(["a b c d", "a b", "a", "a"], ["x y c d", "x y", "b", "a"])
    assert [score.name for score in worst(scores, 9)] == ["2", "1", "3", "4"]
    assert [score.name for score in worst(scores, 1)] == ["2"]


def test_a_score_shows_its_counts_and_both_texts_aligned() -> None:
    (score,) = score_texts(["the cat sat"], ["the bat sat up"])
    shown = render_score(dataclasses.replace(score, name="u1")).splitlines()
    assert shown[0] == "u1: 2 errors in 3 words (S 1, D 0, I 1)"
    rows = [line.split() for line in shown[1:]]
    assert any({"the", "cat", "sat"} <= set(row) for row in rows)
    assert any({"the", "bat", "sat", "up"} <= set(row) for row in rows)


# --- Stored ---------------------------------------------------------------------------------------

EVALUATION = Evaluation(
    scores=(
        score_pair("one", "one two", "one too", speaker="ann", duration=1.25, corpus="set/dev",
                   signal_to_noise_db=21.5,
                   heard=(Word("one", 0.1, 0.5, 0.75), Word("too", 0.6, 1.2, 0.5))),
        score_pair("zwei", "<b>naïve</b>", ""),
    ),
    audio_seconds=3.25, wall_seconds=0.5, model="base", manifest_sha256="ab" * 32, lm="english",
    run={"command": "speech evaluate dev.jsonl", "seed": 0},
)  # fmt: skip


def test_what_is_stored_is_read_back_from_file_and_directory(tmp_path: Path) -> None:
    write_results(tmp_path / "new" / RESULTS_FILE, EVALUATION)
    assert read_results(tmp_path / "new" / RESULTS_FILE) == EVALUATION
    assert read_results(tmp_path / "new") == EVALUATION
    stored = json.loads((tmp_path / "new" / RESULTS_FILE).read_text("utf-8"))
    assert stored["figures"] == EVALUATION.to_dict()
    assert stored["utterances"][0]["words"][1] == {
        "word": "too", "start": 0.6, "end": 1.2, "confidence": 0.5,
    }  # fmt: skip
    assert stored["utterances"][0]["word_errors"]["substitutions"] == 1


TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS, st.none() | TEXTS), min_size=1, max_size=4))
def test_any_texts_survive(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str, str | None]]
) -> None:
    scores = tuple(score_pair(*row[:3], speaker=row[3]) for row in rows)
    evaluation = dataclasses.replace(EVALUATION, scores=scores)
    path = tmp_path_factory.mktemp("stored") / "result.json"
    write_results(path, evaluation)
    assert read_results(path) == evaluation


def test_the_file_is_strict_json_even_where_a_rate_is_not_finite(tmp_path: Path) -> None:
    silent = dataclasses.replace(EVALUATION, scores=(score_pair("silence", "", "boo"),))
    assert silent.words.rate == math.inf
    write_results(tmp_path / "a.json", silent)
    figures = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)["figures"]
    assert figures["wer"] is None
    assert read_results(tmp_path / "a.json").words.rate == math.inf


def _set(*keys: str | int, to: object) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = to

    return change


DAMAGES: dict[str, Callable[[Any], None]] = {
    "'model' is missing": lambda content: content["figures"].pop("model"),
    "'utterances' is missing": lambda content: content.pop("utterances"),
    "it holds no utterances": _set("utterances", to=[]),
    "not what `speech evaluate --output` writes": _set("format", to="speech evaluation, version 9"),
    "figures: 'wall_seconds' is 'long', needed int or float": _set(
        "figures", "wall_seconds", to="long"
    ),
    "figures: 'wall_seconds' is True, needed int": _set("figures", "wall_seconds", to=True),
    "figures: 'audio_seconds' is nan": _set("figures", "audio_seconds", to=math.nan),
    "utterance 2: needed an object, got str": _set("utterances", 1, to="zwei"),
    "utterance 1: 'speaker' is 7, needed str or null": _set("utterances", 0, "speaker", to=7),
    "utterance 1: 'word_errors' is .*, but its texts have": _set(
        "utterances", 0, "hypothesis", to="one two"
    ),
    "utterance 1: a word is 'too', needed an object": _set("utterances", 0, "words", 1, to="too"),
    "utterance 1: word: 'end' is None": _set("utterances", 0, "words", 0, "end", to=None),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_anything_else_is_one_line_that_says_where(tmp_path: Path, message: str) -> None:
    path = tmp_path / "a.json"
    write_results(path, EVALUATION)
    content = json.loads(path.read_text("utf-8"))
    DAMAGES[message](content)
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(SpeechError, match=rf"a\.json: .*{message}") as error:
        read_results(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"7", b'{"wer": 0.5}'])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(SpeechError, match=r"a\.json: not "):
        read_results(tmp_path / "a.json")
    with pytest.raises(SpeechError, match=r"results\.json: cannot read the stored result: no such"):
        read_results(tmp_path)
