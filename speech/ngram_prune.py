"""Mixing models of several texts into one, and pruning a model by entropy.

Both change probabilities and then work out the back-offs anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from speech.ngram_levels import Level, keep, masses_left, normalised

_WEIGHT_ROUNDS = 50


def mix(models: Sequence[list[Level]], weights: Sequence[float]) -> list[Level]:
    """One back-off model of several over the same vocabulary: p = sum weight p of each.

    It holds the n-grams of all; each model gives its own probability to those it lacks, by backing
    off. Where the mixture backs off, that is not quite the sum (Stolcke 2002, "SRILM", section 4).
    """
    if len(models) == 1:
        return models[0]
    words = len(models[0][0])
    places = [np.arange(words, dtype=np.int32) for _ in models]
    probs = [model[0].probs for model in models]
    backoffs = [model[0].backoffs for model in models]
    mixed = [_mixed(models, weights, 0, places, probs, models[0][0])]
    for number in range(1, len(models[0])):
        keys = [
            places[i][model[number].prefixes].astype(np.int64) * words + model[number].words
            for i, model in enumerate(models)
        ]
        union = np.unique(np.concatenate(keys))
        suffixes = np.empty(len(union), dtype=np.int32)
        for i, model in enumerate(models):
            below = places[i]
            places[i] = np.searchsorted(union, keys[i]).astype(np.int32)
            suffixes[places[i]] = below[model[number].suffixes]
        prefixes = (union // words).astype(np.int32)
        for i, model in enumerate(models):
            probs[i] = backoffs[i][prefixes] * probs[i][suffixes]
            probs[i][places[i]] = model[number].probs
            backoffs[i] = np.ones(len(union))
            backoffs[i][places[i]] = model[number].backoffs
        none = np.zeros(0)
        shape = Level(prefixes, (union % words).astype(np.int32), suffixes, none, none, none)
        mixed.append(_mixed(models, weights, number, places, probs, shape))
    return normalised(mixed)


def _mixed(
    models: Sequence[list[Level]],
    weights: Sequence[float],
    number: int,
    places: list[NDArray[np.int32]],
    probs: list[NDArray[np.float64]],
    shape: Level,
) -> Level:
    total = np.zeros(len(shape))
    frequencies = np.zeros(len(shape))
    for i, weight in enumerate(weights):
        total += weight * probs[i]
        frequencies[places[i]] += weight * models[i][number].frequencies
    return replace(shape, probs=total, backoffs=np.ones(len(shape)), frequencies=frequencies)


def best_weights(probs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weights under which a mixture makes a text most probable: (K,) for `probs` (K, words).

    Expectation maximisation: a weight becomes the mean share its model has in each word's
    probability (Jelinek & Mercer 1980).
    """
    weights = np.full(len(probs), 1 / len(probs))
    for _ in range(_WEIGHT_ROUNDS):
        shares = weights[:, None] * probs
        weights = (shares / shares.sum(axis=0)).mean(axis=1)
    return weights


def prune(levels: Sequence[Level], threshold: float) -> list[Level]:
    """The model without the n-grams whose loss raises its perplexity by less than `threshold`.

    Stolcke 1998, "Entropy-based pruning of backoff language models", eq. 2-7, as a share of the
    perplexity. How often a context occurs is taken from the text, not from the model: the lower
    orders of Kneser-Ney do not say it (Chelba et al. 2010). N-grams that are the prefix or suffix
    of one that stays, stay.
    """
    masks = [np.ones(len(level), dtype=bool) for level in levels]
    needed = np.zeros(len(levels[-1]), dtype=bool)
    for number in range(len(levels) - 1, 0, -1):
        level, below = levels[number], levels[number - 1]
        masks[number] = (_divergence(below, level) >= np.log1p(threshold)) | needed
        needed = np.zeros(len(below), dtype=bool)
        needed[level.prefixes[masks[number]]] = True
        needed[level.suffixes[masks[number]]] = True
    return normalised(keep(levels, masks))


def _divergence(below: Level, level: Level) -> NDArray[np.float64]:
    """How far each n-gram's loss moves the model from itself: relative entropy in nats a word."""
    left, lower_left = masses_left(below, level, len(below))
    left, lower_left = left[level.prefixes], lower_left[level.prefixes]
    lower_probs = below.probs[level.suffixes]
    tiny = np.finfo(np.float64).tiny
    log_backoff = np.log(np.maximum(below.backoffs[level.prefixes], tiny))
    new_backoff = (left + level.probs) / np.maximum(lower_left + lower_probs, tiny)
    log_new = np.log(np.maximum(new_backoff, tiny))
    moved = level.probs * (np.log(np.maximum(lower_probs, tiny)) + log_new - np.log(level.probs))
    shifted = np.maximum(left, 0) * (log_new - log_backoff)
    divergence: NDArray[np.float64] = -below.frequencies[level.prefixes] * (moved + shifted)
    return divergence
