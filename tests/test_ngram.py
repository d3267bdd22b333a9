"""Estimation: Kneser-Ney by pencil and against a plain reference, mixing, pruning, ARPA out."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from speech.arpa import read_arpa, write_arpa
from speech.errors import LanguageModelError
from speech.language_model import NgramModel
from speech.ngram import Discounts, estimate, estimate_discounts
from speech.ngram_compact import code_book
from speech.ngram_counts import count_ngrams
from speech.ngram_levels import Level, keep, normalised, to_model, to_tables
from speech.ngram_prune import best_weights, mix, prune

UNKNOWN, BEGIN, END = 0, 1, 2
WORDS = ["<unk>", "<s>", "</s>", "a", "b", "c", "d"]
A, B, C, D = 3, 4, 5, 6


def sentences(*texts: str) -> NDArray[np.int32]:
    """Ids of sentences end to end, each between <s> and </s>."""
    ids = [[BEGIN, *(WORDS.index(word) for word in text.split()), END] for text in texts]
    return np.array(list(itertools.chain(*ids)), dtype=np.int32)


def model_of(levels: list[Level]) -> NgramModel:
    return NgramModel.from_tables(to_tables(levels, WORDS, BEGIN))


def probability(model: NgramModel, context: list[int], word: int) -> float:
    """p(word | context) with the context taken up word by word."""
    state = 0
    if context and context[0] == BEGIN:
        state, context = model.begin_state, context[1:]
    for previous in context:
        _, state = model.score(state, previous)
    return math.exp(model.score(state, word)[0])


# --- By pencil ------------------------------------------------------------------------------------


def test_counts_by_pencil() -> None:
    one, two, three = count_ngrams(sentences("a b a", "a b"), len(WORDS), 3, BEGIN)
    assert one.counts.tolist() == [0, 2, 2, 3, 2, 0, 0]
    rows = [(int(p), int(w)) for p, w in zip(two.prefixes, two.words, strict=True)]
    assert rows == [(BEGIN, A), (A, END), (A, B), (B, END), (B, A)]
    assert two.counts.tolist() == [2, 1, 2, 1, 1]
    assert two.suffixes.tolist() == [A, END, B, END, A]
    # <s> a b twice, a b </s>, a b a, b a </s>
    rows = [(int(p), int(w)) for p, w in zip(three.prefixes, three.words, strict=True)]
    assert rows == [(0, B), (2, END), (2, A), (4, END)]
    assert three.counts.tolist() == [2, 1, 1, 1]
    assert three.suffixes.tolist() == [2, 3, 4, 1]


def test_discounts_by_pencil() -> None:
    adjusted = np.repeat([0, 1, 2, 3, 4, 9], [7, 10, 5, 3, 2, 4])
    # Y = 10 / (10 + 2 5) = 0.5; 1 - 2 Y 5/10, 2 - 3 Y 3/5, 3 - 4 Y 2/3
    assert estimate_discounts(adjusted, 2) == pytest.approx((0.5, 1.1, 5 / 3))
    taken = Discounts(0.5, 1.1, 5 / 3).of(np.array([0, 1, 2, 3, 8]))
    assert taken == pytest.approx([0, 0.5, 1.1, 5 / 3, 5 / 3])


def test_bigram_model_by_pencil() -> None:
    """Text: "a b", "a". Discounts 0.5, 1, 1.5, since so little text tells none."""
    model = model_of(estimate(sentences("a b", "a"), len(WORDS), 2, BEGIN, fallback=True))
    # Different words before: a 1 (<s>), b 1 (a), </s> 2 (b, a); 4 in all. Each discount goes to all
    # 6 words but <s>: (0.5 + 0.5 + 1) / 4 / 6
    uniform = 2 / 4 / 6
    assert probability(model, [], A) == pytest.approx(0.5 / 4 + uniform)
    assert probability(model, [], END) == pytest.approx(1 / 4 + uniform)
    assert probability(model, [], UNKNOWN) == pytest.approx(uniform)
    assert probability(model, [], D) == pytest.approx(uniform)
    # After a: b 1, </s> 1, each less 0.5; backoff 1 / 2. After <s>: a 2 less 1, backoff 1 / 2.
    assert probability(model, [A], B) == pytest.approx(0.25 + 0.5 * (0.5 / 4 + uniform))
    assert probability(model, [A], C) == pytest.approx(0.5 * uniform)
    assert probability(model, [BEGIN], A) == pytest.approx(0.5 + 0.5 * (0.5 / 4 + uniform))


def test_too_little_text_says_so() -> None:
    with pytest.raises(LanguageModelError, match=r"discounts of order 1.*--discount-fallback"):
        estimate(sentences("a b", "a"), len(WORDS), 2, BEGIN)
    with pytest.raises(LanguageModelError, match="begin with 0 and not fall"):
        estimate(sentences("a"), len(WORDS), 3, BEGIN, cutoffs=[0, 2, 1], fallback=True)


# --- Against a plain reference --------------------------------------------------------------------


def reference_probability(
    text: NDArray[np.int32], order: int, context: tuple[int, ...], word: int
) -> float:
    """Interpolated modified Kneser-Ney from counters, straight from the formulas."""
    raw: Counter[tuple[int, ...]] = Counter()
    before: dict[tuple[int, ...], set[int]] = defaultdict(set)
    lines = np.split(text, np.flatnonzero(text == BEGIN)[1:])
    for line in (tuple(line.tolist()) for line in lines):
        for length in range(1, order + 1):
            for start in range(len(line) - length + 1):
                ngram = line[start : start + length]
                raw[ngram] += 1
                if start:
                    before[ngram].add(line[start - 1])

    def adjusted(ngram: tuple[int, ...]) -> int:
        if ngram == (BEGIN,):
            return 0
        return raw[ngram] if len(ngram) == order or ngram[0] == BEGIN else len(before[ngram])

    def discount(count: int) -> float:
        return (0.0, 0.5, 1.0, 1.5)[min(count, 3)]

    def prob(context: tuple[int, ...], word: int) -> float:
        lower = prob(context[1:], word) if context else 1 / (len(WORDS) - 1)
        counts = [
            adjusted((*context, w)) for w in range(len(WORDS)) if raw[(*context, w)] and w != BEGIN
        ]
        if not counts:
            return lower
        own = adjusted((*context, word))
        given = sum(discount(count) for count in counts) / sum(counts)
        return (own - discount(own)) / sum(counts) + given * lower

    return prob(context, word)


TEXTS = st.lists(
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=6).map(" ".join), min_size=1, max_size=6
)


def fallback_discounts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("speech.ngram.estimate_discounts", lambda *_: Discounts(0.5, 1.0, 1.5))


def contexts(longest: int) -> list[tuple[int, ...]]:
    inner = [c for n in range(longest + 1) for c in itertools.product((A, B, C), repeat=n)]
    return inner + [(BEGIN, *c) for c in inner if len(c) < longest]


@settings(deadline=None, max_examples=15)
@given(TEXTS, st.integers(2, 4))
def test_equals_the_reference(texts: list[str], order: int) -> None:
    ids = sentences(*texts)
    with pytest.MonkeyPatch.context() as patch:
        fallback_discounts(patch)
        model = model_of(estimate(ids, len(WORDS), order, BEGIN))
    for context in contexts(order - 1)[::3]:
        for word in (UNKNOWN, END, A, B, D):
            expected = reference_probability(ids, order, context, word)
            got = probability(model, list(context), word)
            assert got == pytest.approx(expected, rel=1e-5), (context, word)


def assert_sums_to_one(model: NgramModel, longest: int) -> None:
    for context in contexts(longest):
        total = sum(probability(model, list(context), w) for w in range(len(WORDS)) if w != BEGIN)
        assert total == pytest.approx(1, abs=1e-5), context


@settings(deadline=None, max_examples=10)
@given(TEXTS, TEXTS, st.floats(0.05, 0.95))
def test_every_model_sums_to_one(some: list[str], others: list[str], share: float) -> None:
    order = 3
    models = [
        estimate(sentences(*texts), len(WORDS), order, BEGIN, cutoffs=cut, fallback=True)
        for texts, cut in ((some, ()), (others, (0, 0, 1)))
    ]
    mixture = mix(models, [share, 1 - share])
    pruned = prune(mixture, 0.02)
    for levels in (*models, mixture, pruned):
        assert_sums_to_one(model_of(levels), order - 1)


def test_blocks_do_not_matter() -> None:
    random = np.random.default_rng(0)
    lines = (" ".join(random.choice(list("abcd"), size=random.integers(1, 9))) for _ in range(99))
    ids = sentences(*lines)
    whole = count_ngrams(ids, len(WORDS), 4, BEGIN)
    for block in (1, 7, 100):
        passed: list[float] = []
        counted = count_ngrams(ids, len(WORDS), 4, BEGIN, passed.append, block)
        assert sum(passed) == sum(len(ids) - length for length in (1, 2, 3))
        for ours, theirs in zip(counted, whole, strict=True):
            for name in ("prefixes", "words", "suffixes", "counts"):
                np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


# --- Cutting off, mixing, pruning -----------------------------------------------------------------

LONG = ("a b c d", "a b c d", "a b c", "b c d a", "d a b", "d d a", "c b a")


def long_model(order: int = 3) -> list[Level]:
    return estimate(sentences(*LONG), len(WORDS), order, BEGIN, fallback=True)


def test_cut_off_leaves_out_what_is_rare() -> None:
    counted = count_ngrams(sentences(*LONG), len(WORDS), 3, BEGIN)
    cut = estimate(sentences(*LONG), len(WORDS), 3, BEGIN, cutoffs=(0, 0, 1), fallback=True)
    assert [len(level) for level in cut] == [7, len(counted[1]), int((counted[2].counts > 1).sum())]


def test_mixture_is_the_weighted_sum_where_an_ngram_is() -> None:
    models = [
        estimate(sentences(*texts), len(WORDS), 3, BEGIN, fallback=True)
        for texts in (LONG[:4], LONG[4:])
    ]
    mixed = mix(models, [0.3, 0.7])
    one, two, both = (model_of(levels) for levels in (*models, mixed))
    tables = to_tables(mixed, WORDS, BEGIN)
    assert max(tables.counts) > max(len(models[0][2]), len(models[1][2]))
    for level in tables.levels:
        for row in level.ids.tolist():
            if row[-1] == BEGIN:
                continue
            expected = 0.3 * probability(one, row[:-1], row[-1])
            expected += 0.7 * probability(two, row[:-1], row[-1])
            assert probability(both, row[:-1], row[-1]) == pytest.approx(expected, rel=1e-5)
    shares = [sum(level.frequencies.sum() for level in model[:1]) for model in (*models, mixed)]
    assert shares[2] == pytest.approx(0.3 * shares[0] + 0.7 * shares[1])


def test_weights_that_suit_a_text() -> None:
    rows = np.array([[0.5, 0.5, 0.5, 0.1], [0.1, 0.1, 0.1, 0.9]])
    weights = best_weights(rows)
    grid = np.linspace(0.001, 0.999, 999)
    best = grid[np.argmax([np.log(w * rows[0] + (1 - w) * rows[1]).sum() for w in grid])]
    assert weights[0] == pytest.approx(best, abs=2e-3)
    assert weights.sum() == pytest.approx(1)


def test_pruning_removes_what_moves_the_model_least() -> None:
    """Stolcke's closed formula against the relative entropy summed word by word."""
    levels = long_model(2)
    full = model_of(levels)
    two = levels[1]
    distances = []
    for victim in range(len(two)):
        mask = np.arange(len(two)) != victim
        ones = np.ones(len(levels[0]), dtype=bool)
        without = model_of(normalised(keep(levels, [ones, mask])))
        context = int(two.prefixes[victim])
        distance = 0.0
        for word in (UNKNOWN, END, A, B, C, D):
            p = probability(full, [context], word)
            distance += p * math.log(p / probability(without, [context], word))
        distances.append(distance * levels[0].frequencies[context])
    for threshold in (0.001, 0.01, 0.03, 0.1):
        kept = prune(levels, threshold)[1]
        expected = [i for i, d in enumerate(distances) if d >= math.log1p(threshold)]
        rows = list(zip(two.prefixes.tolist(), two.words.tolist(), strict=True))
        assert list(zip(kept.prefixes.tolist(), kept.words.tolist(), strict=True)) == [
            rows[i] for i in expected
        ]
    assert len({round(d, 9) for d in distances}) > 4


def test_model_for_use_is_that_of_the_tables() -> None:
    levels = prune(long_model(), 0.01)
    tables = model_of(levels)
    for ours, theirs in zip(to_model(levels, WORDS, BEGIN).arrays, tables.arrays, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
        assert not ours.flags.writeable


def test_pruned_model_is_closed_so_that_it_packs(tmp_path: Path) -> None:
    model = model_of(prune(long_model(), 0.01))
    assert model.counts[1] < len(long_model()[1])
    for bits in (8, 16):
        model.save(tmp_path / "lm.bin", bits)
        loaded = NgramModel.load(tmp_path / "lm.bin")
        for ours, theirs in zip(model.arrays, loaded.arrays, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_codes_are_as_exact_as_stated() -> None:
    """Of normal numbers 8 bits leave an error of half a percent of the spread, 16 next to none."""
    values = np.random.default_rng(0).normal(-6, 2, size=200_000).astype(np.float32)
    for bits, mean_error, largest in ((8, 0.015, 0.5), (16, 5e-5, 1e-3)):
        book = code_book(values, 1 << bits)
        assert len(book) <= 1 << bits
        nearest = book[np.searchsorted((book[1:] + book[:-1]) / 2, values)]
        errors = np.abs(nearest - values)
        assert errors.mean() < mean_error
        assert errors.max() < largest
    few = np.array([-1, -1, 0, 2], dtype=np.float32)
    assert code_book(few, 256).tolist() == [-1, 0, 2]
    with_zero = np.append(values, np.zeros(10, dtype=np.float32))
    assert 0 in code_book(with_zero, 256)


# --- Written out ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lm.arpa", "lm.arpa.gz"])
def test_arpa_out_is_the_same_model_to_us_and_to_kenlm(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    tables = to_tables(long_model(), WORDS, BEGIN)
    write_arpa(path, tables)
    again = read_arpa(path)
    assert again.words == tables.words
    model, reread = NgramModel.from_tables(tables), NgramModel.load(path)
    texts = ["a b c d", "d d d", "c b a x a", "", "b"]
    for text in texts:
        assert reread.sentence_log_prob(text.split()) == pytest.approx(
            model.sentence_log_prob(text.split()), abs=1e-5
        )
    kenlm = pytest.importorskip("kenlm")
    theirs = kenlm.Model(str(path))
    for text in texts:
        log10 = model.sentence_log_prob(text.split()) / math.log(10)
        assert log10 == pytest.approx(theirs.score(text), abs=1e-4)
        words = len(text.split()) + 1
        assert 10 ** (-log10 / words) == pytest.approx(theirs.perplexity(text), rel=1e-4)
