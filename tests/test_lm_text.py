"""Texts for language models: read from any file, normalised as everywhere, ids by word."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech.errors import LanguageModelError
from speech.lm_text import END_OF_SENTENCE, WordList, read_sentences
from speech.tokenizer import normalise_text

LINES = [
    "Mr. Bell's dog -- it cost $3.50!",
    "",
    "  ",
    "'Tis St. Ives, 1845.",
    "naïve\tcafé",
    "O.K.",
]


def normalised(lines: list[str]) -> list[list[str]]:
    return [words for line in lines if (words := normalise_text(line).split())]


@pytest.mark.parametrize("suffix", [".txt", ".txt.gz", ".txt.xz", ".jsonl"])
def test_every_kind_of_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"text{suffix}"
    if suffix == ".jsonl":
        data = "".join(json.dumps({"text": line}) + "\n" for line in LINES).encode() + b"\n"
    else:
        data = ("\ufeff" + "\n".join(LINES)).encode()
    compress = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
    path.write_bytes(compress(data))
    assert list(read_sentences(path)) == normalised(LINES)


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet=" 'abmrst.,-!\"?AMS\n\t5$é", max_size=40))
def test_cached_words_are_those_of_the_normaliser(tmp_path_factory: object, line: str) -> None:
    path = tmp_path_factory.getbasetemp() / "line.txt"  # type: ignore[attr-defined]
    path.write_text(line, "utf-8", newline="")
    assert list(read_sentences(path)) == normalised(line.split("\n"))


def test_ids(tmp_path: Path) -> None:
    words = WordList()
    (tmp_path / "a").write_text("one two one\n\nthree\n")
    (tmp_path / "b").write_text("two\n")
    text = words.read(tmp_path / "a")
    assert text.ids.tolist() == [0, 1, 0, END_OF_SENTENCE, 2, END_OF_SENTENCE]
    assert text.sentences == 2
    assert words.read(tmp_path / "b").ids.tolist() == [1, END_OF_SENTENCE]
    assert words.words == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("text.txt", b"", "text.txt: holds no words after normalisation"),
        ("text.txt", b"...\n\n!\n", "text.txt: holds no words after normalisation"),
        ("text.txt", b"fine\nbad \xff\n", "text.txt:2: not UTF-8 text"),
        ("text.jsonl", b'{"text": "fine"}\n{"words": 1}\n', "text.jsonl:2: needs a JSON object"),
        ("text.jsonl", b"fine\n", "text.jsonl:1: needs a JSON object"),
        ("text.gz", b"fine\n", "text.gz: cannot be read"),
        ("text.xz", b"fine\n", "text.xz: cannot be read"),
    ],
)
def test_bad_text_is_one_line(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(LanguageModelError, match=message) as error:
        WordList().read(tmp_path / name)
    assert "\n" not in str(error.value)


def test_missing_text(tmp_path: Path) -> None:
    with pytest.raises(LanguageModelError, match=r"none\.txt: cannot be read: no such file"):
        WordList().read(tmp_path / "none.txt")
