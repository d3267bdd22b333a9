"""A plan on paper, checked with a pencil; the measuring of its steps on a network that is tiny."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import soundfile
import torch
from conftest import Run
from tiny import tiny_config

from speech.config import Config, TrainConfig, dump_config
from speech.plan import (
    ASSUMED_OVERHEAD,
    Corpus,
    Measurement,
    Step,
    exchange_seconds,
    make_plan,
    shares,
    utterances_per_batch,
)
from speech.plan_measurement import _example_bytes, _Share, _train_on_noise
from speech.workers import Workers

# 1000 utterances of 10 s; batches of 80 s hold eight: 125 steps.
CORPUS = Corpus(1000, 10_000.0, 3e9)
CONFIG = Config(train=TrainConfig(batch_seconds=85.0))
MEASURED = Measurement(
    steps={8: Step(3.6, 2e9), 4: Step(2.0, 1.5e9), 1: Step(0.8, 1e9)},
    pair_seconds=2.5, pair_share=4, parameters=10_000_000, state_bytes=2e8, model_bytes=4e7,
    example_bytes=3000.0, machine="a pencil", wall_seconds=60.0,
)  # fmt: skip


def test_shares_are_those_of_the_busiest_worker() -> None:
    assert utterances_per_batch(CONFIG, CORPUS) == 8
    assert shares(8, [1, 2, 3, 8, 64]) == {1: 8, 2: 4, 3: 3, 8: 1, 64: 1}
    worker = Workers(0, 3, torch.device("cpu"))
    assert len(worker.part(range(8))) == 3
    one_long = dataclasses.replace(CORPUS, utterances=10)
    assert utterances_per_batch(CONFIG, one_long) == 1  # longer than a batch: by itself


def test_a_plan_is_what_a_pencil_says() -> None:
    plan = make_plan(CONFIG, CORPUS, MEASURED, [1, 2, 64])
    assert (plan.batch_utterances, plan.steps_per_epoch) == (8, 125)
    one, two, many = plan.rows
    assert (one.share, one.step_seconds, one.busy) == (8, 3.6, 1)
    assert one.epoch_hours == pytest.approx(125 * 3.6 / 3600)  # an eighth
    # 40 MB of gradients: half of them sent twice at 10 Gbit/s take 0.032 s
    assert two.step_seconds == pytest.approx(2.0 * 1.25 + 0.032)
    # with 64, 63/64 of them twice; only eight find an utterance
    assert many.step_seconds == pytest.approx(0.8 * 1.25 + 0.063)
    assert (many.share, many.busy) == (1, 8)
    # what a step takes, and 3 kB for each of the thousand utterances
    assert two.worker_bytes == pytest.approx(1.5e9 + 3e6)
    assert many.total_bytes == pytest.approx(64 * (1e9 + 3e6))


def test_storage_is_audio_samples_and_a_state_twice() -> None:
    plan = make_plan(CONFIG, CORPUS, MEASURED, [1])
    assert plan.audio_bytes == 3e9
    assert plan.cache_bytes == 10_000 * 16_000 * 4
    assert plan.checkpoint_bytes == 2 * 2e8 + 4e7


def test_what_was_not_measured_is_an_assumption() -> None:
    lonely = dataclasses.replace(MEASURED, pair_seconds=None)
    config = Config(train=TrainConfig(batch_seconds=100.0))  # again eight utterances
    plan = make_plan(config, Corpus.of_hours(1.0), lonely, [2])
    assert plan.rows[0].step_seconds == pytest.approx(2.0 * ASSUMED_OVERHEAD + 0.032)
    told = "\n".join(plan.assumptions)
    assert "two could not be measured" in told
    assert "12.3 s" in told
    assert "1.250 times" in "\n".join(make_plan(CONFIG, CORPUS, MEASURED, [2]).assumptions)


def test_librispeech_is_about_what_its_authors_counted() -> None:
    corpus = Corpus.of_hours(960.9)
    assert corpus.utterances == pytest.approx(281_241, rel=1e-3)
    assert corpus.audio_bytes == pytest.approx(59.3e9, rel=1e-3)


def test_one_worker_exchanges_nothing() -> None:
    assert exchange_seconds(10_000_000, 1) == 0
    assert exchange_seconds(10_000_000, 2, 1e9) == pytest.approx(0.32)


def test_a_step_on_noise_is_measured(tmp_path: Path) -> None:
    config = tiny_config(Path("nowhere.jsonl"))
    alone = Workers(0, 1, torch.device("cpu"))
    found = _train_on_noise(_Share(config, 2, 0.5, 0.0), tmp_path, alone)
    assert 0 < found.step.seconds < 10
    assert found.step.peak_bytes > 5e7  # torch alone
    assert found.state_bytes == (tmp_path / "run" / "last.pt").stat().st_size
    assert found.model_bytes > 1000
    lines = (tmp_path / "manifest.jsonl").read_text().splitlines()
    assert [json.loads(line)["duration"] for line in lines] == [0.5, 0.5]
    assert soundfile.info(tmp_path / "0.wav").duration == 0.5
    history = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["progress"]
    assert (history["epoch"], history["step"]) == (0, 5)  # one warms up, one hears of the end


def test_an_utterance_takes_some_memory() -> None:
    assert 500 < _example_bytes(tiny_config(Path("nowhere.jsonl")), 10.0) < 20_000


def test_plan_refuses_what_it_cannot_do(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(dump_config(tiny_config(tmp_path / "nowhere.jsonl")))
    for arguments in (
        ("--plan", "960", "--output", tmp_path / "run"),
        ("--plan", "-1"),
        ("--plan", "1", "--workers", "1,x"),
        ("--workers", "2", "--output", tmp_path / "run"),
    ):
        assert run("train", path, *arguments).status == 2
    assert run("train", path, "--plan", "nowhere.jsonl").status == 1


@pytest.mark.slow
def test_the_command_prints_a_plan(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    config = tiny_config(tmp_path / "nowhere.jsonl", batch_seconds=40.0)
    path.write_text(dump_config(config))
    result = run("train", path, "--plan", "960", "--workers", "1,2,64", "--measure-seconds", "1")
    assert result.status == 0, result.stderr
    rows = [line.split() for line in result.lines[4:7]]
    assert [row[:2] for row in rows] == [["1", "3"], ["2", "2"], ["64", "1"]]
    assert rows[2][-1] == "*"
    assert "93,659 steps an epoch, each of 3 utterances" in result.lines[0]
    assert "110.6 GB on each machine" in result.stdout  # 960 h of 8,000 float32 a second
