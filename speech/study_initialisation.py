"""Remedies for vanishing and exploding gradients, side by side: how well does each one train?

Compared are initial weights, gradient clipping and truncated back-propagation through time, in
networks of one direction and equal size, each trained alike. Shown are the loss over the epochs
and how far back it is felt, before and after.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from speech.config import RECURRENT_INITS, Config
from speech.gradients import HORIZON
from speech.model import match_parameters
from speech.results import write_json
from speech.study import Observe, Outcome, Place, Trial, changed, over_seeds, run_trial, wer_figures
from speech.study_results import store_study
from speech.tokenizer import CharTokenizer
from speech.train import RecogniserTask

INITIALISATION_FILE = "initialisation.json"
START_FILE = "start.json"  # of a trial: what was measured before its first step
NO_CLIPPING = 1e9  # a norm that no gradient reaches
BPTT_FRAMES = (10, 50, 0)  # 0: to the beginning
_RNN, _RELU, _LSTM = ({"cell": cell} for cell in ("rnn_tanh", "rnn_relu", "lstm"))
# Group -> name of a trial -> settings of [model] and [train].
GROUPS: dict[str, dict[str, dict[str, Any]]] = {
    "tanh RNN, W_h": {f"rnn-{kind}": _RNN | {"recurrent_init": kind} for kind in RECURRENT_INITS},
    "ReLU RNN, W_h (identity: IRNN)": {
        f"relu-{kind}": _RELU | {"recurrent_init": kind} for kind in ("identity", "small_normal")
    },
    "LSTM, W_h": {
        f"lstm-{kind}": _LSTM | {"recurrent_init": kind} for kind in RECURRENT_INITS
    },
    "LSTM, bias of the forget gate": {
        f"lstm-forget{bias:g}": _LSTM | {"forget_bias": bias} for bias in (0.0, 1.0, 2.0)
    },
    "tanh RNN, gradient clipping": {
        "rnn-clip": _RNN,
        "rnn-noclip": _RNN | {"clip_norm": NO_CLIPPING},
    },
    "LSTM, truncated back-propagation": {
        f"lstm-bptt{frames or 'all'}": _LSTM | {"bptt_frames": frames} for frames in BPTT_FRAMES
    },
}  # fmt: skip


@dataclass(frozen=True)
class InitialisationStudy:
    """What is compared: one recipe, so many weights, each trained so many times."""

    config: Config
    parameters: int
    seeds: int = 1
    groups: tuple[str, ...] = tuple(GROUPS)


def run_initialisation_study(
    study: InitialisationStudy, place: Place, observe: Observe
) -> dict[str, Any] | None:
    """Train and compare; return the figures, also written with a picture into the output.

    Trials that are finished are not repeated. None where a training was stopped.
    """
    rows = []
    for group in study.groups:
        for name, settings in GROUPS[group].items():
            config = trial_config(study, settings)
            outcomes = []
            for trial in over_seeds(config, run_name(config), study.seeds):
                before = horizon_at_start(trial, place)
                outcome = run_trial(trial, place, observe)
                if outcome is None:
                    return None
                outcomes.append((before, outcome))
            rows.append({"group": group, "name": name} | _figures(outcomes))
    train = study.config.train
    figures = {
        "trials": rows,
        "target_parameters": study.parameters,
        "epochs": train.last_epoch,
        "learning_rate": train.learning_rate,
        "clip_norm": train.clip_norm,
        "seeds": study.seeds,
        "train": dict(study.config.data.train),
    }
    store_study(figures, place.output / INITIALISATION_FILE)
    return figures


def trial_config(study: InitialisationStudy, settings: dict[str, Any]) -> Config:
    """Return the recipe with these settings, one direction, and the wanted size."""
    config = changed(study.config, bidirectional=False, **settings)
    sizes = config.features.mel_bands, CharTokenizer().size
    return changed(config, hidden=match_parameters(config.model, study.parameters, *sizes).hidden)


def run_name(config: Config) -> str:
    """Return a name by all that trials differ in: what two groups both show is trained once."""
    model, train = config.model, config.train
    return (
        f"{model.cell}-{model.recurrent_init}-forget{model.forget_bias:g}"
        f"-clip{train.clip_norm:g}-bptt{train.bptt_frames}"
    )


def horizon_at_start(trial: Trial, place: Place) -> float:
    """Return the gradient horizon of the weights that the trial begins with, in output frames."""
    path = place.output / trial.directory / START_FILE
    if not path.is_file():
        torch.manual_seed(trial.config.train.seed)  # as the trainer does before it makes the task
        task = RecogniserTask(trial.config, place.directory)
        steps = trial.config.train.horizon_frames
        found = task.dev.horizons(task.model, torch.device("cpu"), steps)
        write_json(path, found)
    return float(json.loads(path.read_text("utf-8"))[HORIZON])


def _figures(outcomes: Sequence[tuple[float, Outcome]]) -> dict[str, Any]:
    """Return a trial's figures; curves and horizons are those of the first seed."""
    before, first = outcomes[0]
    every = [outcome for _, outcome in outcomes]
    start = {"epoch": 0, "train_loss": None, "gradient_horizon_frames": before}
    keys = ("epoch", "step", "train_loss", "dev_loss", "gradient_horizon_frames")
    return wer_figures(every) | {
        "hidden": first.trial.config.model.hidden,
        "loss": [_loss(outcome) for outcome in every],
        "steps": first.last("step"),
        "horizon_before": [horizon for horizon, _ in outcomes],
        "horizon_after": [outcome.last(HORIZON) for outcome in every],
        "curve": [start] + [{key: row.get(key) for key in keys} for row in first.history],
    }


def _loss(outcome: Outcome) -> float:
    """Return the training loss of the last epoch; NaN where it diverged."""
    loss = outcome.last("train_loss")
    return loss if loss is not None and not outcome.diverged else math.nan
