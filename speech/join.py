"""Words of overlapping segments to words of the recording: none lost at a join, none doubled.

Of what two segments heard alike at the same time, the word nearest to the join is where one takes
over from the other. Where they heard nothing alike, each keeps the words whose middle is on its
own side, and of two words at the same time the surer one stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from speech.transcript import Word

SAME_WORD_SECONDS = 0.3  # the same word is heard this far apart at most
SAME_TIME_SHARE = 0.5  # of the shorter word that lies in the other: they are one word heard twice

_NO_CHAIN: tuple[float, list[tuple[int, int]]] = (0.0, [])


class WordJoiner:
    """Joins the words of segments that come in order; keeps those back that the next may change."""

    def __init__(self) -> None:
        self._waiting: list[Word] = []

    def add(self, words: Sequence[Word], joins_at_seconds: float | None = None) -> list[Word]:
        """Take a segment's words; return those of segments before that are now settled.

        `joins_at_seconds` as of `speech.segment.Segment`: None where nothing overlaps.
        """
        settled, self._waiting = self._waiting, list(words)
        if joins_at_seconds is not None:
            settled, self._waiting = join_words(settled, words, joins_at_seconds)
        return settled

    def finish(self) -> list[Word]:
        """Return the last words."""
        return self._waiting


def join_words(
    before: Sequence[Word], after: Sequence[Word], joins_at_seconds: float
) -> tuple[list[Word], list[Word]]:
    """Return what stays of the words of two segments that overlap around `joins_at_seconds`.

    Their times do not overlap any more.
    """
    pairs = _heard_alike(before, after)
    if pairs:
        i, j = min(pairs, key=lambda pair: abs(_middle(before[pair[0]]) - joins_at_seconds))
        first, second = list(before[: i + 1]), list(after[j + 1 :])
    else:
        first = [word for word in before if _middle(word) < joins_at_seconds]
        second = [word for word in after if _middle(word) >= joins_at_seconds]
        if first and second and _are_one(first[-1], second[0]):
            if first[-1].confidence >= second[0].confidence:
                del second[0]
            else:
                del first[-1]
    return first, _behind(first, second)


def _heard_alike(before: Sequence[Word], after: Sequence[Word]) -> list[tuple[int, int]]:
    """Return which words of both are the same at the same time: one chain, in order.

    The best common subsequence, where a pair is worth more the nearer its times are.
    """
    reach = SAME_WORD_SECONDS
    late = [i for i, one in enumerate(before) if after and _middle(one) > _middle(after[0]) - reach]
    last = _middle(before[-1]) + reach if before else 0.0
    early = [j for j, one in enumerate(after) if _middle(one) < last]
    chains: dict[tuple[int, int], tuple[float, list[tuple[int, int]]]] = {}
    for row, i in enumerate(late):
        for column, j in enumerate(early):
            worth = reach - abs(_middle(before[i]) - _middle(after[j]))
            options = [chains.get((row - 1, column), _NO_CHAIN),
                       chains.get((row, column - 1), _NO_CHAIN)]  # fmt: skip
            if before[i].word == after[j].word and worth > 0:
                total, chain = chains.get((row - 1, column - 1), _NO_CHAIN)
                options.append((total + worth, [*chain, (i, j)]))
            chains[row, column] = max(options, key=lambda option: option[0])
    return chains[len(late) - 1, len(early) - 1][1] if late and early else []


def _are_one(one: Word, other: Word) -> bool:
    shared = min(one.end, other.end) - max(one.start, other.start)
    shorter = min(one.end - one.start, other.end - other.start)
    return shared > SAME_TIME_SHARE * shorter


def _behind(first: Sequence[Word], second: Sequence[Word]) -> list[Word]:
    """Return the second words with no time before the end of the first."""
    end = first[-1].end if first else 0.0
    return [replace(w, start=max(w.start, end), end=max(w.end, end)) for w in second]


def _middle(word: Word) -> float:
    return (word.start + word.end) / 2
