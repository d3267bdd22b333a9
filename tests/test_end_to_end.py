"""From files to transcripts: a training that really learns, and the model that ships."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from tiny import Recorder

import speech
import speech.trainer
from speech.checkpoint import find_model, load_model
from speech.config import AugmentConfig, Config, DataConfig, FeatureConfig, ModelConfig, TrainConfig
from speech.decoder import GREEDY
from speech.errors import ModelError
from speech.evaluate import evaluate
from speech.manifest import read_manifest, write_manifest
from speech.provenance import sha256_of
from speech.tokenizer import normalise_text
from speech.train import train
from speech.transcribe import Recogniser

REPOSITORY = Path(__file__).parent.parent
SAMPLE = REPOSITORY / "data" / "sample" / "manifest.jsonl"
LEARNED_UTTERANCES = 8  # the first of the sample: four voices, flac, opus and wav
MAX_SECONDS = 120.0  # of one core

# --- A training that learns -----------------------------------------------------------------------


def learning_config(manifest: Path, cache: Path) -> Config:
    """A small network, no variation: it is to learn these utterances, not speech."""
    return Config(
        FeatureConfig(mel_bands=40),
        ModelConfig(subsampling=2, conv_channels=8, layers=2, hidden=80, dropout=0.0),
        AugmentConfig(speed_factors=(1.0,), gain_db=0.0, noise_probability=0.0, time_masks=0,
                      frequency_masks=0),
        DataConfig(train={str(manifest): 10.0}, dev=(str(manifest),), cache=str(cache)),
        TrainConfig(epochs=14, batch_seconds=16.0, learning_rate=4e-3, warmup_steps=20,
                    ema_decay=0.9, precision="float32", patience=0),
    )  # fmt: skip


def test_a_handful_of_utterances_is_learned_to_their_exact_transcripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech.trainer, "plot_curves", lambda _, path, __: path.touch())
    utterances = read_manifest(SAMPLE)[:LEARNED_UTTERANCES]
    manifest = tmp_path / "learned.jsonl"
    write_manifest(manifest, utterances)
    observer = Recorder()
    began = time.process_time()
    train(learning_config(manifest, tmp_path / "cache"), tmp_path / "run", observer)
    assert time.process_time() - began < MAX_SECONDS
    assert observer.rows[-1]["train_loss"] < 0.05  # nats per character; chance is 3.4
    recogniser = Recogniser.load(tmp_path / "run" / "best", threads=1, options=GREEDY)
    paths = [utterance.audio_path for utterance in utterances]
    texts = [normalise_text(utterance.text) for utterance in utterances]
    assert [recogniser.transcribe(path).text for path in paths] == texts
    assert [result.text for result in recogniser.transcribe_many(paths)] == texts  # type: ignore[union-attr]
    assert evaluate([manifest], recogniser, "learned").words.errors == 0
    times = [word.start for word in recogniser.transcribe(paths[0]).words]
    assert times == sorted(set(times))
    assert times[-1] > 0.5 * utterances[0].duration


# --- The model that ships -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> Path:
    """The directory of the shipped model."""
    try:
        return find_model("base")
    except ModelError as error:
        pytest.skip(f"no shipped model yet: {error}")


@pytest.fixture(scope="module")
def metrics(shipped: Path) -> dict[str, dict[str, Any]]:
    """Manifest name -> what ``speech evaluate --json`` printed."""
    loaded: dict[str, dict[str, Any]] = json.loads((shipped / "metrics.json").read_text("utf-8"))
    return loaded


@pytest.fixture(scope="module")
def card(shipped: Path) -> str:
    return (shipped / "MODEL_CARD.md").read_text("utf-8")


def test_the_shipped_model_transcribes_the_sample_as_its_metrics_say(
    shipped: Path, metrics: dict[str, dict[str, Any]]
) -> None:
    stored = [row for row in metrics.values() if row["manifest_sha256"] == sha256_of([SAMPLE])]
    assert len(stored) == 1, "metrics.json needs the figures of data/sample as it is now"
    found = evaluate([SAMPLE], Recogniser.load(shipped, options=GREEDY), "base").to_dict()
    for key in ("words", "utterances", "normaliser", "lm", "manifest_sha256"):
        assert found[key] == stored[0][key], key
    # Another processor may round another way, and a close call become another letter.
    assert found["wer"] == pytest.approx(stored[0]["wer"], abs=2 / stored[0]["words"])
    assert found["cer"] == pytest.approx(stored[0]["cer"], abs=0.01)


def test_every_figure_adds_up(metrics: dict[str, dict[str, Any]]) -> None:
    assert metrics
    for name, row in metrics.items():
        errors = row["substitutions"] + row["deletions"] + row["insertions"]
        assert row["wer"] == pytest.approx(errors / row["words"]), name
        low, high = row["wer_interval"]
        assert 0 <= low <= row["wer"] <= high, name


def card_rows(card: str) -> dict[str, dict[str, str]]:
    """Manifest name -> column -> cell, of the table between the marks in the card."""
    table = card.split("<!-- metrics.json begins -->")[1].split("<!-- metrics.json ends -->")[0]
    lines = [[cell.strip() for cell in line.strip("| ").split("|")]
             for line in table.splitlines() if line.startswith("|")]  # fmt: skip
    head, _, *rows = lines
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def test_every_figure_of_the_card_is_that_of_the_metrics(
    card: str, metrics: dict[str, dict[str, Any]]
) -> None:
    rows = card_rows(card)
    assert set(rows) == set(metrics)
    for name, row in rows.items():
        figures = metrics[name]
        low, high = (f"{100 * bound:.2f}" for bound in figures["wer_interval"])
        assert row == {
            "manifest": name,
            "WER %": f"{100 * figures['wer']:.2f}",
            "95 % interval": f"{low} to {high}",
            "CER %": f"{100 * figures['cer']:.2f}",
            "words": str(figures["words"]),
        }


def test_the_card_counts_the_parameters(card: str, shipped: Path) -> None:
    parameters = sum(p.numel() for p in load_model(shipped).network.parameters())
    stated = re.search(r"\| parameters \| ([\d,]+)", card)
    assert stated is not None
    assert int(stated[1].replace(",", "")) == parameters


def test_the_shipped_model_is_small(shipped: Path) -> None:
    assert sum(path.stat().st_size for path in shipped.iterdir()) < 60e6
