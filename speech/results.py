"""The result of an evaluation: its scores, its figures, and the file that keeps them.

A stored result is one JSON object: ``figures`` (what ``speech evaluate --json`` prints), ``run``
(how it was made) and ``utterances``. Reading it checks what it holds and counts the errors anew, so
that figures made from a stored result are those of its texts.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speech.bootstrap import bootstrap_interval
from speech.errors import SpeechError, reason_of
from speech.metrics import (
    ErrorCounts,
    align,
    character_errors,
    render_alignment,
    sum_errors,
    word_errors,
)
from speech.tokenizer import NORMALISER, normalise_text
from speech.transcript import Word

NO_LANGUAGE_MODEL = "none"
FORMAT = "speech evaluation, version 1"
RESULTS_FILE = "results.json"  # in the directory of a report


@dataclass(frozen=True)
class Score:
    """One utterance's normalised texts and error counts, and what else is known of it."""

    name: str
    speaker: str | None
    reference: str
    hypothesis: str
    words: ErrorCounts
    characters: ErrorCounts
    duration: float | None = None  # seconds
    corpus: str | None = None  # the manifest's name
    signal_to_noise_db: float | None = None
    heard: tuple[Word, ...] = ()  # with times and confidences


@dataclass(frozen=True)
class Evaluation:
    """The scores of a model on some manifests, and how long it took."""

    scores: tuple[Score, ...]
    audio_seconds: float
    wall_seconds: float
    model: str
    manifest_sha256: str
    lm: str = NO_LANGUAGE_MODEL
    normaliser: str = NORMALISER
    run: Mapping[str, Any] = field(default_factory=dict)  # command, checksums, seed, versions

    @property
    def words(self) -> ErrorCounts:
        """Word errors summed over all utterances."""
        return sum_errors(score.words for score in self.scores)

    @property
    def real_time_factor(self) -> float:
        """Processing time over audio time."""
        return self.wall_seconds / self.audio_seconds

    def to_dict(self) -> dict[str, object]:
        """Return the figures as plain data; rates are fractions, times seconds."""
        return error_figures(self.scores) | {
            "audio_seconds": round(self.audio_seconds, 3),
            "wall_seconds": round(self.wall_seconds, 3),
            "real_time_factor": self.real_time_factor,
            "model": self.model,
            "lm": self.lm,
            "manifest_sha256": self.manifest_sha256,
            "normaliser": self.normaliser,
        }


def score_pair(name: str, reference: str, hypothesis: str, **known: Any) -> Score:
    """Return the score of one hypothesis; both texts normalised. `known` are further fields."""
    words = word_errors(reference, hypothesis)
    characters = character_errors(reference, hypothesis)
    fields = {"speaker": None, **known}
    return Score(name=name, reference=reference, hypothesis=hypothesis, words=words,
                 characters=characters, **fields)  # fmt: skip


def score_texts(references: Sequence[str], hypotheses: Sequence[str]) -> tuple[Score, ...]:
    """Return the scores of texts line by line, normalised here. Raises `SpeechError` if uneven."""
    if len(references) != len(hypotheses):
        raise SpeechError(
            f"{len(references)} references but {len(hypotheses)} hypotheses: "
            "line n of one belongs to line n of the other"
        )
    pairs = zip(references, hypotheses, strict=True)
    return tuple(
        score_pair(str(number), normalise_text(reference), normalise_text(hypothesis))
        for number, (reference, hypothesis) in enumerate(pairs, 1)
    )


def error_figures(scores: Sequence[Score]) -> dict[str, object]:
    """Return error rates, counts, and the interval of the word error rate as plain data."""
    words = sum_errors(score.words for score in scores)
    speakers = [score.speaker for score in scores]
    interval = bootstrap_interval([score.words for score in scores], speakers)
    return {
        "wer": words.rate,
        "cer": sum_errors(score.characters for score in scores).rate,
        "words": words.reference_length,
        "substitutions": words.substitutions,
        "deletions": words.deletions,
        "insertions": words.insertions,
        "wer_interval": list(interval),
        "utterances": len(scores),
    }


def worst(scores: Sequence[Score], count: int) -> list[Score]:
    """Return the scores with the most word errors, highest rate first among equals."""
    return [scores[index] for index in worst_first(scores)[:count]]


def worst_first(scores: Sequence[Score]) -> list[int]:
    """Return the indices of the scores in that order."""
    words = [score.words for score in scores]
    return sorted(range(len(words)), key=lambda i: (-words[i].errors, -words[i].rate))


def render_score(score: Score, width: int = 100) -> str:
    """Return an utterance's name, counts and aligned texts as lines for a terminal."""
    counts = score.words
    head = (
        f"{score.name}: {counts.errors} errors in {counts.reference_length} words "
        f"(S {counts.substitutions}, D {counts.deletions}, I {counts.insertions})"
    )
    edits = align(score.reference.split(), score.hypothesis.split())
    return f"{head}\n{render_alignment(edits, width)}"


# --- Stored ---------------------------------------------------------------------------------------


def write_results(path: Path, evaluation: Evaluation) -> None:
    """Write an evaluation as JSON; figures that are not finite become null."""
    content = {
        "format": FORMAT,
        "figures": evaluation.to_dict(),
        "run": dict(evaluation.run),
        "utterances": [_to_row(score) for score in evaluation.scores],
    }
    write_json(path, content)


# As `json` indents it; within a string a line break is escaped.
_LIST_OF_NUMBERS = re.compile(r'\[\n([^\[\]{}"]*)\n *\]')


def write_json(path: Path, content: object) -> None:
    """Write plain data as strict JSON, a list of numbers in one line, null for what is infinite."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(finite(content), ensure_ascii=False, allow_nan=False, indent=1)
    text = _LIST_OF_NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text)
    path.write_text(text + "\n", encoding="utf-8")


def finite(value: object) -> object:
    """Return plain data with None in place of every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def _to_row(score: Score) -> dict[str, object]:
    return {
        "id": score.name,
        "speaker": score.speaker,
        "corpus": score.corpus,
        "duration": score.duration,
        "signal_to_noise_db": score.signal_to_noise_db,
        "reference": score.reference,
        "hypothesis": score.hypothesis,
        "word_errors": vars(score.words),
        "character_errors": vars(score.characters),
        "words": [vars(word) for word in score.heard],
    }


def read_results(path: Path) -> Evaluation:
    """Read a stored result: a file, or a report's directory, which holds one.

    Raises `SpeechError` in one line for a file that is none, or whose counts are not those of its
    texts.
    """
    path = path / RESULTS_FILE if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpeechError(f"{path}: cannot read the stored result: {reason_of(error)}") from error
    except ValueError as error:  # not UTF-8, or not JSON
        raise SpeechError(f"{path}: not a stored result: {error}") from error
    is_ours = isinstance(content, dict) and content.get("format") == FORMAT
    _require(is_ours, str(path), f"not what `speech evaluate --output` writes ({FORMAT!r})")
    reader = _Reader(content, str(path))
    figures = _Reader(reader.get("figures", dict), f"{path}: figures")
    rows = reader.get("utterances", list)
    _require(bool(rows), str(path), "it holds no utterances")
    return Evaluation(
        scores=tuple(_from_row(row, f"{path}: utterance {n}") for n, row in enumerate(rows, 1)),
        audio_seconds=figures.number("audio_seconds"),
        wall_seconds=figures.number("wall_seconds"),
        model=figures.get("model", str),
        manifest_sha256=figures.get("manifest_sha256", str),
        lm=figures.get("lm", str),
        normaliser=figures.get("normaliser", str),
        run=reader.get("run", dict),
    )


def _from_row(row: object, where: str) -> Score:
    _require(isinstance(row, dict), where, f"needed an object, got {type(row).__name__}")
    reader = _Reader(row, where)
    score = score_pair(
        reader.get("id", str), reader.get("reference", str), reader.get("hypothesis", str),
        speaker=reader.get("speaker", str, type(None)),
        corpus=reader.get("corpus", str, type(None)),
        duration=reader.optional_number("duration"),
        signal_to_noise_db=reader.optional_number("signal_to_noise_db"),
        heard=tuple(_to_word(word, where) for word in reader.get("words", list)),
    )  # fmt: skip
    for key, counted in (("word_errors", score.words), ("character_errors", score.characters)):
        stored = reader.get(key, dict)
        _require(stored == vars(counted), where,
                 f"{key!r} is {stored}, but its texts have {vars(counted)}")  # fmt: skip
    return score


def _to_word(row: object, where: str) -> Word:
    _require(isinstance(row, dict), where, f"a word is {row!r}, needed an object")
    reader = _Reader(row, f"{where}: word")
    word = reader.get("word", str)
    return Word(word, *(reader.number(key) for key in ("start", "end", "confidence")))


class _Reader:
    """Fields of a JSON object, each of the kind that is asked for."""

    def __init__(self, fields: Any, where: str) -> None:
        self._fields = fields
        self._where = where

    def get(self, key: str, *kinds: type) -> Any:
        _require(key in self._fields, self._where, f"{key!r} is missing")
        value = self._fields[key]
        right = isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds)
        names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
        _require(right, self._where, f"{key!r} is {value!r:.60}, needed {names}")
        return value

    def number(self, key: str) -> float:
        value = float(self.get(key, int, float))
        _require(math.isfinite(value), self._where, f"{key!r} is {value}, needed a finite number")
        return value

    def optional_number(self, key: str) -> float | None:
        return None if self._fields.get(key, 0) is None else self.number(key)


def _require(holds: bool, where: str, message: str) -> None:
    if not holds:
        raise SpeechError(f"{where}: {message}")
