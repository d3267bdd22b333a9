from __future__ import annotations

import math

import jiwer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from speech.metrics import (
    Edit,
    ErrorCounts,
    align,
    character_errors,
    count_errors,
    render_alignment,
    sum_errors,
    word_errors,
)

WORDS = st.lists(st.sampled_from(["a", "b", "c", "dog", "cat"]), max_size=25).map(" ".join)
CHARACTERS = st.text(alphabet="abc d", max_size=30)


# --- Counts ---------------------------------------------------------------------------------------


def test_counts_add_up_and_the_rate_is_of_the_sum() -> None:
    total = sum_errors([ErrorCounts(1, 2, 3, 10), ErrorCounts(4, 5, 6, 90)])
    assert total == ErrorCounts(5, 7, 9, 100)
    assert total.errors == 21
    assert total.rate == 0.21
    assert sum_errors([]) == ErrorCounts(0, 0, 0, 0)


def test_rate_is_never_clamped() -> None:
    assert word_errors("a", "x y z").rate == 3.0


def test_empty_reference_is_decided() -> None:
    assert word_errors("", "").rate == 0.0
    assert word_errors("", "a b") == ErrorCounts(insertions=2)
    assert word_errors("", "a b").rate == math.inf
    assert word_errors("a b", "") == ErrorCounts(deletions=2, reference_length=2)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "counts"),
    [
        ("the cat sat", "the cat sat", (0, 0, 0, 3)),
        ("the cat sat", "the bat sat", (1, 0, 0, 3)),
        ("the cat sat", "the sat", (0, 1, 0, 3)),
        ("the cat sat", "the old cat sat", (0, 0, 1, 3)),
        # Two substitutions would cost the same; an insertion and a deletion keep "on" matched.
        ("on the mat", "down on mat", (0, 1, 1, 3)),
        (" the  cat ", "the cat", (0, 0, 0, 2)),
    ],
)
def test_word_errors(reference: str, hypothesis: str, counts: tuple[int, ...]) -> None:
    assert word_errors(reference, hypothesis) == ErrorCounts(*counts)


def test_character_errors_count_spaces() -> None:
    assert character_errors("a b", "ab") == ErrorCounts(0, 1, 0, 3)
    assert character_errors("kitten", "sitting") == ErrorCounts(2, 0, 1, 6)


@settings(deadline=None, max_examples=300)
@given(WORDS.filter(bool), WORDS)
def test_word_errors_equal_jiwer_and_rapidfuzz(reference: str, hypothesis: str) -> None:
    counts = word_errors(reference, hypothesis)
    theirs = jiwer.process_words(reference, hypothesis)
    assert counts.rate == pytest.approx(jiwer.wer(reference, hypothesis), abs=1e-12)
    assert counts.errors == theirs.substitutions + theirs.deletions + theirs.insertions
    assert counts.deletions - counts.insertions == theirs.deletions - theirs.insertions
    assert counts.reference_length == theirs.hits + theirs.substitutions + theirs.deletions
    assert counts.substitutions <= theirs.substitutions
    assert counts.errors == Levenshtein.distance(reference.split(), hypothesis.split())


@settings(deadline=None, max_examples=300)
@given(CHARACTERS.map(str.strip).filter(bool), CHARACTERS.map(str.strip))
def test_character_errors_equal_jiwer_and_rapidfuzz(reference: str, hypothesis: str) -> None:
    counts = character_errors(reference, hypothesis)
    assert counts.rate == pytest.approx(jiwer.cer(reference, hypothesis), abs=1e-12)
    assert counts.errors == Levenshtein.distance(reference, hypothesis)


@settings(deadline=None)
@given(st.lists(st.tuples(WORDS.filter(bool), WORDS), min_size=1, max_size=5))
def test_corpus_rate_equals_jiwer(pairs: list[tuple[str, str]]) -> None:
    references, hypotheses = map(list, zip(*pairs, strict=True))
    total = sum_errors(word_errors(*pair) for pair in pairs)
    assert total.rate == pytest.approx(jiwer.wer(references, hypotheses), abs=1e-12)


# --- Alignment ------------------------------------------------------------------------------------


def test_alignment_of_a_pencil_example() -> None:
    assert align(["the", "cat", "sat"], ["cat", "sit", "down"]) == [
        Edit("deletion", "the", None),
        Edit("match", "cat", "cat"),
        Edit("insertion", None, "sit"),
        Edit("substitution", "sat", "down"),
    ]


@settings(deadline=None, max_examples=300)
@given(CHARACTERS, CHARACTERS)
def test_alignment_rebuilds_both_sides_at_the_least_cost(reference: str, hypothesis: str) -> None:
    edits = align(reference, hypothesis)
    assert "".join(edit.reference or "" for edit in edits) == reference
    assert "".join(edit.hypothesis or "" for edit in edits) == hypothesis
    for edit in edits:
        assert (edit.kind == "match") == (edit.reference == edit.hypothesis)
        assert (edit.kind == "insertion") == (edit.reference is None)
        assert (edit.kind == "deletion") == (edit.hypothesis is None)
    assert count_errors(edits).errors == Levenshtein.distance(reference, hypothesis)


def _most_matches(reference: str, hypothesis: str) -> tuple[int, int]:
    """(errors, substitutions) of the best alignment by plain recursion."""
    if not reference or not hypothesis:
        return len(reference) + len(hypothesis), 0
    errors, substitutions = _most_matches(reference[:-1], hypothesis[:-1])
    differs = reference[-1] != hypothesis[-1]
    choices = [(errors + differs, substitutions + differs)]
    for shorter in ((reference[:-1], hypothesis), (reference, hypothesis[:-1])):
        errors, substitutions = _most_matches(*shorter)
        choices.append((errors + 1, substitutions))
    return min(choices)


@settings(deadline=None)
@given(st.text("abc", max_size=5), st.text("abc", max_size=5))
def test_alignment_has_the_fewest_substitutions(reference: str, hypothesis: str) -> None:
    counts = character_errors(reference, hypothesis)
    assert (counts.errors, counts.substitutions) == _most_matches(reference, hypothesis)


def test_rendered_alignment() -> None:
    edits = align(
        ["the", "cat", "sat", "on", "the", "mat"], ["the", "bat", "sat", "down", "on", "mat"]
    )
    assert render_alignment(edits) == (
        "REF: the cat sat **** on the mat\n"
        "HYP: the bat sat down on *** mat\n"
        "         S       I       D"
    )
    assert render_alignment(edits, width=21) == (
        "REF: the cat sat ****\n"
        "HYP: the bat sat down\n"
        "         S       I\n"
        "\n"
        "REF: on the mat\n"
        "HYP: on *** mat\n"
        "        D"
    )
    assert render_alignment(align(["extraordinary"], ["a"]), width=5) == (
        "REF: extraordinary\nHYP: a\n     S"
    )
    assert render_alignment([]) == "REF:\nHYP:\n"


@settings(deadline=None)
@given(WORDS, WORDS, st.integers(min_value=20, max_value=60))
def test_rendered_alignment_keeps_its_width_and_its_words(
    reference: str, hypothesis: str, width: int
) -> None:
    lines = render_alignment(align(reference.split(), hypothesis.split()), width).split("\n")
    assert max(map(len, lines)) <= width
    for label, text in (("REF:", reference), ("HYP:", hypothesis)):
        words = " ".join(line[4:] for line in lines if line.startswith(label)).split()
        assert [word for word in words if word.strip("*")] == text.split()
