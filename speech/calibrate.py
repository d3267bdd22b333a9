"""Word confidences of a model made probabilities: fitted on speech whose text is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from speech.bootstrap import are_speakers_drawn
from speech.calibration import Calibration
from speech.checkpoint import Model
from speech.confidence import (
    ConfidenceMap,
    Reliability,
    cross_validated,
    fit_confidence_map,
    reliability,
)
from speech.error_tables import judged_confidences
from speech.errors import SpeechError
from speech.results import Evaluation, Score

FOLDS = 10  # where fewer than two speakers are known


@dataclass(frozen=True)
class Fit:
    """A map fitted on all words, and how well confidences held before it and after it.

    `after` is cross-validated: the words of a speaker by a map fitted on the others.
    """

    confidence_map: ConfidenceMap
    before: Reliability
    after: Reliability


def without_confidence_map(model: Model) -> Model:
    """Return the model with raw confidences, as `fit_confidences` needs them."""
    raw = dataclasses.replace(model.calibration, confidence={})
    return dataclasses.replace(model, calibration=raw)


def fit_confidences(evaluation: Evaluation, excluded_speakers: Collection[str] = ()) -> Fit:
    """Return the map that makes the raw confidences of an evaluation probabilities.

    Groups of the cross-validation are speakers; where fewer than two are named, every tenth
    utterance. Raises `SpeechError` where a speaker to leave out is none of them, or the words allow
    no map.
    """
    named = {score.speaker for score in evaluation.scores}
    if unknown := sorted(set(excluded_speakers) - named):
        raise SpeechError(f"no speaker {unknown[0]!r} to leave out: there are {_listed(named)}")
    scores = [score for score in evaluation.scores if score.speaker not in excluded_speakers]
    confidences, correct = judged_confidences(scores)
    calibrated = cross_validated(confidences, correct, _groups(scores))
    before, after = reliability(confidences, correct), reliability(calibrated, correct)
    fitted = {
        "words": len(confidences),
        "speakers": len({score.speaker for score in scores} - {None}),
        "excluded_speakers": sorted(excluded_speakers),
        "manifests": sorted({score.corpus for score in scores if score.corpus is not None}),
        "manifest_sha256": evaluation.manifest_sha256,
        "expected_calibration_error_raw": round(before.expected_calibration_error, 4),
        "expected_calibration_error": round(after.expected_calibration_error, 4),
    }
    return Fit(fit_confidence_map(confidences, correct, fitted), before, after)


def with_confidence_map(model: Model, lm: str, confidence_map: ConfidenceMap) -> Calibration:
    """Return the model's calibration with the map for a language model put in its place."""
    maps = {**model.calibration.confidence, lm: confidence_map}
    return dataclasses.replace(model.calibration, confidence=maps)


def _groups(scores: Sequence[Score]) -> list[str]:
    """The group of every judged word."""
    by_speaker = are_speakers_drawn([score.speaker for score in scores])
    groups: list[str] = []
    for number, score in enumerate(scores):
        group = (score.speaker or score.name) if by_speaker else str(number % FOLDS)
        groups += [group] * len(judged_confidences([score])[0])
    return groups


def _listed(speakers: Collection[str | None]) -> str:
    return ", ".join(sorted(speaker for speaker in speakers if speaker is not None)) or "none named"
