"""Texts as bytes: what is kept, what is held out, which lines an epoch takes."""

from __future__ import annotations

import dataclasses
import lzma
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import speech.char_text
from speech.char_config import TextConfig
from speech.char_text import TextSet, cached_lines, read_lines
from speech.errors import LanguageModelError
from speech.tokenizer import CharTokenizer

TOKENIZER = CharTokenizer()
TEXT = "It was the best of times.\n\nIt's 5 o'clock.\nПривет!\n a  b\n"


def write_words(path: Path, count: int, letter: str = "a") -> Path:
    """Lines of different lengths, no two alike."""
    path.write_text("".join(f"{letter * (1 + n % 7)} {number(n)}\n" for n in range(count)))
    return path


def number(n: int) -> str:
    return "".join("bcdefghijk"[int(digit)] for digit in str(n))


def text_set(path: Path, **settings: object) -> TextSet:
    config = dataclasses.replace(TextConfig(train={str(path): 1.0}, dev_share=0.0), **settings)  # type: ignore[arg-type]
    return TextSet(config, Path(), TOKENIZER, seed=1)


def texts_of(texts: TextSet, lines: list[int]) -> list[str]:
    return [TOKENIZER.decode(texts.tokens(line).tolist()) for line in lines]


def test_lines_are_normalised_and_foreign_ones_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    lines = read_lines(tmp_path / "a.txt", TOKENIZER)
    expected = ["it was the best of times", "it's five o'clock", "a b"]
    assert lines.lengths.tolist() == [len(line) for line in expected]
    assert TOKENIZER.decode(lines.tokens.tolist()) == "".join(expected)
    assert lines.left_out == 1
    assert lines.tokens.dtype == np.uint8


def test_a_cached_text_is_the_same_and_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = tmp_path / "a.txt.xz", tmp_path / "cache"
    path.write_bytes(lzma.compress(TEXT.encode()))
    first = cached_lines(path, TOKENIZER, cache)
    with monkeypatch.context() as patched:
        patched.setattr(speech.char_text, "read_lines", lambda *_: pytest.fail("read again"))
        again = cached_lines(path, TOKENIZER, cache)
    for name in ("tokens", "starts", "checksums"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert first.left_out == again.left_out == 1
    path.write_bytes(lzma.compress(b"Another text, and longer than it was before it was changed."))
    assert len(cached_lines(path, TOKENIZER, cache).checksums) == 1


def test_what_cannot_be_trained_on_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n...\n")
    with pytest.raises(LanguageModelError, match=r"empty\.txt: holds no words"):
        text_set(tmp_path / "empty.txt")
    with pytest.raises(LanguageModelError, match=r"gone\.txt: cannot be read: no such file"):
        text_set(tmp_path / "gone.txt", cache=str(tmp_path / "cache"))
    with pytest.raises(LanguageModelError, match="no text to train on"):
        TextSet(TextConfig(), Path(), TOKENIZER, 1)
    (tmp_path / "long.txt").write_text("a long line\n")
    with pytest.raises(LanguageModelError, match="no line to train on: all are held out or longer"):
        text_set(tmp_path / "long.txt", max_characters=5)


def test_held_out_lines_are_chosen_by_their_text_and_never_trained_on(tmp_path: Path) -> None:
    one = write_words(tmp_path / "one.txt", 400)
    both = tmp_path / "both.txt"  # the same lines the other way round, with copies
    both.write_text("".join(reversed(one.read_text().splitlines(keepends=True))) * 2)
    first, second = (text_set(path, dev_share=0.1) for path in (one, both))
    held_out = texts_of(first, first.dev.tolist())
    assert 20 < len(held_out) < 60
    assert Counter(texts_of(second, second.dev.tolist())) == Counter(held_out * 2)
    trained = {line for batch in second.epoch_batches(100, 0) for line in texts_of(second, batch)}
    assert not trained & set(held_out)
    assert len(trained) + len(held_out) == 400
    more = text_set(one, dev_share=0.2)
    assert set(held_out) < set(texts_of(more, more.dev.tolist()))


def test_an_epoch_takes_each_line_once_in_batches_within_the_budget(tmp_path: Path) -> None:
    texts = text_set(write_words(tmp_path / "a.txt", 50))
    batches = texts.epoch_batches(60, 0)
    assert sorted(line for batch in batches for line in batch) == list(range(50))
    costs = [len(batch) * int((texts.lengths[batch] + 1).max()) for batch in batches]
    assert max(costs) <= 60
    assert costs[0] == max(costs)  # what will not fit fails at once
    assert texts.epoch_batches(60, 1) == texts.epoch_batches(60, 1) != batches


def test_shares_of_a_text_take_turns(tmp_path: Path) -> None:
    path = write_words(tmp_path / "a.txt", 40)
    texts = text_set(path, train={str(path): 0.3})
    seen = [line for epoch in range(10) for batch in texts.epoch_batches(99, epoch)
            for line in batch]  # fmt: skip
    assert set(Counter(seen).values()) == {3}  # ten times 0.3 passes
    first = [line for epoch in range(3) for batch in texts.epoch_batches(99, epoch)
             for line in batch]  # fmt: skip
    assert len(set(first)) == len(first) == 36


def test_several_texts_have_shares_of_their_own(tmp_path: Path) -> None:
    a, b = write_words(tmp_path / "a.txt", 30), write_words(tmp_path / "b.txt", 20, "z")
    texts = text_set(a, train={str(a): 0.5, str(b): 2.0})
    drawn = texts_of(texts, [line for batch in texts.epoch_batches(99, 0) for line in batch])
    assert sum(text.startswith("a") for text in drawn) == 15
    assert Counter(Counter(text for text in drawn if text.startswith("z")).values()) == {2: 20}
    assert texts.characters == int(texts.lengths.sum())


def test_long_lines_are_left_out_of_training_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("short\na long line\n")
    texts = text_set(tmp_path / "a.txt", max_characters=5)
    assert texts_of(texts, texts.epoch_batches(99, 0)[0]) == ["short"]
    assert texts.left_out == {
        "characters outside the alphabet": 0, "longer than 5 characters": 1,
    }  # fmt: skip
