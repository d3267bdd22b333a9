"""Texts for language models: one sentence a line, normalised, words as ids."""

from __future__ import annotations

import gzip
import json
import lzma
from array import array
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from speech.errors import LanguageModelError, reason_of
from speech.tokenizer import is_plain, normalise_text

Bar = Callable[[str, float], AbstractContextManager[Callable[[float], None]]]
END_OF_SENTENCE = -1  # in the ids of a text
_LINES_PER_ADVANCE = 5000


def no_bar(label: str, total: float) -> AbstractContextManager[Callable[[float], None]]:
    """A progress bar that shows nothing."""
    return nullcontext(lambda amount: None)


def read_sentences(path: Path, bar: Bar = no_bar) -> Iterator[list[str]]:
    """The normalised words of each line of a text; lines without words are passed over.

    The text is plain, ``.xz`` or ``.gz``; of a manifest (``.jsonl``) each line's ``text`` counts.
    Equal to ``normalise_text(line).split()``, but what stands between two spaces is normalised
    once: in a line of ASCII letters and punctuation nothing in it depends on its neighbours.
    LanguageModelError with ``file:line`` for what is not UTF-8 or not JSON.
    """
    known: dict[str, list[str]] = {}
    for line in _lines(path, bar):
        if not is_plain(line):
            words = normalise_text(line).split()
        else:
            words = []
            for chunk in line.split():
                if chunk not in known:
                    known[chunk] = normalise_text(chunk).split()
                words += known[chunk]
        if words:
            yield words


def _lines(path: Path, bar: Bar) -> Iterator[str]:
    number = 0
    try:
        with open(path, "rb") as raw, bar(f"reading {path.name}", path.stat().st_size) as advance:
            place = 0
            for number, line in enumerate(_opened(path, raw), start=1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                yield _text_of(text, path, number) if path.suffix == ".jsonl" else text
                if number % _LINES_PER_ADVANCE == 0:
                    place, before = raw.tell(), place
                    advance(place - before)
            advance(path.stat().st_size - place)
    except UnicodeDecodeError as error:
        raise LanguageModelError(f"{path}:{number}: not UTF-8 text") from error
    except (OSError, EOFError, lzma.LZMAError, gzip.zlib.error) as error:  # type: ignore[attr-defined]
        raise LanguageModelError(f"{path}: cannot be read: {reason_of(error)}") from error


def _opened(path: Path, raw: BinaryIO) -> BinaryIO:
    if path.suffix == ".xz":
        return cast(BinaryIO, lzma.open(raw))
    return cast(BinaryIO, gzip.open(raw)) if path.suffix == ".gz" else raw


def _text_of(line: str, path: Path, number: int) -> str:
    if not line.strip():
        return ""
    try:
        text = json.loads(line)["text"]
    except (json.JSONDecodeError, KeyError, TypeError, IndexError) as error:
        raise LanguageModelError(f"{path}:{number}: needs a JSON object with a text") from error
    return str(text)


@dataclass(frozen=True)
class Text:
    """The words of one text as ids in reading order, each sentence closed by END_OF_SENTENCE."""

    path: Path
    ids: NDArray[np.int32]

    @property
    def sentences(self) -> int:
        """Number of sentences that hold a word."""
        return int((self.ids == END_OF_SENTENCE).sum())


class WordList:
    """Gives words ids in the order of their first appearance, over all texts."""

    def __init__(self) -> None:
        self._id_of: dict[str, int] = {}

    @property
    def words(self) -> list[str]:
        """The words in the order of their ids."""
        return list(self._id_of)

    def read(self, path: Path, bar: Bar = no_bar) -> Text:
        """The text as ids. LanguageModelError if it holds no words."""
        id_of = self._id_of
        ids = array("i")
        for words in read_sentences(path, bar):
            ids.extend([id_of.setdefault(word, len(id_of)) for word in words])
            ids.append(END_OF_SENTENCE)
        if not ids:
            raise LanguageModelError(f"{path}: holds no words after normalisation")
        return Text(path, np.frombuffer(ids, dtype=np.int32))
