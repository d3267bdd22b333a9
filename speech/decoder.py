"""The decoder that a user's options ask for: greedy, or a beam search with what it is to know."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from speech.errors import ConfigError
from speech.hot_words import HotWord
from speech.results import NO_LANGUAGE_MODEL
from speech.shipped import LANGUAGE_MODEL_FILE, model_directories
from speech.tokenizer import CharTokenizer
from speech.tuning import Tuning, read_tuning

if TYPE_CHECKING:
    from speech.beam_search import BeamDecoder

SHIPPED_LANGUAGE_MODEL = "english"
DEFAULT = "default"  # in place of a language model's name: the shipped one where it suits
# For a language model that was never tuned: what suits an n-gram model of English and our models.
UNTUNED = Tuning(lm_weight=0.8, word_bonus=1.0, beam_size=100)


@dataclass(frozen=True)
class DecoderOptions:
    """What to decode with; None is what the language model's tuning says, or a default.

    ``lm`` is a shipped language model's name, a path, ``none``, or ``default``: the shipped one for
    models with its alphabet, none for others.
    """

    lm: str = DEFAULT
    beam_size: int | None = None
    lm_weight: float | None = None
    word_bonus: float | None = None
    hot_words: tuple[HotWord, ...] = ()
    n_best: int = 1
    rescore: str = NO_LANGUAGE_MODEL  # a neural language model that judges the best texts again
    rescore_weight: float | None = None

    def __post_init__(self) -> None:
        if self.rescore_weight is not None and self.rescore == NO_LANGUAGE_MODEL:
            raise ConfigError("rescore_weight weighs a neural language model, and none is given")

    @property
    def is_greedy(self) -> bool:
        """Whether nothing asks for a beam search, once ``default`` is `resolved`."""
        return self == GREEDY

    def resolved(self, tokenizer: CharTokenizer) -> DecoderOptions:
        """The same with a name in place of ``default``."""
        if self.lm != DEFAULT:
            return self
        return dataclasses.replace(self, lm=default_language_model(tokenizer))


GREEDY = DecoderOptions(lm=NO_LANGUAGE_MODEL)  # the likeliest token of each frame


def default_language_model(tokenizer: CharTokenizer) -> str:
    """The shipped language model for recognisers with its alphabet, if it is there; else ``none``.

    Another alphabet is another language, or another way of writing it.
    """
    name = SHIPPED_LANGUAGE_MODEL
    found = any((one / name / LANGUAGE_MODEL_FILE).is_file() for one in model_directories())
    suits = tokenizer.alphabet == CharTokenizer().alphabet
    return name if found and suits else NO_LANGUAGE_MODEL


def load_decoder(options: DecoderOptions, tokenizer: CharTokenizer) -> BeamDecoder | None:
    """The beam search that the options ask for, its language model loaded; None for greedy.

    ConfigError for a weight without a language model, LanguageModelError for a bad one.
    """
    options = options.resolved(tokenizer)
    if options.is_greedy:
        return None
    from speech.beam_search import BeamDecoder, BeamSettings
    from speech.language_model import NgramModel, find_language_model

    if options.lm == NO_LANGUAGE_MODEL:
        if options.lm_weight is not None:
            raise ConfigError("lm_weight weighs a language model, and none is given")
        settings = BeamSettings(
            beam_size=options.beam_size or UNTUNED.beam_size,
            word_bonus=options.word_bonus or 0.0, n_best=options.n_best,
        )  # fmt: skip
        return BeamDecoder(tokenizer, settings, None, options.hot_words)
    path = find_language_model(options.lm)
    settings = BeamSettings(**_tuned(options, read_tuning(path) or UNTUNED), n_best=options.n_best)
    return BeamDecoder(tokenizer, settings, NgramModel.load(path), options.hot_words)


def _tuned(options: DecoderOptions, tuning: Tuning) -> dict[str, Any]:
    """What the options give of these settings, and what the tuning says of the others."""
    others = ("letter_price", "prior_weight", "blank_price")
    found = {name: getattr(tuning, name) for name in others}
    for name in ("beam_size", "lm_weight", "word_bonus"):
        given = getattr(options, name)
        found[name] = getattr(tuning, name) if given is None else given
    return {name: value for name, value in found.items() if value is not None}
