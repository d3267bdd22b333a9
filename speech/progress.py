"""Progress on stderr: a bar on a terminal, plain lines elsewhere.

rich is imported where a bar begins: `speech --help` needs none and answers sooner.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from speech.task import StepReport

_PLAIN_LINE_SECONDS = 30.0  # between two lines about the same epoch


@contextmanager
def progress_bar(label: str, total: float) -> Iterator[Callable[[float], None]]:
    """Yield a function that advances a bar of `total`; off a terminal, a line now and then."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_lines(console, label, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
               TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
    # Results may go into a file while the bar is on a terminal: then rich must leave stdout alone.
    with Progress(*columns, console=console, transient=True,
                  redirect_stdout=Console().is_terminal) as bar:  # fmt: skip
        task = bar.add_task(label, total=total)
        yield lambda amount: bar.update(task, advance=amount)


def _plain_lines(console: Console, label: str, total: float) -> Callable[[float], None]:
    done = 0.0
    began = told_at = time.monotonic()

    def advance(amount: float) -> None:
        nonlocal done, told_at
        done += amount
        if time.monotonic() - told_at > _PLAIN_LINE_SECONDS:
            told_at = time.monotonic()
            left = (told_at - began) * max(0.0, total / done - 1) if done else 0.0
            _print_line(console, f"{label}: {done / max(total, done):.0%}, {_clock(left)} left")

    return advance


def _print_line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


class TrainingDisplay:
    """Shows a training run: loss, speed, dev figures, remaining time."""

    def __init__(self, epochs: int, silent: bool = False) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._epochs = epochs
        self._silent = silent
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"), TimeRemainingColumn(),
            console=self._console, disable=silent or not self._console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("starting", total=None, figures="")
        self._dev = ""
        self._audio = self._units = self._wall = 0.0
        self._last_line = 0.0

    def __enter__(self) -> TrainingDisplay:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def message(self, text: str) -> None:
        """Print a line above the bar."""
        if not self._silent:
            _print_line(self._console, text)

    def step(self, report: StepReport) -> None:
        """Move the bar; off a terminal, print a line now and then."""
        self._audio = 0.95 * self._audio + report.audio_seconds
        self._wall = 0.95 * self._wall + report.wall_seconds
        self._units = 0.95 * self._units + report.units
        figures = (
            f"loss {report.loss:.3f}  gradient {report.gradient_norm:.2f}  "
            f"{self._speed()}{self._dev}"
        )
        title = f"epoch {report.epoch + 1}/{self._epochs}"
        if not self._bar.disable:
            total = self._epochs * report.batches
            done = report.epoch * report.batches + report.batch
            self._bar.update(self._task, description=title, total=total, completed=done,
                             figures=figures)  # fmt: skip
        elif time.monotonic() - self._last_line > _PLAIN_LINE_SECONDS:
            self._last_line = time.monotonic()
            left = self._remaining(report)
            self.message(f"{title} batch {report.batch}/{report.batches}  {figures}  {left} left")

    def epoch(self, row: dict[str, float]) -> None:
        """Print the epoch's summary."""
        parts = [f"epoch {row['epoch']:.0f}: train loss {row['train_loss']:.3f}"]
        if "dev_loss" in row:
            self._dev = f"  dev {_dev_figures(row)[0]}"
            parts.append(f"dev loss {row['dev_loss']:.3f}, {', '.join(_dev_figures(row))}")
        if "gradient_horizon_frames" in row:
            parts.append(f"gradient horizon {row['gradient_horizon_frames']:.0f} frames")
        minutes = row["wall_seconds"] / 60
        audio = f"{row['audio_seconds'] / 3600:.2f} h of audio in " if row["audio_seconds"] else ""
        parts.append(f"{audio}{minutes:.1f} min")
        self.message(", ".join(parts))

    def _speed(self) -> str:
        wall = max(self._wall, 1e-9)
        if self._audio:
            return f"{self._audio / wall / 3600:.4f} h audio/s"
        return f"{self._units / wall:,.0f} characters/s"

    def _remaining(self, report: StepReport) -> str:
        share = report.epoch + report.batch / report.batches
        batches = (self._epochs - share) * report.batches
        per_batch = self._wall * 0.05 / max(1e-9, 1 - 0.95**report.step)
        return _clock(batches * per_batch)


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02}"


def _dev_figures(row: Mapping[str, float]) -> list[str]:
    """What an epoch's row says of whatever was trained, the most telling first."""
    if "dev_error" in row:
        return [f"{row['dev_error']:.2%} wrong"]
    if "dev_wer" in row:
        return [f"WER {row['dev_wer']:.2%}", f"CER {row['dev_cer']:.2%}"]
    if "dev_same_as_now" in row:
        less = 1 - row["dev_loss"] / row["dev_same_as_now"]
        return [f"{less:.1%} below same as now ({row['dev_same_as_now']:.3f})",
                f"linear {row['dev_linear']:.3f}", f"mean {row['dev_mean']:.3f}"]  # fmt: skip
    return [
        f"{row['dev_bits']:.3f} bits per character",
        f"perplexity {row['dev_word_perplexity']:.1f} per word",
    ]
