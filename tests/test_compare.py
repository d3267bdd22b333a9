"""Comparing two results: same utterances only, figures by pencil, aligned views."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech.compare import compare, merge_alignments, pair_up, render_pair
from speech.errors import SpeechError
from speech.metrics import align
from speech.results import Evaluation, score_pair

REFERENCES = {"u1": "a b c d", "u2": "e f", "u3": "g h i j"}


def evaluation(*heard: str, speakers: str = "   ", **changes: str) -> Evaluation:
    scores = tuple(
        score_pair(name, reference, text, speaker=speaker.strip() or None)
        for (name, reference), text, speaker in zip(
            REFERENCES.items(), heard, speakers, strict=True
        )
    )
    return dataclasses.replace(Evaluation(scores, 10.0, 1.0, "m", "0" * 64), **changes)


A = evaluation("a x x x", "e f", "g h")  # 3 + 0 + 2 errors of 10 words
B = evaluation("a b x d", "e z", "g h i")  # 1 + 1 + 1


def test_figures_by_pencil() -> None:
    result = compare(A, B)
    figures = result.to_dict(9)
    assert figures["wer_difference"] == -2 / 10
    assert figures["relative_reduction"] == 2 / 5
    assert (figures["resampled"], figures["drawn"]) == ("utterances", 3)
    assert (figures["utterances_improved"], figures["utterances_worsened"]) == (2, 1)
    assert [row["id"] for row in figures["improved"]] == ["u1", "u3"]  # type: ignore[attr-defined]
    assert [row["id"] for row in figures["worsened"]] == ["u2"]  # type: ignore[attr-defined]
    assert figures["a"]["wer"] == 0.5  # type: ignore[index]
    better, worse = result.changed(1)
    assert [pair.a.name for pair in better] == ["u1"]
    assert [pair.added_errors for pair in worse] == [1]


def test_speakers_are_drawn_where_they_are_known() -> None:
    spoken = evaluation("a", "e", "g", speakers="xxy")
    result = compare(spoken, spoken)
    assert (result.resampled, result.drawn) == ("speakers", 2)
    assert result.bootstrap.difference == 0


def test_no_error_in_a_leaves_nothing_to_reduce() -> None:
    perfect = evaluation(*REFERENCES.values())
    assert compare(perfect, A).relative_reduction is None


def test_another_order_is_the_same_set() -> None:
    turned = dataclasses.replace(B, scores=B.scores[::-1])
    pairs = pair_up(A.scores, turned.scores)
    assert [(pair.a.name, pair.b.name) for pair in pairs] == [(n, n) for n in REFERENCES]
    assert compare(A, turned).bootstrap == compare(A, B).bootstrap


def test_one_name_in_two_corpora_is_told_apart_by_its_reference() -> None:
    scores = (score_pair("1", "a", "a"), score_pair("1", "b", "x"), score_pair("1", "a", "y"))
    pairs = pair_up(scores, scores[::-1])
    assert [pair.b.reference for pair in pairs] == ["a", "b", "a"]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (A.scores[:2], "'u3' is in A but not in B .the other has 2"),
        ((*A.scores, score_pair("u4", "k", "k")), "'u4' is in B but not in A .the other has 3"),
        ((A.scores[0], score_pair("u2", "e g", ""), A.scores[2]),
         "'u2' has the reference 'e f' in A but 'e g' in B"),
        ((*A.scores, A.scores[0]), "'u1' is in B but not in A"),
    ],
    ids=["fewer", "more", "reference", "twice"],
)  # fmt: skip
def test_other_utterances_are_refused_by_name(scores: object, message: str) -> None:
    with pytest.raises(SpeechError, match=message):
        compare(A, dataclasses.replace(A, scores=scores))


def test_another_normaliser_is_refused() -> None:
    with pytest.raises(SpeechError, match="A is normalised by 'english-1', B by 'none'"):
        compare(A, dataclasses.replace(A, normaliser="none"))


def test_both_hypotheses_stand_below_the_reference() -> None:
    reference = "the cat sat down"
    pair = pair_up([score_pair("u", reference, "the bat sat sat")],
                   [score_pair("u", reference, "oh the cat down")])[0]  # fmt: skip
    assert render_pair(pair).splitlines() == [
        "u: 2 errors in A, 2 in B",
        "REF: ** the cat sat down",
        "  A: ** the bat sat sat",
        "  B: oh the cat *** down",
        "     B      A   B   A",
    ]


WORDS = st.lists(st.sampled_from("abc"), max_size=8)


@settings(deadline=None)
@given(WORDS, WORDS, WORDS)
def test_merging_keeps_all_three_texts(reference: list[str], a: list[str], b: list[str]) -> None:
    columns = list(merge_alignments(align(reference, a), align(reference, b)))
    for side, text in enumerate((reference, a, b)):
        assert [column[side] for column in columns if column[side] is not None] == text
