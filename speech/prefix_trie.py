"""The prefixes of a beam search as a trie in one flat array of records.

A prefix is a node; its tokens are read off on the way to the root. Nodes are found by walking the
short list of their parent's children, taken from a list of free ones, and given back all at once
when that list runs dry (`sweep`), so that a search of any length needs the memory of its beam.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

NONE = -1  # no such node, slot or state

NODE = np.dtype(
    [
        ("parent", np.int32),
        ("token", np.int32),
        ("first_child", np.int32),
        ("next_sibling", np.int32),  # of a free node: the next free one
        ("slot", np.int32),  # where the prefix stands in the beam
        # What the prefix means to the language model and the hot words:
        ("letters", np.int32),  # of the word it is in; 0 at the start of a word
        ("lexeme", np.int32),  # node of the lexicon that these letters lead to
        ("state", np.int32),  # of the language model before this word
        ("hot", np.int32),  # state of the hot words
        ("mark", np.int32),
        ("words_score", np.float64),  # earned by the words before, and by beginning this one
        ("score", np.float64),  # words_score and what the letters of this word promise
        ("end_score", np.float64),  # words_score if the word ended here; NaN: not asked yet
        ("end_state", np.int32),
    ],
    align=True,
)

# Entries of the `book` (int64) that is kept beside the nodes.
ROOT, FREE, FREE_COUNT, UNTOUCHED = 0, 1, 2, 3
ACTIVE, SIDE, FRAMES = 4, 5, 6  # prefixes in the beam, which half of the slots, frames heard
BOOK_SIZE = 8


def new_trie(capacity: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Room for so many nodes, and the book about them; both still to be cleared."""
    return np.empty(capacity, dtype=NODE), np.zeros(BOOK_SIZE, dtype=np.int64)


@njit(cache=True, nogil=True)
def clear(nodes: NDArray[Any], book: NDArray[np.int64]) -> None:
    """Leave one node, the root: the empty prefix."""
    root = nodes[0]
    root["parent"], root["first_child"], root["next_sibling"] = NONE, NONE, NONE
    root["token"], root["letters"], root["lexeme"], root["mark"] = 0, 0, 0, 0
    root["words_score"], root["score"], root["end_score"] = 0.0, 0.0, np.nan
    book[ROOT], book[FREE], book[FREE_COUNT], book[UNTOUCHED] = 0, NONE, len(nodes) - 1, 1


def grow(nodes: NDArray[Any], book: NDArray[np.int64]) -> NDArray[Any]:
    """The nodes with as many free ones added as there were nodes."""
    larger = np.empty(2 * len(nodes), dtype=NODE)
    larger[: len(nodes)] = nodes
    book[FREE_COUNT] += len(nodes)
    return larger


@njit(cache=True, nogil=True)
def find_child(nodes: NDArray[Any], parent: int, token: int) -> int:
    """The node of a prefix and one more token; NONE if there is none."""
    child: int = nodes[parent]["first_child"]
    while child != NONE and nodes[child]["token"] != token:
        child = nodes[child]["next_sibling"]
    return child


@njit(cache=True, nogil=True)
def add_child(nodes: NDArray[Any], book: NDArray[np.int64], parent: int, token: int) -> int:
    """Take a free node for a prefix and one more token; there must be one."""
    child = int(book[FREE])
    if child == NONE:
        child = int(book[UNTOUCHED])
        book[UNTOUCHED] += 1
    else:
        book[FREE] = nodes[child]["next_sibling"]
    book[FREE_COUNT] -= 1
    node = nodes[child]
    node["parent"], node["token"] = parent, token
    node["first_child"] = NONE
    node["next_sibling"] = nodes[parent]["first_child"]
    node["mark"] = 0
    node["end_score"] = np.nan
    nodes[parent]["first_child"] = child
    return child


@njit(cache=True, nogil=True)
def sweep(nodes: NDArray[Any], book: NDArray[np.int64], alive: NDArray[np.int32]) -> None:
    """Free every node that is not on the way from the root to a prefix that is `alive`."""
    root = book[ROOT]
    nodes[root]["mark"] = 1
    nodes[root]["parent"] = NONE
    for leaf in alive:
        node = leaf
        while nodes[node]["mark"] == 0:
            nodes[node]["mark"] = 1
            node = nodes[node]["parent"]
    for node in range(book[UNTOUCHED]):
        nodes[node]["first_child"] = NONE
    book[FREE], book[FREE_COUNT] = NONE, len(nodes) - book[UNTOUCHED]
    for node in range(book[UNTOUCHED]):
        if nodes[node]["mark"] == 1:
            nodes[node]["mark"] = 0
            parent = nodes[node]["parent"]
            if parent != NONE:
                nodes[node]["next_sibling"] = nodes[parent]["first_child"]
                nodes[parent]["first_child"] = node
        else:
            nodes[node]["next_sibling"] = book[FREE]
            book[FREE] = node
            book[FREE_COUNT] += 1


@njit(cache=True, nogil=True)
def tokens_between(nodes: NDArray[Any], top: int, node: int) -> NDArray[np.int32]:
    """The tokens on the way from `top`, without its own, down to `node`."""
    length = 0
    walker = node
    while walker != top:
        length += 1
        walker = nodes[walker]["parent"]
    tokens = np.empty(length, dtype=np.int32)
    while node != top:
        length -= 1
        tokens[length] = nodes[node]["token"]
        node = nodes[node]["parent"]
    return tokens


@njit(cache=True, nogil=True)
def common_ancestor(nodes: NDArray[Any], root: int, alive: NDArray[np.int32]) -> int:
    """The longest prefix that all prefixes `alive` begin with."""
    depth, node = 1, alive[0]
    while node != root:
        depth += 1
        node = nodes[node]["parent"]
    node, agreed = alive[0], depth  # the path of the first is marked with its depth, root with 1
    while True:
        nodes[node]["mark"] = depth
        if node == root:
            break
        depth -= 1
        node = nodes[node]["parent"]
    for leaf in alive[1:]:
        node = leaf
        while nodes[node]["mark"] == 0:
            node = nodes[node]["parent"]
        agreed = min(agreed, nodes[node]["mark"])
    node, ancestor = alive[0], root
    while True:
        if nodes[node]["mark"] == agreed:
            ancestor = node
        nodes[node]["mark"] = 0
        if node == root:
            return ancestor
        node = nodes[node]["parent"]


@njit(cache=True, nogil=True)
def most_frames_needed(nodes: NDArray[Any], root: int, alive: NDArray[np.int32]) -> int:
    """The most frames that a prefix `alive` needs below the root: its tokens, and its repeats."""
    most = 0
    for leaf in alive:
        node, needed = leaf, 0
        while node != root:
            parent = nodes[node]["parent"]
            needed += 2 if nodes[node]["token"] == nodes[parent]["token"] else 1
            node = parent
        most = max(most, needed)
    return most
