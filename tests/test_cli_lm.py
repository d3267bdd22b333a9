"""``speech lm``: training and perplexity as a user calls them."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from speech.cli import main
from speech.language_model import NgramModel

WORDS = ("one", "two", "three", "four", "five", "it's", "six")


def speech(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["speech", *(str(argument) for argument in arguments)])
    try:
        main()
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def write_text(path: Path, seed: int, lines: int = 200) -> Path:
    """Sentences with words of very different frequency, so that all discounts can be estimated."""
    random = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, len(WORDS) + 1)
    chosen = (
        random.choice(WORDS, size=random.integers(1, 9), p=weights / weights.sum())
        for _ in range(lines)
    )
    path.write_text("".join(f"{' '.join(words)}.\n".capitalize() for words in chosen), "utf-8")
    return path


OPTIONS = ("--order", 3, "--discount-fallback")


def test_train_and_perplexity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, held_out = write_text(tmp_path / "a.txt", 0), write_text(tmp_path / "b.txt", 1, 50)
    held_out.write_text(held_out.read_text() + "One zebra.\n")
    figures = {}
    for name in ("lm.arpa.gz", "lm.bin"):
        output = tmp_path / "out" / name
        assert speech(monkeypatch, "lm", "train", text, "-o", output, *OPTIONS) == 0
        shown = capsys.readouterr()
        assert shown.out.startswith(f"{output}: 10 1-grams, ")
        assert "0 of them (0.00%) unknown" in shown.err
        assert speech(monkeypatch, "lm", "perplexity", output, held_out, "--json") == 0
        figures[name] = json.loads(capsys.readouterr().out)
    ours = figures["lm.arpa.gz"]
    assert ours["oov_words"] == 1
    assert ours["oov_rate"] == pytest.approx(1 / ours["words"])
    assert ours["sentences"] == 51
    total = ours["words"] + 51
    assert ours["perplexity"] == pytest.approx(math.exp(-ours["log_prob"] / total))
    known = ours["log_prob"] - ours["oov_log_prob"]
    assert ours["perplexity_without_oov"] == pytest.approx(math.exp(-known / (total - 1)))
    assert figures["lm.bin"]["perplexity"] == pytest.approx(ours["perplexity"], rel=1e-4)
    assert speech(monkeypatch, "lm", "perplexity", output, held_out) == 0
    assert "without unknown words" in capsys.readouterr().out


def test_weights_pruning_and_vocabulary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = write_text(tmp_path / "a.txt", 0), write_text(tmp_path / "b.txt", 1)
    output = tmp_path / "lm.bin"

    def counts(*arguments: object) -> tuple[int, ...]:
        assert speech(monkeypatch, "lm", "train", *arguments, "-o", output, *OPTIONS) == 0
        return NgramModel.load(output).counts

    pooled = counts(a, b)
    assert counts(f"{a}@3", f"{b}@1") == pooled
    assert "a.txt 0.750" in capsys.readouterr().err
    assert counts(a, b, "--weights-from", b) == pooled
    shares = capsys.readouterr().err
    assert float(shares.split("b.txt ")[-1].split("\n")[0]) > 0.5
    assert counts(a, b, "--prune", "0,0,1")[:2] == pooled[:2]
    assert counts(a, b, "--prune", "0,0,1")[2] < pooled[2]
    assert sum(counts(a, b, "--prune", "1e-3")) < sum(pooled)
    assert counts(a, b, "--vocabulary", 4)[0] == 3 + 4


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["a.txt"], 1, "a.txt: cannot be read"),
        (["a.txt@x"], 2, "needed a number after @"),
        (["a.txt@1", "b.txt"], 2, "give every text a weight"),
        (["a.txt@1", "--weights-from", "b.txt"], 2, "not both"),
        (["a.txt@-1"], 1, "needed a weight above 0"),
        (["a.txt", "--prune", "few"], 2, "needed counts such as"),
        (["a.txt", "--prune", "1,1"], 1, "a.txt: cannot be read"),
        (["a.txt", "--bits", "7"], 1, "8, 16 or 32 bits, not 7"),
        (["a.txt", "--order", "0"], 1, "the order must be 1 to 8"),
    ],
)
def test_bad_calls_are_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    status: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert speech(monkeypatch, "lm", "train", *arguments, "-o", "lm.bin") == status
    shown = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in shown
    if status == 1:
        assert shown.startswith("speech: error:")


def test_perplexity_of_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = write_text(tmp_path / "a.txt", 0)
    assert speech(monkeypatch, "lm", "train", text, "-o", tmp_path / "lm.bin", *OPTIONS) == 0
    (tmp_path / "empty.txt").write_text("!\n")
    capsys.readouterr()
    command = ("lm", "perplexity", tmp_path / "lm.bin", tmp_path / "empty.txt")
    assert speech(monkeypatch, *command) == 1
    assert "empty.txt: holds no words after normalisation" in capsys.readouterr().err


def test_options_that_would_do_nothing_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = write_text(tmp_path / "a.txt", 0)
    arpa, binary = tmp_path / "lm.arpa", tmp_path / "lm.bin"
    assert speech(monkeypatch, "lm", "train", text, "-o", arpa, *OPTIONS, "--bits", 8) == 2
    assert "--bits" in capsys.readouterr().err
    pruning = ("--prune", "0,0,0,1")
    assert speech(monkeypatch, "lm", "train", text, "-o", binary, *OPTIONS, *pruning) == 1
    assert "4 count cut-offs for a model of order 3" in capsys.readouterr().err
    assert not arpa.exists()
    assert not binary.exists()


def test_a_model_in_either_form_becomes_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = write_text(tmp_path / "a.txt", 0)
    first, arpa, last = tmp_path / "lm.bin", tmp_path / "lm.arpa.gz", tmp_path / "again.bin"
    exact = ("--bits", 32)
    assert speech(monkeypatch, "lm", "train", text, "-o", first, *OPTIONS, *exact) == 0
    made = capsys.readouterr().out
    assert speech(monkeypatch, "lm", "convert", first, "-o", arpa) == 0
    assert speech(monkeypatch, "lm", "convert", arpa, "-o", last, *exact) == 0
    assert capsys.readouterr().out.splitlines()[1] == made.replace("lm.bin", "again.bin").rstrip()
    before, after = NgramModel.load(first), NgramModel.load(last)
    assert after.words == before.words
    for name, array in before.arrays._asdict().items():
        np.testing.assert_allclose(getattr(after.arrays, name), array, atol=1e-6)
    assert speech(monkeypatch, "lm", "convert", first, "-o", first) == 1
    assert "is what is to be converted" in capsys.readouterr().err
