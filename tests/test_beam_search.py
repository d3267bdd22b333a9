"""The beam search against enumeration of all paths, against pencils, and against itself."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from speech.beam_search import BeamDecoder, BeamSettings
from speech.decode import collapse, greedy, label_log_probability
from speech.errors import ConfigError, LanguageModelError, SpeechError
from speech.hot_words import HotWord
from speech.language_model import NgramModel
from speech.tokenizer import CharTokenizer

LETTERS = CharTokenizer("ab")
WORDS = CharTokenizer(" ab")
UNPRUNED = BeamSettings(
    beam_size=2000, beam_threshold=math.inf, token_threshold=math.inf, n_best=2000
)
SEEDS = st.integers(0, 2**32 - 1)
ARPA = r"""\data\
ngram 1=6
ngram 2=5

\1-grams:
-1.3 <unk>
-99 <s> -0.3
-0.7 </s>
-0.6 a -0.2
-0.8 ab -0.1
-1.1 b

\2-grams:
-0.3 <s> a
-0.9 <s> b
-0.2 a b
-0.5 a ab
-0.4 ab </s>

\end\
"""


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> NgramModel:
    path = tmp_path_factory.mktemp("lm") / "tiny.arpa"
    path.write_text(ARPA)
    return NgramModel.load(path)


def random_log_probs(seed: int, frames: int, vocabulary: int, sharpness: float = 1.5
                     ) -> NDArray[np.float32]:  # fmt: skip
    logits = np.random.default_rng(seed).normal(scale=sharpness, size=(frames, vocabulary))
    log_probs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return log_probs.astype(np.float32)


def certain(text: str) -> NDArray[np.float32]:
    """Log-probs that leave no doubt: a frame a character, and 0 for all others."""
    log_probs = np.full((len(text), WORDS.size), -np.inf, np.float32)
    log_probs[np.arange(len(text)), WORDS.encode(text)] = 0.0
    return log_probs


def enumerate_labels(log_probs: NDArray[np.float32]) -> dict[tuple[int, ...], float]:
    """The log-prob of every labelling: all V^T' paths, one by one."""
    frames, vocabulary = log_probs.shape
    found: dict[tuple[int, ...], float] = defaultdict(lambda: -math.inf)
    for path in itertools.product(range(vocabulary), repeat=frames):
        log_prob = sum(float(log_probs[t, token]) for t, token in enumerate(path))
        labels = collapse(path)
        found[labels] = np.logaddexp(found[labels], log_prob)
    return found


def enumerate_texts(log_probs: NDArray[np.float32]) -> dict[str, float]:
    """The log-prob of every sequence of words: how many spaces are between them is no matter."""
    found: dict[str, float] = defaultdict(lambda: -math.inf)
    for labels, log_prob in enumerate_labels(log_probs).items():
        text = " ".join(WORDS.decode(labels).split())
        found[text] = np.logaddexp(found[text], log_prob)
    return found


def found_texts(decoder: BeamDecoder, log_probs: NDArray[np.float32]) -> dict[str, float]:
    return {decoder.tokenizer.decode(one.tokens): one.score for one in decoder.search(log_probs)}


def assert_same_scores(found: dict[str, float], expected: dict[str, float]) -> None:
    assert found.keys() == expected.keys()
    for text, score in expected.items():
        assert found[text] == pytest.approx(score, abs=1e-4), text
    assert list(found.values()) == sorted(found.values(), reverse=True)


def model_score(model: NgramModel, text: str, settings: BeamSettings) -> float:
    """What a text earns, by the definition in `BeamSettings`."""
    words = text.split()
    unknown_letters = sum(len(word) for word in words if word not in model.words)
    log_prob = model.sentence_log_prob(words) - settings.letter_price * unknown_letters
    return settings.lm_weight * log_prob + settings.word_bonus * len(words)


def hot_score(hot_words: Sequence[HotWord], text: str) -> float:
    spaced = f" {text} "
    return sum(
        hot.weight * sum(spaced.startswith(f" {hot.phrase} ", i) for i in range(len(spaced)))
        for hot in hot_words
    )


# --- Without words --------------------------------------------------------------------------------


def test_the_pencil_case_where_greedy_is_wrong() -> None:
    """Two frames, blank 0.6 and a 0.4: the best path is empty (0.36), the best text is a (0.64)."""
    log_probs = np.log(np.array([[0.6, 0.4, 1e-9], [0.6, 0.4, 1e-9]], np.float32))
    assert greedy(log_probs).tokens == ()
    best, second = BeamDecoder(LETTERS, BeamSettings(beam_size=4, n_best=2)).decode(log_probs)
    assert (best.tokens, second.tokens) == ((1,), ())
    assert math.exp(best.score) == pytest.approx(0.4 * 0.6 * 2 + 0.4 * 0.4)
    assert math.exp(second.score) == pytest.approx(0.36)
    assert (best.frames, best.end_frames) == ((0,), (1,)) or best.frames == (1,)


def test_a_double_letter_needs_a_blank_between() -> None:
    log_probs = np.log(np.array([[0.1, 0.9], [0.8, 0.2], [0.1, 0.9]], np.float32))
    best, *others = BeamDecoder(CharTokenizer("a"), UNPRUNED).search(log_probs)
    assert best.tokens == (1, 1)
    assert math.exp(best.log_probability) == pytest.approx(0.9 * 0.8 * 0.9)
    assert sum(math.exp(one.log_probability) for one in (best, *others)) == pytest.approx(1)


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, frames=st.integers(0, 5))
def test_a_beam_without_limits_finds_the_exact_probability_of_every_labelling(
    seed: int, frames: int
) -> None:
    log_probs = random_log_probs(seed, frames, LETTERS.size)
    found = {one.tokens: one.score for one in BeamDecoder(LETTERS, UNPRUNED).search(log_probs)}
    expected = enumerate_labels(log_probs)
    assert found.keys() == expected.keys()
    for tokens, score in expected.items():
        assert found[tokens] == pytest.approx(score, abs=1e-4)
        assert label_log_probability(log_probs, tokens) == pytest.approx(score, abs=1e-4)


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, frames=st.integers(1, 60), sharpness=st.floats(0.1, 6))
def test_a_beam_of_one_is_greedy(seed: int, frames: int, sharpness: float) -> None:
    log_probs = random_log_probs(seed, frames, 5, sharpness)
    tokenizer = CharTokenizer("abcd")
    (found,) = BeamDecoder(tokenizer, BeamSettings(beam_size=1)).decode(log_probs)
    assert found.tokens == greedy(log_probs).tokens
    assert found.frames == greedy(log_probs).frames


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, beam_size=st.integers(1, 30))
def test_texts_are_distinct_sorted_and_never_scored_above_their_probability(
    seed: int, beam_size: int
) -> None:
    log_probs = random_log_probs(seed, 30, 5)
    decoder = BeamDecoder(CharTokenizer("abcd"), BeamSettings(beam_size=beam_size, n_best=20))
    found = decoder.search(log_probs)
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)
    assert len({one.tokens for one in found}) == len(found) == min(beam_size, 20)
    for one in found:
        assert one.score <= label_log_probability(log_probs, one.tokens) + 1e-5


def test_the_blank_can_be_made_dearer() -> None:
    """A frame with blank 0.6, a 0.4; at a price of log 3 the blank is worth 0.2: a has 2/3."""
    log_probs = np.log(np.array([[0.6, 0.4]], np.float32))
    dearer = BeamSettings(beam_size=2, n_best=2, blank_price=math.log(3))
    first, second = BeamDecoder(CharTokenizer("a"), dearer).search(log_probs)
    assert (first.tokens, second.tokens) == ((1,), ())
    assert math.exp(first.score) == pytest.approx(2 / 3)
    assert math.exp(second.score) == pytest.approx(1 / 3)


# --- With words -----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, lm_weight=st.floats(0, 2), word_bonus=st.floats(-2, 2))
def test_with_a_language_model_every_text_gets_its_exact_score(
    language_model: NgramModel, seed: int, lm_weight: float, word_bonus: float
) -> None:
    log_probs = random_log_probs(seed, 5, WORDS.size)
    rules = BeamSettings(
        beam_size=2000, beam_threshold=math.inf, token_threshold=math.inf, n_best=2000,
        lm_weight=lm_weight, word_bonus=word_bonus, letter_price=0.7,
    )  # fmt: skip
    expected = {
        text: log_prob + model_score(language_model, text, rules)
        for text, log_prob in enumerate_texts(log_probs).items()
    }
    found = found_texts(BeamDecoder(WORDS, rules, language_model), log_probs)
    assert_same_scores(found, expected)


def test_frequent_characters_of_the_language_model_become_dearer(tmp_path: Path) -> None:
    """Of three a and a b by the unigrams, with their spaces: 3/8 are a, 1/8 b, 1/2 spaces."""
    arpa = tmp_path / "two.arpa"
    arpa.write_text(
        "\\data\\\nngram 1=5\n\n\\1-grams:\n-99 <s>\n-1 </s>\n-1 <unk>\n"
        f"{math.log10(0.6)} a\n{math.log10(0.2)} b\n\n\\end\\\n"
    )
    rules = dataclasses.replace(UNPRUNED, lm_weight=0.0, prior_weight=0.5)
    decoder = BeamDecoder(WORDS, rules, NgramModel.load(arpa))
    heard = np.array([[0.1, 0.2, 0.4, 0.3]], np.float32)  # blank, space, a, b
    priors = np.array([1 / 2, 3 / 8, 1 / 8])
    typical = math.exp(np.sum(priors * np.log(priors)))
    expected = heard[0] / np.sqrt([1, *(priors / typical)])
    expected /= expected.sum()
    found = {WORDS.decode(one.tokens): math.exp(one.score) for one in decoder.search(np.log(heard))}
    assert found["a"] == pytest.approx(expected[2])
    assert found["b"] == pytest.approx(expected[3])
    assert found["b"] > found["a"]
    assert found[""] == pytest.approx(expected[0] + expected[1])


def test_a_prior_weight_needs_a_language_model() -> None:
    with pytest.raises(ConfigError, match="prior_weight needs a language model"):
        BeamDecoder(WORDS, BeamSettings(prior_weight=0.5))


HOT = (HotWord("a b", 3.0), HotWord("b", 1.0), HotWord("bb a", 2.5), HotWord("ab", -1.0))


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, with_model=st.booleans())
def test_hot_words_are_paid_for_whole_words_only(
    language_model: NgramModel, seed: int, with_model: bool
) -> None:
    log_probs = random_log_probs(seed, 6, WORDS.size)
    decoder = BeamDecoder(WORDS, UNPRUNED, language_model if with_model else None, HOT)
    expected = {}
    for text, log_prob in enumerate_texts(log_probs).items():
        score = log_prob + hot_score(HOT, text)
        if with_model:
            score += model_score(language_model, text, UNPRUNED)
            # "bb" is a hot word, so that its letters cost nothing.
            price = UNPRUNED.lm_weight * UNPRUNED.letter_price
            score += price * 2 * text.split().count("bb")
        expected[text] = score
    assert_same_scores(found_texts(decoder, log_probs), expected)


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, with_model=st.booleans())
def test_a_lexicon_allows_its_words_only(
    language_model: NgramModel, seed: int, with_model: bool
) -> None:
    log_probs = random_log_probs(seed, 6, WORDS.size)
    decoder = BeamDecoder(
        WORDS, UNPRUNED, language_model if with_model else None, lexicon=["ab", "b", "bab"]
    )
    expected = {}
    for text, log_prob in enumerate_texts(log_probs).items():
        if set(text.split()) <= {"ab", "b", "bab"}:
            score = log_prob
            if with_model:
                words = ["<unk>" if word == "bab" else word for word in text.split()]
                score += UNPRUNED.lm_weight * language_model.sentence_log_prob(words)
            expected[text] = score
    assert_same_scores(found_texts(decoder, log_probs), expected)


def test_a_lexicon_cuts_off_a_word_that_does_not_end() -> None:
    log_probs = certain("b ba")
    (found,) = BeamDecoder(WORDS, lexicon=["b", "bab"]).search(log_probs)
    assert WORDS.decode(found.tokens) == "b"


def test_hot_words_turn_the_choice_and_break_off_without_trace() -> None:
    log_probs = np.log(np.full((5, 4), 0.01, np.float32))
    for frame, (token, probability) in enumerate([(2, 0.97), (0, 0.97), (1, 0.97)]):
        log_probs[frame, token] = math.log(probability)
    log_probs[3] = np.log(np.array([0.01, 0.01, 0.4, 0.58], np.float32))  # a 0.4, b 0.58
    log_probs[4] = np.log(np.array([0.97, 0.01, 0.01, 0.01], np.float32))
    texts = {
        hot: found_texts(BeamDecoder(WORDS, UNPRUNED, None, [HotWord(hot, 4.0)]), log_probs)
        for hot in ("a a", "a ab", "b b")
    }
    best = {hot: next(iter(found)) for hot, found in texts.items()}
    assert best == {"a a": "a a", "a ab": "a b", "b b": "a b"}
    assert texts["b b"]["a b"] == pytest.approx(texts["a ab"]["a b"])


# --- Streams and threads --------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS, cuts=st.lists(st.integers(0, 120), max_size=6), with_model=st.booleans())
def test_chunks_give_what_the_whole_gives(
    language_model: NgramModel, seed: int, cuts: list[int], with_model: bool
) -> None:
    log_probs = random_log_probs(seed, 120, WORDS.size, 3)
    decoder = BeamDecoder(WORDS, BeamSettings(beam_size=12), language_model if with_model else None)
    (whole,) = decoder.search(log_probs)
    stream = decoder.stream()
    tokens, frames = [], []
    edges = [0, *sorted(cuts), len(log_probs)]
    for start, end in itertools.pairwise(edges):
        committed = stream.push(log_probs[start:end])
        tokens += committed.tokens
        frames += committed.frames
        so_far = (*tokens, *stream.partial().tokens)
        assert so_far == decoder.search(log_probs[:end])[0].tokens or with_model
    rest = stream.finish()
    assert (*tokens, *rest.tokens) == whole.tokens
    frames += rest.frames
    assert len(frames) == len(whole.tokens)
    assert frames == sorted(frames)
    assert not frames or frames[-1] < len(log_probs)


def test_an_endless_stream_takes_constant_memory(language_model: NgramModel) -> None:
    decoder = BeamDecoder(WORDS, BeamSettings(beam_size=20), language_model)
    stream = decoder.stream()
    heard, sizes = 0, []
    for number in range(60):
        heard += len(stream.push(random_log_probs(number, 200, WORDS.size, 2)).tokens)
        sizes.append(stream.memory_bytes)
    assert heard > 2000
    assert max(sizes) < 3 * sizes[0]  # a trie that runs full is doubled once, not thirty times


def test_a_stream_that_never_agrees_is_made_to(language_model: NgramModel) -> None:
    """Frames without any evidence keep rivals alive for ever."""
    log_probs = np.full((3000, WORDS.size), -math.log(WORDS.size), np.float32)
    stream = BeamDecoder(WORDS, BeamSettings(beam_size=20), language_model).stream()
    first = stream.push(log_probs)
    bytes_first = stream.memory_bytes
    for _ in range(3):
        stream.push(log_probs)
    assert stream.memory_bytes <= 2 * bytes_first
    assert len(first.tokens) == len(first.frames)


def test_threads_give_what_one_gives(language_model: NgramModel) -> None:
    utterances = [random_log_probs(seed, 80, WORDS.size) for seed in range(12)]
    decoder = BeamDecoder(WORDS, BeamSettings(beam_size=10, n_best=3), language_model)
    serial = decoder.decode_many(utterances)
    assert decoder.decode_many(utterances, threads=3) == serial
    assert serial == [BeamDecoder(WORDS, decoder.settings, language_model).decode(u)
                      for u in utterances]  # fmt: skip


def test_the_trie_grows_where_it_must_and_is_swept_where_it_can() -> None:
    tokenizer = CharTokenizer("abcd")
    decoder = BeamDecoder(tokenizer, BeamSettings(beam_size=60, token_threshold=math.inf))
    log_probs = random_log_probs(5, 4000, 5, 0.3)
    beam = decoder.new_beam()
    beam.begin()
    capacity = len(beam.nodes)
    beam.hear(log_probs)
    assert len(beam.nodes) > capacity
    beam.begin()
    again = beam.results(1)
    beam.hear(log_probs[:300])
    assert again[0].tokens == ()
    assert beam.results(1) == decoder.search(log_probs[:300])


# --- Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [("beam_size", 0), ("n_best", 0), ("beam_threshold", -1.0), ("lm_weight", math.nan),
     ("token_threshold", math.nan), ("tokens_per_frame", 0), ("word_bonus", math.inf)],
)  # fmt: skip
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"^{name} must be .*{value}$"):
        BeamSettings(**{name: value})


def test_what_cannot_be_decoded_is_refused(language_model: NgramModel, tmp_path: Path) -> None:
    with pytest.raises(SpeechError, match="3 tokens, the alphabet with the blank 4"):
        BeamDecoder(WORDS).decode(random_log_probs(0, 4, 3))
    with pytest.raises(SpeechError, match="must be normalised"):
        BeamDecoder(WORDS).decode(np.zeros((4, 4), np.float32))
    with pytest.raises(LanguageModelError, match="cannot spell 'ab'"):
        BeamDecoder(CharTokenizer(" a"), None, language_model)
    with pytest.raises(LanguageModelError, match="space between"):
        BeamDecoder(LETTERS, None, language_model)
    with pytest.raises(LanguageModelError, match="'x'"):
        BeamDecoder(WORDS, lexicon=["a", "x"])
    with pytest.raises(SpeechError, match="probability above 0"):
        BeamDecoder(WORDS, lexicon=["b"]).decode(certain("ab"))
