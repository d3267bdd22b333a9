"""The training loop: what a run is, step by step, and how it survives interruption.

The loop knows nothing of what is learned: a task (`speech.task`) brings the network, the batches,
the loss and the dev figures. A run is a directory: ``best/`` (a model, the averaged weights with
the best dev figure), ``last.pt`` (everything needed to go on as if nothing had happened),
``history.json``, ``curves.png`` and TensorBoard events. Under ``torchrun`` each worker takes its
share of every batch; gradients are summed so that the result is that of one process, up to the
order of addition.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel

from speech.agreement import require_agreement
from speech.batching import prefetch
from speech.checkpoint import average_weights, replace_file, save_state
from speech.config import dump_config
from speech.errors import DivergedError, WorkerLostError
from speech.optimiser import create_optimiser, learning_rate
from speech.report import Events, plot_curves
from speech.run import (
    BEST_MODEL,
    CURVES,
    EVENTS,
    HISTORY,
    LAST_STATE,
    Progress,
    is_finished,
    own_directory,
    stored_state,
)
from speech.stop import StopFlag, stop_signals
from speech.task import B, BatchSize, C, E, Observer, RunConfig, StepReport, Task
from speech.workers import Workers, autocast, lost_workers


@dataclass(frozen=True)
class _Plan:
    """What every worker knows of a step before it is taken: the whole batch, not its own share."""

    size: BatchSize
    learning_rate: float


@dataclass(frozen=True)
class _Outcome:
    """What all workers agree on after a step."""

    loss: float  # nats per unit; NaN where the step was skipped
    gradient_norm: float
    stop: bool
    save: bool


def run_training(
    make_task: Callable[[C, Path], Task[E, B]],
    config: C,
    output: Path,
    observer: Observer,
    directory: Path = Path(),
    resume: bool = False,
    workers: Workers | None = None,
) -> Progress:
    """Train what `make_task` makes of a config and say where the run ended (see `is_finished`).

    `directory` is where relative paths of the config start. With `resume` the run in `output` goes
    on, bit for bit as if it had not stopped (on a CPU); without, `output` must not hold a run.
    Raises `TrainingError` when losses stay non-finite or another training works in `output`,
    `ConfigError` when a resumed run's config differs or the workers' data or settings do,
    `WorkerLostError` when one of them is gone: then the first worker, which alone reads and writes
    `output`, has stored the run as it was before that step.
    """
    joined = workers or Workers.from_environment(config.train.worker_timeout_minutes)
    with own_directory(output, resume) if joined.rank == 0 else nullcontext():
        progress = _run(config, partial(make_task, config, directory), output, observer, resume,
                        joined)  # fmt: skip
    if workers is None:
        joined.leave()
    return progress


def _run(
    config: RunConfig,
    make_task: Callable[[], Task[E, B]],
    output: Path,
    observer: Observer,
    resume: bool,
    workers: Workers,
) -> Progress:
    """Do what `run_training` says; nothing of the trainer is left when this returns."""
    state = workers.from_first(stored_state(config, output, resume) if workers.rank == 0 else None)
    trainer = Trainer(config, make_task, output, observer, workers)
    if state is not None:
        trainer.restore(state)
    with stop_signals() as stop:
        trainer.run(stop)
    return trainer.progress


class Trainer(Generic[E, B]):
    """A run in memory: a task, its network and optimiser, and the loop over epochs."""

    def __init__(
        self,
        config: RunConfig,
        make_task: Callable[[], Task[E, B]],
        output: Path,
        observer: Observer,
        workers: Workers,
    ) -> None:
        self.config, self.output, self.observer, self.workers = config, output, observer, workers
        self.settings = config.train
        self.progress = Progress()
        self.precision = workers.precision(self.settings.precision)
        torch.manual_seed(self.settings.seed)
        self.task = make_task()
        require_agreement(workers, config, self.task)
        self._tell_beginning()
        self.network = self.task.network.to(workers.device)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.parallel: nn.Module = self.network
        if workers.size > 1:
            with lost_workers():
                self.parallel = DistributedDataParallel(self.network)
        self.optimiser = create_optimiser(self.network, self.settings)
        self.scaler = GradScaler(workers.device.type, enabled=self.precision is torch.float16)
        # Workers draw different dropout masks; a single process draws as torch's seed says.
        torch.manual_seed(self.settings.seed + workers.rank)
        self._saved_at = time.monotonic()

    def run(self, stop: StopFlag) -> None:
        """Train until the epochs are done, patience is out, or `stop` is set."""
        try:
            self._run(stop)
        except WorkerLostError as error:
            self._keep_what_is_done(error)
            raise

    def _run(self, stop: StopFlag) -> None:
        settings, progress = self.settings, self.progress
        if is_finished(progress, settings):
            self.observer.message(f"the run ended with epoch {progress.epoch}: nothing to resume")
        directory = self.output / EVENTS if self.workers.rank == 0 else None
        with closing(Events(directory, progress.step + 1)) as events:
            while not is_finished(progress, settings):
                if not self._run_epoch(stop, events):
                    self._stop()
                    return
                self._finish_epoch(events)
                if is_finished(progress, settings) and progress.epoch < settings.last_epoch:
                    self.observer.message(
                        f"no better {self.task.deciding_name} in {settings.patience} validations: "
                        "stopping"
                    )

    def _run_epoch(self, stop: StopFlag, events: Events) -> bool:
        """Go through the rest of the epoch's batches; False if `stop` was set on the way."""
        progress, epoch = self.progress, self.progress.epoch
        batches = self.task.epoch_batches(epoch)

        def make(examples: Sequence[E]) -> B:
            return self.task.batch(self.workers.part(examples), epoch)

        before = time.monotonic()
        for batch in prefetch(make, batches[progress.batch :]):
            plan = self._plan(batches)
            outcome = self._step(batch, plan, stop)
            now = time.monotonic()
            self._tell_step(plan, outcome, len(batches), now - before, events)
            before = now
            if outcome.stop:
                return False
            if outcome.save:
                self.save_last()
        return True

    def _plan(self, batches: Sequence[Sequence[E]]) -> _Plan:
        """Return what the next of an epoch's batches comes to."""
        settings, progress = self.settings, self.progress
        done = (progress.epoch + progress.batch / len(batches)) / settings.epochs
        rate = learning_rate(settings, progress.step, min(1.0, done))
        return _Plan(self.task.batch_size(batches[progress.batch]), rate)

    def _stop(self) -> None:
        """Leave the run so that it can go on from this very step."""
        self.save_last()
        self.observer.message(self._where_stopped())

    def _where_stopped(self) -> str:
        return (
            f"stopped in epoch {self.progress.epoch + 1} after batch {self.progress.batch}; "
            f"--resume goes on from {self.output / LAST_STATE}"
        )

    def _keep_what_is_done(self, error: WorkerLostError) -> None:
        """Write ``last.pt`` without the workers that do not answer; they may train on, or not."""
        if self.workers.rank == 0:
            self._write_last([self.workers.random_state()])
            error.args = (f"{error}; {self._where_stopped()}",)

    def _step(self, batch: B, plan: _Plan, stop: StopFlag) -> _Outcome:
        """Take a step, or none at all where a worker is lost: the weights are still the old ones.

        What workers have to tell each other comes before the update.
        """
        before = dataclasses.replace(self.progress)
        try:
            with lost_workers():
                return self._take_step(batch, plan, stop)
        except WorkerLostError:
            self.progress = before
            raise

    def _take_step(self, batch: B, plan: _Plan, stop: StopFlag) -> _Outcome:
        """Forward, backward, update, unless a loss is not finite: then the weights stay."""
        batch = self.workers.to_device(batch)
        losses = self._losses(batch)
        # With fewer examples than workers, a worker without a share repeats one at weight zero.
        total = losses.sum() * float(self.workers.rank < plan.size.examples)
        own = [float(total.detach()), not bool(torch.isfinite(losses).all()), stop.is_set,
               self._is_save_due()]  # fmt: skip
        summed, bad, stopping, save = self.workers.sum([float(value) for value in own])
        self.progress.step += 1
        self.progress.batch += 1
        if bad:
            self._skip(batch, losses)
            return _Outcome(math.nan, math.nan, bool(stopping), bool(save))
        norm = self._update(total / plan.size.units * self.workers.size, plan.learning_rate)
        self._check_gradients(norm)
        return _Outcome(summed / plan.size.units, norm, bool(stopping), bool(save))

    def _losses(self, batch: B) -> Tensor:
        """Return the loss (B,) of each example of this worker's share."""
        with autocast(self.workers.device, self.precision):
            return self.task.losses(self.parallel, batch)

    def _is_save_due(self) -> bool:
        """Whether the first worker, by its clock, wants ``last.pt`` written in mid-epoch."""
        minutes = (time.monotonic() - self._saved_at) / 60
        return self.workers.rank == 0 and minutes > self.settings.checkpoint_minutes

    def _update(self, loss: Tensor, rate: float) -> float:
        """Take one optimiser step; return the gradient norm before clipping."""
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip_norm)
        if torch.isfinite(norm) or self.scaler.is_enabled():
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            self.scaler.step(self.optimiser)
            self.scaler.update()
            self._update_average()
        return float(norm)

    def _update_average(self) -> None:
        # A short memory at first: the first weights are worth forgetting.
        decay = min(self.settings.ema_decay, self.progress.step / (self.progress.step + 10))
        decay = decay if self.settings.ema_decay else 0.0
        with torch.no_grad():
            average_weights(list(self.average.parameters()), list(self.network.parameters()), decay)

    def _skip(self, batch: B, losses: Tensor) -> None:
        """Leave the weights as they are and name the examples whose loss is not finite."""
        self.progress.bad_steps += 1
        own = [
            f"loss {loss} for {name}"
            for loss, name in zip(losses.tolist(), self.task.names(batch), strict=True)
            if not math.isfinite(loss)
        ]
        for line in sorted({line for lines in self.workers.gather(own) for line in lines}):
            self.observer.message(f"step {self.progress.step} skipped: {line}")
        self._give_up_if_bad("losses")

    def _check_gradients(self, norm: float) -> None:
        """Count steps whose gradients were not finite, and so were not taken."""
        if math.isfinite(norm):
            self.progress.bad_steps = 0
            return
        self.progress.bad_steps += 1
        if not self.scaler.is_enabled():  # which tries scales until the gradients fit
            self.observer.message(f"step {self.progress.step} skipped: gradient norm {norm}")
        self._give_up_if_bad("gradients")

    def _give_up_if_bad(self, what: str) -> None:
        if self.progress.bad_steps >= self.settings.max_bad_steps:
            raise DivergedError(
                f"{self.progress.bad_steps} steps in a row with non-finite {what}: lower "
                "train.learning_rate, raise train.warmup_steps, or look at the examples that "
                "the messages name"
            )

    def _tell_beginning(self) -> None:
        data, left_out = self.task.summary()
        parameters = sum(p.numel() for p in self.task.network.parameters())
        self.observer.message(
            f"{data}; {parameters:,} parameters; "
            f"{self.workers.size} worker(s) on {self.workers.device}"
        )
        for line in left_out:
            self.observer.message(line)

    def _tell_step(
        self, plan: _Plan, outcome: _Outcome, batches: int, wall_seconds: float, events: Events
    ) -> None:
        """Add a step to the epoch's figures and report it."""
        progress, size = self.progress, plan.size
        progress.epoch_wall_seconds += wall_seconds
        progress.epoch_audio_seconds += size.audio_seconds
        if math.isfinite(outcome.loss):
            progress.epoch_loss += outcome.loss * size.units
            progress.epoch_units += size.units
        report = StepReport(
            progress.step, progress.epoch, progress.batch, batches, outcome.loss,
            outcome.gradient_norm, plan.learning_rate, size.audio_seconds, wall_seconds,
            size.units,
        )  # fmt: skip
        self.observer.step(report)
        names = ("loss", "gradient_norm", "learning_rate")
        events.add("step", {name: getattr(report, name) for name in names}, progress.step)

    def _finish_epoch(self, events: Events) -> None:
        """Validate, keep the best model, write history and curves, begin the next epoch."""
        progress = self.progress
        row = {
            "epoch": progress.epoch + 1,
            "step": progress.step,
            "train_loss": progress.epoch_loss / max(1, progress.epoch_units),
            "audio_seconds": progress.epoch_audio_seconds,
            "wall_seconds": progress.epoch_wall_seconds,
        }
        last = progress.epoch + 1 == self.settings.last_epoch
        if (progress.epoch + 1) % self.settings.evaluate_every == 0 or last:
            row |= self._validate()
        progress.history.append(row)
        progress.epoch, progress.batch = progress.epoch + 1, 0
        progress.epoch_loss, progress.epoch_units = 0.0, 0
        progress.epoch_audio_seconds = progress.epoch_wall_seconds = 0.0
        self._write_history()
        self.save_last()
        figures = {name: value for name, value in row.items() if name not in ("epoch", "step")}
        events.add("epoch", figures, progress.step)
        self.observer.epoch(row)

    def _write_history(self) -> None:
        """Write history and curves; before ``last.pt``, so that no crash leaves them behind it."""
        if self.workers.rank == 0:
            rows = self.progress.history
            text = json.dumps(rows, indent=1) + "\n"
            replace_file(self.output / HISTORY, lambda path: path.write_text(text))
            replace_file(
                self.output / CURVES, lambda path: plot_curves(rows, path, self.task.curves)
            )

    def _validate(self) -> dict[str, float]:
        """Return the dev figures of the averaged weights and keep them if they are the best."""
        result = self.task.evaluate(self.average, self.workers, self.precision)
        progress = self.progress
        if result is None:
            self._save_best()
            return {}
        if result.deciding < progress.best:
            progress.best, progress.stale = result.deciding, 0
            self._save_best()
        else:
            progress.stale += 1
        if result.remark and progress.step > 2 * self.settings.warmup_steps:
            self.observer.message(result.remark)
        return result.figures

    def _save_best(self) -> None:
        if self.workers.rank == 0:
            self.task.save(self.output / BEST_MODEL, self.average)

    def save_last(self) -> None:
        """Write ``last.pt``; every worker must call this, the first one writes."""
        random = self.workers.gather_random_states()
        self._saved_at = time.monotonic()
        if self.workers.rank == 0:
            self._write_last(random)

    def _write_last(self, random: list[list[Tensor]]) -> None:
        """Write ``last.pt`` with the random states of as many workers as are known."""
        save_state(
            self.output / LAST_STATE,
            {
                "config": dump_config(self.config),
                "progress": dataclasses.asdict(self.progress),
                **{name: module.state_dict() for name, module in self.task.kept.items()},
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "scaler": self.scaler.state_dict(),
                "random": random,
            },
        )

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where `state`, from ``last.pt``, was written."""
        if len(state["random"]) != self.workers.size:
            self.observer.message(
                f"{len(state['random'])} workers' random states are stored and "
                f"{self.workers.size} go on: dropout will differ from an uninterrupted run"
            )
        self.progress = Progress.from_state(state["progress"])
        for name, module in self.task.kept.items():
            module.load_state_dict(state[name])
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.workers.restore_random_state(state["random"])
