"""``speech lm`` with a neural language model, as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_cli_lm import speech

from speech.char_language_model import CharLanguageModel

WORDS = ("one", "two", "three", "it's")
SETTINGS = """
[network]
embedding = 4
hidden = 6

[data]
dev_share = 0.2
train = { "text.txt" = 1.0 }

[train]
epochs = 1
batch_characters = 400
precision = "float32"
"""


@pytest.fixture(autouse=True)
def without_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("speech.trainer.plot_curves", lambda _, path, __: path.touch())


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A config, and the text that it names beside it."""
    lines = [" ".join(WORDS[(n * k) % 4] for k in range(1 + n % 5)) for n in range(60)]
    (tmp_path / "text.txt").write_text("\n".join(lines))
    path = tmp_path / "tiny.toml"
    path.write_text(SETTINGS)
    return path


def test_train_measure_and_generate(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = tmp_path / "run"
    assert speech(monkeypatch, "lm", "train", "--neural", recipe, "-o", run) == 0
    shown = capsys.readouterr().err
    assert "lines held out" in shown
    assert "bits per character, perplexity" in shown
    model = CharLanguageModel.load(run / "best")
    assert (model.config.network.hidden, model.config.network.layers) == (6, 2)

    (tmp_path / "held-out.txt").write_text("One, two!\nПривет\nThree.\n")
    command = ("lm", "perplexity", run / "best", tmp_path / "held-out.txt")
    assert speech(monkeypatch, *command, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    score = model.measure(["one two", "three"])
    assert (figures["characters"], figures["words"], figures["sentences"]) == (14, 3, 2)
    assert figures["left_out"] == 1
    assert figures["perplexity_per_word"] == pytest.approx(score.perplexity_per_word)
    assert speech(monkeypatch, *command) == 0
    assert f"{score.perplexity_per_word:.2f} per word; 3 words" in capsys.readouterr().out

    texts = []
    for arguments in (("--seed", "T"), ("--seed", "T"), ("--seed", "T", "--random-seed", 1),
                      ("--seed", "two ", "--temperature", 0), ()):  # fmt: skip
        assert speech(monkeypatch, "lm", "generate", run / "best", "--length", 40, *arguments) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert [text[:4] for text in texts[::3]] == [texts[0][:4], "two "]
    assert texts[0].startswith("t")
    assert [len(text) for text in texts] == [1 + 40 + 1] * 3 + [4 + 40 + 1, 40 + 1]


def test_texts_on_the_command_line_take_the_place_of_the_configs(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    own = tmp_path / "own.txt"
    own.write_text("".join(f"{word} {word}\n" for word in WORDS))
    command = ("lm", "train", "--neural", recipe, f"{own}@2", "-o", tmp_path / "run",
               "--set", "data.dev_share=0.0")  # fmt: skip
    assert speech(monkeypatch, *command) == 0
    config = CharLanguageModel.load(tmp_path / "run" / "best").config
    assert dict(config.data.train) == {str(own): 2.0}
    assert speech(monkeypatch, *command) == 1
    assert "holds a run: --resume it" in capsys.readouterr().err
    assert speech(monkeypatch, *command, "--resume", "--set", "train.epochs=2") == 0
    assert "epoch 2: train loss" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("train", "--neural"), 2, "needs a TEXT, or a CONFIG.toml that names some"),
        (("train", "--neural", "a.toml", "b.toml"), 2, "one CONFIG.toml is all"),
        (("train", "--neural", "gone.toml"), 1, "gone.toml: cannot read the config"),
        (("train", "--neural", "gone.txt"), 1, "gone.txt: cannot be read"),
        (("train", "a.txt", "--resume"), 2, "--set and --resume are for --neural"),
        (("train",), 2, "needs a TEXT"),
    ],
)
def test_bad_calls_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    arguments: tuple[str, ...], status: int, message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert speech(monkeypatch, "lm", *arguments, "-o", "run") == status
    shown = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in shown


def test_what_cannot_be_written_on_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert speech(monkeypatch, "lm", "generate", "nonesuch") == 1
    assert capsys.readouterr().err == (
        "speech: error: no neural language model 'nonesuch': needs a directory that "
        "'speech lm train --neural' made, with config.toml and lm.safetensors\n"
    )
    assert speech(monkeypatch, "lm", "generate") == 2
    assert "Missing argument 'LM'" in capsys.readouterr().err
    assert speech(monkeypatch, "lm", "perplexity", "nonesuch", "a.txt") == 1
    assert "no language model 'nonesuch'" in capsys.readouterr().err
