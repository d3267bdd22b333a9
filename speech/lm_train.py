"""Training an n-gram language model: texts in, one back-off model out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speech.arpa import BEGIN, END, UNKNOWN, UNKNOWN_ID, NgramTables
from speech.errors import LanguageModelError
from speech.language_model import SPECIAL_WORDS, NgramModel
from speech.lm_text import END_OF_SENTENCE, Bar, Text, WordList, no_bar, read_sentences
from speech.ngram import estimate
from speech.ngram_levels import Level, to_model, to_tables
from speech.ngram_prune import best_weights, mix, prune
from speech.tokenizer import DEFAULT_ALPHABET

BEGIN_ID, END_ID = SPECIAL_WORDS.index(BEGIN), SPECIAL_WORDS.index(END)
HIGHEST_ORDER = 8


@dataclass(frozen=True)
class NgramSettings:
    """What kind of model is made.

    ``vocabulary`` is the greatest number of words, all if None. ``cutoffs[n - 1]`` is the highest
    count at which n-grams of order n are left out, ``entropy`` the relative rise in perplexity
    below which an n-gram is.
    """

    order: int = 4
    vocabulary: int | None = None
    cutoffs: tuple[int, ...] = ()
    entropy: float | None = None
    discount_fallback: bool = False


@dataclass(frozen=True)
class Trained:
    """A model, and what it was made of: words of all texts, share of each, words left out."""

    levels: list[Level]
    vocabulary: list[str]
    weights: tuple[float, ...]
    words: int
    unknown_words: int  # of the words above, those that became <unk>
    unspellable: int  # different words that a-z and the apostrophe cannot spell

    @property
    def counts(self) -> list[int]:
        """Number of n-grams of each order."""
        return [len(level) for level in self.levels]

    def tables(self) -> NgramTables:
        """The model as tables, for an ARPA file."""
        return to_tables(self.levels, self.vocabulary, BEGIN_ID)

    def model(self) -> NgramModel:
        """The model for use, and for the binary form."""
        return to_model(self.levels, self.vocabulary, BEGIN_ID)


def train_ngram_model(
    paths: Sequence[Path],
    settings: NgramSettings,
    weights: Sequence[float] | None = None,
    weights_from: Path | None = None,
    bar: Bar = no_bar,
) -> Trained:
    """Estimate a model of texts.

    Without weights the texts are one long text. With a weight for each, or with a text
    ``weights_from`` under which to choose the best, each has a model of its own and these are
    mixed. LanguageModelError for a text without words or too small for its discounts.
    """
    _check(paths, settings, weights)
    word_list = WordList()
    texts = [word_list.read(path, bar) for path in paths]
    shares = np.array(weights if weights else [1.0] * len(texts)) / (sum(weights or []) or 1.0)
    by_size = weights is None and weights_from is None
    words, new_ids, unspellable = _vocabulary(word_list, texts, shares, by_size, settings)
    encoded = [_encode(text, new_ids) for text in texts]
    total = sum(len(text.ids) - text.sentences for text in texts)
    unknown = sum(int((ids == UNKNOWN_ID).sum()) for ids in encoded)
    del texts
    if by_size:
        encoded = [np.concatenate(encoded)]
    models: list[list[Level]] = []
    for number in range(len(encoded)):
        label = f"counting n-grams ({number + 1} of {len(encoded)})"
        with bar(label, len(encoded[number]) * (settings.order - 1)) as advance:
            models.append(_estimate(encoded[number], len(words), settings, advance))
        encoded[number] = encoded[number][:0]  # free the memory
    if weights_from is not None:
        shares = _weights_for(weights_from, models, words)
    levels = mix(models, shares.tolist())
    if settings.entropy is not None:
        levels = prune(levels, settings.entropy)
    return Trained(
        levels, words, tuple(shares.tolist()) if not by_size else (), total, unknown, unspellable
    )


def _estimate(
    ids: NDArray[np.int32],
    vocabulary: int,
    settings: NgramSettings,
    advance: Callable[[float], None],
) -> list[Level]:
    return estimate(
        ids,
        vocabulary,
        settings.order,
        BEGIN_ID,
        cutoffs=settings.cutoffs,
        fallback=settings.discount_fallback,
        advance=advance,
    )


def _check(paths: Sequence[Path], settings: NgramSettings, weights: Sequence[float] | None) -> None:
    if not 1 <= settings.order <= HIGHEST_ORDER:
        raise LanguageModelError(f"the order must be 1 to {HIGHEST_ORDER}, got {settings.order}")
    if settings.entropy is not None and not settings.entropy > 0:
        raise LanguageModelError(f"pruning needs an entropy above 0, got {settings.entropy}")
    if weights is not None and (len(weights) != len(paths) or min(weights) <= 0):
        raise LanguageModelError(f"needed a weight above 0 for each text, got {list(weights)}")


def _vocabulary(
    word_list: WordList,
    texts: Sequence[Text],
    shares: NDArray[np.float64],
    by_size: bool,
    settings: NgramSettings,
) -> tuple[list[str], NDArray[np.int32], int]:
    """The model's words, most frequent first; the new id of each old one; words not spelled."""
    known = word_list.words
    frequencies = np.zeros(len(known))
    for text, share in zip(texts, shares, strict=True):
        counts = np.bincount(text.ids[text.ids != END_OF_SENTENCE], minlength=len(known))
        frequencies += counts * (1.0 if by_size else share / counts.sum())
    letters = set(DEFAULT_ALPHABET)
    spelled = [i for i, word in enumerate(known) if letters.issuperset(word)]
    ranked = sorted(spelled, key=lambda i: (-frequencies[i], known[i]))[: settings.vocabulary]
    new_ids = np.full(len(known) + 1, UNKNOWN_ID, dtype=np.int32)
    new_ids[ranked] = np.arange(len(SPECIAL_WORDS), len(SPECIAL_WORDS) + len(ranked))
    new_ids[END_OF_SENTENCE] = END_ID
    words = [*SPECIAL_WORDS, *(known[i] for i in ranked)]
    return words, new_ids, len(known) - len(spelled)


def _encode(text: Text, new_ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """The text with the model's ids, each sentence between ``<s>`` and ``</s>``."""
    ends = text.ids == END_OF_SENTENCE
    sentences_before = np.cumsum(ends) - ends
    encoded = np.full(len(text.ids) + int(ends.sum()), BEGIN_ID, dtype=np.int32)
    encoded[np.arange(len(text.ids)) + sentences_before + 1] = new_ids[text.ids]
    return encoded


def _weights_for(
    path: Path, models: Sequence[list[Level]], words: list[str]
) -> NDArray[np.float64]:
    sentences = list(read_sentences(path))
    if not sentences:
        raise LanguageModelError(f"{path}: holds no words after normalisation")
    log_probs = []
    for levels in models:
        model = to_model(levels, words, BEGIN_ID)
        ids = model.encode(sentences)
        log_probs.append(model.score_ids(ids)[ids != model.word_id(UNKNOWN)])
    return best_weights(np.exp(np.array(log_probs, dtype=np.float64)))
