"""Training a character language model: by the same loop, to the same end when it is resumed."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import Recorder, differences, without_times

import speech.trainer
from speech.char_config import CharConfig, CharTrainConfig, NetworkConfig, TextConfig
from speech.char_language_model import CharLanguageModel
from speech.checkpoint import load_state
from speech.errors import ConfigError
from speech.task import StepReport
from speech.train_char import CharTask, train_char_model
from speech.workers import Workers

PROVERBS = ("a stitch in time saves nine", "still waters run deep", "don't count your chickens")
ALONE = Workers(0, 1, torch.device("cpu"))


@pytest.fixture(autouse=True)
def without_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech.trainer, "plot_curves", lambda _, path, __: path.touch())


@pytest.fixture
def text(tmp_path: Path) -> Path:
    words = ["one", "two", "three", "four", "five", "six"]
    lines = [" ".join(words[: 1 + n % 6]) + " " + "ab"[n % 2] * (n // 2 + 1) for n in range(24)]
    path = tmp_path / "text.txt"
    path.write_text("\n".join(lines))
    return path


def tiny_config(text: Path, **train: Any) -> CharConfig:
    settings = {"epochs": 3, "batch_characters": 150, "precision": "float32", "ema_decay": 0.9,
                "warmup_steps": 2, "patience": 0}  # fmt: skip
    return CharConfig(
        NetworkConfig(embedding=6, hidden=10, dropout=0.2),
        TextConfig(train={str(text): 1.0}, dev_share=0.2),
        CharTrainConfig(**(settings | train)),
    )


def assert_same_run(one: Path, other: Path) -> None:
    states = [without_times(load_state(run / "last.pt")) for run in (one, other)]
    assert differences(*states) == []
    models = [(run / "best" / "lm.safetensors").read_bytes() for run in (one, other)]
    assert models[0] == models[1]


@pytest.mark.parametrize("step", [1, 4, 9])
def test_a_run_stopped_anywhere_goes_on_to_the_same_end(
    text: Path, tmp_path: Path, step: int
) -> None:
    def stop(report: StepReport) -> None:
        if report.step == step:
            signal.raise_signal(signal.SIGTERM)

    config = tiny_config(text)
    whole = train_char_model(config, tmp_path / "whole", Recorder())
    assert whole.epoch == 3
    assert whole.step > 9
    stopped = train_char_model(config, tmp_path / "parts", Recorder(stop))
    assert stopped.step == step + 1
    train_char_model(config, tmp_path / "parts", Recorder(), resume=True)
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_a_tiny_corpus_is_learned_by_heart_and_written_down(tmp_path: Path) -> None:
    path = tmp_path / "proverbs.txt"
    path.write_text("\n".join(PROVERBS))
    config = tiny_config(
        path, epochs=25, learning_rate=2e-2, batch_characters=200, schedule="constant",
        evaluate_every=25,
    )  # fmt: skip
    config = dataclasses.replace(
        config, network=NetworkConfig(embedding=12, layers=1, hidden=40),
        data=dataclasses.replace(config.data, train={str(path): 12.0}, dev_share=0.0),
    )  # fmt: skip
    observer = Recorder()
    train_char_model(config, tmp_path / "run", observer)
    # Of three equally likely sentences only the first character is in doubt.
    doubt = math.log(3) * 3 / sum(len(line) + 1 for line in PROVERBS)
    assert observer.rows[-1]["train_loss"] == pytest.approx(doubt, abs=0.03)
    model = CharLanguageModel.load(tmp_path / "run" / "best")
    for line in PROVERBS:
        written = "".join(itertools.islice(model.generate(line[0], temperature=0), len(line)))
        assert line[0] + written == f"{line}\n"
        assert model.log_probs([line])[0] == pytest.approx(-math.log(3), abs=0.3)


def test_dev_figures_are_those_of_the_model_that_is_saved(text: Path, tmp_path: Path) -> None:
    observer = Recorder()
    config = tiny_config(text, epochs=1)
    train_char_model(config, tmp_path / "run", observer)
    task = CharTask(config, Path())
    held_out = [task.model.tokenizer.decode(task.texts.tokens(line).tolist())
                for line in task.texts.dev]  # fmt: skip
    assert len(held_out) > 2
    score = CharLanguageModel.load(tmp_path / "run" / "best").measure(held_out)
    row = observer.rows[-1]
    assert row["dev_loss"] == pytest.approx(score.nats_per_character, rel=1e-5)
    assert row["dev_bits"] == pytest.approx(score.nats_per_character / math.log(2), rel=1e-5)
    assert row["dev_word_perplexity"] == pytest.approx(score.perplexity_per_word, rel=1e-4)
    assert json.loads((tmp_path / "run" / "history.json").read_text())[0] == row


def test_an_untrained_network_is_about_as_good_as_a_uniform_one(text: Path) -> None:
    torch.manual_seed(1)
    result = CharTask(tiny_config(text), Path()).evaluate(
        CharTask(tiny_config(text), Path()).network, ALONE, None
    )
    assert result is not None
    assert result.deciding == result.figures["dev_loss"] == pytest.approx(math.log(29), abs=0.5)


def test_units_are_characters_with_one_end_a_line(text: Path, tmp_path: Path) -> None:
    observer = Recorder()
    train_char_model(tiny_config(text, epochs=1), tmp_path / "run", observer)
    texts = CharTask(tiny_config(text), Path()).texts
    lines = 24 - len(texts.dev)
    assert sum(report.units for report in observer.steps) == texts.characters + lines
    assert (
        f"{texts.characters:,} characters, {len(texts.dev)} lines held out"
        in (observer.messages[0])
    )


def test_another_network_or_text_is_refused_on_resuming(text: Path, tmp_path: Path) -> None:
    train_char_model(tiny_config(text, epochs=1), tmp_path / "run", Recorder())
    other = dataclasses.replace(tiny_config(text, epochs=1), network=NetworkConfig(hidden=11))
    with pytest.raises(ConfigError, match=r"other settings of network\.dropout, network\.embedd"):
        train_char_model(other, tmp_path / "run", Recorder(), resume=True)
    more = train_char_model(tiny_config(text, epochs=2), tmp_path / "run", Recorder(), resume=True)
    assert more.epoch == 2
