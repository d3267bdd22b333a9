"""What a prefix is worth to the language model, the lexicon and the hot words, compiled.

Words count when they end, by their n-gram log-probs and bonuses; the word at hand counts as the
best it can still become. What a word costs is looked up once for a node of the trie.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from speech.hot_words import HotStates
from speech.language_model import advance
from speech.lexicon import NO_WORD
from speech.prefix_space import Knowledge, Rules, Space
from speech.prefix_trie import ACTIVE, NONE, SIDE

OUTSIDE = -1  # place in the lexicon of letters that begin no word of it
UNKNOWN_WORD = 0
NEGLIGIBLE = -37.0  # e to this is below the precision of a double


@njit(cache=True, nogil=True)
def worth_at_end(nodes: NDArray[Any], number: int, knowledge: Knowledge, rules: Rules) -> float:
    """What the text is worth with the word at hand ended by a space."""
    node = nodes[number]
    if np.isnan(node["end_score"]):
        _end_word(nodes, number, knowledge, rules)
    hot = knowledge.hot.following[node["hot"], rules.space]
    worth: float = node["end_score"] + knowledge.hot.promised[hot]
    return worth


@njit(cache=True, nogil=True)
def _end_word(nodes: NDArray[Any], number: int, knowledge: Knowledge, rules: Rules) -> None:
    """Look up, once for a node, what its last word costs; -inf where no such word may be."""
    node = nodes[number]
    word, log_prob = NO_WORD, 0.0
    if node["lexeme"] != OUTSIDE:
        word = knowledge.lexicon.words[node["lexeme"]]
    node["end_state"] = node["state"]
    if word == NO_WORD:
        if rules.closed:
            node["end_score"] = -np.inf
            return
        word, log_prob = UNKNOWN_WORD, rules.letter_log_prob * node["letters"]
    if rules.with_language_model:
        word_log_prob, node["end_state"] = advance(knowledge.language_model, node["state"], word)
        log_prob += float(word_log_prob)
    hot = knowledge.hot.following[node["hot"], rules.space]
    node["end_score"] = node["words_score"] + rules.lm_weight * log_prob + knowledge.hot.paid[hot]


@njit(cache=True, nogil=True)
def judge(
    nodes: NDArray[Any], number: int, lexeme: int, worth: float, base: float, hot: HotStates,
    rules: Rules,
) -> None:  # fmt: skip
    """Write down what a new prefix means to the language model and the hot words."""
    node = nodes[number]
    parent = nodes[node["parent"]]
    node["hot"] = hot.following[parent["hot"], node["token"]]
    node["score"] = worth
    if rules.with_words and node["token"] == rules.space:
        node["letters"], node["lexeme"] = 0, 0
        node["state"] = parent["end_state"]
        node["words_score"] = parent["end_score"]
    else:
        node["letters"], node["lexeme"] = parent["letters"] + 1, lexeme
        node["state"] = parent["state"]
        node["words_score"] = base


@njit(cache=True, nogil=True)
def describe(slot: Any, nodes: NDArray[Any], number: int, rules: Rules) -> None:
    """Copy into the beam what each frame asks of a prefix."""
    node = nodes[number]
    slot["node"] = number
    slot["token"], slot["letters"] = node["token"], node["letters"]
    slot["lexeme"], slot["hot"] = node["lexeme"], node["hot"]
    slot["worth"], slot["base"] = node["score"], node["words_score"]
    slot["ceiling"] = node["score"] + rules.largest_promise
    if rules.with_words and node["letters"] == 0:
        slot["base"] += rules.word_bonus
        slot["ceiling"] = slot["base"] + rules.largest_promise


@njit(cache=True, nogil=True)
def final_scores(
    space: Space, nodes: NDArray[Any], book: NDArray[np.int64], knowledge: Knowledge, rules: Rules
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Totals and scores if the text ends here: last word, end of sentence, promises withdrawn.

    Of a text with a space behind it and the same without, both in the beam, one is left.
    """
    beam = space.slots[book[SIDE]]
    totals = beam["total"][: book[ACTIVE]].copy()
    scores = np.empty(book[ACTIVE], dtype=np.float64)
    for i in range(book[ACTIVE]):
        twin = _without_space(nodes, beam[i]["node"], rules)
        if twin != NONE:
            totals[twin] = log_add(totals[twin], totals[i])
            totals[i] = -np.inf
    for i in range(book[ACTIVE]):
        number = beam[i]["node"]
        node = nodes[number]
        worth, state = node["words_score"], node["state"]
        if rules.with_words and node["letters"] > 0:
            if np.isnan(node["end_score"]):
                _end_word(nodes, number, knowledge, rules)
            worth, state = node["end_score"], node["end_state"]
        if rules.with_language_model:
            log_prob, _ = advance(knowledge.language_model, state, rules.end_word)
            worth += rules.lm_weight * log_prob
        scores[i] = totals[i] + worth
    return totals, scores


@njit(cache=True, nogil=True)
def _without_space(nodes: NDArray[Any], number: int, rules: Rules) -> int:
    """Where the beam holds the same text without the space behind it; NONE if nowhere."""
    parent = nodes[number]["parent"]
    if not rules.with_words or nodes[number]["token"] != rules.space or parent == NONE:
        return NONE
    place: int = nodes[parent]["slot"]
    return place


@njit(cache=True, nogil=True)
def log_add(a: float, b: float) -> float:
    """log(e^a + e^b)."""
    if a < b:
        a, b = b, a
    # Of two zeros' logs the difference is NaN, which is not greater than anything.
    if b - a > NEGLIGIBLE:
        a += math.log1p(math.exp(b - a))
    return a
