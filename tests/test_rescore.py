"""Rescoring n-best lists: which text wins, by pencil."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from speech.beam import Labelling
from speech.beam_search import BeamDecoder, BeamSettings
from speech.char_config import CharConfig, NetworkConfig
from speech.char_language_model import CharLanguageModel
from speech.errors import ConfigError, ModelError
from speech.rescore import Rescorer, RescoringWeights, rescored, tune_rescoring
from speech.tokenizer import CharTokenizer

TOKENIZER = CharTokenizer()
NEURAL = {"the cat": -4.0, "the cut": -9.0, "a dog": -3.0, "a dock": -3.5}


def labelling(text: str, score: float) -> Labelling:
    return Labelling(tuple(TOKENIZER.encode(text)), score - 1, score)


def texts(n_best: Sequence[Labelling]) -> list[str]:
    return [TOKENIZER.decode(one.tokens) for one in n_best]


def tiny_model(alphabet: CharTokenizer = TOKENIZER) -> CharLanguageModel:
    torch.manual_seed(0)
    config = CharConfig(network=NetworkConfig(embedding=4, hidden=6))
    return CharLanguageModel.create(config, alphabet)


CAT = [labelling("the cut", -10.0), labelling("the cat", -12.0)]
DOG = [labelling("a dog", -5.0), labelling("a dock", -5.5)]


@pytest.mark.parametrize(
    ("weight", "order", "scores"),
    [
        (0.0, ["the cut", "the cat"], [-10.0, -12.0]),
        (0.3, ["the cut", "the cat"], [-12.7, -13.2]),
        (0.4, ["the cut", "the cat"], [-13.6, -13.6]),  # equal: the first stays in front
        (0.5, ["the cat", "the cut"], [-14.0, -14.5]),
    ],
)
def test_the_order_by_pencil(weight: float, order: list[str], scores: list[float]) -> None:
    result = rescored(CAT, texts(CAT), [-9.0, -4.0], RescoringWeights(weight))
    assert texts(result) == order
    assert [one.score for one in result] == pytest.approx(scores)
    assert {one.log_probability for one in result} == {-11.0, -13.0}  # the search's own stays


def test_words_are_paid_for() -> None:
    n_best = [labelling("ab", -5.0), labelling("a b", -6.0)]
    for bonus, first in ((0.9, "ab"), (1.1, "a b")):
        weights = RescoringWeights(1.0, bonus)
        assert texts(rescored(n_best, texts(n_best), [-2.0, -2.0], weights))[0] == first


def test_a_rescorer_adds_what_its_network_says() -> None:
    model = tiny_model()
    rescorer = Rescorer(model, RescoringWeights(0.7, 0.1))
    result = rescorer.rescore([*CAT, labelling(" a  b ", -1.0), labelling("", -2.0)])
    expected = {
        text: score + 0.7 * model.log_probs([read])[0] + 0.1 * len(read.split())
        for text, read, score in (
            ("the cut", "the cut", -10.0), ("the cat", "the cat", -12.0), (" a  b ", "a b", -1.0),
            ("", "", -2.0),
        )
    }  # fmt: skip
    assert {TOKENIZER.decode(one.tokens): one.score for one in result} == pytest.approx(expected)
    scores = [one.score for one in result]
    assert scores == sorted(scores, reverse=True)
    assert rescorer.rescore([]) == []
    assert rescorer.rescore(CAT[:1]) == CAT[:1]


def test_a_search_with_a_rescorer_returns_what_the_network_prefers() -> None:
    """Heard: a with 0.6, b with 0.4. The network has b a thousand times as likely as a."""
    model = tiny_model()
    a, b = TOKENIZER.encode("ab")
    with torch.no_grad():
        model.network.output.weight.zero_()
        model.network.output.bias[a], model.network.output.bias[b] = 0.0, math.log(1000)
    log_probs = np.full((1, TOKENIZER.size), -np.inf, np.float32)
    log_probs[0, [a, b]] = np.log([0.6, 0.4])
    alone = BeamDecoder(TOKENIZER, BeamSettings(n_best=1))
    assert [one.tokens for one in alone.decode(log_probs)] == [(a,)]
    for weight, first in ((0.05, a), (0.07, b)):  # 0.6 / 0.4 is 1000 ** 0.059
        decoder = alone.with_rescorer(Rescorer(model, RescoringWeights(weight)))
        (best,) = decoder.decode(log_probs)
        assert best.tokens == (first,)
        assert best.frames == (0,)  # the times are those of the text that won
        heard = math.log(0.6 if first == a else 0.4)
        (neural,) = model.log_probs([TOKENIZER.decode(best.tokens)])
        assert best.score == pytest.approx(heard + weight * neural, abs=1e-5)
    assert [one.tokens for one in alone.decode(log_probs)] == [(a,)]
    narrow = alone.with_rescorer(Rescorer(model, RescoringWeights(1.0), candidates=1))
    assert narrow.decode(log_probs)[0].tokens == (a,)


@pytest.mark.parametrize("weights", [(-1.0,), (math.inf,), (math.nan,), (1.0, math.nan)])
def test_bad_weights_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        RescoringWeights(*weights)


def test_another_alphabet_is_refused() -> None:
    rescorer = Rescorer(tiny_model(CharTokenizer("ab ")), RescoringWeights(1.0))
    with pytest.raises(ModelError, match="knows the characters 'ab ', the recogniser writes"):
        rescorer.check(TOKENIZER)
    rescorer.check(CharTokenizer("ab "))


# --- Tuning ---------------------------------------------------------------------------------------


def test_tuning_finds_the_lowest_weight_with_the_fewest_errors_and_scores_each_text_once() -> None:
    asked: list[str] = []

    def log_probs(of: Sequence[str]) -> list[float]:
        asked.extend(of)
        return [NEURAL[text] for text in of]

    best, trials = tune_rescoring(
        [[CAT], [DOG, CAT], [[]]], ["the cat", "a dog the cat", "oh"], TOKENIZER, log_probs,
        [2.0, 0.0, 0.5, 1.0], [0.0, 1.0],
    )  # fmt: skip
    assert best.weights == RescoringWeights(0.5, 0.0)
    tried = [(trial.weights.weight, trial.weights.word_bonus) for trial in trials]
    assert tried == [(0, 0), (0.5, 0), (0.5, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert [trial.errors.substitutions for trial in trials] == [2, 0, 0, 0, 0, 0, 0]
    assert {trial.errors.deletions for trial in trials} == {1}  # nothing was heard
    assert sorted(asked) == sorted(NEURAL)


def test_a_wrong_neural_model_is_given_no_weight() -> None:
    best, _ = tune_rescoring(
        [[CAT]], ["the cut"], TOKENIZER, lambda of: [NEURAL[text] for text in of], [1.0], [0.0]
    )
    assert best.weights == RescoringWeights(0.0)
