"""Where the errors are: by kind of utterance, by word, by character."""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from speech.bootstrap import SEED, bootstrap_interval
from speech.metrics import Edit, ErrorCounts, align, sum_errors
from speech.results import Score

DURATION_EDGES_SECONDS = (2.0, 5.0, 10.0, 15.0, 20.0, 30.0)
SIGNAL_TO_NOISE_EDGES_DB = (0.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0)
GROUP_RESAMPLES = 500  # a table has many rows
UNKNOWN = "unknown"
NOTHING = "∅"  # the other side of a character that was left out or put in
SPACE = "␣"


@dataclass(frozen=True)
class Group:
    """The figures of the utterances that have something in common."""

    name: str
    utterances: int
    audio_seconds: float
    words: ErrorCounts
    characters: ErrorCounts
    wer_interval: tuple[float, float]

    def to_dict(self) -> dict[str, object]:
        """Return the figures as plain data."""
        return {
            "name": self.name,
            "utterances": self.utterances,
            "audio_seconds": self.audio_seconds,
            "words": self.words.reference_length,
            "wer": self.words.rate,
            "wer_interval": list(self.wer_interval),
            "cer": self.characters.rate,
            "substitutions": self.words.substitutions,
            "deletions": self.words.deletions,
            "insertions": self.words.insertions,
        }


def group_tables(scores: Sequence[Score], seed: int = SEED) -> dict[str, list[Group]]:
    """Return the tables by corpus, speaker, duration and signal-to-noise ratio, in their order.

    Names are in the order of the alphabet, ranges in that of their numbers, unknown ones last. A
    table with a single row says nothing and is left out.
    """
    keys: dict[str, Callable[[Score], tuple[float, str]]] = {
        "corpus": lambda score: _name_key(score.corpus),
        "speaker": lambda score: _name_key(score.speaker),
        "duration": lambda score: _range_key(score.duration, DURATION_EDGES_SECONDS, "s"),
        "signal-to-noise ratio": lambda score: _range_key(
            score.signal_to_noise_db, SIGNAL_TO_NOISE_EDGES_DB, "dB"
        ),
    }
    tables = {title: _group_by(scores, key, seed) for title, key in keys.items()}
    return {title: groups for title, groups in tables.items() if len(groups) > 1}


def _group_by(
    scores: Sequence[Score], key: Callable[[Score], tuple[float, str]], seed: int
) -> list[Group]:
    members: dict[tuple[float, str], list[Score]] = {}
    for score in scores:
        members.setdefault(key(score), []).append(score)
    return [_summarise(name, members[rank, name], seed) for rank, name in sorted(members)]


def _summarise(name: str, scores: Sequence[Score], seed: int) -> Group:
    words = [score.words for score in scores]
    speakers = [score.speaker for score in scores]
    return Group(
        name=name,
        utterances=len(scores),
        audio_seconds=sum(score.duration or 0.0 for score in scores),
        words=sum_errors(words),
        characters=sum_errors(score.characters for score in scores),
        wer_interval=bootstrap_interval(words, speakers, resamples=GROUP_RESAMPLES, seed=seed),
    )


def _name_key(name: str | None) -> tuple[float, str]:
    return (math.inf, UNKNOWN) if name is None else (0.0, name)


def _range_key(value: float | None, edges: Sequence[float], unit: str) -> tuple[float, str]:
    """The range between two edges that a value is in, the lower edge included, and its rank."""
    if value is None:
        return math.inf, UNKNOWN
    rank = bisect.bisect_right(edges, value)
    if rank == 0:
        return 0, f"below {edges[0]:g} {unit}"
    if rank == len(edges):
        return rank, f"{edges[-1]:g} {unit} and more"
    return rank, f"{edges[rank - 1]:g} to {edges[rank]:g} {unit}"


# --- Words and characters -------------------------------------------------------------------------


@dataclass(frozen=True)
class WordErrors:
    """The commonest word errors, most frequent first."""

    substituted: list[tuple[str, str, int]]  # said, heard, times
    deleted: list[tuple[str, int, int]]  # said, times left out, times said
    inserted: list[tuple[str, int]]  # heard, times put in


def common_word_errors(scores: Sequence[Score], count: int) -> WordErrors:
    """Return the `count` commonest errors of each kind; equals are in alphabetical order."""
    edits = [e for s in scores for e in align(s.reference.split(), s.hypothesis.split())]
    said = Counter(edit.reference for edit in edits if edit.reference is not None)
    deleted = _most_common(_pairs(edits, "deletion"), count)
    return WordErrors(
        [(r, h, n) for (r, h), n in _most_common(_pairs(edits, "substitution"), count)],
        [(r, n, said[r]) for (r, _), n in deleted],
        [(h, n) for (_, h), n in _most_common(_pairs(edits, "insertion"), count)],
    )


def character_confusions(scores: Sequence[Score]) -> Counter[tuple[str, str]]:
    """Count how often each character was heard as each; `NOTHING` stands on an empty side.

    The alignment is that of the character error rate, so the wrong ones add up to its errors.
    Matches are counted too: (c, c). A space is written `SPACE`.
    """
    return Counter(
        (_visible(edit.reference), _visible(edit.hypothesis))
        for score in scores
        for edit in align(score.reference, score.hypothesis)
    )


def _visible(character: str | None) -> str:
    if character is None:
        return NOTHING
    return SPACE if character == " " else character


def _pairs(edits: Iterable[Edit], kind: str) -> Counter[tuple[str, str]]:
    return Counter((e.reference or "", e.hypothesis or "") for e in edits if e.kind == kind)


def _most_common(counts: Counter[tuple[str, str]], count: int) -> list[tuple[tuple[str, str], int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:count]


# --- Confidence -----------------------------------------------------------------------------------


def judged_confidences(scores: Sequence[Score]) -> tuple[list[float], list[bool]]:
    """Return the confidence of every word heard, and whether the word was right.

    Right are the words that the alignment matches. Utterances without word confidences are left
    out.
    """
    confidences: list[float] = []
    correct: list[bool] = []
    for score in scores:
        edits = align(score.reference.split(), score.hypothesis.split())
        right = [edit.kind == "match" for edit in edits if edit.hypothesis is not None]
        if len(right) == len(score.heard):
            confidences += [word.confidence for word in score.heard]
            correct += right
    return confidences, correct
