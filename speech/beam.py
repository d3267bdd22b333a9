"""The state of one beam search, and the texts that can be read from it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from speech.errors import SpeechError
from speech.prefix_search import begin, keep_below, search
from speech.prefix_space import CANDIDATE, SLOT, Knowledge, Rules, Space
from speech.prefix_trie import (
    ACTIVE,
    NONE,
    ROOT,
    SIDE,
    common_ancestor,
    grow,
    most_frames_needed,
    new_trie,
    tokens_between,
)
from speech.prefix_worth import final_scores

_NODES_PER_PREFIX = 32  # of the trie at first; it grows where a search needs more
_FEWEST_NODES = 1024


class Labelling(NamedTuple):
    """A text the search found: the log-prob of all its paths summed, and what it is ranked by."""

    tokens: tuple[int, ...]
    log_probability: float
    score: float


class Beam:
    """The state of one search: the memory that `speech.prefix_search` works in."""

    def __init__(
        self,
        knowledge: Knowledge,
        rules: Rules,
        vocabulary: int,
        prices: NDArray[np.float32] | None = None,
    ) -> None:
        """Allocate all the memory of a search; `begin` makes it ready.

        `prices` (V,), in nats, are taken off the log-probs of every frame before they are heard.
        """
        self.knowledge, self.rules, self.prices = knowledge, rules, prices
        size = rules.beam_size
        most = size * (vocabulary + 1)
        self.space = Space(
            slots=np.empty((2, size), SLOT),
            candidates=np.empty(most, CANDIDATE),
            scores=np.empty(most),
            scratch=np.empty(most),
            heard=np.empty(vocabulary),
            tokens=np.empty(vocabulary, np.int32),
            taken=np.empty((size, vocabulary), np.int64),
        )
        self.nodes, self.book = new_trie(max(_FEWEST_NODES, size * _NODES_PER_PREFIX))

    def begin(self) -> None:
        """Forget everything: the beam holds the empty text."""
        hot = int(self.knowledge.hot.following[0, self.rules.space]) if self.rules.with_words else 0
        self.book[:] = 0
        begin(self.space, self.nodes, self.book, hot, self.rules)

    def hear(self, log_probs: NDArray[np.float32]) -> None:
        """Go on with frames (T', V)."""
        if self.prices is not None:
            log_probs = log_probs - self.prices
            log_probs -= np.logaddexp.reduce(log_probs, axis=1, keepdims=True)
        rows = np.require(log_probs, np.float32, ["C", "W"])
        while len(rows):
            done = search(rows, self.space, self.nodes, self.book, self.knowledge, self.rules)
            rows = rows[done:]
            if len(rows):
                self.nodes = grow(self.nodes, self.book)
        if not self.book[ACTIVE]:
            raise SpeechError("no text of the lexicon has a probability above 0 in these log-probs")

    @property
    def alive(self) -> NDArray[np.int32]:
        """The nodes of the prefixes in the beam."""
        slots = self.space.slots[self.book[SIDE], : self.book[ACTIVE]]
        return np.ascontiguousarray(slots["node"])

    def results(self, count: int) -> list[Labelling]:
        """The best texts as if the audio ended here, best first, as far as they are not committed.

        Where a lexicon is given and no prefix ends with a word of it, the best prefix is returned
        without its last, unfinished word.
        """
        totals, scores = final_scores(self.space, self.nodes, self.book, self.knowledge, self.rules)
        nodes = self.alive
        order = np.argsort(-scores, kind="stable")[:count]
        found = [
            Labelling(self._text(nodes[i]), float(totals[i]), float(scores[i]))
            for i in order
            if scores[i] > -np.inf
        ]
        if found:
            return found
        best = self._best()
        text = list(self._text(nodes[best]))
        while text and text.pop() != self.rules.space:
            pass
        total = float(self.space.slots["total"][self.book[SIDE], best])
        return [Labelling(tuple(text), total, total)]

    def agree(self, by_force: bool = False) -> tuple[int, ...]:
        """Commit what all prefixes begin with: return its tokens and forget them.

        `by_force` drops the prefixes that do not begin with all that the best one holds.
        """
        root = int(self.book[ROOT])
        if by_force:
            best = self.alive[self._best()]
            keep_below(self.space, self.nodes, self.book, best)
        ancestor = common_ancestor(self.nodes, root, self.alive)
        if self.nodes[ancestor]["token"] == self.rules.space and ancestor != root:
            # The space may still turn out to be behind the last word: then it is none of the text.
            ancestor = self.nodes[ancestor]["parent"]
        tokens: list[int] = tokens_between(self.nodes, root, ancestor).tolist()
        self.book[ROOT] = ancestor
        self.nodes[ancestor]["parent"] = NONE
        return tuple(tokens)

    def frames_needed(self) -> int:
        """The frames that the prefixes in the beam must have, as far as they are not committed."""
        return int(most_frames_needed(self.nodes, self.book[ROOT], self.alive))

    @property
    def memory_bytes(self) -> int:
        """The size of all arrays."""
        return sum(array.nbytes for array in (*self.space, self.nodes, self.book))

    def best(self) -> Labelling:
        """The best prefix as it stands, its last word not ended."""
        place = self._best()
        total = float(self.space.slots["total"][self.book[SIDE], place])
        tokens = tokens_between(self.nodes, self.book[ROOT], self.alive[place]).tolist()
        return Labelling(tuple(tokens), total, total)

    def _best(self) -> int:
        slots = self.space.slots[self.book[SIDE], : self.book[ACTIVE]]
        return int(np.argmax(slots["total"] + slots["worth"]))

    def _text(self, node: int) -> tuple[int, ...]:
        tokens: list[int] = tokens_between(self.nodes, self.book[ROOT], node).tolist()
        if tokens and self.rules.with_words and tokens[-1] == self.rules.space:
            tokens.pop()
        return tuple(tokens)
