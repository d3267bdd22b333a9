"""The n-gram trie: scores by pencil and by KenLM, its binary forms, and files that are refused."""

from __future__ import annotations

import gzip
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from speech.array_file import save_arrays
from speech.errors import LanguageModelError
from speech.language_model import MAGIC, NgramModel, find_language_model

# "b c" is a context whose last word "c" is one too; the 3-gram "a b c" has no suffix "b c" in OPEN.
ARPA = """\\data\\
ngram 1=6
ngram 2=5
ngram 3=2

\\1-grams:
-1.0\t<unk>
0\t<s>\t-0.5
-0.8\t</s>
-0.6\ta\t-0.3
-0.7\tb\t-0.2
-0.9\tc\t-0.1

\\2-grams:
-0.3\t<s> a\t-0.25
-0.4\ta b\t-0.15
-0.45\tb c\t-0.05
-0.5\tc a
-0.35\tc </s>

\\3-grams:
-0.2\t<s> a b
-0.1\ta b c

\\end\\
"""
OPEN = ARPA.replace("ngram 2=5", "ngram 2=4").replace("-0.45\tb c\t-0.05\n", "")


def write(path: Path, text: str) -> Path:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, "utf-8")
    return path


@pytest.fixture
def arpa(tmp_path: Path) -> Path:
    return write(tmp_path / "tiny.arpa", ARPA)


def log10_probs(model: NgramModel, sentence: str) -> list[float]:
    scores = model.score_ids(model.encode([sentence.split()]))
    return [score / math.log(10) for score in scores.tolist()]


def test_scores_by_pencil(arpa: Path) -> None:
    model = NgramModel.load(arpa)
    assert model.order == 3
    assert model.counts == (6, 5, 2)
    assert model.words[0] == "<unk>"
    assert model.word_id("zebra") == 0
    # a after <s>; b after <s> a; c after a b; </s> after b c backs off to c </s>
    assert log10_probs(model, "a b c") == pytest.approx([-0.3, -0.2, -0.1, -0.05 - 0.35])
    # b backs off from <s>; b b: from b to a unigram; unknown after b, </s> after unknown
    assert log10_probs(model, "b b zebra") == pytest.approx(
        [-0.5 - 0.7, -0.2 - 0.7, -0.2 - 1.0, -0.8]
    )
    assert model.sentence_log_prob(["a", "b", "c"]) == pytest.approx(-1.0 * math.log(10))


def test_stepwise_equals_whole(arpa: Path) -> None:
    model = NgramModel.load(arpa)
    state, scores = model.begin_state, []
    for word in [*(model.word_id(w) for w in ["a", "b", "c", "a", "x"]), model.end_id]:
        score, state = model.score(state, word)
        scores.append(score / math.log(10))
    assert scores == pytest.approx(log10_probs(model, "a b c a x"))


def test_missing_suffix_backs_off_past_it(tmp_path: Path) -> None:
    model = NgramModel.load(write(tmp_path / "open.arpa", OPEN))
    # After a b c the context b c does not exist: the next is c, at no cost.
    assert log10_probs(model, "a b c a") == pytest.approx([-0.3, -0.2, -0.1, -0.5, -0.3 - 0.8])


def test_states_are_shared_where_the_future_is_the_same(arpa: Path) -> None:
    model = NgramModel.load(arpa)
    c = model.word_id("c")
    _, after_c = model.score(0, c)
    _, after_ca = model.score(after_c, model.word_id("a"))
    _, after_a = model.score(0, model.word_id("a"))
    assert after_ca == after_a  # the 2-gram "c a" has no children and no back-off
    _, after_unknown = model.score(after_c, 0)
    assert after_unknown == 0


def texts(alphabet: str = "abcx", longest: int = 4) -> list[str]:
    return [
        " ".join(words)
        for length in range(longest + 1)
        for words in itertools.product(alphabet, repeat=length)
    ]


@pytest.mark.parametrize("text", [ARPA, OPEN], ids=["closed", "open"])
@pytest.mark.parametrize("name", ["lm.arpa", "lm.arpa.gz"])
def test_equals_kenlm(tmp_path: Path, text: str, name: str) -> None:
    kenlm = pytest.importorskip("kenlm")
    path = write(tmp_path / name, text)
    ours, theirs = NgramModel.load(path), kenlm.Model(str(path))
    for sentence in texts():
        expected = [score for score, _, _ in theirs.full_scores(sentence)]
        assert log10_probs(ours, sentence) == pytest.approx(expected, abs=1e-5), sentence


def test_binary_is_the_same_model(arpa: Path, tmp_path: Path) -> None:
    model = NgramModel.load(arpa)
    for text, bits in ((ARPA, None), (OPEN, None), (ARPA, 8), (ARPA, 16)):
        model = NgramModel.load(write(tmp_path / "lm.arpa", text))
        model.save(tmp_path / "lm.bin", bits)
        loaded = NgramModel.load(tmp_path / "lm.bin")
        assert loaded.words == model.words
        assert loaded.counts == model.counts
        for ours, theirs in zip(model.arrays, loaded.arrays, strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype
            assert not theirs.flags.writeable


def test_open_model_has_no_compact_form(tmp_path: Path) -> None:
    model = NgramModel.load(write(tmp_path / "open.arpa", OPEN))
    with pytest.raises(LanguageModelError, match=r"open\.arpa.*cannot\s+be stored with 8 or 16"):
        model.save(tmp_path / "lm.bin", bits=8)


def test_without_unknown_and_with_it_elsewhere(tmp_path: Path) -> None:
    without = ARPA.replace("-1.0\t<unk>\n", "").replace("ngram 1=6", "ngram 1=5")
    model = NgramModel.load(write(tmp_path / "without.arpa", without))
    assert model.words[0] == "<unk>"
    assert log10_probs(model, "x")[0] == pytest.approx(-100.5)
    moved = without.replace("ngram 1=5", "ngram 1=6").replace(
        "-0.9\tc\t-0.1\n", "-0.9\tc\t-0.1\n-1.0\t<UNK>\n"
    )
    model = NgramModel.load(write(tmp_path / "moved.arpa", moved))
    assert log10_probs(model, "x a b c") == pytest.approx(
        log10_probs(NgramModel.load(write(tmp_path / "plain.arpa", ARPA)), "x a b c")
    )


def change(old: str, new: str) -> Callable[[str], str]:
    assert old in ARPA
    return lambda text: text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change("ngram 2=5", "ngram 2=6"), r":20: only 5 2-grams, but \\data\\ counts 6"),
        (change("ngram 2=5", "ngram 2=4"), r":19: needed \\3-grams: here, got '-0.35"),
        (change("ngram 3=2", "ngram 4=2"), r":4: needed 'ngram 3=COUNT', got 'ngram 4=2'"),
        (change("ngram 3=2", "ngram 3=x"), ":4: needed 'ngram 3=COUNT'"),
        (change("\\end\\\n", ""), r":25: the file ends where \\end\\ should stand"),
        (change("-0.1\ta b c\n\n\\end\\\n", ""), ":23: the file ends after 1 of 2 3-grams"),
        (change("-0.4\ta b", "-0.x\ta b"), ":16: needed numbers around the n-gram"),
        (change("-0.4\ta b", "nan\ta b"), ":16: needed finite numbers, got nan"),
        (change("-0.4\ta b", "0.4\ta b"), ":16: needed the log10 of a probability, 0 or less"),
        (change("-0.4\ta b", "-0.4\ta x"), ":16: 'x' is not among the 1-grams"),
        (change("-0.4\ta b\t", "-0.4\ta b c\t"), ":16: needed numbers|:16: needed a prob"),
        (change("-0.4\ta b\t-0.15", "-0.4\ta"), ":16: needed a probability, 2 words"),
        (change("-0.7\tb\t", "-0.7\ta\t"), ":11: the word 'a' stands here a second time"),
        (change("-0.5\tc a", "-0.5\ta b"), ":18: the 2-gram 'a b': stands here a second time"),
        (change("-0.1\ta b c", "-0.1\tb b c"), ":23: the 3-gram 'b b c': its beginning is not"),
        (change("-0.1\ta b c", "-0.1\ta b c\t-1"), ":23: the highest order has no back-off"),
        (change("</s>", "<end>"), "is not among the 1-grams"),
        (lambda text: "", r":1: the file ends where \\data\\ should stand"),
        (lambda text: "some text\n", r":2: the file ends where \\data\\ should stand"),
    ],
)
def test_bad_arpa_is_one_line_with_its_place(
    tmp_path: Path, spoil: Callable[[str], str], message: str
) -> None:
    path = write(tmp_path / "bad.arpa", spoil(ARPA))
    with pytest.raises(LanguageModelError, match=message) as error:
        NgramModel.load(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_sentence_ends_are_needed(tmp_path: Path) -> None:
    text = "\\data\\\nngram 1=2\n\n\\1-grams:\n-1\t<s>\n-1\ta\n\n\\end\\\n"
    with pytest.raises(LanguageModelError, match="holds no </s>"):
        NgramModel.load(write(tmp_path / "bad.arpa", text))


def test_damaged_gzip(tmp_path: Path) -> None:
    path = write(tmp_path / "lm.arpa.gz", ARPA)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(LanguageModelError, match="cannot be read"):
        NgramModel.load(path)
    path.write_text("not gzip")
    with pytest.raises(LanguageModelError, match="cannot be read"):
        NgramModel.load(path)


@pytest.mark.parametrize("bits", [None, 8])
def test_bad_binary_is_one_line(arpa: Path, tmp_path: Path, bits: int | None) -> None:
    path = tmp_path / "lm.bin"
    NgramModel.load(arpa).save(path, bits)
    whole = path.read_bytes()
    for data, message in (
        (b"", "cannot be read as a language model in binary form: it is empty"),
        (whole[:5], "cut short in its header"),
        (whole[:100], "cut short in its header"),
        (whole[:-1], "cut short or run over"),
        (whole + b"x", "cut short or run over"),
        (whole[:-100] + b"\xff" + whole[-99:], "its checksum is wrong"),
        (whole[:60] + b"\xff" + whole[61:], "damaged"),
        (b"PK\x03\x04" + whole[4:], "not a language model in binary form"),
    ):
        path.write_bytes(data)
        with pytest.raises(LanguageModelError, match=message) as error:
            NgramModel.load(path)
        assert "\n" not in str(error.value)
    save_arrays(path, MAGIC, {"version": 99}, {"words": np.zeros(1)})
    with pytest.raises(LanguageModelError, match="version 99, this program reads 1"):
        NgramModel.load(path)
    with pytest.raises(LanguageModelError, match="cannot be read"):
        NgramModel.load(tmp_path / "none.bin")


def test_letters_outside_the_alphabet_are_named(tmp_path: Path) -> None:
    letters = "abc"
    path = write(tmp_path / "lm.arpa", ARPA)
    NgramModel.load(path).check_alphabet(letters)
    path = write(tmp_path / "lm.arpa", ARPA.replace("\tb\t", "\tß\t").replace("b", "ß"))
    with pytest.raises(LanguageModelError, match=r"lm.arpa:11: .*cannot spell 'ß'.*1 such words"):
        NgramModel.load(path).check_alphabet(letters)
    path = write(tmp_path / "lm.arpa", ARPA.replace("\tb\t", "\tB\t").replace("b", "B"))
    with pytest.raises(LanguageModelError, match="in capitals"):
        NgramModel.load(path).check_alphabet(letters)


def test_find_by_path_directory_and_name(
    arpa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speech.shipped.model_directories", lambda: [tmp_path / "models"])
    shipped = tmp_path / "models" / "small" / "lm.bin"
    shipped.parent.mkdir(parents=True)
    NgramModel.load(arpa).save(shipped)
    assert find_language_model(arpa) == arpa
    assert find_language_model(shipped.parent) == shipped
    assert find_language_model("small") == shipped
    with pytest.raises(LanguageModelError, match="shipped names: small"):
        find_language_model("large")
