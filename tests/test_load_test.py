"""The load test of the service: its figures by hand, and a small load on a tiny server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
from load_test import Answer, Recording, main, summarise
from tiny import SAMPLE_RATE, save_tiny_model

pytest.importorskip("fastapi")

from serving import babble, running, tiny_app

from speech.errors import SpeechError
from speech.http_guard import Access
from speech.service import Limits

RECORDINGS = [Recording(Path("a"), 2.0, "one"), Recording(Path("b"), 3.0, "two")]
CLIENTS = 4
KEY = "key"


def test_figures_by_hand() -> None:
    answers = [
        Answer(0, 200, 0.1, {"text": "one"}),
        Answer(1, 200, 0.2, {"text": "two"}),
        Answer(1, 200, 0.3, {"text": "too"}),
        Answer(0, 429, 9.0, {}),
        Answer(0, 503, 9.0, {}),
        Answer(0, 500, 9.0, {}),
        Answer(0, 0, 9.0, {}),
    ]
    load = summarise(2, 4.0, answers, RECORDINGS)
    assert (load.done, load.audio_seconds) == (3, 8.0)
    assert (load.refused, load.errors, load.lost, load.different) == (2, 1, 1, 1)
    assert load.latency_seconds == pytest.approx((0.2, 0.28, 0.298, 0.3))
    assert not load.is_clean
    assert summarise(2, 4.0, answers[:2], RECORDINGS).is_clean
    assert not summarise(2, 4.0, [], RECORDINGS).is_clean


def test_load_on_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """More clients than are let in at once: some are refused, nobody else is harmed."""
    paths = [tmp_path / f"{number}.wav" for number in range(3)]
    for seed, path in enumerate(paths):
        soundfile.write(path, babble(0.5 + seed, SAMPLE_RATE, seed), SAMPLE_RATE)
    (tmp_path / "model").mkdir()
    model = save_tiny_model(tmp_path / "model")
    app = tiny_app(model, Limits(per_client=CLIENTS - 1), Access(KEY))
    with running(app) as (address, _):
        arguments = [address, *map(str, paths), "--model", "tiny", "--seconds", "1", "--json",
                     "--clients", "1", str(CLIENTS)]  # fmt: skip
        with pytest.raises(SpeechError, match="401"):
            main(arguments)
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--api-key", KEY])
        with pytest.raises(SystemExit):
            main([*arguments[:-1], "--disturbers", "2", "--api-key", KEY])
        app.state.speech.admission.draining.set()
        with pytest.raises(SpeechError, match="shutting down"):
            main([*arguments, "--api-key", KEY])
    alone, together, among = map(json.loads, capsys.readouterr().out.splitlines())
    assert ended.value.code == 0
    assert (alone["clients"], together["clients"]) == (1, CLIENTS)
    assert alone["refused"] == 0
    assert together["refused"] > 0
    assert min(alone["done"], together["done"]) > 0
    assert among["errors"] == among["lost"] == among["different"] == 0
