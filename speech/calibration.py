"""What was measured of a model and belongs to it: when its words begin, how sure it is of speech.

``calibration.json`` beside the weights holds it. It is no configuration: other weights need other
figures, so that a model that is trained on has none until they are measured again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speech.confidence import ConfidenceMap
from speech.errors import ModelError, SpeechError, reason_of

CALIBRATION_FILE = "calibration.json"
_LEAST = ("confidence", "per_second", "in_all")
_OFFSETS = ("start_offset_seconds", "end_offset_seconds", "pause_start_offset_seconds")


@dataclass(frozen=True)
class WordTimes:
    """How far words begin and end from where the network emits them, constant for a model.

    A word is heard from its first character's first frame plus ``start_offset_seconds`` to its last
    character's last frame plus ``end_offset_seconds``: features look around themselves, and CTC
    emits a character somewhere inside what is heard of it. Behind a pause a network that sees the
    future emits the first character earlier: there ``pause_start_offset_seconds`` takes the other's
    place. ``measured`` is for the record.
    """

    start_offset_seconds: float = 0.0
    end_offset_seconds: float = 0.0
    pause_start_offset_seconds: float = 0.0
    measured: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LeastEvidence:
    """What the characters on a network's best path must say where somebody speaks; 0: nothing.

    Clicks and music make it write characters that are few and unsure. A segment holds no words
    where the mean of their confidences is below ``confidence``, or where their sum is below both
    ``per_second`` times its length and ``in_all``. ``measured`` is for the record.
    """

    confidence: float = 0.0
    per_second: float = 0.0
    in_all: float = 0.0
    measured: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min(self.confidence, self.per_second, self.in_all) < 0:
            raise SpeechError(f"no evidence can be below 0, got {self}")

    def is_met(self, confidences: Sequence[float], seconds: float) -> bool:
        """Whether characters of these confidences in [0, 1], heard in so long, may be words."""
        total = sum(confidences)
        is_unsure = total < self.confidence * len(confidences)
        is_little = total < min(self.per_second * seconds, self.in_all)
        return not (is_unsure or is_little)


@dataclass(frozen=True)
class Calibration:
    """What is known of a model besides its weights; nothing is known of a new one.

    The maps are named after the language model that took part, ``none`` without one: each finds
    other words and is sure of them in its own way.
    """

    word_times: WordTimes = WordTimes()
    confidence: Mapping[str, ConfidenceMap] = field(default_factory=dict)
    least_evidence: LeastEvidence = LeastEvidence()


def read_calibration(path: Path) -> Calibration:
    """The calibration in a file; where there is none, nothing is known.

    Raises `ModelError` in one line for a file that holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Calibration()
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot read the calibration: {reason_of(error)}") from error
    try:
        if unknown := set(content) - {"word_times", "confidence", "least_evidence"}:
            raise ValueError(f"unknown keys {sorted(unknown)}")
        times = content.get("word_times", {})
        return Calibration(
            WordTimes(**_figures(times, _OFFSETS, "measured")),
            {
                name: ConfidenceMap(**_figures(one, ("slope", "intercept"), "fitted"))
                for name, one in content.get("confidence", {}).items()
            },
            LeastEvidence(**_figures(content.get("least_evidence", {}), _LEAST, "measured")),
        )
    except (AttributeError, TypeError, ValueError, SpeechError) as error:
        raise ModelError(f"{path}: not a calibration: {error}") from error


def _figures(fields: Mapping[str, Any], names: Sequence[str], record: str) -> dict[str, Any]:
    """Finite numbers and what is kept with them; other keys are refused by who takes them."""
    numbers = {key: float(fields[key]) for key in names if key in fields}
    if not all(map(math.isfinite, numbers.values())):
        raise ValueError(f"{' and '.join(numbers)} must be finite, got {numbers}")
    if not isinstance(fields.get(record, {}), dict):
        raise ValueError(f"{record!r} must be an object, got {fields[record]!r:.60}")
    return {**fields, **numbers}


def dump_calibration(calibration: Calibration) -> str:
    """The JSON text that `read_calibration` reads."""
    content: dict[str, dict[str, Any]] = {
        "word_times": _plain(calibration.word_times),
        "confidence": {name: _plain(one) for name, one in calibration.confidence.items()},
    }
    if calibration.least_evidence != LeastEvidence():
        content["least_evidence"] = _plain(calibration.least_evidence)
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _plain(record: WordTimes | ConfidenceMap | LeastEvidence) -> dict[str, Any]:
    return {key: dict(v) if isinstance(v, Mapping) else v for key, v in vars(record).items()}
