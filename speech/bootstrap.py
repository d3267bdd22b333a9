"""How sure a rate is, and whether one system is better than another: bootstrap resampling.

Bisani & Ney 2004, "Bootstrap estimates for confidence intervals in ASR performance evaluation":
draw the test set again from itself, with replacement, and look how the figure moves. Errors of one
speaker hang together, so whole speakers are drawn where two or more are named.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from speech.errors import SpeechError
from speech.metrics import ErrorCounts, sum_errors

RESAMPLES = 2000
CONFIDENCE = 0.95
SEED = 0


class PairedBootstrap(NamedTuple):
    """How the error rate changes from system A to system B; below zero B is better."""

    difference: float  # rate of B - rate of A on all utterances
    interval: tuple[float, float]  # of the difference
    probability_of_improvement: float  # share of resamples in which B has the lower rate

    @property
    def significant(self) -> bool:
        """Whether the interval leaves zero out, on either side."""
        low, high = self.interval
        return low > 0 or high < 0


def bootstrap_interval(
    counts: Sequence[ErrorCounts],
    speakers: Sequence[str | None] | None = None,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the corpus rate (Bisani & Ney 2004, section 3).

    An utterance without a speaker is drawn alone; with one speaker or none, utterances are drawn.
    The bounds are rates of resamples, not interpolated, so that they may be inf.
    """
    if not counts:
        raise SpeechError("a bootstrap interval needs at least one utterance, got none")
    totals = group_totals(counts, speakers)
    errors, lengths = _errors_and_lengths(totals)
    rates = [
        ErrorCounts(int(errors[drawn].sum()), 0, 0, int(lengths[drawn].sum())).rate
        for drawn in resample(len(totals), resamples, seed)
    ]
    return percentile_interval(rates, confidence)


def paired_bootstrap(
    counts_a: Sequence[ErrorCounts],
    counts_b: Sequence[ErrorCounts],
    speakers: Sequence[str | None] | None = None,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> PairedBootstrap:
    """System B against system A on the same utterances (Bisani & Ney 2004, section 4).

    Both systems are scored on the same draws, so that what is hard about an utterance cancels.
    `counts_a[i]` and `counts_b[i]` are of the same utterance. A draw in which both have equally
    many errors is no improvement.
    """
    if len(counts_a) != len(counts_b) or not counts_a:
        raise SpeechError(
            "a paired bootstrap needs the same utterances, at least one, of both systems: got "
            f"{len(counts_a)} and {len(counts_b)}"
        )
    a, b = group_totals(counts_a, speakers), group_totals(counts_b, speakers)
    (whole,) = paired_differences(a, b, [np.arange(len(a))])
    differences = paired_differences(a, b, resample(len(a), resamples, seed))
    improved = sum(difference < 0 for difference in differences) / len(differences)
    return PairedBootstrap(whole, percentile_interval(differences, confidence), improved)


def repeated_interval(
    repeats: Sequence[Sequence[ErrorCounts]], speakers: Sequence[str | None] | None = None
) -> tuple[float, float]:
    """Interval of the rate of a system trained several times, `repeats[seed][utterance]`.

    Drawn anew are the speakers or utterances, as in `bootstrap_interval`, and the repetitions: the
    next training would begin with other weights, as the next test would be of other speech.
    """
    rates = [
        _ratio(errors, length) for errors, length in zip(*_repeated(repeats, speakers), strict=True)
    ]
    return percentile_interval(rates, CONFIDENCE)


def relative_reduction(
    repeats_a: Sequence[Sequence[ErrorCounts]],
    repeats_b: Sequence[Sequence[ErrorCounts]],
    speakers: Sequence[str | None] | None = None,
) -> tuple[float, tuple[float, float]]:
    """Share of system A's errors that B does not make, and its interval, over repeated trainings.

    Both are scored on the same draws of speakers or utterances; repetitions are drawn for each.
    Raises `SpeechError` where A makes no errors at all.
    """
    rate_a, rate_b = (sum_errors(c for counts in r for c in counts).rate
                      for r in (repeats_a, repeats_b))  # fmt: skip
    if rate_a == 0:
        raise SpeechError("a relative reduction needs a system with errors, got one without any")
    errors_a, _ = _repeated(repeats_a, speakers, seed=SEED)
    errors_b, _ = _repeated(repeats_b, speakers, seed=SEED + 2)
    # By repetition: the two may have been trained a different number of times.
    a = np.array(errors_a) / len(repeats_a)
    b = np.array(errors_b) / len(repeats_b)
    shares = [1 - float(y / x) for x, y in zip(a, b, strict=True) if x > 0]
    return 1 - rate_b / rate_a, percentile_interval(shares, CONFIDENCE)


def _repeated(
    repeats: Sequence[Sequence[ErrorCounts]],
    speakers: Sequence[str | None] | None,
    seed: int = SEED,
) -> tuple[list[int], list[int]]:
    """Errors and lengths of RESAMPLES draws; those of speakers are always the same ones."""
    if not repeats or not repeats[0]:
        raise SpeechError("a repeated interval needs at least one training and one utterance")
    grouped = [_errors_and_lengths(group_totals(counts, speakers)) for counts in repeats]
    errors, lengths = np.stack([one for one, _ in grouped]), grouped[0][1]
    draws = zip(resample(len(lengths), RESAMPLES, SEED),
                resample(len(repeats), RESAMPLES, seed + 1), strict=True)  # fmt: skip
    drawn = [(errors[np.ix_(again, who)].sum(), lengths[who].sum()) for who, again in draws]
    return [int(e) for e, _ in drawn], [int(n) * len(repeats) for _, n in drawn]


def paired_differences(
    totals_a: Sequence[ErrorCounts],
    totals_b: Sequence[ErrorCounts],
    draws: Iterable[NDArray[np.int64]],
) -> list[float]:
    """Rate of B - rate of A on each draw of indices; infinite where no reference has a word."""
    errors_a, lengths = _errors_and_lengths(totals_a)
    errors_b, lengths_b = _errors_and_lengths(totals_b)
    if not np.array_equal(lengths, lengths_b):
        raise SpeechError("a paired bootstrap needs references of equal length in both systems")
    more_errors = errors_b - errors_a
    return [_ratio(int(more_errors[drawn].sum()), int(lengths[drawn].sum())) for drawn in draws]


def percentile_interval(values: Sequence[float], confidence: float) -> tuple[float, float]:
    """The central share `confidence` of the values, bounded by two of them."""
    tail = (1 - confidence) / 2
    low = np.quantile(values, tail, method="lower")
    high = np.quantile(values, 1 - tail, method="higher")
    return float(low), float(high)


def are_speakers_drawn(speakers: Sequence[str | None] | None) -> bool:
    """Whether resampling draws whole speakers: two or more are named."""
    return speakers is not None and len(set(speakers) - {None}) >= 2


def group_totals(
    counts: Sequence[ErrorCounts], speakers: Sequence[str | None] | None
) -> list[ErrorCounts]:
    """The counts of what is drawn as one: a speaker, or a single utterance."""
    if speakers is not None and len(speakers) != len(counts):
        raise SpeechError(f"got {len(speakers)} speakers for {len(counts)} utterances")
    if speakers is None or not are_speakers_drawn(speakers):
        return list(counts)
    groups: dict[str | int, ErrorCounts] = {}
    for i, (count, speaker) in enumerate(zip(counts, speakers, strict=True)):
        key = i if speaker is None else speaker
        groups[key] = groups.get(key, ErrorCounts()) + count
    return list(groups.values())


def resample(size: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Index arrays that draw ``size`` things with replacement."""
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield generator.integers(size, size=size)


def _errors_and_lengths(
    totals: Sequence[ErrorCounts],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    errors = np.array([total.errors for total in totals], dtype=np.int64)
    return errors, np.array([total.reference_length for total in totals], dtype=np.int64)


def _ratio(errors: int, length: int) -> float:
    if length == 0:
        return math.copysign(math.inf, errors) if errors else 0.0
    return errors / length
