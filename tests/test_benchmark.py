"""The benchmark of this installation: every part runs to its end and becomes a row."""

from __future__ import annotations

import sys
from pathlib import Path

import benchmark as script
import pytest
from conftest import write_tiny_corpus
from tiny import SAMPLE_RATE, save_tiny_model


def test_rows_say_what_was_measured() -> None:
    figures = {
        "starts": {"speech --help": 0.171},
        "overhead": [
            {"threads": 2, "ratio": 1.0124, "ratios": [1.01, 1.02], "target": 1.1, "steps": 18}
        ],
        "training": [
            {"precision": "bfloat16", "processes": 2, "times_real_time": 150.4, "peak_bytes": 2e9}
        ],
        "transcription": [
            {"precision": "float32", "threads": 1, "lm": "none",
             "real_time_factor": 0.004, "times_real_time": 250.0},
            {"precision": "float32", "threads": 1, "lm": "english",
             "real_time_factor": 0.008, "times_real_time": 125.0},
        ],
        "memory": {"audio_minutes": 60.0, "wall_seconds": 18.0, "peak_bytes": 1.14e9},
    }  # fmt: skip
    assert script.rows(figures) == [
        ("speech --help", "0.17 s"),
        (
            "training step over its bare arithmetic, 2 thread(s)",
            "1.012 (target 1.10; 18 steps, rounds 1.010 to 1.020)",
        ),
        (
            "training, bfloat16, 2 process(es)",
            "150 s of audio a second, 2.00 GB in the largest process",
        ),
        (
            "transcription, greedy, float32, 1 thread(s)",
            "real-time factor 0.0040 (250 times real time)",
        ),
        (
            "transcription, with english, float32, 1 thread(s)",
            "real-time factor 0.0080 (125 times real time)",
        ),
        ("one file of 60 min, from the shell", "18.0 s (real-time factor 0.0050), 1.14 GB at most"),
    ]


def test_a_training_that_was_stopped_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write_tiny_corpus(tmp_path / "corpus", 3, sample_rate=SAMPLE_RATE)
    config = script.training_config(manifest, script.QUICK, tmp_path / "cache", quick=True)
    monkeypatch.setattr(script, "train", lambda *_, **__: None)
    with pytest.raises(SystemExit, match="stopped"):
        script.measure_overhead(config, script.QUICK, tmp_path, threads=1)


@pytest.mark.slow
def test_every_part_comes_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_tiny_corpus(tmp_path / "corpus", 8, sample_rate=16000)
    model = save_tiny_model(tmp_path / "model")
    parts = ("machine", "starts", "overhead", "training", "transcription", "memory")
    command = ["benchmark", "--quick", "--manifest", str(manifest), "--model", str(model)]
    monkeypatch.setattr(sys, "argv", [*command, *(f"--only={part}" for part in parts)])
    script.main()
    printed = capsys.readouterr()
    names = [line.split(" | ")[0] for line in printed.out.splitlines()]
    for start, count in (
        ("| machine", 1), ("| training step over", 2), ("| training, ", 2),
        ("| transcription, greedy, ", 4), ("| one file of", 1),
    ):  # fmt: skip
        assert sum(name.startswith(start) for name in names) >= count, start
    assert "one file of 1 min" in printed.err
