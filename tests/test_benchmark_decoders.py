"""The benchmark of beam searches: what it finds, and what it makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import benchmark_decoders as script
import pytest
from benchmark_decoders import Row, Task, fastest_as_good, markdown, wer
from conftest import write_tiny_corpus
from test_beam_search import ARPA
from tiny import SAMPLE_RATE, save_tiny_model


def row(decoder: str, beam_size: int, threads: int, wer: float, seconds: float) -> Row:
    return Row(decoder, beam_size, threads, wer, seconds, 10 / seconds, 50 / seconds)


ROWS = [
    row("ours", 10, 1, 0.30, 1.0),
    row("ours", 50, 1, 0.25, 2.0),
    row("ours", 100, 1, 0.25, 3.0),
    row("ours", 50, 2, 0.25, 1.1),
    row("torchaudio", 50, 1, 0.26, 4.0),
    row("torchaudio", 50, 2, 0.26, 2.1),
    row("torchaudio", 500, 1, 0.20, 9.0),
]


def test_speed_is_never_bought_with_errors() -> None:
    assert fastest_as_good(ROWS, ROWS[4], "ours", 1) is ROWS[1]
    assert fastest_as_good(ROWS, ROWS[4], "ours", 2) is ROWS[3]
    assert fastest_as_good(ROWS, ROWS[6], "ours", 1) is None
    lines = markdown(ROWS, {"ours": (0.7, 1.0)}).splitlines()
    assert "| torchaudio | 50 | 26.00% | ours | 1 | 50 | 25.00% | 2.00 |" in lines
    assert "| torchaudio | 50 | 26.00% | ours | 2 | 50 | 25.00% | 3.64 |" in lines
    assert "| torchaudio | 500 | 20.00% | ours | 1 | | | none as good |" in lines
    assert lines[-1] == "Language model weight and word bonus: ours 0.7 and 1.0."


def test_errors_are_of_the_utterances_that_were_decoded() -> None:
    task = Task(("a b", "a", "b b b b"), 3.0)
    assert wer(task, ["a", "a"]) == pytest.approx(1 / 3)


class Stopwatch:
    """Answers like a worker, with the times it is given."""

    def __init__(self, kind: str, *seconds: float) -> None:
        self.kind, self.left = kind, list(seconds)

    def run(self, **_: object) -> dict[str, object]:
        return {"seconds": self.left.pop(0), "texts": ["a"]}


def test_the_best_time_counts_and_what_takes_long_is_done_once() -> None:
    quick, slow = Stopwatch("ours", 2.0, 1.0, 3.0), Stopwatch("torchaudio", 9.0, 1.0)
    weights = {"ours": (1.0, 0.0), "torchaudio": (1.0, 0.0)}
    rows = script.measure([quick, slow], weights, Task(("a",), 18.0), [10], [1], 3, 5.0)
    assert [(row.decoder, row.seconds) for row in rows] == [("ours", 1.0), ("torchaudio", 9.0)]
    assert [row.utterance_seconds_per_second for row in rows] == [18.0, 2.0]
    assert (quick.left, slow.left) == ([], [1.0])


@pytest.mark.slow
def test_a_benchmark_from_manifest_to_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "GRID", [(0.5, 0.5), (1.0, 1.0)])
    (tmp_path / "tiny.arpa").write_text(ARPA)
    manifest = write_tiny_corpus(tmp_path / "corpus", 3, sample_rate=SAMPLE_RATE)
    model = save_tiny_model(tmp_path / "model")
    output = tmp_path / "out"
    script.main([str(manifest), "--lm", str(tmp_path / "tiny.arpa"), "--output", str(output),
                 "--model", str(model), "--beam", "5", "20", "--threads", "1", "2",
                 "--repeats", "1", "--decoder", "ours", "--decoder", "pyctcdecode",
                 "--python", "pyctcdecode=/usr/bin/false"])  # fmt: skip
    found = json.loads((output / "benchmark.json").read_text("utf-8"))
    assert [(one["beam_size"], one["threads"]) for one in found["rows"]] == [
        (5, 1), (5, 2), (20, 1), (20, 2)
    ]  # fmt: skip
    assert found["rows"][0]["wer"] == found["rows"][1]["wer"]
    assert found["rows"][0]["seconds"] > 0
    assert "left out: pyctcdecode" in capsys.readouterr().err
