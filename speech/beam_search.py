"""Beam search with a language model, a lexicon and hot words; `speech.prefix_search` does the work.

``BeamDecoder(tokenizer, BeamSettings(), language_model).decode(log_probs)[0]`` is the best text.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from speech import language_model as ngrams
from speech import prefix_search, prefix_space, prefix_trie, prefix_worth
from speech.alignment import with_alignment
from speech.beam import Beam, Labelling
from speech.beam_stream import BeamStream
from speech.decode import Hypothesis, check_log_probs
from speech.errors import ConfigError, LanguageModelError, SpeechError
from speech.hot_words import HotWord, build_hot_states
from speech.language_model import SPECIAL_WORDS, NgramArrays, NgramModel
from speech.lexicon import LexiconArrays, build_lexicon
from speech.prefix_search import search
from speech.prefix_space import Knowledge, Rules
from speech.prefix_trie import NONE
from speech.prefix_worth import UNKNOWN_WORD
from speech.tokenizer import BLANK, CharTokenizer

TOKENS_PER_FRAME = 8  # that a search hears: more hardly change a text and take time

_Result = TypeVar("_Result")
_PARTS = (prefix_search, prefix_worth, prefix_space, prefix_trie, ngrams)  # of the compiled search


@dataclass(frozen=True)
class BeamSettings:
    """How a beam search prunes and what it adds up; thresholds, weights and bonuses in nats.

    The score of a text is log p(text | audio) + lm_weight * log p(text) + word_bonus * words + what
    its hot words earn. In log p(text) a word that the language model does not know has the
    probability of ``<unk>`` and costs `letter_price` for each of its letters.

    p(text | audio) is that of log-probs from which `blank_price` was taken at the blank and
    `prior_weight` * (log p(token) + H) at the others, then normalised again frame by frame.
    p(token) is how often the language model's words have a character, H the entropy of that: the
    network has learned which characters are frequent, and the language model knows it better (Miao
    et al., 2015, section 3, where the weight is 1 and priors are those of the training's labels).
    """

    beam_size: int = 100
    beam_threshold: float = 14.0  # prefixes that fall behind the best by more are dropped
    token_threshold: float = 10.0  # tokens that are this much less probable than a frame's best
    # So many of a frame's likeliest tokens. None: TOKENS_PER_FRAME, or all where there are hot
    # words, which may need characters that the network does not expect.
    tokens_per_frame: int | None = None
    lm_weight: float = 0.6
    word_bonus: float = 0.0
    letter_price: float = 3.0
    n_best: int = 1
    prior_weight: float = 0.0
    blank_price: float = 0.0

    def __post_init__(self) -> None:
        """Raise ConfigError for a value out of range."""
        for name, low in (
            ("beam_size", 1), ("tokens_per_frame", 1), ("n_best", 1), ("beam_threshold", 0),
            ("token_threshold", 0), ("lm_weight", 0), ("letter_price", 0), ("prior_weight", 0),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not value >= low:
                raise ConfigError(f"{name} must be {low} or more, got {value}")
        for name in ("lm_weight", "word_bonus", "letter_price", "prior_weight", "blank_price"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"{name} must be a finite number, got {getattr(self, name)}")


class Rescorer(Protocol):
    """Something slow and knowing that judges the best texts again (`speech.rescore`)."""

    @property
    def candidates(self) -> int:
        """How many texts it is to be handed."""

    def rescore(self, n_best: Sequence[Labelling]) -> list[Labelling]:
        """Return the same texts with other scores, best first."""

    def settings(self) -> dict[str, object]:
        """Return what is to be stored with a result about how texts were judged."""


class BeamDecoder:
    """A prefix beam search for one alphabet, ready for any number of utterances and threads."""

    def __init__(
        self,
        tokenizer: CharTokenizer,
        settings: BeamSettings | None = None,
        language_model: NgramModel | None = None,
        hot_words: Sequence[HotWord] = (),
        lexicon: Sequence[str] | None = None,
    ) -> None:
        """Take what texts are judged by; with a `lexicon` no word outside it and `hot_words`.

        The vocabulary of the language model is no lexicon: other words cost more, that is all.
        TextError or LanguageModelError for words that the alphabet cannot spell.
        """
        self.tokenizer = tokenizer
        self.settings = settings or BeamSettings()
        self._language_model = language_model
        self.hot_words = tuple(hot_words)
        self._closed = lexicon is not None
        if (language_model or hot_words or self._closed) and " " not in tokenizer.alphabet:
            raise LanguageModelError("words need a space between them: the alphabet has none")
        self._knowledge = Knowledge(
            _build_lexicon(tokenizer, language_model, hot_words, lexicon),
            language_model.arrays if language_model else _no_language_model(),
            build_hot_states(hot_words, tokenizer),
        )
        self._rules, self._prices = self._make_rules(), self._make_prices()
        self.rescorer: Rescorer | None = None
        self._local = threading.local()
        _drop_outdated_code()

    def with_settings(self, settings: BeamSettings) -> BeamDecoder:
        """A decoder that differs in its settings only; shares everything large."""
        other = object.__new__(BeamDecoder)
        other.__dict__ |= self.__dict__
        other.settings = settings
        other._rules, other._prices = other._make_rules(), other._make_prices()
        other._local = threading.local()
        return other

    def with_rescorer(self, rescorer: Rescorer | None) -> BeamDecoder:
        """A decoder whose best texts are judged again by `rescorer`; streams are not."""
        other = self.with_settings(self.settings)
        other.rescorer = rescorer
        return other

    def _make_rules(self) -> Rules:
        settings, model = self.settings, self._language_model
        promised = self._knowledge.hot.promised
        every = self.tokenizer.size
        most_tokens = every if self.hot_words else min(every, TOKENS_PER_FRAME)
        with_words = bool(model or self.hot_words or self._closed or settings.word_bonus)
        return Rules(
            beam_size=settings.beam_size,
            beam_threshold=float(settings.beam_threshold),
            token_threshold=float(settings.token_threshold),
            tokens_per_frame=settings.tokens_per_frame or most_tokens,
            with_words=with_words,
            with_language_model=model is not None,
            closed=self._closed,
            space=self.tokenizer.encode(" ")[0] if with_words else NONE,
            lm_weight=float(settings.lm_weight) if model else 0.0,
            word_bonus=float(settings.word_bonus),
            unknown_log_prob=float(model.unigram_log_probs[UNKNOWN_WORD]) if model else 0.0,
            letter_log_prob=-float(settings.letter_price),
            largest_promise=float(promised.max()),
            begin_state=model.begin_state if model else 0,
            end_word=model.end_id if model else 0,
        )

    def _make_prices(self) -> NDArray[np.float32] | None:
        """What is taken off the log-probs of every frame (V,); None: nothing."""
        settings = self.settings
        if not settings.prior_weight and not settings.blank_price:
            return None
        prices = np.zeros(self.tokenizer.size, np.float32)
        if settings.prior_weight:
            if self._language_model is None:
                raise ConfigError("prior_weight needs a language model, and none is given")
            priors = _token_priors(self.tokenizer, self._language_model)
            entropy = -np.sum(priors * np.log(priors))
            prices[BLANK + 1 :] = settings.prior_weight * (np.log(priors) + entropy)
        prices[BLANK] = settings.blank_price
        return prices

    def decode(self, log_probs: NDArray[np.float32]) -> list[Hypothesis]:
        """The `n_best` texts of log-probs (T', V) with the times of their tokens, best first.

        SpeechError for what `speech.decode.check_log_probs` refuses.
        """
        return [
            with_alignment(Hypothesis(one.tokens, (), (), (), one.log_probability, one.score),
                           log_probs)
            for one in self.search(log_probs)
        ]  # fmt: skip

    def search(self, log_probs: NDArray[np.float32]) -> list[Labelling]:
        """The `n_best` texts of log-probs (T', V), best first, without times."""
        self.check(log_probs)
        beam = self._thread_beam()
        beam.begin()
        beam.hear(log_probs)
        if self.rescorer is None:
            return beam.results(self.settings.n_best)
        found = beam.results(max(self.settings.n_best, self.rescorer.candidates))
        return self.rescorer.rescore(found)[: self.settings.n_best]

    def decode_many(
        self, log_probs: Iterable[NDArray[np.float32]], threads: int = 1
    ) -> list[list[Hypothesis]]:
        """What `decode` returns for each utterance, in order, by so many threads."""
        return self._map(self.decode, log_probs, threads)

    def search_many(
        self, log_probs: Iterable[NDArray[np.float32]], threads: int = 1
    ) -> list[list[Labelling]]:
        """What `search` returns for each utterance, in order, by so many threads."""
        return self._map(self.search, log_probs, threads)

    def _map(
        self, function: Callable[[NDArray[np.float32]], _Result],
        log_probs: Iterable[NDArray[np.float32]], threads: int,
    ) -> list[_Result]:  # fmt: skip
        if threads == 1:
            return list(map(function, log_probs))
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(function, log_probs))

    @staticmethod
    def must_compile() -> bool:
        """Whether the first search has to compile the code, which takes seconds to a minute."""
        written = _written_at()
        return not search.signatures and all(
            index.stat().st_mtime < written for index in _compiled_files()
        )

    def compile(self) -> None:
        """Compile all that a search needs, or load it where it was compiled before."""
        vocabulary = self.tokenizer.size
        even = np.full((2, vocabulary), -math.log(vocabulary), np.float32)
        self.with_settings(BeamSettings(beam_size=2)).decode(even)
        for index in _compiled_files():  # a file that is only as new as before is still good
            index.touch()

    def new_beam(self) -> Beam:
        """An empty beam for this decoder's rules."""
        return Beam(self._knowledge, self._rules, self.tokenizer.size, self._prices)

    def stream(self) -> BeamStream:
        """A search that is told its frames chunk by chunk."""
        return BeamStream(self.new_beam(), self.check)

    def _thread_beam(self) -> Beam:
        if not hasattr(self._local, "beam"):
            self._local.beam = self.new_beam()
        beam: Beam = self._local.beam
        return beam

    def check(self, log_probs: NDArray[np.float32]) -> None:
        """SpeechError unless these are log-probs (T', V) over this decoder's alphabet."""
        check_log_probs(log_probs)
        if log_probs.shape[1] != self.tokenizer.size:
            raise SpeechError(
                f"log_probs have {log_probs.shape[1]} tokens, "
                f"the alphabet with the blank {self.tokenizer.size}"
            )


def _compiled_files() -> list[Path]:
    """Where numba keeps the compiled search, if it has been compiled and can be kept."""
    function = search.py_func
    name = f"{Path(prefix_search.__file__).stem}.{function.__name__}"
    line = function.__code__.co_firstlineno
    return list(Path(search.stats.cache_path or ".").glob(f"{name}-{line}.*.nbi"))


def _written_at() -> float:
    """When the code of a search was last written, in seconds since 1970."""
    return max(Path(str(part.__file__)).stat().st_mtime for part in _PARTS)


@cache
def _drop_outdated_code() -> None:
    """Delete compiled code that is older than a part of it: numba asks each one's own file only."""
    written = _written_at()
    with suppress(OSError):  # another process was first, or this one may not
        for index in Path(search.stats.cache_path or ".").glob("prefix_*.nbi"):
            if index.stat().st_mtime < written < time.time():
                index.unlink()


def _build_lexicon(
    tokenizer: CharTokenizer, model: NgramModel | None, hot_words: Sequence[HotWord],
    lexicon: Sequence[str] | None,
) -> LexiconArrays:  # fmt: skip
    """The word trie; hot words that the language model does not know cost no more than <unk>."""
    expected = [word for hot in hot_words for word in hot.phrase.split()]
    if model is None:
        words = [] if lexicon is None else [*lexicon, *expected]
        words = list(dict.fromkeys(words))
        ids = np.zeros(len(words), np.int32)
        return _spelled(tokenizer, words, ids, np.zeros(1, np.float32))
    if lexicon is None:
        model.check_alphabet(tokenizer.alphabet)
        lexicon = [word for word in model.words if word not in SPECIAL_WORDS]
    words = list(dict.fromkeys((*lexicon, *expected)))
    ids = np.fromiter(map(model.word_id, words), np.int32, len(words))
    return _spelled(tokenizer, words, ids, model.unigram_log_probs)


def _token_priors(tokenizer: CharTokenizer, model: NgramModel) -> NDArray[np.float64]:
    """How often words drawn from the unigrams, a space behind each, have a character (V - 1,).

    A character of the alphabet that no word has counts as one of a million.
    """
    spelled = [i for i, word in enumerate(model.words) if word not in SPECIAL_WORDS]
    words = [f"{model.words[i]} " for i in spelled]
    characters = np.array(tokenizer.encode("".join(words)))
    weights = np.repeat(np.exp(model.unigram_log_probs[spelled]), [len(word) for word in words])
    counts = np.bincount(characters, weights, tokenizer.size)[BLANK + 1 :]
    priors: NDArray[np.float64] = np.maximum(counts / counts.sum(), 1e-6)
    priors /= priors.sum()
    return priors


def _spelled(
    tokenizer: CharTokenizer, words: Sequence[str], ids: NDArray[np.int32],
    log_probs: NDArray[np.float32],
) -> LexiconArrays:  # fmt: skip
    built = build_lexicon(words, log_probs[ids], tokenizer.alphabet)
    if built.unspellable:
        raise LanguageModelError(
            f"lexicon: {built.unspellable[0]!r} is no word of the recogniser's alphabet "
            f"({len(built.unspellable)} such words)"
        )
    arrays = built.arrays
    known = arrays.words >= 0
    arrays.words[known] = ids[arrays.words[known]]
    return arrays


def _no_language_model() -> NgramArrays:
    """Arrays of the right types that nothing looks at."""
    none, nothing = np.zeros(2, np.int32), np.zeros(2, np.float32)
    arrays = NgramArrays(none, nothing, none, nothing, none)
    for array in arrays:
        array.flags.writeable = False
    return arrays
