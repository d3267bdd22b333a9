"""Tables of errors by pencil: groups, ranges, confusions, judged words."""

from __future__ import annotations

import dataclasses

import pytest

from speech.error_tables import (
    NOTHING,
    SPACE,
    character_confusions,
    common_word_errors,
    group_tables,
    judged_confidences,
)
from speech.metrics import ErrorCounts, sum_errors
from speech.results import score_pair
from speech.transcript import Word

SCORES = (
    score_pair("1", "a b", "a x", speaker="ann", duration=1.0, signal_to_noise_db=-3.0),
    score_pair("2", "a b", "a x y", speaker="ann", duration=2.0, signal_to_noise_db=40.0),
    score_pair("3", "c c a", "c", speaker="bob", duration=40.0, signal_to_noise_db=None),
    score_pair("4", "d", "d", speaker=None, duration=4.999, signal_to_noise_db=12.0),
)


def test_groups_by_pencil() -> None:
    tables = group_tables(SCORES)
    assert list(tables) == ["speaker", "duration", "signal-to-noise ratio"]  # one corpus only
    ann, bob, unknown = tables["speaker"]
    assert (ann.name, ann.utterances, ann.audio_seconds) == ("ann", 2, 3.0)
    assert ann.words == ErrorCounts(2, 0, 1, 4)
    assert (bob.name, bob.words.rate) == ("bob", 2 / 3)
    assert (unknown.name, unknown.to_dict()["wer"]) == ("unknown", 0.0)


def test_ranges_hold_their_lower_edge_and_are_in_order() -> None:
    tables = group_tables(SCORES)
    assert [(g.name, g.utterances) for g in tables["duration"]] == [
        ("below 2 s", 1), ("2 to 5 s", 2), ("30 s and more", 1),
    ]  # fmt: skip
    assert [g.name for g in tables["signal-to-noise ratio"]] == [
        "below 0 dB", "10 to 15 dB", "40 dB and more", "unknown",
    ]  # fmt: skip


@pytest.mark.parametrize("title", ["speaker", "duration", "signal-to-noise ratio"])
def test_every_table_adds_up_to_the_whole(title: str) -> None:
    groups = group_tables(SCORES)[title]
    assert sum_errors(g.words for g in groups) == sum_errors(s.words for s in SCORES)
    assert sum(g.utterances for g in groups) == len(SCORES)
    for group in groups:
        low, high = group.wer_interval
        assert low <= group.words.rate <= high


def test_word_errors_by_pencil() -> None:
    errors = common_word_errors(SCORES, 9)
    assert errors.substituted == [("b", "x", 1), ("b", "y", 1)]
    assert errors.deleted == [("a", 1, 3), ("c", 1, 2)]
    assert errors.inserted == [("x", 1)]
    assert common_word_errors(SCORES, 1).deleted == [("a", 1, 3)]


def test_characters_by_pencil() -> None:
    scores = [score_pair("1", "the cat", "he cat"), score_pair("2", "so", "so oh")]
    confusions = character_confusions(scores)
    wrong = {pair: count for pair, count in confusions.items() if pair[0] != pair[1]}
    assert wrong == {
        ("t", NOTHING): 1, (NOTHING, SPACE): 1, (NOTHING, "o"): 1, (NOTHING, "h"): 1,
    }  # fmt: skip
    assert (confusions["t", "t"], confusions[SPACE, SPACE]) == (1, 1)
    assert sum(wrong.values()) == sum_errors(score.characters for score in scores).errors
    assert sum(count for (said, _), count in confusions.items() if said != NOTHING) == 9


def test_words_heard_are_judged() -> None:
    heard = tuple(Word(w, 0, 0, c) for w, c in (("a", 0.9), ("x", 0.25), ("y", 0.5)))
    scores = [dataclasses.replace(SCORES[1], heard=heard), SCORES[0]]  # the other has no words
    assert judged_confidences(scores) == ([0.9, 0.25, 0.5], [True, False, False])
