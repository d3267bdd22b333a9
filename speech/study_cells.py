"""Which cell hears best: networks of equal size, trained alike, tested on the same speech.

The encoders are those of the lecture: each frame by itself with a window around it (feed-forward),
a vanilla recurrent network, a GRU, an LSTM, and an LSTM that also reads backwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from speech.config import Config
from speech.errors import ConfigError
from speech.metrics import ErrorCounts, sum_errors
from speech.model import count_parameters, match_parameters
from speech.results import Evaluation
from speech.study import (
    Observe,
    Outcome,
    Place,
    Trial,
    changed,
    over_seeds,
    reduction_figures,
    run_trial,
    tested_on,
    wer_figures,
)
from speech.study_results import store_study
from speech.tokenizer import CharTokenizer

# A window of one network looks both ways, as those before recurrent networks did.
ENCODERS: dict[str, dict[str, Any]] = {
    # A recipe's lookahead_frames is for cells that read one way: these see both sides.
    "feedforward": {"cell": "feedforward", "bidirectional": True, "lookahead_frames": 0},
    "rnn": {"cell": "rnn_tanh", "bidirectional": False},
    "gru": {"cell": "gru", "bidirectional": False},
    "lstm": {"cell": "lstm", "bidirectional": False},
    "blstm": {"cell": "lstm", "bidirectional": True, "lookahead_frames": 0},
}
PAIRS = (("feedforward", "lstm"), ("rnn", "lstm"), ("gru", "lstm"), ("feedforward", "blstm"),
         ("lstm", "blstm"))  # fmt: skip
CELLS_FILE = "cells.json"
FEW_SPEAKERS = 8  # in the test: each one's error rate is told


@dataclass(frozen=True)
class CellsStudy:
    """What is compared: one recipe, so many weights, each network trained so many times."""

    config: Config
    parameters: int
    seeds: int = 3
    # Each encoder takes the one with which its first seed's dev figure is best; one: no choice.
    learning_rates: tuple[float, ...] = ()
    encoders: tuple[str, ...] = tuple(ENCODERS)


def run_cells_study(study: CellsStudy, place: Place, observe: Observe) -> dict[str, Any] | None:
    """Train, test and compare; return the figures, also written with a picture into the output.

    Trials that are finished are not repeated. None where a training was stopped.
    """
    configs = {name: encoder_config(study, name) for name in study.encoders}
    results: dict[str, list[Outcome]] = {}
    for name, config in configs.items():
        outcomes = _train(study, name, config, place, observe)
        if outcomes is None:
            return None
        results[name] = outcomes
    figures = cells_figures(results) | _setup(study, place)
    store_study(figures, place.output / CELLS_FILE)
    return figures


def encoder_config(study: CellsStudy, name: str) -> Config:
    """Return the recipe with this encoder in the wanted size."""
    if name not in ENCODERS:
        raise ConfigError(f"no encoder {name!r}: needs one of {', '.join(ENCODERS)}")
    config = changed(study.config, **ENCODERS[name])
    sizes = config.features.mel_bands, CharTokenizer().size
    return changed(config, hidden=match_parameters(config.model, study.parameters, *sizes).hidden)


def _train(
    study: CellsStudy, name: str, config: Config, place: Place, observe: Observe
) -> list[Outcome] | None:
    """Return the outcomes of an encoder's seeds, the learning rate chosen by the first one."""
    rates = study.learning_rates or (config.train.learning_rate,)
    firsts = []
    for rate in rates:
        label = f"{name}-lr{rate:g}" if len(rates) > 1 else name
        outcome = run_trial(Trial(label, changed(config, learning_rate=rate)), place, observe)
        if outcome is None:
            return None
        firsts.append(outcome)
    best = min(firsts, key=_dev_wer)
    outcomes = [best]
    for trial in over_seeds(best.trial.config, best.trial.name, study.seeds)[1:]:
        outcome = run_trial(trial, place, observe)
        if outcome is None:
            return None
        outcomes.append(outcome)
    return outcomes


def _dev_wer(outcome: Outcome) -> float:
    """Return the best word error rate on the dev set; infinite after a divergence."""
    rates = [row["dev_wer"] for row in outcome.history if "dev_wer" in row]
    return min(rates, default=float("inf")) if not outcome.diverged else float("inf")


def cells_figures(results: Mapping[str, Sequence[Outcome]]) -> dict[str, Any]:
    """Return the figures of each encoder and the relative reductions from one to another."""
    return {
        "encoders": {name: _encoder_figures(outcomes) for name, outcomes in results.items()},
        "reductions": [
            {"from": worse, "to": better} | reduction_figures(results[worse], results[better])
            for worse, better in PAIRS
            if _is_tested(worse, results) and _is_tested(better, results)
        ],
    }


def _encoder_figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    config = outcomes[0].trial.config
    sizes = config.features.mel_bands, CharTokenizer().size
    seconds = [outcome.sums("wall_seconds") for outcome in outcomes]
    hours = sum(outcome.sums("audio_seconds") for outcome in outcomes) / 3600
    tests = [outcome.test for outcome in outcomes if outcome.test is not None]
    return wer_figures(outcomes) | {
        "parameters": count_parameters(config.model, *sizes),
        "hidden": config.model.hidden,
        "layers": config.model.layers,
        "context_frames": config.model.context_frames if config.model.cell == "feedforward" else 0,
        "learning_rate": config.train.learning_rate,
        "seconds": seconds,
        "seconds_per_hour_of_audio": sum(seconds) / hours if hours else None,
        "test_real_time_factor": [test.real_time_factor for test in tests],
        "gradient_horizon_frames": [o.last("gradient_horizon_frames") for o in outcomes],
        "wer_by_speaker": _by_speaker(tests),
        "curves": [
            [{key: row.get(key) for key in ("epoch", "train_loss", "dev_loss", "dev_wer")}
             for row in outcome.history]
            for outcome in outcomes
        ],
    }  # fmt: skip


def _by_speaker(tests: Sequence[Evaluation]) -> dict[str, float]:
    """Return the word error rate of each speaker over the seeds, where they are few and named."""
    counts: dict[str, list[ErrorCounts]] = {}
    for score in (score for test in tests for score in test.scores if score.speaker is not None):
        counts.setdefault(score.speaker or "", []).append(score.words)
    if len(counts) > FEW_SPEAKERS:
        return {}
    return {speaker: sum_errors(of_one).rate for speaker, of_one in counts.items()}


def _is_tested(name: str, results: Mapping[str, Sequence[Outcome]]) -> bool:
    return name in results and any(outcome.test is not None for outcome in results[name])


def _setup(study: CellsStudy, place: Place) -> dict[str, Any]:
    train, data = study.config.train, study.config.data
    return {
        "target_parameters": study.parameters,
        "epochs": train.last_epoch,
        "batch_seconds": train.batch_seconds,
        "learning_rates": list(study.learning_rates or (train.learning_rate,)),
        "seeds": study.seeds,
        "train": dict(data.train),
    } | tested_on(study.config, place)
