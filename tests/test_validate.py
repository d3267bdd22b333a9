"""The dev set: what its figures count."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import tiny_config

from speech.checkpoint import Model, create_model
from speech.dataset import SampleCache
from speech.errors import DivergedError
from speech.gradients import HORIZON
from speech.tokenizer import CharTokenizer
from speech.validate import DevResult, DevSet
from speech.workers import Workers

CPU = torch.device("cpu")


def dev_set(manifest: Path, **changes: object) -> tuple[Model, DevSet]:
    torch.manual_seed(0)
    config = tiny_config(manifest, **changes)
    model = create_model(config, CharTokenizer())
    model.modules().eval()
    cache = SampleCache(None, config.features.sample_rate)
    return model, DevSet.read(config, manifest.parent, model, cache)


def score(manifest: Path) -> DevResult:
    model, dev = dev_set(manifest)
    return dev.score(model, Workers(0, 1, CPU), None)


def with_texts(manifest: Path, name: str, change: Callable[[int, str], str]) -> Path:
    lines = [json.loads(line) for line in manifest.read_text("utf-8").splitlines()]
    changed = [line | {"text": change(n, line["text"])} for n, line in enumerate(lines)]
    path = manifest.with_name(name)
    path.write_text("".join(json.dumps(line) + "\n" for line in changed), "utf-8")
    return path


def test_an_utterance_without_a_finite_loss_leaves_the_loss_of_the_others(
    tiny_corpus: Callable[..., Path], tmp_path: Path
) -> None:
    whole = tiny_corpus(tmp_path, utterances=3, sample_rate=8000)
    lines = whole.read_text("utf-8").splitlines(keepends=True)
    others = whole.with_name("others.jsonl")
    others.write_text("".join(lines[1:]), "utf-8")
    too_long = with_texts(whole, "long.jsonl", lambda n, text: "ab" * 200 if n == 0 else text)
    result = score(too_long)
    assert result.loss == pytest.approx(score(others).loss, rel=1e-4)
    assert result.characters.reference_length == 400 + score(others).characters.reference_length
    assert result.utterances == 3


def test_no_finite_loss_at_all_is_no_small_one(
    tiny_corpus: Callable[..., Path], tmp_path: Path
) -> None:
    whole = tiny_corpus(tmp_path, utterances=2, sample_rate=8000)
    assert score(with_texts(whole, "long.jsonl", lambda _n, _text: "ab" * 200)).loss == math.inf


def test_a_network_that_gives_no_numbers_has_diverged(
    tiny_corpus: Callable[..., Path], tmp_path: Path
) -> None:
    model, dev = dev_set(tiny_corpus(tmp_path, utterances=2, sample_rate=8000))
    with torch.no_grad():
        model.network.get_parameter("layers.0.forwards.weight_hh_l0").fill_(math.nan)
    with pytest.raises(DivergedError, match="for the dev set is not a number"):
        dev.score(model, Workers(0, 1, CPU), None)


def test_the_horizon_of_a_feed_forward_network_is_its_window(
    tiny_corpus: Callable[..., Path], tmp_path: Path
) -> None:
    manifest = tiny_corpus(tmp_path, utterances=5, sample_rate=8000)
    model, dev = dev_set(manifest, cell="feedforward", context_frames=2)
    assert dev.horizons(model, CPU, 9) == {HORIZON: 2.0}
    model, dev = dev_set(manifest)
    once, again = (dev.horizons(model, CPU, 9) for _ in range(2))
    assert once == again
    assert set(once) == {HORIZON} | {
        f"{HORIZON}_layer_{n}_{way}" for n in (1, 2) for way in ("forwards", "backwards")
    }
    assert all(0 <= value <= 9 for value in once.values())
