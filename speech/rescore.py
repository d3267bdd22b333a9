"""Rescoring: the best texts of a beam search, judged again by a neural language model.

The search asks an n-gram model at every step, which must be quick; a network that reads the whole
text is asked about the few texts that are left (n-best rescoring, as Graves & Jaitly, 2014).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, TypeAlias

from speech.char_language_model import CharLanguageModel, find_char_model
from speech.decoder import DecoderOptions, load_decoder
from speech.errors import ConfigError, ModelError
from speech.metrics import ErrorCounts, sum_errors, word_errors
from speech.results import NO_LANGUAGE_MODEL
from speech.shipped import CHAR_WEIGHTS_FILE
from speech.tokenizer import CharTokenizer
from speech.tuning import Tuning, read_tuning

if TYPE_CHECKING:  # loads the compiler, which greedy decoding spares
    from speech.beam import Labelling
    from speech.beam_search import BeamDecoder

CANDIDATES = 20  # texts that are judged again
NeuralLogProbs = Callable[[Sequence[str]], list[float]]
NBest: TypeAlias = "Sequence[Labelling]"  # of one segment, best first


@dataclass(frozen=True)
class RescoringWeights:
    """What is added to a text's score: weight * log p(text) + word_bonus * words, in nats.

    A network that is asked once more lowers the scores of all texts, and those of long ones most;
    the bonus makes up for it.
    """

    weight: float
    word_bonus: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ConfigError(f"rescore_weight must be 0 or more and finite, got {self.weight}")
        if not math.isfinite(self.word_bonus):
            raise ConfigError(f"the word bonus of rescoring must be finite, got {self.word_bonus}")

    def added(self, text: str, log_prob: float) -> float:
        """Return what a text with this neural log p gains."""
        return self.weight * log_prob + self.word_bonus * len(text.split())


@dataclass(frozen=True)
class Rescorer:
    """A neural language model at work behind a search."""

    model: CharLanguageModel
    weights: RescoringWeights
    candidates: int = CANDIDATES  # texts that the search is to hand over
    name: str = ""  # of the model, for what is stored with a result

    @classmethod
    def load(cls, name_or_path: str, weight: float | None = None) -> Rescorer:
        """Return a rescorer with a model's tuned weights, or with `weight` in place of that one.

        Raises `ConfigError` where neither is there.
        """
        tuning = read_tuning(find_char_model(name_or_path) / CHAR_WEIGHTS_FILE)
        if tuning is None and weight is None:
            raise ConfigError(
                f"{name_or_path} was never tuned: give a rescore_weight, or run "
                f"speech lm tune LM MANIFEST --rescore {name_or_path}"
            )
        tuned = tuning or Tuning(lm_weight=0.0, word_bonus=0.0, beam_size=CANDIDATES)
        weights = RescoringWeights(tuned.lm_weight if weight is None else weight, tuned.word_bonus)
        return cls(CharLanguageModel.load(name_or_path), weights, tuned.beam_size, name_or_path)

    def settings(self) -> dict[str, object]:
        """Return name, weights and number of texts."""
        return {"model": self.name, **asdict(self.weights), "candidates": self.candidates}

    def check(self, tokenizer: CharTokenizer) -> None:
        """Raise `ModelError` unless the recogniser's texts are spelled as the model's."""
        if tokenizer.alphabet != self.model.tokenizer.alphabet:
            raise ModelError(
                f"the neural language model knows the characters "
                f"{''.join(self.model.tokenizer.alphabet)!r}, the recogniser writes "
                f"{''.join(tokenizer.alphabet)!r}"
            )

    def rescore(self, n_best: NBest) -> list[Labelling]:
        """Return the texts of one utterance with their new scores, best first.

        All texts are one padded batch of the network. Of equal scores the one that came first
        stays in front. Of a single text only the score could change: it is left as it is.
        """
        if len(n_best) < 2:
            return list(n_best)
        texts = spoken_texts(n_best, self.model.tokenizer)
        known = list(dict.fromkeys(texts))  # some differ in their spaces only
        log_prob_of = dict(zip(known, self.model.log_probs(known), strict=True))
        return rescored(n_best, texts, [log_prob_of[text] for text in texts], self.weights)


def load_decoder_and_rescorer(
    options: DecoderOptions, tokenizer: CharTokenizer
) -> BeamDecoder | None:
    """Return the search that the options ask for and what judges its texts again; None: greedy.

    Raises what `speech.decoder.load_decoder` raises, `ModelError` for a rescorer that does not fit.
    """
    decoder = load_decoder(options, tokenizer)
    if decoder is None or options.rescore == NO_LANGUAGE_MODEL:
        return decoder
    rescorer = Rescorer.load(options.rescore, options.rescore_weight)
    rescorer.check(tokenizer)
    return decoder.with_rescorer(rescorer)


def spoken_texts(n_best: NBest, tokenizer: CharTokenizer) -> list[str]:
    """Return the texts as a language model reads them: words, single spaces."""
    return [" ".join(tokenizer.decode(one.tokens).split()) for one in n_best]


def rescored(
    n_best: NBest, texts: Sequence[str], log_probs: Sequence[float], weights: RescoringWeights
) -> list[Labelling]:
    """Return the n-best list with what its texts gain by their neural log p, best first."""
    judged = [
        one._replace(score=one.score + weights.added(text, log_prob))
        for one, text, log_prob in zip(n_best, texts, log_probs, strict=True)
    ]
    return sorted(judged, key=lambda one: -one.score)


# --- Tuning ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RescoringTrial:
    """Weights, and the word errors that rescoring by them leaves."""

    weights: RescoringWeights
    errors: ErrorCounts


def tune_rescoring(
    n_bests: Sequence[Sequence[NBest]],
    references: Sequence[str],
    tokenizer: CharTokenizer,
    neural_log_probs: NeuralLogProbs,
    weights: Sequence[float],
    word_bonuses: Sequence[float],
) -> tuple[RescoringTrial, list[RescoringTrial]]:
    """Return the trial with the fewest word errors, and all trials.

    `n_bests` are those of each utterance's segments, `references` normalised; `neural_log_probs` is
    `CharLanguageModel.log_probs`, asked for each text once. Of equally good trials that with the
    lowest weight is taken, then that with the smallest bonus. Weight 0 is tried without a bonus
    only: that is the search's own order.
    """
    texts = [[spoken_texts(n_best, tokenizer) for n_best in own] for own in n_bests]
    known = sorted({text for own in texts for segment in own for text in segment})
    log_prob_of = dict(zip(known, neural_log_probs(known), strict=True))
    remembered = cache(word_errors)  # most weights give most utterances the same text

    def errors(tried: RescoringWeights) -> ErrorCounts:
        def best(n_best: NBest, segment: Sequence[str]) -> str:
            log_probs = [log_prob_of[text] for text in segment]
            (first, *_) = rescored(n_best, segment, log_probs, tried)
            return " ".join(tokenizer.decode(first.tokens).split())

        chosen = (
            " ".join(best(*pair) for pair in zip(own, spoken, strict=True) if pair[0]).strip()
            for own, spoken in zip(n_bests, texts, strict=True)
        )
        return sum_errors(remembered(*pair) for pair in zip(references, chosen, strict=True))

    trials = [RescoringTrial(tried, errors(tried)) for tried in _grid(weights, word_bonuses)]
    return min(trials, key=lambda trial: trial.errors.errors), trials


def _grid(weights: Sequence[float], word_bonuses: Sequence[float]) -> Iterator[RescoringWeights]:
    yield RescoringWeights(0.0)
    above_zero = sorted(weight for weight in weights if weight > 0)
    for weight, bonus in product(above_zero, sorted(word_bonuses, key=abs)):
        yield RescoringWeights(weight, bonus)
