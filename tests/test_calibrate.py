"""Fitting word confidences on an evaluation, and the command that does it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny import save_tiny_model
from typer.testing import CliRunner

from speech.calibrate import fit_confidences, with_confidence_map, without_confidence_map
from speech.calibration import Calibration, WordTimes
from speech.checkpoint import load_model
from speech.cli import app
from speech.confidence import ConfidenceMap
from speech.errors import SpeechError
from speech.results import Evaluation, Score, score_pair
from speech.transcript import Word

LAW = ConfidenceMap(1.5, -1.0)


def heard_words(count: int, random: np.random.Generator) -> tuple[str, list[Word]]:
    """A reference, and words of which as many are right as `LAW` says of their confidence."""
    confidences = random.uniform(0.1, 0.99, size=count)
    right = [bool(random.random() < LAW(value)) for value in confidences]
    heard = [
        Word("right" if ok else "wrong", 0.0, 0.0, float(value))
        for ok, value in zip(right, confidences, strict=True)
    ]
    return " ".join(["right"] * count), heard


def score(number: int, speaker: str | None, random: np.random.Generator) -> Score:
    reference, heard = heard_words(50, random)
    text = " ".join(word.word for word in heard)
    return score_pair(str(number), reference, text, speaker=speaker, corpus="corpus/dev",
                      heard=tuple(heard))  # fmt: skip


def evaluation(speakers: list[str | None], utterances: int = 60) -> Evaluation:
    random = np.random.default_rng(0)
    scores = [score(n, speakers[n % len(speakers)], random) for n in range(utterances)]
    return Evaluation(tuple(scores), 1.0, 1.0, "tiny", "abc")


def test_the_map_of_an_evaluation_is_found_and_its_record_kept() -> None:
    fit = fit_confidences(evaluation(["one", "two", "three"]))
    assert fit.confidence_map.slope == pytest.approx(LAW.slope, abs=0.2)
    assert fit.confidence_map.intercept == pytest.approx(LAW.intercept, abs=0.2)
    assert fit.before.expected_calibration_error > 0.1
    assert fit.after.expected_calibration_error < 0.04
    assert fit.confidence_map.fitted == {
        "words": 3000,
        "speakers": 3,
        "excluded_speakers": [],
        "manifests": ["corpus/dev"],
        "manifest_sha256": "abc",
        "expected_calibration_error_raw": round(fit.before.expected_calibration_error, 4),
        "expected_calibration_error": round(fit.after.expected_calibration_error, 4),
    }


def test_a_speaker_can_be_left_out() -> None:
    whole = evaluation(["one", "two", "three"])
    fit = fit_confidences(whole, ["three"])
    kept = tuple(one for one in whole.scores if one.speaker != "three")
    others = fit_confidences(dataclasses.replace(whole, scores=kept))
    assert fit.confidence_map.slope == others.confidence_map.slope
    assert fit.confidence_map.fitted["words"] == 2000
    assert fit.confidence_map.fitted["excluded_speakers"] == ["three"]
    with pytest.raises(SpeechError, match="no speaker 'four' to leave out: there are one, three"):
        fit_confidences(whole, ["four"])


@pytest.mark.parametrize("speakers", [[None], ["one"], ["one", "two", None]])
def test_speakers_may_be_unknown(speakers: list[str | None]) -> None:
    assert fit_confidences(evaluation(speakers)).after.expected_calibration_error < 0.04


def test_a_map_takes_the_place_of_its_own_language_model_only(tmp_path: Path) -> None:
    model = load_model(save_tiny_model(tmp_path))
    known = Calibration(WordTimes(0.1, 0.2), {"none": LAW, "other": ConfidenceMap(3.0, 0.0)})
    model = dataclasses.replace(model, calibration=known)
    changed = with_confidence_map(model, "none", ConfidenceMap(2.0, 0.0))
    assert changed.word_times == known.word_times
    assert changed.confidence == {
        "none": ConfidenceMap(2.0, 0.0),
        "other": known.confidence["other"],
    }
    assert without_confidence_map(model).calibration == Calibration(known.word_times)


def test_the_command_stores_the_map_and_draws_it(
    tiny_corpus: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tiny_corpus(tmp_path / "dev", utterances=4, sample_rate=8000)
    model = save_tiny_model(tmp_path / "model")
    random = np.random.default_rng(0)
    pairs = [heard_words(50, random) for _ in range(4)]

    def evaluate(manifests: list[Path], *_: object, **__: object) -> Evaluation:
        assert manifests == [manifest]
        scores = [
            score_pair(str(n), reference, " ".join(w.word for w in heard), speaker=str(n % 2),
                       heard=tuple(heard))
            for n, (reference, heard) in enumerate(pairs)
        ]  # fmt: skip
        return Evaluation(tuple(scores), 1.0, 1.0, "tiny", "abc")

    monkeypatch.setattr("speech.evaluate.evaluate", evaluate)
    plot = tmp_path / "reliability.png"
    command = ["calibrate", str(manifest), "--model", str(model), "--plot", str(plot)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("expected calibration error") == 2
    assert plot.read_bytes().startswith(b"\x89PNG")
    stored = load_model(model).calibration.confidence["none"]
    assert stored.fitted["manifest_sha256"] == "abc"
    assert json.loads((model / "calibration.json").read_text())["confidence"]["none"]["slope"] == (
        stored.slope
    )
    CliRunner().invoke(app, [*command, "--no-store", "--without-speaker", "0"])
    assert load_model(model).calibration.confidence["none"] == stored
