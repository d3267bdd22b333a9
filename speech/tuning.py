"""The weights that were found for a language model (`speech lm tune`), in a file beside it."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speech.errors import LanguageModelError, reason_of
from speech.shipped import CHAR_WEIGHTS_FILE, LANGUAGE_MODEL_FILE

TUNING_FILE = "tuning.json"


@dataclass(frozen=True)
class Tuning:
    """Weights for `speech.beam_search.BeamSettings`, or for rescoring, and what they were found on.

    The weights suit the acoustic model they were found with: the surer that is of itself, the more
    a language model must weigh. ``beam_sizes`` has the word error rate for each size tried. Beside
    a neural model, ``beam_size`` is the texts judged again, ``lm`` the model of the search before.
    """

    lm_weight: float
    word_bonus: float
    beam_size: int
    wer: float | None = None
    model: str | None = None
    manifest: tuple[str, ...] = ()
    manifest_sha256: str | None = None
    without_speakers: tuple[str, ...] = ()
    utterances: int = 0
    beam_sizes: dict[str, float] = field(default_factory=dict)
    lm: str | None = None
    letter_price: float | None = None  # None: the search's own
    prior_weight: float = 0.0
    blank_price: float = 0.0


def tuning_path(language_model: Path) -> Path:
    """Where the tuning of a language model's file is: beside it."""
    if language_model.name in (LANGUAGE_MODEL_FILE, CHAR_WEIGHTS_FILE):
        return language_model.with_name(TUNING_FILE)
    return language_model.with_name(f"{language_model.name}.{TUNING_FILE}")


def read_tuning(language_model: Path) -> Tuning | None:
    """The tuning of a language model's file; None where it was never tuned.

    LanguageModelError in one line for a file that holds something else.
    """
    path = tuning_path(language_model)
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise LanguageModelError(f"{path}: cannot read the tuning: {reason_of(error)}") from error
    names = {field.name for field in dataclasses.fields(Tuning)}
    try:
        known = {key: value for key, value in content.items() if key in names}
        known |= {key: tuple(value) for key, value in known.items() if isinstance(value, list)}
        tuning = Tuning(**known)
        figures = (tuning.lm_weight, tuning.word_bonus, tuning.beam_size,
                   tuning.letter_price or 0, tuning.prior_weight, tuning.blank_price)  # fmt: skip
        usable = all(math.isfinite(figure) for figure in figures)
    except (TypeError, AttributeError) as error:
        raise LanguageModelError(f"{path}: not a tuning: {error}") from error
    if not usable:
        raise LanguageModelError(f"{path}: not a tuning: needs finite weights, got {figures}")
    return tuning


def write_tuning(language_model: Path, tuning: Tuning) -> Path:
    """Write the tuning beside the language model; return where."""
    path = tuning_path(language_model)
    content = json.dumps(dataclasses.asdict(tuning), indent=1)
    path.write_text(content + "\n", encoding="utf-8")
    return path
