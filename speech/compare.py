"""Two stored results side by side: is one better, how sure is that, and what changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from speech.bootstrap import (
    RESAMPLES,
    SEED,
    PairedBootstrap,
    are_speakers_drawn,
    group_totals,
    paired_bootstrap,
)
from speech.errors import SpeechError
from speech.metrics import Edit, align, render_columns
from speech.results import Evaluation, Score, error_figures


class Pair(NamedTuple):
    """One utterance as both systems heard it."""

    a: Score
    b: Score

    @property
    def added_errors(self) -> int:
        """Word errors of B beyond those of A; negative where B is better."""
        return self.b.words.errors - self.a.words.errors


@dataclass(frozen=True)
class Comparison:
    """System B against system A, on the same utterances."""

    a: Evaluation
    b: Evaluation
    pairs: tuple[Pair, ...]
    bootstrap: PairedBootstrap
    resampled: str  # what was drawn: "speakers" or "utterances"
    drawn: int  # how many of them there are
    resamples: int
    seed: int

    @property
    def relative_reduction(self) -> float | None:
        """Share of A's word errors that B takes away; None where A makes none."""
        errors = self.a.words.errors
        return (errors - self.b.words.errors) / errors if errors else None

    def changed(self, count: int) -> tuple[list[Pair], list[Pair]]:
        """The utterances that B improved most, and those it worsened most."""
        ranked = sorted(self.pairs, key=lambda pair: pair.added_errors)
        better = [pair for pair in ranked if pair.added_errors < 0]
        worse = [pair for pair in reversed(ranked) if pair.added_errors > 0]
        return better[:count], worse[:count]

    def to_dict(self, count: int) -> dict[str, object]:
        """Return the figures and the `count` most changed utterances each way as plain data."""
        better, worse = self.changed(count)
        added = [pair.added_errors for pair in self.pairs]
        return {
            "a": _system(self.a),
            "b": _system(self.b),
            "wer_difference": self.bootstrap.difference,
            "wer_difference_interval": list(self.bootstrap.interval),
            "relative_reduction": self.relative_reduction,
            "probability_of_improvement": self.bootstrap.probability_of_improvement,
            "significant": self.bootstrap.significant,
            "resampled": self.resampled,
            "drawn": self.drawn,
            "resamples": self.resamples,
            "seed": self.seed,
            "utterances": len(self.pairs),
            "utterances_improved": sum(errors < 0 for errors in added),
            "utterances_worsened": sum(errors > 0 for errors in added),
            "improved": [_pair_figures(pair) for pair in better],
            "worsened": [_pair_figures(pair) for pair in worse],
            "normaliser": self.a.normaliser,
        }


def compare(
    a: Evaluation, b: Evaluation, *, resamples: int = RESAMPLES, seed: int = SEED
) -> Comparison:
    """Return B against A by paired bootstrap; whole speakers are drawn where two are known.

    Raises `SpeechError` that names the first utterance that only one of the two has.
    """
    if a.normaliser != b.normaliser:
        raise SpeechError(
            f"cannot compare: A is normalised by {a.normaliser!r}, B by {b.normaliser!r}"
        )
    pairs = pair_up(a.scores, b.scores)
    speakers = [pair.a.speaker for pair in pairs]
    counts_a, counts_b = ([score.words for score in side] for side in zip(*pairs, strict=True))
    bootstrap = paired_bootstrap(counts_a, counts_b, speakers, resamples=resamples, seed=seed)
    resampled = "speakers" if are_speakers_drawn(speakers) else "utterances"
    drawn = len(group_totals(counts_a, speakers))
    return Comparison(a, b, pairs, bootstrap, resampled, drawn, resamples, seed)


def pair_up(a: Sequence[Score], b: Sequence[Score]) -> tuple[Pair, ...]:
    """Join the scores of the same utterance, by name and reference, in the order of A."""
    _require_same(a, b)
    waiting: dict[tuple[str, str], list[Score]] = {}
    for score in reversed(b):
        waiting.setdefault(_key(score), []).append(score)
    return tuple(Pair(score, waiting[_key(score)].pop()) for score in a)


def _key(score: Score) -> tuple[str, str]:
    return score.name, score.reference


def _require_same(a: Sequence[Score], b: Sequence[Score]) -> None:
    for one, other, own, their in ((a, b, "A", "B"), (b, a, "B", "A")):
        left = Counter(map(_key, other))
        for score in one:
            left[_key(score)] -= 1
            if left[_key(score)] < 0:
                raise SpeechError(_difference(score, other, own, their))


def _difference(score: Score, other: Sequence[Score], own: str, their: str) -> str:
    references = [o.reference for o in other if o.name == score.name]
    if references and score.reference not in references:
        return (
            f"cannot compare: utterance {score.name!r} has the reference {score.reference!r} in "
            f"{own} but {references[0]!r} in {their}"
        )
    return (
        f"cannot compare different utterances: {score.name!r} is in {own} but not in {their} "
        f"(the other has {len(other)} utterances)"
    )


def render_pair(pair: Pair, width: int = 100) -> str:
    """Return an utterance's counts and its reference with both hypotheses below, aligned.

    The last line marks the words that only A, only B, or both have wrong.
    """
    head = f"{pair.a.name}: {pair.a.words.errors} errors in A, {pair.b.words.errors} in B"
    words = pair.a.reference.split()
    columns = merge_alignments(
        align(words, pair.a.hypothesis.split()), align(words, pair.b.hypothesis.split())
    )
    rows = [(*cells, _wrong(cells)) for cells in columns]
    return f"{head}\n" + render_columns(("REF:", "  A:", "  B:", "    "), rows, width)


Cells = tuple[str | None, str | None, str | None]


def merge_alignments(a: Sequence[Edit], b: Sequence[Edit]) -> Iterator[Cells]:
    """Yield (reference, A, B) columns of two alignments of one reference; None where is nothing."""
    i = j = 0
    while i < len(a) or j < len(b):
        inserts_a = i < len(a) and a[i].kind == "insertion"
        inserts_b = j < len(b) and b[j].kind == "insertion"
        takes_a, takes_b = (inserts_a, inserts_b) if inserts_a or inserts_b else (True, True)
        reference = None if inserts_a or inserts_b else a[i].reference
        yield (reference, a[i].hypothesis if takes_a else None,
               b[j].hypothesis if takes_b else None)  # fmt: skip
        i, j = i + takes_a, j + takes_b


def _wrong(cells: Cells) -> str:
    reference, a, b = cells
    return ("A" if a != reference else "") + ("B" if b != reference else "")


def _system(evaluation: Evaluation) -> dict[str, object]:
    figures = error_figures(evaluation.scores)
    kept = ("wer", "wer_interval", "cer", "words", "substitutions", "deletions", "insertions")
    return {"model": evaluation.model, "lm": evaluation.lm} | {key: figures[key] for key in kept}


def _pair_figures(pair: Pair) -> dict[str, object]:
    return {
        "id": pair.a.name,
        "errors_a": pair.a.words.errors,
        "errors_b": pair.b.words.errors,
        "reference": pair.a.reference,
        "hypothesis_a": pair.a.hypothesis,
        "hypothesis_b": pair.b.hypothesis,
    }
