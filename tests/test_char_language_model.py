"""The character language model: what its probabilities add up to, and how they are read."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speech.char_config import CharConfig, NetworkConfig
from speech.char_language_model import (
    END,
    PADDING,
    CharLanguageModel,
    char_losses,
    find_char_model,
    shifted,
)
from speech.errors import ConfigError, ModelError, SpeechError, TextError
from speech.tokenizer import CharTokenizer

CONFIG = CharConfig(network=NetworkConfig(embedding=5, layers=2, hidden=8))
TEXTS = st.text("ab '", max_size=12)


def make_model(seed: int = 0, config: CharConfig = CONFIG) -> CharLanguageModel:
    torch.manual_seed(seed)
    model = CharLanguageModel.create(config, CharTokenizer())
    with torch.no_grad():  # far from uniform, so that mistakes show
        model.network.output.weight.mul_(4)
    model.network.eval()
    return model


MODEL = make_model()


def uniform_model() -> CharLanguageModel:
    model = make_model()
    with torch.no_grad():
        model.network.output.weight.zero_()
        model.network.output.bias.zero_()
    return model


def test_probabilities_of_the_next_character_add_up_to_one() -> None:
    tokens = torch.randint(0, 29, (3, 7), generator=torch.Generator().manual_seed(1))
    log_probs, _ = MODEL.network(tokens)
    assert log_probs.shape == (3, 7, 29)
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(3, 7))


def test_a_network_that_knows_nothing_loses_log_v_per_character() -> None:
    score = uniform_model().measure(["a bc", "", "it"])
    assert (score.characters, score.words, score.sentences) == (4 + 0 + 2 + 3, 3, 3)
    assert score.nats_per_character == pytest.approx(math.log(29))
    assert score.bits_per_character == pytest.approx(math.log2(29))
    assert score.perplexity_per_character == pytest.approx(29)
    # Nine characters and ends among three words and three ends.
    assert score.perplexity_per_word == pytest.approx(29 ** (9 / 6))


def test_what_is_read_and_what_should_be_said_by_hand() -> None:
    inputs, targets = shifted([torch.tensor([5, 6]), torch.tensor([], dtype=torch.int64)])
    assert inputs.tolist() == [[END, 5, 6], [END, END, END]]
    assert targets.tolist() == [[5, 6, END], [END, PADDING, PADDING]]


def test_losses_by_hand() -> None:
    log_probs = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.3, 0.3, 0.4]]]).log()
    losses = char_losses(log_probs, torch.tensor([[1, 2, PADDING]]))
    assert losses.tolist() == pytest.approx([-math.log(0.25 * 0.7)])


def test_all_texts_of_a_length_and_the_longer_ones_share_all_probability() -> None:
    """p(end) + sum over first characters of p(first) is 1, and so on below each of them."""
    state = MODEL.begin()
    total = math.exp(MODEL.end_log_prob(state))
    for first in MODEL.tokenizer.alphabet:
        log_prob, after = MODEL.advance(state, first)
        total += math.exp(log_prob) * math.exp(MODEL.end_log_prob(after))
        total += math.exp(log_prob) * (1 - math.exp(MODEL.end_log_prob(after)))
    assert total == pytest.approx(1, abs=1e-5)


@settings(deadline=None, max_examples=25)
@given(TEXTS, st.data())
def test_scored_piece_by_piece_equals_the_whole(text: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(text)))
    one, state = MODEL.advance(MODEL.begin(), text[:cut])
    other, state = MODEL.advance(state, text[cut:])
    (whole,) = MODEL.log_probs([text])
    assert one + other + MODEL.end_log_prob(state) == pytest.approx(whole, abs=1e-4)


@settings(deadline=None, max_examples=25)
@given(st.lists(TEXTS, min_size=1, max_size=6))
def test_a_text_is_scored_alone_as_in_any_batch(texts: list[str]) -> None:
    together = MODEL.log_probs(texts)
    alone = [MODEL.log_probs([text])[0] for text in texts]
    assert together == pytest.approx(alone, abs=1e-4)


def test_many_texts_are_scored_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["abba", "", "a b", "b", "aaaaaaa"]
    whole = MODEL.log_probs(texts)
    monkeypatch.setattr("speech.char_language_model._SCORED_CHARACTERS", 6)  # batches of one or two
    assert MODEL.log_probs(texts) == pytest.approx(whole, abs=1e-4)
    assert MODEL.log_probs([]) == []


def test_what_comes_later_changes_nothing_before() -> None:
    a, b = (torch.tensor([MODEL.tokenizer.encode(text)]) for text in ("abcd", "abzz"))
    one, other = MODEL.network(a)[0], MODEL.network(b)[0]
    torch.testing.assert_close(one[:, :2], other[:, :2])
    assert not torch.allclose(one[:, 2:], other[:, 2:])


def test_a_foreign_character_is_refused() -> None:
    with pytest.raises(TextError, match="'7'"):
        MODEL.log_probs(["route 7"])


# --- Writing on -----------------------------------------------------------------------------------


def written(temperature: float, seed: int) -> str:
    return "".join(itertools.islice(MODEL.generate("a", temperature, seed), 200))


def test_the_same_seed_writes_the_same_text() -> None:
    assert written(1.0, seed=3) == written(1.0, seed=3)
    assert written(1.0, seed=3) != written(1.0, seed=4)
    assert written(0.0, seed=3) == written(0.0, seed=4)


def test_characters_are_drawn_as_often_as_they_are_probable() -> None:
    model = uniform_model()
    with torch.no_grad():  # a with 3/4, b with 1/4, in every state; at temperature 1/2 9/10, 1/10
        model.network.output.bias.fill_(-50.0)
        a, b = model.tokenizer.encode("ab")
        model.network.output.bias[a], model.network.output.bias[b] = math.log(3), 0.0
    for temperature, share in ((1.0, 0.75), (0.5, 0.9), (0.0, 1.0)):
        text = "".join(itertools.islice(model.generate("", temperature, 1), 300))
        assert set(text) <= {"a", "b"}
        assert text.count("a") / 300 == pytest.approx(share, abs=0.05)


def test_a_sentence_that_ends_is_followed_by_a_new_one_without_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (a,) = MODEL.tokenizer.encode("a")
    drawn, offered = iter([a, END, a, END]), []

    def draw(log_probs: torch.Tensor, *_: object) -> int:
        offered.append(log_probs)
        return next(drawn)

    monkeypatch.setattr("speech.char_language_model._draw", draw)
    assert "".join(itertools.islice(MODEL.generate("ab"), 4)) == "a\na\n"
    begin = MODEL.begin()
    torch.testing.assert_close(offered[2], begin.log_probs)
    torch.testing.assert_close(offered[3], MODEL.advance(begin, "a")[1].log_probs)
    assert not torch.allclose(offered[0], offered[2])  # the seed text was remembered until then


@pytest.mark.parametrize("temperature", [-0.1, math.inf, math.nan])
def test_a_senseless_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(SpeechError, match="temperature must be at least 0"):
        MODEL.generate("a", temperature)


# --- On disk --------------------------------------------------------------------------------------


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    MODEL.save(tmp_path / "lm")
    loaded = CharLanguageModel.load(tmp_path / "lm")
    assert loaded.config == MODEL.config
    assert loaded.log_probs(["a b"]) == MODEL.log_probs(["a b"])
    MODEL.save(tmp_path / "half", torch.float16)
    assert CharLanguageModel.load(tmp_path / "half").log_probs(["a b"]) == pytest.approx(
        MODEL.log_probs(["a b"]), abs=0.05
    )


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no neural language model 'nowhere'.*lm\.safetensors"):
        find_char_model("nowhere")
    MODEL.save(tmp_path)
    (tmp_path / "lm.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="cannot read the weights"):
        CharLanguageModel.load(tmp_path)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    make_model(config=CharConfig(network=NetworkConfig(embedding=5, hidden=9))).save(tmp_path / "a")
    MODEL.save(tmp_path / "b")
    (tmp_path / "a" / "lm.safetensors").replace(tmp_path / "b" / "lm.safetensors")
    with pytest.raises(ModelError, match="weights do not fit"):
        CharLanguageModel.load(tmp_path / "b")


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="layers above zero, got layers = 0"):
        NetworkConfig(layers=0)
    with pytest.raises(ConfigError, match="dropout in"):
        NetworkConfig(dropout=1.0)
