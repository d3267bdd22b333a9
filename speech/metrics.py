"""Error counts of hypotheses against references: counts first, rates last.

Texts are compared as they come; normalise both sides first (``speech.tokenizer.normalise_text``)
and name the normaliser beside the number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Kind = Literal["match", "substitution", "deletion", "insertion"]

_MARKS: dict[Kind, str] = {"match": "", "substitution": "S", "deletion": "D", "insertion": "I"}


@dataclass(frozen=True)
class ErrorCounts:
    """Edits that turn a reference into a hypothesis, and the length of the reference.

    Counts of utterances add up to those of their corpus; ``sum_errors`` does so.
    """

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    reference_length: int = 0

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.reference_length + other.reference_length,
        )

    @property
    def errors(self) -> int:
        """S + D + I, the Levenshtein distance."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors over reference length: a fraction, never clamped, so it may exceed 1.

        Over an empty reference it is 0.0 without errors and ``math.inf`` with insertions: words
        heard in silence are infinitely many times what was said, and no finite number is true.
        """
        if self.reference_length == 0:
            return math.inf if self.errors else 0.0
        return self.errors / self.reference_length


class Edit(NamedTuple):
    """One column of an alignment; the side that has nothing there is None."""

    kind: Kind
    reference: str | None
    hypothesis: str | None


def sum_errors(counts: Iterable[ErrorCounts]) -> ErrorCounts:
    """The counts of a corpus; those of no utterances are all zero."""
    return sum(counts, start=ErrorCounts())


def word_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """Error counts over the words of two texts, split at whitespace; their rate is the WER."""
    return count_errors(align(reference.split(), hypothesis.split()))


def character_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """Error counts over the characters of two texts, spaces included; their rate is the CER."""
    return count_errors(align(reference, hypothesis))


def count_errors(edits: Iterable[Edit]) -> ErrorCounts:
    """The counts of an alignment."""
    kinds = [edit.kind for edit in edits]
    return ErrorCounts(
        substitutions=kinds.count("substitution"),
        deletions=kinds.count("deletion"),
        insertions=kinds.count("insertion"),
        reference_length=len(kinds) - kinds.count("insertion"),
    )


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Edit]:
    """A cheapest alignment (Levenshtein 1966, all edits cost 1), in reading order.

    Among the cheapest ones it has the fewest substitutions, that is the most matches, which fixes
    all three counts. Where the place of an edit is still open, the walk back from the two ends
    takes a match or substitution first, then a deletion, then an insertion.
    Two bits a cell are kept: 10,000 words against 10,000 take 25 MB and one to two seconds.
    """
    diagonal, deletion = _optimal_moves(*_as_integers(reference, hypothesis))
    edits: list[Edit] = []
    i, j = len(reference), len(hypothesis)
    while i > 0 or j > 0:
        if i > 0 and j > 0 and _bit(diagonal, i, j):
            i, j = i - 1, j - 1
            same = reference[i] == hypothesis[j]
            edits.append(Edit("match" if same else "substitution", reference[i], hypothesis[j]))
        elif i > 0 and (j == 0 or _bit(deletion, i, j)):
            i -= 1
            edits.append(Edit("deletion", reference[i], None))
        else:
            j -= 1
            edits.append(Edit("insertion", None, hypothesis[j]))
    edits.reverse()
    return edits


def _as_integers(
    reference: Sequence[str], hypothesis: Sequence[str]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Equal strings to equal integers, so that a row is compared at once."""
    numbers: dict[str, int] = {}
    rows = [[numbers.setdefault(unit, len(numbers)) for unit in s] for s in (reference, hypothesis)]
    return np.array(rows[0], dtype=np.int32), np.array(rows[1], dtype=np.int32)


def _optimal_moves(
    reference: NDArray[np.int32], hypothesis: NDArray[np.int32]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Bit (i-1, j-1): may cell (i, j) of the distance table be reached diagonally; by deletion?"""
    # One edit outweighs all the substitutions there can be, each of which weighs one more.
    edit = 1 + min(len(reference), len(hypothesis))
    insertions = np.arange(len(hypothesis) + 1, dtype=np.int64) * edit
    width = (len(hypothesis) + 7) // 8
    diagonal = np.empty((len(reference), width), dtype=np.uint8)
    deletion = np.empty((len(reference), width), dtype=np.uint8)
    above = insertions
    for i, unit in enumerate(reference):
        by_diagonal = above[:-1] + (hypothesis != unit) * (edit + 1)
        by_deletion = above + edit
        row = by_deletion.copy()
        np.minimum(row[1:], by_diagonal, out=row[1:])
        # Insertions run along the row: row[j] = min over k <= j of row[k] + (j - k) * edit.
        row = np.minimum.accumulate(row - insertions) + insertions
        diagonal[i] = np.packbits(row[1:] == by_diagonal)
        deletion[i] = np.packbits(row[1:] == by_deletion[1:])
        above = row
    return diagonal, deletion


def _bit(table: NDArray[np.uint8], i: int, j: int) -> bool:
    byte, bit = divmod(j - 1, 8)
    return bool(table[i - 1, byte] & (0x80 >> bit))


def render_alignment(edits: Sequence[Edit], width: int = 80) -> str:
    """An alignment as REF, HYP and mark lines (S, D, I), wrapped into blocks of ``width`` columns.

    Stars stand where a side has nothing. A word wider than a line stands alone on it.
    """
    columns = [(edit.reference, edit.hypothesis, _MARKS[edit.kind]) for edit in edits]
    return render_columns(("REF:", "HYP:", "    "), columns, width)


def render_columns(
    labels: Sequence[str], columns: Iterable[Sequence[str | None]], width: int = 80
) -> str:
    """Columns of one cell a label as labelled lines, wrapped as ``render_alignment`` does."""
    blocks: list[str] = []
    lines = list(labels)
    for column in columns:
        cells = _cells(column)
        if lines != list(labels) and len(lines[0]) + 1 + len(cells[0]) > width:
            blocks.append(_finish_block(lines))
            lines = list(labels)
        lines = [f"{line} {cell}" for line, cell in zip(lines, cells, strict=True)]
    return "\n\n".join([*blocks, _finish_block(lines)])


def _cells(column: Sequence[str | None]) -> list[str]:
    size = max(1, *(len(cell or "") for cell in column))
    return [("*" * size if cell is None else cell).ljust(size) for cell in column]


def _finish_block(lines: list[str]) -> str:
    return "\n".join(line.rstrip() for line in lines)
