"""Back-off n-gram language models: a trie in flat arrays that scores a word in a few look-ups.

Katz 1987, "Estimation of probabilities from sparse data": the probability of word w after the
context c is that of the n-gram c w if the model holds it, else the back-off weight of c times the
probability after the next shorter context. A node of the trie is an n-gram, node 0 the empty one; a
node's children are the n-grams one word longer, and its suffix is the longest n-gram of the model
that ends it. A state of the search is the node of the longest context that can still matter, so
that equal states score all futures alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from speech.arpa import (
    BEGIN,
    END,
    UNKNOWN,
    UNKNOWN_ID,
    NgramLevel,
    NgramTables,
    is_arpa,
    read_arpa,
)
from speech.array_file import load_arrays, save_arrays
from speech.errors import LanguageModelError, ModelError
from speech.ngram_compact import CODE_BITS, pack, unpack
from speech.shipped import LANGUAGE_MODEL_FILE, find_shipped

MAGIC = b"SPEECHNG"
VERSION = 1
_KIND = "a language model in binary form"
SPECIAL_WORDS = (UNKNOWN, BEGIN, END)
ROOT = 0  # node of the empty context


class NgramArrays(NamedTuple):
    """The trie: K nodes, of which the first J may be contexts (they are below the highest order).

    Node 0 is the empty n-gram, nodes 1 to V are the words in order of id, then come the n-grams
    of order 2, of order 3 and so on; the children of a node lie side by side, sorted by word.
    Read-only; logs are natural.
    """

    words: NDArray[np.int32]  # (K,) last word of each n-gram
    log_probs: NDArray[np.float32]  # (K,) of that word after the others
    suffixes: NDArray[np.int32]  # (K,) node of the longest shorter n-gram that ends this one
    backoffs: NDArray[np.float32]  # (J,)
    first_children: NDArray[np.int32]  # (J + 1,) children of i: first_children[i] up to [i + 1]


@njit(cache=True, nogil=True)
def advance(
    arrays: NgramArrays, state: int | np.int32, word: int | np.int32
) -> tuple[np.float32, np.int32]:
    """(natural log probability of a word after a state, state after it), for compiled callers."""
    log_prob = np.float32(0)
    node = find_child(arrays, state, word)
    while node == ROOT:
        log_prob += arrays.backoffs[state]
        state = arrays.suffixes[state]
        node = find_child(arrays, state, word)
    return log_prob + arrays.log_probs[node], np.int32(find_state(arrays, node))


@njit(cache=True, nogil=True)
def find_child(arrays: NgramArrays, node: int | np.int32, word: int | np.int32) -> int | np.int32:
    """The node of the n-gram that `word` makes of `node`'s; 0 where the model has none."""
    if node == ROOT:
        return 1 + word
    low, high = arrays.first_children[node], arrays.first_children[node + 1]
    end = high
    while low < high:
        middle = (low + high) // 2
        if arrays.words[middle] < word:
            low = middle + 1
        else:
            high = middle
    return low if low < end and arrays.words[low] == word else ROOT


@njit(cache=True, nogil=True)
def find_state(arrays: NgramArrays, node: int | np.int32) -> int | np.int32:
    """The shortest context that scores every future as `node` does.

    A node of the highest order is no context; one without children and back-off changes nothing.
    """
    contexts = len(arrays.backoffs)
    while node >= contexts or (
        arrays.first_children[node] == arrays.first_children[node + 1]
        and arrays.backoffs[node] == 0
    ):
        node = arrays.suffixes[node]
    return node


@njit(cache=True, nogil=True)
def score_sentences(
    arrays: NgramArrays, words: NDArray[np.int32], begin_state: int, end: int
) -> NDArray[np.float32]:
    """Natural log probability of each word of sentences that lie end to end, each with ``</s>``."""
    log_probs = np.empty(len(words), dtype=np.float32)
    state = np.int32(begin_state)
    for i in range(len(words)):
        log_probs[i], state = advance(arrays, state, words[i])
        if words[i] == end:
            state = np.int32(begin_state)
    return log_probs


@dataclass(frozen=True, eq=False)
class NgramModel:
    """A back-off n-gram model; words are ids, 0 the unknown word, and states are ints.

    ``counts`` has the number of n-grams of each order. ``source(level, row)`` says where the text
    file it came from has an n-gram.
    """

    words: list[str]
    counts: tuple[int, ...]
    arrays: NgramArrays
    path: str = "language model"
    source: Callable[[int, int], str] | None = None

    @property
    def order(self) -> int:
        """n: a word is seen with at most n - 1 words before it."""
        return len(self.counts)

    @cached_property
    def _id_of(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    def word_id(self, word: str) -> int:
        """The id of a word, 0 if the model does not know it."""
        return self._id_of.get(word, UNKNOWN_ID)

    @cached_property
    def end_id(self) -> int:
        """The id of ``</s>``, which ends every sentence."""
        return self._id_of[END]

    @cached_property
    def begin_state(self) -> int:
        """The state at the beginning of a sentence."""
        return int(find_state(self.arrays, 1 + self._id_of[BEGIN]))

    def score(self, state: int, word_id: int) -> tuple[float, int]:
        """(natural log probability of the word after the state, the state after it)."""
        log_prob, next_state = advance(self.arrays, state, word_id)
        return float(log_prob), int(next_state)

    def encode(self, sentences: Iterable[Sequence[str]]) -> NDArray[np.int32]:
        """Word ids of sentences end to end, each closed by ``</s>``."""
        id_of, end = self._id_of, self.end_id
        ids: list[int] = []
        for sentence in sentences:
            ids.extend(id_of.get(word, UNKNOWN_ID) for word in sentence)
            ids.append(end)
        return np.array(ids, dtype=np.int32)

    def score_ids(self, ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """Natural log probability of each of the words that ``encode`` made."""
        return score_sentences(self.arrays, ids, self.begin_state, self.end_id)

    def sentence_log_prob(self, words: Sequence[str]) -> float:
        """Natural log probability of a whole sentence, its end included."""
        return float(self.score_ids(self.encode([words])).sum(dtype=np.float64))

    @property
    def unigram_log_probs(self) -> NDArray[np.float32]:
        """(V,) natural log probability of each word without context."""
        return self.arrays.log_probs[1 : len(self.words) + 1]

    def check_alphabet(self, alphabet: Iterable[str]) -> None:
        """LanguageModelError names the first word, and its line, that the letters cannot spell."""
        letters = set(alphabet)
        foreign = [
            i
            for i, word in enumerate(self.words)
            if not letters.issuperset(word) and word not in SPECIAL_WORDS
        ]
        if not foreign:
            return
        place = self.source(0, foreign[0]) if self.source else self.path
        word = self.words[foreign[0]]
        letter = next(letter for letter in word if letter not in letters)
        advice = "; is the model in capitals?" if letter.lower() in letters else ""
        raise LanguageModelError(
            f"{place}: the recogniser cannot spell {word!r}: {letter!r} is not in its alphabet "
            f"({len(foreign)} such words{advice})"
        )

    @classmethod
    def load(
        cls, path: str | Path, progress: Callable[[float], None] = lambda _: None
    ) -> NgramModel:
        """Read our binary form by memory map, or ARPA text (``.arpa``, ``.lm``, either ``.gz``).

        ``progress`` is told the numbers of n-grams as ARPA text is read. LanguageModelError says
        in one line what is wrong with the file.
        """
        path = Path(path)
        if is_arpa(path):
            return cls.from_tables(read_arpa(path, progress), str(path))
        fields, arrays = load_arrays(path, MAGIC, VERSION, _KIND)
        words = arrays.pop("vocabulary").tobytes().decode().split("\n")
        counts = tuple(fields["counts"])
        if fields["bits"] is None:
            trie = NgramArrays(**arrays)
        else:
            trie = NgramArrays(**unpack(arrays, counts))
        return cls(words, counts, read_only(trie), str(path))

    @classmethod
    def from_tables(cls, tables: NgramTables, path: str = "language model") -> NgramModel:
        """Build the trie. LanguageModelError for an n-gram given twice or without its prefix."""
        return cls(tables.words, tuple(tables.counts), _build(tables, path), path, tables.source)

    def tables(self) -> NgramTables:
        """The model as tables, for an ARPA file: what `from_tables` makes the same model of."""
        arrays, levels = self.arrays, list[NgramLevel]()
        parents = np.repeat(np.arange(len(arrays.backoffs)), np.diff(arrays.first_children))
        first, before = 1, 0  # nodes: of this order, of the one below
        for order, count in enumerate(self.counts, start=1):
            own = slice(first, first + count)
            ids = arrays.words[own, None]
            if order > 1:
                ids = np.hstack([levels[-1].ids[parents[first - 1 :][:count] - before], ids])
            backoffs = arrays.backoffs[own] if order < self.order else np.zeros(count, np.float32)
            levels.append(NgramLevel(ids, arrays.log_probs[own], backoffs))
            first, before = first + count, first
        return NgramTables(self.words, levels)

    def save(self, path: str | Path, bits: int | None = None) -> None:
        """Write our binary form: float32 and exact, or compact with `bits` (8 or 16) a number."""
        check_bits(bits)
        arrays: dict[str, NDArray[Any]] = self.arrays._asdict()
        if bits is not None:
            arrays = pack(arrays, self.counts, bits, self.path)
        vocabulary = np.frombuffer("\n".join(self.words).encode(), dtype=np.uint8)
        fields = {"version": VERSION, "counts": self.counts, "bits": bits}
        save_arrays(Path(path), MAGIC, fields, {"vocabulary": vocabulary, **arrays})


def find_language_model(name_or_path: str | Path) -> Path:
    """The file of a shipped language model's name, of a directory, or of a path to a file.

    LanguageModelError lists the names there are.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    try:
        directory = find_shipped(
            path, "language model", LANGUAGE_MODEL_FILE, needed="a file, a directory"
        )
    except ModelError as error:
        raise LanguageModelError(str(error)) from None
    return directory / LANGUAGE_MODEL_FILE


def check_bits(bits: int | None) -> None:
    """LanguageModelError unless the binary form can have so many bits a number; None is exact."""
    if bits is not None and bits not in CODE_BITS:
        raise LanguageModelError(
            f"a number can have {CODE_BITS[0]}, {CODE_BITS[1]} or 32 bits, not {bits}"
        )


# --- Building the trie ----------------------------------------------------------------------------


def _build(tables: NgramTables, path: str) -> NgramArrays:
    """Levels one after the other; the key ``parent * V + word`` sorts the nodes of the whole trie.

    So node i has key i - 1, and a child is found by bisection.
    """
    vocabulary = len(tables.words)
    keys = np.arange(vocabulary, dtype=np.int64)
    orders = [np.arange(vocabulary)]
    for number, level in enumerate(tables.levels[1:], start=1):
        parents = _prefix_nodes(level.ids[:, :-1], keys, vocabulary)
        if (parents == ROOT).any():
            raise _bad_ngram(tables, path, number, int((parents == ROOT).argmax()),
                             "its beginning is not in the model")  # fmt: skip
        level_keys = parents * vocabulary + level.ids[:, -1]
        order = np.argsort(level_keys, kind="stable")
        level_keys = level_keys[order]
        if (twice := level_keys[1:] == level_keys[:-1]).any():
            row = int(order[1:][twice].min())
            raise _bad_ngram(tables, path, number, row, "stands here a second time")
        keys = np.concatenate([keys, level_keys])
        orders.append(order)
    if len(keys) >= np.iinfo(np.int32).max:
        raise LanguageModelError(f"{path}: {len(keys)} n-grams are more than 2^31 - 2")
    contexts = 1 + sum(tables.counts[:-1])
    parents = keys // vocabulary
    root = np.zeros(1, dtype=np.float32)
    columns = list(zip(tables.levels, orders, strict=True))
    trie = NgramArrays(
        words=np.concatenate([[UNKNOWN_ID], keys % vocabulary]).astype(np.int32),
        log_probs=np.concatenate([root, *(level.log_probs[o] for level, o in columns)]),
        suffixes=_suffix_nodes(keys, parents, tables.counts, vocabulary),
        backoffs=np.concatenate([root, *(level.backoffs[o] for level, o in columns[:-1])]),
        first_children=(1 + np.searchsorted(parents, np.arange(contexts + 1))).astype(np.int32),
    )
    return read_only(trie)


def _prefix_nodes(
    ids: NDArray[np.int32], keys: NDArray[np.int64], vocabulary: int
) -> NDArray[np.int64]:
    """The node of each row's n-gram, 0 where it is not in the trie."""
    nodes = 1 + ids[:, 0].astype(np.int64)
    for column in ids.T[1:]:
        nodes = np.where(nodes == ROOT, ROOT, _children(nodes, column, keys, vocabulary))
    return nodes


def _children(
    nodes: NDArray[np.int64], words: NDArray[Any], keys: NDArray[np.int64], vocabulary: int
) -> NDArray[np.int64]:
    """The child of each node by each word, 0 where there is none."""
    wanted = nodes * vocabulary + words
    places = np.searchsorted(keys, wanted)
    found = keys[np.minimum(places, len(keys) - 1)] == wanted
    return np.where(found, places + 1, ROOT)


def _suffix_nodes(
    keys: NDArray[np.int64], parents: NDArray[np.int64], counts: Sequence[int], vocabulary: int
) -> NDArray[np.int32]:
    """Node of the longest proper suffix of each node: a child of its parent's suffixes."""
    suffixes = np.zeros(len(keys) + 1, dtype=np.int32)
    start = 1 + counts[0]
    for count in counts[1:]:
        nodes = np.arange(start, start + count)
        contexts = suffixes[parents[nodes - 1]].astype(np.int64)
        while len(nodes):  # every word is a child of the root, so that this ends
            found = _children(contexts, keys[nodes - 1] % vocabulary, keys, vocabulary)
            suffixes[nodes] = found
            nodes, contexts = nodes[found == ROOT], suffixes[contexts[found == ROOT]]
            contexts = contexts.astype(np.int64)
        start += count
    return suffixes


def _bad_ngram(
    tables: NgramTables, path: str, number: int, row: int, message: str
) -> LanguageModelError:
    ngram = " ".join(tables.words[word] for word in tables.levels[number].ids[row])
    place = tables.source(number, row) if tables.source else path
    return LanguageModelError(f"{place}: the {number + 1}-gram {ngram!r}: {message}")


def read_only(trie: NgramArrays) -> NgramArrays:
    """Arrays that all load alike, so that compiled code is compiled for one kind only."""
    for array in trie:
        array.flags.writeable = False
    return trie
