"""The report of an evaluation: one HTML page that needs no network, and its figures as JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from speech.bootstrap import (
    RESAMPLES,
    SEED,
    are_speakers_drawn,
    bootstrap_interval,
    group_totals,
)
from speech.confidence import Reliability, reliability
from speech.error_tables import (
    NOTHING,
    Group,
    WordErrors,
    character_confusions,
    common_word_errors,
    group_tables,
    judged_confidences,
)
from speech.metrics import sum_errors
from speech.results import (
    RESULTS_FILE,
    Evaluation,
    Score,
    worst,
    worst_first,
    write_json,
    write_results,
)
from speech.transcribe import Recogniser
from speech.utterance_view import UtteranceView, data_uri, view_utterance

PAGE_FILE, SUMMARY_FILE = "index.html", "summary.json"
COMMON_ERRORS = 20
COMMON_CHARACTERS = 24
LISTED_UTTERANCES = 500
HISTOGRAM_BINS = 20
NOISE_NOTE = (
    "The ratio is an estimate: noise is the power of the quietest tenth of 30 ms frames, speech "
    "the rest of the power. It is too low for recordings cut tight around their words."
)


@dataclass(frozen=True)
class ReportSettings:
    """What a report shows, and how much of it."""

    worst: int = 12  # utterances with sound and pictures
    audio_limit_bytes: int = 25_000_000  # of sound in the page, as it stands there
    seed: int = SEED


def write_report(
    directory: Path,
    evaluation: Evaluation,
    audio_paths: Sequence[Path],
    recogniser: Recogniser,
    settings: ReportSettings = ReportSettings(),
    on_utterance: Callable[[], None] = lambda: None,
) -> Path:
    """Write ``index.html``, ``summary.json`` and ``results.json`` and return the page's path.

    `audio_paths[i]` is the recording of score i. One that cannot be read is told on the page.
    """
    write_results(directory / RESULTS_FILE, evaluation)
    summary = summarise(evaluation, settings.seed)
    write_json(directory / SUMMARY_FILE, summary_to_dict(evaluation, summary))
    views = []
    for index in worst_first(evaluation.scores)[: settings.worst]:
        score = evaluation.scores[index]
        if score.words.errors:
            views.append(view_utterance(score, audio_paths[index], recogniser))
        on_utterance()
    page = directory / PAGE_FILE
    page.write_text(render_page(evaluation, summary, views, settings), encoding="utf-8")
    return page


@dataclass(frozen=True)
class JudgedConfidences:
    """How well the confidences of words tell whether they are right."""

    reliability: Reliability
    histogram: list[int]  # words by confidence, in bins of equal width

    def to_dict(self) -> dict[str, object]:
        """Return the figures as plain data."""
        return {
            "expected_calibration_error": self.reliability.expected_calibration_error,
            "words": self.reliability.words,
            "bins": [vars(one) for one in self.reliability.bins],
            "histogram": self.histogram,
        }


@dataclass(frozen=True)
class Summary:
    """Everything a report says about the errors, before it is written in any form."""

    wer_interval: tuple[float, float]
    cer_interval: tuple[float, float]
    resampled: str  # what was drawn: "speakers" or "utterances"
    drawn: int
    tables: dict[str, list[Group]]
    word_errors: WordErrors
    characters: Counter[tuple[str, str]]
    confidence: JudgedConfidences | None


def summarise(evaluation: Evaluation, seed: int = SEED) -> Summary:
    """Return intervals, tables, commonest errors and reliability of an evaluation."""
    scores = evaluation.scores
    words = [score.words for score in scores]
    characters = [score.characters for score in scores]
    speakers = [score.speaker for score in scores]
    return Summary(
        wer_interval=bootstrap_interval(words, speakers, seed=seed),
        cer_interval=bootstrap_interval(characters, speakers, seed=seed),
        resampled="speakers" if are_speakers_drawn(speakers) else "utterances",
        drawn=len(group_totals(words, speakers)),
        tables=group_tables(scores, seed),
        word_errors=common_word_errors(scores, COMMON_ERRORS),
        characters=character_confusions(scores),
        confidence=_judge(scores),
    )


def _judge(scores: Sequence[Score]) -> JudgedConfidences | None:
    """Return how well the word confidences hold; None where no word has one."""
    confidences, correct = judged_confidences(scores)
    if not confidences:
        return None
    counts, _ = np.histogram(confidences, HISTOGRAM_BINS, (0, 1))
    return JudgedConfidences(reliability(confidences, correct), counts.tolist())


def summary_to_dict(evaluation: Evaluation, summary: Summary) -> dict[str, object]:
    """Return the figures of a report as plain data."""
    pairs = _wrong_characters(summary.characters)
    errors = summary.word_errors
    return {
        "figures": evaluation.to_dict(),
        "wer_interval": list(summary.wer_interval),
        "cer_interval": list(summary.cer_interval),
        "resampled": summary.resampled,
        "drawn": summary.drawn,
        "resamples": RESAMPLES,
        "tables": {
            title: [group.to_dict() for group in groups] for title, groups in summary.tables.items()
        },
        "substituted": [{"said": r, "heard": h, "count": n} for r, h, n in errors.substituted],
        "deleted": [{"said": r, "count": n, "of": of} for r, n, of in errors.deleted],
        "inserted": [{"heard": h, "count": n} for h, n in errors.inserted],
        "characters": [{"said": r, "heard": h, "count": n} for r, h, n in pairs],
        "confidence": summary.confidence.to_dict() if summary.confidence else None,
        "run": dict(evaluation.run),
    }


def render_page(
    evaluation: Evaluation,
    summary: Summary,
    views: Sequence[UtteranceView],
    settings: ReportSettings,
) -> str:
    """Return the HTML page; texts of manifests and file names are escaped."""
    scores = evaluation.scores
    return _environment().get_template("report.html").render(
        model=evaluation.model,
        lm=evaluation.lm,
        normaliser=evaluation.normaliser,
        corpora=sorted({score.corpus or "unnamed" for score in scores}),
        speakers=len({score.speaker for score in scores} - {None}),
        utterances=len(scores),
        correct_utterances=sum(not score.words.errors for score in scores),
        words=evaluation.words,
        wer=evaluation.words.rate,
        cer=sum_errors(score.characters for score in scores).rate,
        audio_seconds=evaluation.audio_seconds,
        wall_seconds=evaluation.wall_seconds,
        real_time_factor=evaluation.real_time_factor,
        resamples=RESAMPLES,
        summary=summary,
        tables=[_table(title, groups) for title, groups in summary.tables.items()],
        character_pairs=_character_lists(summary.characters),
        nothing=NOTHING,
        matrix=_matrix(summary.characters),
        views=list(_with_addresses(views, settings.audio_limit_bytes)),
        audio_limit_mb=settings.audio_limit_bytes // 1_000_000,
        rows=worst(scores, LISTED_UTTERANCES),
        run=_flatten(evaluation.run),
    )  # fmt: skip


def _table(title: str, groups: Sequence[Group]) -> dict[str, Any]:
    """A table with the scale of its bars: the highest finite bound, up to the next 10 %."""
    bounds = [g.wer_interval[1] for g in groups if math.isfinite(g.wer_interval[1])]
    is_noise = title == "signal-to-noise ratio"
    return {
        "title": title,
        "groups": groups,
        "scale": max(0.1, math.ceil(10 * max(bounds, default=1.0)) / 10),
        "ranked": is_noise or title == "duration",
        "note": NOISE_NOTE if is_noise else "",
    }


def _wrong_characters(counts: Counter[tuple[str, str]]) -> list[tuple[str, str, int]]:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [(said, heard, n) for (said, heard), n in ranked if said != heard]


def _character_lists(
    counts: Counter[tuple[str, str]],
) -> list[tuple[str, list[tuple[str, str, int]]]]:
    """The commonest wrong characters, by what happened to them."""
    wrong = _wrong_characters(counts)
    lists = {
        "Said → heard": [row for row in wrong if NOTHING not in row[:2]],
        "Left out": [row for row in wrong if row[1] == NOTHING],
        "Put in": [row for row in wrong if row[0] == NOTHING],
    }
    return [(title, rows[:COMMON_CHARACTERS]) for title, rows in lists.items()]


def _matrix(counts: Counter[tuple[str, str]]) -> dict[str, Any]:
    """Rows of what was said, with the share of each that was heard as each character."""
    names = {name for pair in counts for name in pair} - {NOTHING}
    heard = [*sorted(names), NOTHING]
    rows = []
    for said in heard:
        total = sum(counts[said, other] for other in heard) or 1
        cells = [
            {"heard": other, "count": counts[said, other], "share": counts[said, other] / total}
            for other in heard
        ]
        for cell in cells:  # small shares are to be seen too
            cell["strength"] = math.sqrt(cell["share"])  # type: ignore[arg-type]
        rows.append({"said": said, "cells": cells})
    return {"heard": heard, "rows": rows}


def _with_addresses(
    views: Sequence[UtteranceView], audio_limit_bytes: int
) -> Iterator[dict[str, Any]]:
    """Yield the views with their pictures and sound as data addresses, the sound while it fits."""
    used = 0
    for view in views:
        shown: dict[str, Any] = vars(view) | {"audio": None, "spectrogram": None}
        if view.pictures is not None:
            audio = data_uri(view.pictures.audio, "audio/mpeg")
            if used + len(audio) <= audio_limit_bytes:
                used += len(audio)
                shown["audio"] = audio
            shown["spectrogram"] = data_uri(view.pictures.spectrogram, "image/png")
        yield shown


def _flatten(run: Any, prefix: str = "") -> dict[str, object]:
    """Nested facts under names joined by a space."""
    flat: dict[str, object] = {}
    for name, value in run.items():
        key = f"{prefix}{name}".replace("_", " ")
        flat |= _flatten(value, f"{key} ") if isinstance(value, dict) else {key: value}
    return flat


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("speech"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "percent": _percent, "share": _share, "duration": _duration, "finite": _sortable,
    }  # fmt: skip
    return environment


def _percent(rate: float, digits: int = 2) -> str:
    return f"{100 * rate:.{digits}f} %" if math.isfinite(rate) else "∞"


def _share(value: float, scale: float) -> str:
    """Percent of a bar, within it."""
    return f"{100 * min(1.0, max(0.0, value / scale)):.2f}" if value == value else "0"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{seconds / 60:.1f} min"


def _sortable(value: float) -> float:
    return value if math.isfinite(value) else 1e9
