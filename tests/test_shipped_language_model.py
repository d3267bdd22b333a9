"""The language model that comes with the package: it loads at once, fits, and its card is true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from make_language_model import SETTINGS, TEXTS, renewed, shared_sentences

from speech.language_model import NgramModel, find_language_model
from speech.lexicon import build_lexicon
from speech.manifest import read_manifest
from speech.perplexity import measure
from speech.provenance import sha256_of
from speech.tokenizer import DEFAULT_ALPHABET, normalise_text

REPOSITORY = Path(__file__).parent.parent
SHIPPED = REPOSITORY / "models" / "english"
LARGEST_BYTES = 40_000_000
SAMPLE = REPOSITORY / "data" / "sample" / "manifest.jsonl"


@pytest.fixture(scope="module")
def model() -> NgramModel:
    return NgramModel.load(find_language_model(SHIPPED))


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    return dict(json.loads((SHIPPED / "metrics.json").read_text("utf-8")))


def test_file_is_the_one_that_was_measured(model: NgramModel, metrics: dict[str, Any]) -> None:
    file = SHIPPED / "lm.bin"
    assert file.stat().st_size == metrics["bytes"] <= LARGEST_BYTES
    assert sha256_of([file]) == metrics["sha256"]
    assert list(model.counts) == metrics["counts"]
    assert model.order == metrics["order"]


def test_the_recogniser_can_spell_every_word(model: NgramModel) -> None:
    model.check_alphabet(DEFAULT_ALPHABET)
    lexicon = build_lexicon(
        model.words, model.unigram_log_probs, DEFAULT_ALPHABET, without=model.words[:3]
    )
    assert not lexicon.unspellable
    assert (lexicon.arrays.words >= 0).sum() == len(model.words) - 3


def test_stored_perplexity_is_measured_again(model: NgramModel, metrics: dict[str, Any]) -> None:
    sentences = [normalise_text(utterance.text).split() for utterance in read_manifest(SAMPLE)]
    found, stored = measure(model, sentences).to_dict(), metrics["texts"]["data/sample"]
    for name, value in found.items():
        assert stored[name] == pytest.approx(value, rel=1e-6), name


def test_every_figure_of_the_card_is_that_of_the_metrics(metrics: dict[str, Any]) -> None:
    card = (SHIPPED / "MODEL_CARD.md").read_text("utf-8")
    assert renewed(card, metrics) == card
    other = metrics | {"counts": [1] * metrics["order"]}
    assert renewed(card, other) != card


def test_recipe_is_that_of_the_script(metrics: dict[str, Any]) -> None:
    assert metrics["weights"] == TEXTS
    for name in ("order", "vocabulary", "entropy"):
        assert metrics[name] == getattr(SETTINGS, name)


def test_sentences_with_eight_words_of_the_text_are_counted(tmp_path: Path) -> None:
    trained_on = tmp_path / "text.txt"
    trained_on.write_text("A, b c d e f g h i.\nten\n", "utf-8")
    texts = {"known": [list("zbcdefghi"), ["ten"]], "unknown": [list("abcdefghz")[1:]]}
    assert shared_sentences([trained_on], texts) == {"known": 1, "unknown": 0}
