"""The weights of a language model that make the fewest word errors on a development set.

The network runs once: its log-probs are stored, and searched again for each pair of weights.
"""

from __future__ import annotations

import dataclasses
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speech.beam_search import BeamDecoder
from speech.errors import ManifestError
from speech.manifest import Utterance
from speech.metrics import ErrorCounts, sum_errors, word_errors
from speech.tokenizer import normalise_text
from speech.transcribe import Recogniser

LM_WEIGHTS = (0.2, 0.5, 0.8, 1.1, 1.4)  # the coarse grid
WORD_BONUSES = (-0.5, 0.5, 1.5, 2.5)
# Tried one after the other, with the best of everything else.
OTHERS = {
    "prior_weight": (0.0, 0.4, 0.7, 1.0),
    "blank_price": (-0.4, 0.0, 0.4, 0.8),
    "letter_price": (2.0, 3.0, 4.0, 6.0),
}
REFINEMENTS = ((0.15, 0.5), (0.05, 0.25))  # steps around the best so far, one after the other
BEAM_SIZES = (10, 20, 50, 100, 200, 500, 1000)
SEARCH_BEAM_SIZE = 100
# Of the beam sizes the smallest is taken that makes hardly more errors than the best.
TOLERATED_RATIO = 1.005

_SETTINGS = ("lm_weight", "word_bonus", "beam_size", *OTHERS)
# Of weights that make hardly more errors than the best, the most balanced are taken: a development
# set of some thousand words cannot tell these apart, and dropping many words suits it alone.
TOLERATED_IMBALANCE_RATIO = 1.02

Segments = list[NDArray[np.float32]]  # the log-probs (T', V) of a recording's segments


@dataclass(frozen=True)
class Trial:
    """One setting and what it led to."""

    lm_weight: float
    word_bonus: float
    beam_size: int
    letter_price: float
    prior_weight: float
    blank_price: float
    errors: ErrorCounts
    seconds: float


@dataclass(frozen=True)
class DevelopmentSet:
    """Normalised references, and the log-probs of the segments of each utterance."""

    references: tuple[str, ...]
    segments: tuple[Segments, ...]


def select(utterances: Iterable[Utterance], without_speakers: Sequence[str]) -> list[Utterance]:
    """The utterances of other speakers. ManifestError for a speaker who is not there."""
    utterances = list(utterances)
    if missing := set(without_speakers) - {str(utterance.speaker) for utterance in utterances}:
        raise ManifestError(f"no utterance is by speaker {min(missing)!r}")
    kept = [one for one in utterances if str(one.speaker) not in without_speakers]
    if not kept:
        raise ManifestError("no utterances are left to tune on")
    return kept


def read_development_set(
    utterances: Sequence[Utterance],
    recogniser: Recogniser,
    store: Path,
    checksums: dict[str, str],
    on_utterance: Callable[[Utterance], None] = lambda _: None,
) -> DevelopmentSet:
    """The log-probs from `store` if it has these `checksums`, else computed and stored there.

    AudioError for audio that cannot be read, ManifestError for an utterance without a reference.
    """
    references = tuple(normalise_text(utterance.text) for utterance in utterances)
    segments = _read_store(store, checksums)
    if segments is None or len(segments) != len(utterances):
        segments = []
        for utterance in utterances:
            segments.append(recogniser.segment_log_probs(utterance.audio_path))
            on_utterance(utterance)
        _write_store(store, checksums, segments)
    return DevelopmentSet(references, tuple(segments))


def _write_store(store: Path, checksums: dict[str, str], segments: Sequence[Segments]) -> None:
    store.parent.mkdir(parents=True, exist_ok=True)
    lengths = [[len(one), *map(len, one)] for one in segments]
    np.savez(
        store,
        log_probs=np.concatenate([segment for one in segments for segment in one]),
        lengths=np.concatenate(lengths).astype(np.int64),
        checksums=np.array(sorted(checksums.items())),
    )


def _read_store(store: Path, checksums: dict[str, str]) -> list[Segments] | None:
    """What was stored for these checksums; None if nothing was, or what is there is damaged."""
    try:
        with np.load(store, allow_pickle=False) as content:
            if content["checksums"].tolist() != [list(item) for item in sorted(checksums.items())]:
                return None
            return list(_cut(content["log_probs"], iter(content["lengths"].tolist())))
    except (OSError, KeyError, ValueError, EOFError, StopIteration, zipfile.BadZipFile):
        return None


def _cut(log_probs: NDArray[np.float32], lengths: Iterator[int]) -> Iterator[Segments]:
    start = 0
    for count in lengths:
        segments = []
        for _ in range(count):
            end = start + next(lengths)
            segments.append(log_probs[start:end])
            start = end
        yield segments


def tune(
    decoder: BeamDecoder,
    development: DevelopmentSet,
    threads: int = 1,
    on_trial: Callable[[Trial], None] = lambda _: None,
) -> tuple[Trial, list[Trial]]:
    """The best weights at the beam size that is worth its time, and all trials in order.

    A coarse grid of lm_weight and word_bonus, then finer steps around the best; with these, OTHERS,
    and finer steps again; of equals the first. Of all that make hardly more errors than the best,
    the ones that drop and put in words alike; with those, beam sizes.
    """
    trials: list[Trial] = []
    known: dict[tuple[float, ...], Trial] = {}

    def run(**changes: Any) -> Trial:
        settings = dataclasses.replace(decoder.settings, n_best=1, **changes)
        key = tuple(getattr(settings, name) for name in _SETTINGS)
        if key not in known:
            known[key] = _try(decoder.with_settings(settings), development, threads)
            trials.append(known[key])
            on_trial(known[key])
        return known[key]

    def best() -> dict[str, Any]:
        return _changes(min(trials, key=_errors))

    def refine() -> None:
        for steps in REFINEMENTS:
            found = best()
            for pair in _neighbours(found["lm_weight"], found["word_bonus"], *steps):
                run(**found | pair)

    for weight, bonus in product(LM_WEIGHTS, WORD_BONUSES):
        run(beam_size=SEARCH_BEAM_SIZE, lm_weight=weight, word_bonus=bonus)
    refine()
    for name, values in OTHERS.items():
        found = best()
        for value in values:
            run(**found | {name: value})
    refine()
    balanced = _changes(_most_balanced(trials))
    sizes = [run(**balanced | {"beam_size": size}) for size in BEAM_SIZES]
    enough = TOLERATED_RATIO * min(map(_errors, sizes))
    return next(trial for trial in sizes if _errors(trial) <= enough), trials


def count_trials() -> int:
    """The most trials that `tune` makes, for a progress bar."""
    return (
        len(LM_WEIGHTS) * len(WORD_BONUSES)
        + 2 * 8 * len(REFINEMENTS)
        + sum(map(len, OTHERS.values()))
        + len(BEAM_SIZES)
        - 1
    )


def _most_balanced(trials: Sequence[Trial]) -> Trial:
    """Of the trials near the best, the first with as many words dropped as put in, or nearly."""
    enough = TOLERATED_IMBALANCE_RATIO * min(map(_errors, trials))
    near = [trial for trial in trials if _errors(trial) <= enough]
    return min(near, key=lambda trial: abs(trial.errors.deletions - trial.errors.insertions))


def _errors(trial: Trial) -> int:
    return trial.errors.errors


def _neighbours(
    weight: float, bonus: float, weight_step: float, bonus_step: float
) -> list[dict[str, float]]:
    steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    pairs = [
        (round(weight + i * weight_step, 4), round(bonus + j * bonus_step, 4)) for i, j in steps
    ]
    return [{"lm_weight": one, "word_bonus": other} for one, other in pairs if one >= 0]


def _changes(trial: Trial) -> dict[str, Any]:
    """The settings that a trial was made with."""
    return {name: getattr(trial, name) for name in _SETTINGS}


def _try(decoder: BeamDecoder, development: DevelopmentSet, threads: int) -> Trial:
    flat = [segment for one in development.segments for segment in one]
    began = time.monotonic()
    found = iter(decoder.search_many(flat, threads))
    texts = [
        " ".join(decoder.tokenizer.decode(next(found)[0].tokens) for _ in one).strip()
        for one in development.segments
    ]
    seconds = time.monotonic() - began
    pairs = zip(development.references, texts, strict=True)
    errors = sum_errors(_word_errors(reference, text) for reference, text in pairs)
    settings = {name: getattr(decoder.settings, name) for name in _SETTINGS}
    return Trial(**settings, errors=errors, seconds=seconds)


@cache
def _word_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """The same, remembered: most settings give most utterances the same text."""
    return word_errors(reference, hypothesis)
