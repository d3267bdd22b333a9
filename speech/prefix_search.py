"""The CTC prefix beam search, frame by frame, compiled.

A CTC network says for each frame how probable each character is, and the blank. A *path* picks one
token a frame; merging its repeats and dropping its blanks leaves a *prefix*, the text so far. Many
paths spell one prefix, and it is the sum of their probabilities that counts (Graves et al. 2006,
"Connectionist temporal classification", section 3.2: prefix search). They fall into two kinds,
since what the next frame does to them differs: those that end in a blank, and those that end in
the prefix's last token. A prefix is therefore kept with two log-probs, ``blank`` and ``nonblank``,
and their sum ``total`` (the recursion of Hannun et al. 2014, "First-pass large vocabulary
continuous speech recognition using bi-directional recurrent DNNs", algorithm 1). One more frame
leads

- from any path of a prefix by a blank to the same prefix, which then ends in a blank;
- from a path that ends in the last token, by the same token, to the same prefix: a repeat;
- by any other token to a prefix that is one token longer;
- from a path that ends in a blank, by the last token, to a longer prefix too: a double letter.

So two ways lead to a prefix that is already in the beam: its own paths, and its parent's. As the
parent is the only prefix that can grow into it, no table is needed to find such pairs: each prefix
looks whether its parent in the trie (`speech.prefix_trie`) is in the beam, takes what comes from
there, and strikes itself off the parent's list of children to be. Everything else is new. Of all
candidates the `beam_size` best are kept, found by partial selection, within `beam_threshold` of the
best; only these become nodes of the trie. Nothing is allocated on the way.

With words (a language model, a lexicon, hot words or a word bonus) candidates are ranked by total
plus what the text is worth: words that have ended, their n-gram log-probs and bonuses; the word at
hand, the best it can still become (look-ahead), which gives way to the true n-gram when it ends.
Spaces before the text and double spaces then mean nothing, and are heard as more of the same space.

A single prefix cannot be told from its rivals by sums that they do not get: with a beam of one the
better of blank and nonblank is kept instead of both, and the search follows the best path.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from speech.hot_words import HotStates
from speech.prefix_space import Knowledge, Rules, Space
from speech.prefix_trie import (
    ACTIVE,
    FRAMES,
    FREE_COUNT,
    NONE,
    SIDE,
    add_child,
    clear,
    find_child,
    sweep,
)
from speech.prefix_worth import OUTSIDE, describe, judge, log_add, worth_at_end
from speech.tokenizer import BLANK


@njit(cache=True, nogil=True)
def begin(space: Space, nodes: NDArray[Any], book: NDArray[np.int64], root_hot: int,
          rules: Rules) -> None:  # fmt: skip
    """Put the empty prefix, and nothing else, into the trie and the beam."""
    clear(nodes, book)
    root = nodes[0]
    root["hot"], root["state"], root["slot"] = root_hot, rules.begin_state, 0
    slot = space.slots[0, 0]
    slot["blank"], slot["nonblank"], slot["total"] = 0.0, -np.inf, 0.0
    describe(slot, nodes, 0, rules)
    book[ACTIVE], book[SIDE], book[FRAMES] = 1, 0, 0
    space.taken[:] = -1


@njit(cache=True, nogil=True)
def search(
    log_probs: NDArray[np.float32], space: Space, nodes: NDArray[Any], book: NDArray[np.int64],
    knowledge: Knowledge, rules: Rules,
) -> int:  # fmt: skip
    """Hear frames (T', V); return how many, fewer than T' where the trie needs more nodes first."""
    for frame in range(len(log_probs)):
        if book[FREE_COUNT] < rules.beam_size:
            beam = space.slots[book[SIDE]]
            sweep(nodes, book, beam["node"][: book[ACTIVE]])
            if book[FREE_COUNT] < len(nodes) // 2:
                return frame
        count = _hear(log_probs[frame], space, rules)
        if count == 0:
            _only_blank(space.slots[book[SIDE]][: book[ACTIVE]], space.heard[BLANK])
        else:
            best, cutoff = _stay(space, nodes, book, rules)
            found, best = _grow(space, nodes, book, count, best, cutoff, knowledge, rules)
            _keep(space, nodes, book, found, best, knowledge.hot, rules)
        book[FRAMES] += 1
    return len(log_probs)


@njit(cache=True, nogil=True)
def _hear(row: NDArray[np.float32], space: Space, rules: Rules) -> int:
    """Choose the tokens of a frame that are worth a look; the blank always is."""
    heard, tokens = space.heard, space.tokens
    floor = best = -np.inf
    for token in range(len(row)):
        best = max(best, float(row[token]))
    if rules.tokens_per_frame < len(row) - 1:
        for token in range(1, len(row)):
            space.scratch[token - 1] = row[token]
        floor = nth_largest(space.scratch, len(row) - 1, rules.tokens_per_frame)
    floor = max(floor, best - rules.token_threshold)
    heard[BLANK] = row[BLANK]
    count = 0
    for token in range(1, len(row)):
        heard[token] = -np.inf
        if row[token] >= floor:
            heard[token] = row[token]
            tokens[count] = token
            count += 1
    return count


@njit(cache=True, nogil=True)
def _only_blank(beam: NDArray[Any], blank: float) -> None:
    """A frame in which nothing but the blank is left changes no order: one case of the four."""
    for i in range(len(beam)):
        slot = beam[i]
        slot["total"] += blank
        slot["blank"] = slot["total"]
        slot["nonblank"] = -np.inf


@njit(cache=True, nogil=True)
def _stay(
    space: Space, nodes: NDArray[Any], book: NDArray[np.int64], rules: Rules
) -> tuple[float, float]:
    """What becomes of the beam's own prefixes: the best score, and what others must score."""
    beam, heard, taken = space.slots[book[SIDE]], space.heard, space.taken
    active, now = book[ACTIVE], book[FRAMES]
    best, worst = -np.inf, np.inf
    for i in range(active):
        slot = beam[i]
        token = slot["token"]
        # Any path, and a blank: the same prefix.
        blank = slot["total"] + heard[BLANK]
        # A path that ends in the last token, and that token once more: the same prefix.
        nonblank = slot["nonblank"] + heard[token]
        if rules.with_words and slot["letters"] == 0:
            # At the start of a word more space is still the same space, after a blank too.
            nonblank = slot["total"] + heard[rules.space]
        parent = nodes[slot["node"]]["parent"]
        if parent != NONE and nodes[parent]["slot"] != NONE:
            # The parent is in the beam as well: its paths that grow into this prefix join it.
            source = beam[nodes[parent]["slot"]]
            arriving = source["blank"] if source["token"] == token else source["total"]
            nonblank = log_add(nonblank, arriving + heard[token])
            taken[nodes[parent]["slot"], token] = now
        total = log_add(blank, nonblank)
        if rules.beam_size == 1:
            total = max(blank, nonblank)
            blank, nonblank = (blank, -np.inf) if blank >= nonblank else (-np.inf, nonblank)
        candidate = space.candidates[i]
        candidate["slot"], candidate["token"] = i, BLANK
        candidate["blank"], candidate["nonblank"], candidate["total"] = blank, nonblank, total
        score = total + slot["worth"]
        space.scores[i] = score
        best, worst = max(best, score), min(worst, score)
    # With a full beam a newcomer must beat the worst of those that could all stay.
    cutoff = max(best - rules.beam_threshold, worst if active == rules.beam_size else -np.inf)
    return best, cutoff


@njit(cache=True, nogil=True)
def _grow(
    space: Space, nodes: NDArray[Any], book: NDArray[np.int64], count: int, best: float,
    cutoff: float, knowledge: Knowledge, rules: Rules,
) -> tuple[int, float]:  # fmt: skip
    """The prefixes one token longer; returns the number of candidates and the best score."""
    beam, heard, tokens, taken = space.slots[book[SIDE]], space.heard, space.tokens, space.taken
    candidates, scores = space.candidates, space.scores
    children, best_log_probs = knowledge.lexicon.children, knowledge.lexicon.best_log_probs
    following, promised = knowledge.hot.following, knowledge.hot.promised
    active, now = book[ACTIVE], book[FRAMES]
    found = active
    for i in range(active):
        slot = beam[i]
        total, ceiling, last = slot["total"], slot["ceiling"], slot["token"]
        # What an unknown word costs that has one letter more.
        spelled = rules.unknown_log_prob + rules.letter_log_prob * (slot["letters"] + 1)
        for k in range(count):
            token = tokens[k]
            # A path that ends in another token, or in a blank, and a token: a longer prefix.
            # By the last token it takes a blank between: without one it is a repeat.
            reached = (slot["blank"] if token == last else total) + heard[token]
            lexeme, worth = OUTSIDE, ceiling
            if rules.with_words and token == rules.space:
                if slot["letters"] == 0 or taken[i, token] == now:
                    continue
                worth = worth_at_end(nodes, slot["node"], knowledge, rules)
            elif reached + ceiling <= cutoff or taken[i, token] == now:
                continue
            elif rules.with_words:
                lexeme, ahead = slot["lexeme"], spelled
                if lexeme != OUTSIDE:
                    lexeme = children[lexeme, token]
                    if lexeme == 0:
                        lexeme = OUTSIDE
                    elif rules.closed:
                        ahead = best_log_probs[lexeme]
                    else:
                        ahead = max(ahead, best_log_probs[lexeme])
                if rules.closed and lexeme == OUTSIDE:
                    continue
                hot = following[slot["hot"], token]
                worth = slot["base"] + rules.lm_weight * ahead + promised[hot]
            score = reached + worth
            if score <= cutoff:
                continue
            candidate = candidates[found]
            candidate["slot"], candidate["token"], candidate["lexeme"] = i, token, lexeme
            candidate["total"] = reached
            scores[found] = score
            found += 1
            if score > best:
                best = score
                cutoff = max(cutoff, best - rules.beam_threshold)
    return found, best


@njit(cache=True, nogil=True)
def _keep(
    space: Space, nodes: NDArray[Any], book: NDArray[np.int64], found: int, best: float,
    hot: HotStates, rules: Rules,
) -> None:  # fmt: skip
    """Make the best candidates the beam of the next frame."""
    side, active = book[SIDE], book[ACTIVE]
    beam, after = space.slots[side], space.slots[1 - side]
    candidates, scores = space.candidates, space.scores
    cutoff, ties = -np.inf, rules.beam_size
    for i in range(found):
        space.scratch[i] = scores[i]
    if found > rules.beam_size:
        cutoff = nth_largest(space.scratch, found, rules.beam_size)
        for i in range(found):
            ties -= scores[i] > cutoff
    cutoff = max(cutoff, best - rules.beam_threshold)
    for i in range(active):
        nodes[beam[i]["node"]]["slot"] = NONE
    kept = 0
    for i in range(found):
        if scores[i] < cutoff or scores[i] == -np.inf:
            continue
        if scores[i] == cutoff:
            if ties == 0:
                continue
            ties -= 1
        candidate = candidates[i]
        old, new = beam[candidate["slot"]], after[kept]
        if candidate["token"] == BLANK:
            after[kept] = old
            new["blank"], new["nonblank"] = candidate["blank"], candidate["nonblank"]
        else:
            node = find_child(nodes, old["node"], candidate["token"])
            if node == NONE:
                node = add_child(nodes, book, old["node"], candidate["token"])
                judge(nodes, node, candidate["lexeme"], scores[i] - candidate["total"],
                       old["base"], hot, rules)  # fmt: skip
            describe(new, nodes, node, rules)
            new["blank"], new["nonblank"] = -np.inf, candidate["total"]
        new["total"] = candidate["total"]
        nodes[new["node"]]["slot"] = kept
        kept += 1
    book[ACTIVE], book[SIDE] = kept, 1 - side


@njit(cache=True, nogil=True)
def nth_largest(values: NDArray[np.float64], count: int, n: int) -> float:
    """The n-th largest of the first `count` values, which change places (Hoare 1961, "Find")."""
    low, high, place = 0, count - 1, n - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if place <= j:
            high = j
        elif place >= i:
            low = i
        else:
            break
    return float(values[place])


@njit(cache=True, nogil=True)
def keep_below(space: Space, nodes: NDArray[Any], book: NDArray[np.int64], top: int) -> None:
    """Drop the prefixes that do not begin with the prefix `top`."""
    beam = space.slots[book[SIDE]]
    kept = 0
    for i in range(book[ACTIVE]):
        nodes[beam[i]["node"]]["slot"] = NONE
        node = beam[i]["node"]
        while node != top and node != NONE:
            node = nodes[node]["parent"]
        if node == top:
            beam[kept] = beam[i]
            nodes[beam[kept]["node"]]["slot"] = kept
            kept += 1
    book[ACTIVE] = kept
