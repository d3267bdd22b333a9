"""N-gram language models as tables, and the ARPA files that everybody exchanges them in.

An ARPA file lists n-grams by order, each with the log10 of its probability and, below the highest
order, of its back-off weight. In memory logs are natural.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from speech.errors import LanguageModelError, reason_of

UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"
UNKNOWN_ID = 0
ABSENT_LOG10 = -100.0  # of <unk> where a file has none, as KenLM does
_LOG_10 = math.log(10.0)
_LINES_PER_WRITE = 50_000


@dataclass(frozen=True)
class NgramLevel:
    """The N n-grams of one order n: word ids (N, n), natural logs (N,), in any order."""

    ids: NDArray[np.int32]
    log_probs: NDArray[np.float32]
    backoffs: NDArray[np.float32]


@dataclass(frozen=True)
class NgramTables:
    """A back-off model as plain tables; word 0 is ``<unk>``, level 0 lists the words in order.

    ``source(level, row)`` says where an n-gram stands (``file:line``), if a text file holds them.
    """

    words: list[str]
    levels: list[NgramLevel]
    source: Callable[[int, int], str] | None = None

    @property
    def counts(self) -> list[int]:
        """Number of n-grams of each order."""
        return [len(level.ids) for level in self.levels]


def is_arpa(path: Path) -> bool:
    """Whether a file is named as ARPA text: ``.arpa``, ``.arpa.gz``, ``.lm``, ``.lm.gz``."""
    return path.name.removesuffix(".gz").endswith((".arpa", ".lm"))


# --- Reading --------------------------------------------------------------------------------------


def read_arpa(path: str | Path, advance: Callable[[float], None] = lambda _: None) -> NgramTables:
    """The tables of an ARPA file, gzipped if its name ends in ``.gz``.

    ``advance`` is told the number of n-grams just read. Strict: LanguageModelError names the file
    and line of a wrong count, a bad number, an unknown word, a word given twice, a missing ``<s>``
    or ``</s>`` or ``\\end\\``. Without ``<unk>`` it gets a log10 of -100, as KenLM gives it.
    """
    path = Path(path)
    with _opened(path) as file:
        return _Reader(path, file, advance).read()


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    opener = cast(Callable[..., BinaryIO], gzip.open if path.name.endswith(".gz") else open)
    try:
        with opener(path, "rb") as file:
            yield file
    except (OSError, EOFError, gzip.zlib.error) as error:  # type: ignore[attr-defined]
        raise LanguageModelError(f"{path}: cannot be read: {reason_of(error)}") from error


class _Reader:
    """Goes through an ARPA file once, line by line."""

    def __init__(self, path: Path, file: BinaryIO, advance: Callable[[float], None]) -> None:
        self._path = path
        self._file = file
        self._advance = advance
        self._line = 0  # number of the last line read
        self._id_of: dict[bytes, int] = {}

    def read(self) -> NgramTables:
        counts = self._read_counts()
        first_lines = []
        levels = []
        for order, count in enumerate(counts, start=1):
            self._read_heading(b"\\%d-grams:" % order)
            first_lines.append(self._line + 1)
            levels.append(self._read_level(order, count, order == len(counts)))
            self._advance(count)
        self._read_heading(b"\\end\\")
        words = self._decode_words()
        for name in (BEGIN, END):
            if name not in words:
                raise LanguageModelError(f"{self._path}: holds no {name}; a model needs it")
        tables = NgramTables(
            words, levels, lambda level, row: f"{self._path}:{first_lines[level] + row}"
        )
        return _unknown_first(tables)

    def _fail(self, message: str) -> LanguageModelError:
        return LanguageModelError(f"{self._path}:{self._line}: {message}")

    def _next(self) -> bytes:
        self._line += 1
        return self._file.readline()

    def _next_filled(self, wanted: str) -> bytes:
        """The next line that is not blank, without spaces around it."""
        while line := self._next():
            if line.strip():
                return line.strip()
        raise self._fail(f"the file ends where {wanted} should stand")

    def _read_counts(self) -> list[int]:
        while self._next_filled("\\data\\") != b"\\data\\":  # a file may begin with remarks
            pass
        counts: list[int] = []
        while (line := self._next().strip()).startswith(b"ngram"):
            order, _, count = line.removeprefix(b"ngram").partition(b"=")
            if order.strip() != b"%d" % (len(counts) + 1) or not count.strip().isdigit():
                raise self._fail(f"needed 'ngram {len(counts) + 1}=COUNT', got {_shown(line)}")
            counts.append(int(count))
        if line or not counts:
            raise self._fail(f"needed a line 'ngram ORDER=COUNT', got {_shown(line)}")
        return counts

    def _read_heading(self, heading: bytes) -> None:
        line = self._next_filled(heading.decode())
        if line != heading:
            raise self._fail(
                f"needed {heading.decode()} here, got {_shown(line)}: does the count under "
                f"\\data\\ fit, and is the section there?"
            )

    def _read_level(self, order: int, count: int, is_highest: bool) -> NgramLevel:
        ids = np.empty(count * order, dtype=np.int32)
        numbers = np.zeros((count, 2))
        first = self._line + 1
        for row, line in enumerate(islice(self._file, count)):
            self._line += 1
            fields = line.split()
            if not order < len(fields) < order + 3:
                raise self._wrong_fields(fields, order, row, count)
            try:
                numbers[row, 0] = float(fields[0])
                if len(fields) == order + 2:
                    numbers[row, 1] = float(fields[-1])
            except ValueError:
                raise self._fail(f"needed numbers around the n-gram, got {_shown(line)}") from None
            ids[row * order : (row + 1) * order] = self._ids(fields[1 : order + 1], order)
        if self._line - first + 1 < count:
            self._line += 1
            raise self._fail(f"the file ends after {self._line - first} of {count} {order}-grams")
        self._check_numbers(numbers, first, is_highest)
        logs = (numbers * _LOG_10).astype(np.float32)
        return NgramLevel(ids.reshape(count, order), logs[:, 0].copy(), logs[:, 1].copy())

    def _wrong_fields(
        self, fields: list[bytes], order: int, row: int, count: int
    ) -> LanguageModelError:
        if not fields or fields[0].startswith(b"\\"):
            return self._fail(f"only {row} {order}-grams, but \\data\\ counts {count}")
        return self._fail(
            f"needed a probability, {order} words and perhaps a back-off, got {len(fields)} fields"
        )

    def _ids(self, words: list[bytes], order: int) -> list[int]:
        if order == 1:
            if words[0] in self._id_of:
                raise self._fail(f"the word {_shown(words[0])} stands here a second time")
            self._id_of[words[0]] = len(self._id_of)
        try:
            return [self._id_of[word] for word in words]
        except KeyError as error:
            raise self._fail(f"{_shown(error.args[0])} is not among the 1-grams") from None

    def _check_numbers(self, numbers: NDArray[np.float64], first: int, is_highest: bool) -> None:
        log_probs, backoffs = numbers.T
        for bad, message in (
            (~np.isfinite(numbers).all(axis=1), "needed finite numbers, got"),
            (log_probs > 0, "needed the log10 of a probability, 0 or less, got"),
            (is_highest & (backoffs != 0), "the highest order has no back-off, got"),
        ):
            if bad.any():
                row = int(bad.argmax())
                self._line = first + row
                raise self._fail(f"{message} {log_probs[row]:g} and {backoffs[row]:g}")

    def _decode_words(self) -> list[str]:
        try:
            return [word.decode() for word in self._id_of]
        except UnicodeDecodeError as error:
            raise LanguageModelError(
                f"{self._path}: the word {_shown(error.object)} is not UTF-8"
            ) from error


def _unknown_first(tables: NgramTables) -> NgramTables:
    """The tables with ``<unk>`` as word 0, whatever its place and case in the file."""
    words, (ones, *rest), source = tables.words, tables.levels, tables.source
    place = next((i for i, word in enumerate(words) if word in (UNKNOWN, UNKNOWN.upper())), None)
    log_probs, backoffs = ones.log_probs, ones.backoffs
    if place is None:
        place = len(words)
        words = [*words, UNKNOWN]
        log_probs = np.append(log_probs, np.float32(ABSENT_LOG10 * _LOG_10))
        backoffs = np.append(backoffs, np.float32(0))
    order = np.argsort(np.arange(len(words)) != place, kind="stable")
    new_id = np.empty(len(words), dtype=np.int32)
    new_id[order] = np.arange(len(words))
    first = NgramLevel(
        np.arange(len(words), dtype=np.int32)[:, None], log_probs[order], backoffs[order]
    )
    rest = [NgramLevel(new_id[level.ids], level.log_probs, level.backoffs) for level in rest]
    assert source is not None
    return NgramTables(
        [UNKNOWN, *(words[i] for i in order[1:])],
        [first, *rest],
        lambda level, row: source(level, row if level else int(order[row])),
    )


def _shown(text: bytes) -> str:
    return repr(text.strip()[:60].decode("utf-8", "replace"))


# --- Writing --------------------------------------------------------------------------------------


def write_arpa(
    path: str | Path, tables: NgramTables, advance: Callable[[float], None] = lambda _: None
) -> None:
    """Write tables as ARPA text, gzipped if the name ends in ``.gz``: seven decimals of log10."""
    path = Path(path)
    opener = cast(Callable[..., BinaryIO], gzip.open if path.name.endswith(".gz") else open)
    words = np.array([word.encode() for word in tables.words], dtype=object)
    with opener(path, "wb") as file:
        counts = "".join(f"ngram {n}={c}\n" for n, c in enumerate(tables.counts, start=1))
        file.write(f"\\data\\\n{counts}".encode())
        for order, level in enumerate(tables.levels, start=1):
            file.write(b"\n\\%d-grams:\n" % order)
            for lines in _blocks(_arpa_lines(level, words, order == len(tables.levels))):
                file.write(b"".join(lines))
                advance(len(lines))
        file.write(b"\n\\end\\\n")


def _arpa_lines(level: NgramLevel, words: NDArray[np.object_], is_highest: bool) -> Iterator[bytes]:
    for start in range(0, len(level.ids), _LINES_PER_WRITE):
        block = slice(start, start + _LINES_PER_WRITE)
        ngrams = (b" ".join(row) for row in words[level.ids[block]].tolist())
        log_probs = (level.log_probs[block].astype(np.float64) / _LOG_10).tolist()
        backoffs = (level.backoffs[block].astype(np.float64) / _LOG_10).tolist()
        for ngram, log_prob, backoff in zip(ngrams, log_probs, backoffs, strict=True):
            if is_highest:
                yield b"%.7f\t%b\n" % (log_prob, ngram)
            else:
                yield b"%.7f\t%b\t%.7f\n" % (log_prob, ngram, backoff)


def _blocks(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    lines = iter(lines)
    while block := list(islice(lines, _LINES_PER_WRITE)):
        yield block
