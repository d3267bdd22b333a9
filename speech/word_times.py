"""Word times against the truth: how far off they are, and the constant part of that."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf, isfinite

from speech.calibration import WordTimes
from speech.errors import SpeechError
from speech.metrics import align
from speech.transcript import Word
from speech.words import is_pause


@dataclass(frozen=True)
class TimeErrors:
    """How far words were heard from where they are, in seconds; one entry a word."""

    starts: tuple[float, ...]  # heard - true
    ends: tuple[float, ...]
    after_pause: tuple[bool, ...]  # whether the word was heard behind a pause

    @property
    def median_start(self) -> float:
        """Median distance of word starts from the truth."""
        return _median(map(abs, self.starts))

    @property
    def median_end(self) -> float:
        """The same of word ends."""
        return _median(map(abs, self.ends))


def time_errors(spoken: Sequence[Word], heard: Sequence[Word]) -> TimeErrors:
    """The errors of the words heard right, found by aligning the two texts."""
    edits = align([word.word for word in spoken], [word.word for word in heard])
    spoken_left, heard_left = iter(spoken), iter(heard)
    starts, ends, after_pause = [], [], []
    silent_since = -inf
    for edit in edits:
        true = next(spoken_left) if edit.reference is not None else None
        found = next(heard_left) if edit.hypothesis is not None else None
        if edit.kind == "match" and true is not None and found is not None:
            starts.append(found.start - true.start)
            ends.append(found.end - true.end)
            after_pause.append(is_pause(found.start - silent_since))
        if found is not None:
            silent_since = found.end
    return TimeErrors(tuple(starts), tuple(ends), tuple(after_pause))


def sum_time_errors(errors: Sequence[TimeErrors]) -> TimeErrors:
    """The errors of several recordings together. SpeechError where no word was heard right."""
    starts = tuple(error for one in errors for error in one.starts)
    if not starts:
        raise SpeechError("no word was heard right: word times cannot be judged")
    return TimeErrors(
        starts,
        tuple(error for one in errors for error in one.ends),
        tuple(after for one in errors for after in one.after_pause),
    )


def fit_word_times(errors: TimeErrors) -> WordTimes:
    """The offsets that take the median errors away; `errors` were made without any.

    Errors that are NaN, of words whose times are unknown, do not count.
    """
    within, behind = (
        [
            error
            for error, after in zip(errors.starts, errors.after_pause, strict=True)
            if after == p
        ]
        for p in (False, True)
    )
    return WordTimes(
        start_offset_seconds=-_median(within),
        end_offset_seconds=-_median(errors.ends),
        pause_start_offset_seconds=-_median(behind),
    )


def _median(errors: Iterable[float]) -> float:
    """The median of those that are known; 0 of none."""
    known = [error for error in errors if isfinite(error)]
    return statistics.median(known) if known else 0.0
