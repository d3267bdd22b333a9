"""Voice activity by a network against voice activity by levels, on mixtures of known truth."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speech.nonspeech import Signal
from speech.study_results import store_study
from speech.train_voice import ClipMaker
from speech.voice_activity import EXCESS_DB, VoiceDetector
from speech.voice_config import VoiceConfig
from speech.voice_mixture import FRAME_SECONDS, Mixture, Truth
from speech.voice_network import NetworkVoiceDetector, VoiceModel

VOICE_FILE = "voice_activity.json"
SNRS_DB = (20.0, 10.0, 5.0, 0.0)
CLIP_SECONDS = 60.0  # the detector by levels needs seconds around to find its floor
PROBABILITIES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
EXCESSES_DB = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, EXCESS_DB, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0)
_EPOCH = 1 << 21  # of the clips' seeds: no training and no dev set has it


def run_voice_study(
    model: VoiceModel,
    manifests: Sequence[Path],
    output: Path,
    clips: int = 2,
    advance: Callable[[float], None] = lambda share: None,
) -> dict[str, Any]:
    """Return how often each detector errs, by sound and signal-to-noise ratio; also written.

    There are `clips` of a minute for each held-out sound and ratio, and for each sound alone.
    """
    maker = _maker(model.config, manifests)
    played = {sound.name.split(" at ")[0]: sound for sound in maker.sounds}  # their level is ours
    cases = [(name, snr) for name in played for snr in (*SNRS_DB, None)]
    rows: list[dict[str, Any]] = []
    for name, snr in cases:
        mixtures = [_clip(maker, played[name], snr, number) for number in range(clips)]
        rows.append({"sound": name, "snr_db": snr, **case_figures(mixtures, model)})
        advance(1 / len(cases))
    used = model.config.decision.probability
    figures = {
        "never_heard_in_training": list(model.config.data.without_sounds),
        "clip_seconds": CLIP_SECONDS,
        "clips": clips,
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "detectors": {
            "network": {"thresholds": probabilities(model.config), "in_use": used},
            "levels": {"thresholds": list(EXCESSES_DB), "in_use": EXCESS_DB},
        },
        "overall": {name: summed(rows, name) for name in ("network", "levels")},
        "by_case": rows,
    }  # fmt: skip
    store_study(figures, output / VOICE_FILE)
    return figures


def probabilities(config: VoiceConfig) -> list[float]:
    """Return the thresholds that are tried, that in use among them."""
    return sorted({*PROBABILITIES, config.decision.probability})


def _maker(config: VoiceConfig, manifests: Sequence[Path]) -> ClipMaker:
    data = dataclasses.replace(config.data, clip_seconds=CLIP_SECONDS, cache="")
    shares = dict.fromkeys(manifests, 1.0)
    return ClipMaker(shares, dataclasses.replace(config, data=data), Path(), is_dev=True)


def _clip(maker: ClipMaker, sound: Signal, snr_db: float | None, number: int) -> Mixture:
    """Return a minute of speech with a sound, or of the sound alone where there is no ratio."""
    return maker.of(
        np.random.default_rng([_EPOCH, number]), sound, snr_db is not None, snr_db or 0.0
    )


def case_figures(mixtures: Sequence[Mixture], model: VoiceModel) -> dict[str, Any]:
    """Return frames of each truth, and for each detector and threshold how many were wrong."""
    counts: dict[str, list[NDArray[np.int64]]] = {"network": [], "levels": []}
    for one in mixtures:
        rate = model.config.features.sample_rate
        speech = by_network(model, one, rate)
        decisions = [speech > p for p in probabilities(model.config)]
        counts["network"].append(_errors(decisions, one.speech))
        levels = [by_levels(one, rate, excess) for excess in EXCESSES_DB]
        counts["levels"].append(_errors(levels, one.speech))
    total = {name: np.sum(rows, axis=0) for name, rows in counts.items()}
    return {
        "speech_frames": int(sum(one.speech.sum() for one in mixtures)),
        "other_frames": int(sum((~one.speech).sum() for one in mixtures)),
        **{
            name: {"missed": rows[:, 0].tolist(), "false": rows[:, 1].tolist()}
            for name, rows in total.items()
        },
    }


def by_network(model: VoiceModel, mixture: Mixture, rate: int) -> NDArray[np.float32]:
    """Return the probability of speech in each frame of the truth."""
    detector = NetworkVoiceDetector(model)
    rows = [detector.probabilities_of(mixture.samples), detector.last_probabilities()]
    repeats = detector.frame_samples // round(FRAME_SECONDS * rate)
    return np.repeat(np.concatenate(rows), repeats)[: len(mixture.speech)]


def by_levels(mixture: Mixture, rate: int, excess_db: float) -> Truth:
    """Return what the detector by levels says of each frame of the truth."""
    detector = VoiceDetector(rate, excess_db)
    found = np.concatenate([detector.push(mixture.samples), detector.finish()])
    return found[: len(mixture.speech)]


def _errors(decisions: Sequence[Truth], truth: Truth) -> NDArray[np.int64]:
    """Return (thresholds, 2): frames of speech missed, and other frames taken for speech."""
    rows = [[(truth & ~found).sum(), (found & ~truth).sum()] for found in decisions]
    return np.array(rows, dtype=np.int64)


def summed(rows: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """Return miss and false-alarm rates by threshold, summed over cases, and where they are equal.

    The equal error rate is read off between the two thresholds around it.
    """
    speech, other = (sum(row[key] for row in rows) for key in ("speech_frames", "other_frames"))
    missed = np.sum([row[name]["missed"] for row in rows], axis=0) / max(1, speech)
    false = np.sum([row[name]["false"] for row in rows], axis=0) / max(1, other)
    return {
        "miss_rate": missed.tolist(),
        "false_alarm_rate": false.tolist(),
        "equal_error_rate": equal_error_rate(missed, false),
    }


def equal_error_rate(missed: NDArray[np.float64], false: NDArray[np.float64]) -> float:
    """Return where a rising miss rate meets a falling false-alarm rate, by linear interpolation."""
    gap = missed - false
    after = int(np.argmax(gap >= 0)) if (gap >= 0).any() else len(gap) - 1
    if after == 0 or gap[after] < 0:
        return float(max(missed[after], false[after]))
    share = -gap[after - 1] / (gap[after] - gap[after - 1])
    return float(missed[after - 1] + share * (missed[after] - missed[after - 1]))
