"""A training killed at random moments: no checkpoint is ever lost, and the end is the same."""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from conftest import write_tiny_corpus
from tiny import SAMPLE_RATE, Recorder, assert_same_run, tiny_config

from speech.checkpoint import load_model, load_state
from speech.config import Config
from speech.train import train

KILLS = 50
SEED = 7  # of the moments
# A fork of a process that has imported everything starts in a moment; a new interpreter takes
# seconds, and fifty would take minutes.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["speech.train", "torch.utils.tensorboard", "matplotlib.figure"])


def live(config: Config, output: Path) -> None:
    """One life of a training, in a process of its own."""
    import torch

    torch.set_num_threads(1)
    train(config, output, Recorder(), resume=output.exists())


def start(config: Config, output: Path) -> BaseProcess:
    process = FORKS.Process(target=live, args=(config, output))
    process.start()
    return process


def live_to_the_end(config: Config, output: Path) -> float:
    """Train without interruption; return the seconds from birth to death."""
    began = time.monotonic()
    process = start(config, output)
    process.join()
    assert process.exitcode == 0
    return time.monotonic() - began


def steps_done(output: Path) -> int:
    """Check everything that lies in a run's directory; return the step to resume from."""
    if (output / "best" / "model.safetensors").exists():
        load_model(output / "best")
    if (output / "history.json").exists():
        json.loads((output / "history.json").read_text())
    if not (output / "last.pt").exists():
        return 0
    return int(load_state(output / "last.pt")["progress"]["step"])


@pytest.mark.slow
def test_killed_at_fifty_random_moments_a_training_ends_as_if_it_had_not_been(
    tmp_path: Path,
) -> None:
    manifest = write_tiny_corpus(tmp_path / "corpus", 7, sample_rate=SAMPLE_RATE)
    settings = {"schedule": "constant", "checkpoint_minutes": 0.0005}
    endless = tiny_config(manifest, epochs=100_000, cache=str(tmp_path / "cache"), **settings)
    brief = tiny_config(manifest, epochs=12, **settings)
    live_to_the_end(brief, tmp_path / "first")  # and with it the process that the others fork from
    life_seconds = live_to_the_end(brief, tmp_path / "brief")
    moments = random.Random(SEED)
    output, steps = tmp_path / "killed", [0]
    for _ in range(KILLS):
        process = start(endless, output)
        process.join(moments.uniform(0.0, life_seconds))
        assert process.exitcode is None, "it ended by itself"
        process.kill()
        process.join()
        steps.append(steps_done(output) if output.exists() else 0)
    assert steps == sorted(steps), "a checkpoint was lost"
    assert len(set(steps)) > 5  # most lives got somewhere: the moments are no formality
    epochs = load_state(output / "last.pt")["progress"]["epoch"] + 1
    config = tiny_config(manifest, epochs=epochs, cache=str(tmp_path / "cache"), **settings)
    live_to_the_end(config, output)
    live_to_the_end(config, tmp_path / "whole")
    assert_same_run(output, tmp_path / "whole")
