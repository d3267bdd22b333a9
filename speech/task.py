"""What the training loop asks of a task, and what it tells about a run while that goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from speech.config import LoopConfig
from speech.report import Curves
from speech.workers import Workers

E = TypeVar("E")  # an example as a batch lists it: an index, for instance
B = TypeVar("B")  # a batch, ready for the network: a dataclass of tensors and other things


@dataclass(frozen=True)
class BatchSize:
    """What a whole batch comes to, known before it is made, shared by all workers."""

    examples: int
    units: int  # what the loss is counted per: characters, frames, utterances
    audio_seconds: float = 0.0


@dataclass(frozen=True)
class DevResult:
    """What a task found on its dev set."""

    figures: dict[str, float]  # for the epoch's row in the history
    deciding: float  # the one that chooses the best model: lower is better
    remark: str = ""  # what the user should read if it is still so after the warm-up


class RunConfig(Protocol):
    """The settings of a run: a dataclass of tables, one of which is the loop's."""

    @property
    def train(self) -> LoopConfig:
        """The loop's settings."""


C = TypeVar("C", bound=RunConfig)


class Task(Protocol[E, B]):
    """What is learned, on what, and how it is judged.

    Everything random is drawn from (seed, epoch, example), or in training from torch's global
    generator, so that a resumed run draws the same. The network's first weights are drawn when the
    task is made; the trainer has seeded torch by then.
    """

    network: nn.Module
    deciding_name: str  # of the figure that chooses the best model, as in "no better dev WER"
    curves: Curves

    @property
    def kept(self) -> Mapping[str, nn.Module]:
        """What ``last.pt`` must hold besides the network, by its name there."""

    def summary(self) -> tuple[str, list[str]]:
        """Return what is trained on, in a phrase, and lines on what was left out."""

    def epoch_batches(self, epoch: int) -> Sequence[Sequence[E]]:
        """Return the batches of an epoch, by a call that always returns the same."""

    def batch_size(self, examples: Sequence[E]) -> BatchSize:
        """Return what a batch of these comes to."""

    def batch(self, examples: Sequence[E], epoch: int) -> B:
        """Return a batch; called by a thread, ahead of need."""

    def losses(self, network: nn.Module, batch: B) -> Tensor:
        """Return the loss (B,) of each example in nats, summed over its units.

        Called under autocast; `network` is the task's own, wrapped where workers share it.
        """

    def names(self, batch: B) -> Sequence[str]:
        """Return what to call each example where its loss is not finite."""

    def evaluate(
        self, network: nn.Module, workers: Workers, precision: torch.dtype | None
    ) -> DevResult | None:
        """Return the dev figures, the same to every worker; None without a dev set."""

    def save(self, directory: Path, network: nn.Module) -> None:
        """Write a model with the weights of `network`."""


@dataclass(frozen=True)
class StepReport:
    """One optimiser step, for progress bars and logs."""

    step: int
    epoch: int
    batch: int  # of the epoch, from 1
    batches: int
    loss: float  # nats per unit
    gradient_norm: float  # before clipping
    learning_rate: float
    audio_seconds: float  # in this batch; 0 where there is no audio
    wall_seconds: float  # since the step before
    units: int = 0  # in this batch


class Observer(Protocol):
    """What a run tells about itself while it goes on."""

    def message(self, text: str) -> None:
        """Take a line that the user should read."""

    def step(self, report: StepReport) -> None:
        """Take the report of a step."""

    def epoch(self, row: dict[str, float]) -> None:
        """Take the summary of an epoch, as it is written to ``history.json``."""
