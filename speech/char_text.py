"""Texts as bytes for the character language model: a token a byte, and where each line ends.

A hundred million characters are a hundred megabytes, whatever their lines.
"""

from __future__ import annotations

import hashlib
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speech.array_file import load_arrays, save_arrays
from speech.batching import batches_of_like_size, costliest_first
from speech.char_config import TextConfig
from speech.errors import LanguageModelError, reason_of
from speech.lm_text import Bar, no_bar, read_sentences
from speech.tokenizer import NORMALISER, CharTokenizer

_MAGIC, _VERSION, _KIND = b"spchtext", 1, "a cached text"
_FOREIGN = 255  # a byte that is no token
_CHECKSUMS = 1 << 32


@dataclass(frozen=True)
class Lines:
    """The lines of one text, normalised, that the alphabet can spell."""

    tokens: NDArray[np.uint8]  # all lines, one after the other
    starts: NDArray[np.int64]  # of each line in `tokens`, and the end of the last
    checksums: NDArray[np.uint32]  # CRC-32 of each line: the same wherever it stands
    left_out: int  # lines with a character outside the alphabet

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Characters of each line."""
        return np.diff(self.starts)

    def rows(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the tokens of each line."""
        for start, end in pairwise(self.starts.tolist()):
            yield self.tokens[start:end]

    def is_dev(self, share: float) -> NDArray[np.bool_]:
        """Which lines are held out: about a `share`, by their text, so that no copy is trained on.

        A line that is held out at some share is held out at every larger one.
        """
        return self.checksums < share * _CHECKSUMS


def read_lines(path: Path, tokenizer: CharTokenizer, bar: Bar = no_bar) -> Lines:
    """Read a text, a sentence a line. LanguageModelError if it is unreadable or holds no words."""
    table = bytes(
        tokenizer.encode(chr(code))[0] if chr(code) in tokenizer.alphabet else _FOREIGN
        for code in range(256)
    )
    tokens, starts, checksums, left_out = bytearray(), array("q", [0]), array("I"), 0
    for words in read_sentences(path, bar):
        line = " ".join(words).encode("latin-1", "replace").translate(table)
        if _FOREIGN in line:
            left_out += 1
            continue
        tokens += line
        starts.append(len(tokens))
        checksums.append(zlib.crc32(line))
    if not tokens:
        raise LanguageModelError(f"{path}: holds no words after normalisation")
    return Lines(
        np.frombuffer(tokens, np.uint8),
        np.frombuffer(starts, np.int64),
        np.frombuffer(checksums, np.uint32),
        left_out,
    )


def cached_lines(
    path: Path, tokenizer: CharTokenizer, cache: Path | None, bar: Bar = no_bar
) -> Lines:
    """Return `read_lines`, from a file in `cache` where the same text was read before."""
    if cache is None:
        return read_lines(path, tokenizer, bar)
    stored = cache / _key(path, tokenizer)
    if stored.exists():
        fields, arrays = load_arrays(stored, _MAGIC, _VERSION, _KIND)
        return Lines(arrays["tokens"], arrays["starts"], arrays["checksums"], fields["left_out"])
    lines = read_lines(path, tokenizer, bar)
    cache.mkdir(parents=True, exist_ok=True)
    arrays = {"tokens": lines.tokens, "starts": lines.starts, "checksums": lines.checksums}
    save_arrays(stored, _MAGIC, {"version": _VERSION, "left_out": lines.left_out}, arrays)
    return lines


def _key(path: Path, tokenizer: CharTokenizer) -> str:
    """Name a text by its path, size, time of change, and what it is turned into."""
    try:
        state = path.stat()
    except OSError as error:
        raise LanguageModelError(f"{path}: cannot be read: {reason_of(error)}") from error
    identity = (path.resolve(), state.st_size, state.st_mtime_ns, NORMALISER, tokenizer.alphabet)
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:32] + ".text"


class TextSet:
    """The lines of several texts, numbered through: what is trained on, and what is held out."""

    def __init__(
        self, config: TextConfig, directory: Path, tokenizer: CharTokenizer, seed: int,
        bar: Bar = no_bar,
    ) -> None:  # fmt: skip
        """Read the configured texts; a relative ``root`` starts at `directory`."""
        if not config.train:
            raise LanguageModelError("no text to train on in [data.train]")
        cache = directory / config.cache if config.cache else None
        paths = [directory / config.root / name for name in config.train]
        self._texts = [cached_lines(path, tokenizer, cache, bar) for path in paths]
        self._shares = list(config.train.values())
        self._first = np.cumsum([0, *(len(text.checksums) for text in self._texts)])
        self._seed = seed
        self.lengths = np.concatenate([text.lengths for text in self._texts])
        is_dev = np.concatenate([text.is_dev(config.dev_share) for text in self._texts])
        is_long = self.lengths > config.max_characters
        self.dev = np.flatnonzero(is_dev)
        self._is_used = ~is_dev & ~is_long
        self.left_out = {
            "characters outside the alphabet": sum(text.left_out for text in self._texts),
            f"longer than {config.max_characters} characters": int((is_long & ~is_dev).sum()),
        }
        if not self._is_used.any():
            raise LanguageModelError(
                f"{', '.join(map(str, paths))}: no line to train on: all are held out or longer "
                f"than {config.max_characters} characters"
            )

    @property
    def characters(self) -> int:
        """Characters of the lines that are trained on, without their ends."""
        return int(self.lengths[self._is_used].sum())

    def tokens(self, line: int) -> NDArray[np.uint8]:
        """Return the tokens (L,) of a line."""
        text = int(np.searchsorted(self._first, line, side="right")) - 1
        within = line - self._first[text]
        start, end = self._texts[text].starts[within : within + 2]
        return self._texts[text].tokens[start:end]

    def rows(self, lines: Sequence[int]) -> list[Tensor]:
        """Return the tokens of some lines as int64 tensors."""
        return [torch.from_numpy(self.tokens(line).astype(np.int64)) for line in lines]

    def epoch_batches(self, batch_characters: int, epoch: int) -> list[list[int]]:
        """Return the lines of an epoch's batches, each within a number of characters when padded.

        Each text's lines come in an order of their own, again and again: an epoch goes on where
        the one before it stopped. Lines of like length share a batch; epoch 0 begins with the
        largest batch.
        """
        lines = np.concatenate([self._drawn(text, epoch) for text in range(len(self._texts))])
        sizes = self.lengths[lines] + 1
        random = np.random.default_rng([self._seed, epoch])
        batches = batches_of_like_size(sizes, batch_characters, random)
        if epoch == 0:
            batches = costliest_first(batches, sizes)
        return [lines[batch].tolist() for batch in batches]

    def _drawn(self, text: int, epoch: int) -> NDArray[np.int64]:
        """Return the lines of one text that take part in an epoch."""
        first, end = self._first[text : text + 2]
        lines: NDArray[np.int64] = first + np.flatnonzero(self._is_used[first:end])
        if not len(lines):
            return lines
        order: NDArray[np.int64] = np.random.default_rng([self._seed, text]).permutation(lines)
        begin, stop = (round(self._shares[text] * len(lines) * e) for e in (epoch, epoch + 1))
        drawn: NDArray[np.int64] = order.take(np.arange(begin, stop), mode="wrap")
        return drawn
