"""The command that trains a recogniser, or says what that would take."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speech.cli_options import ConfigArgument, ResumeOption, SettingsOption
from speech.cli_training import training_display
from speech.errors import ManifestError
from speech.stop import INTERRUPTED

if TYPE_CHECKING:
    from speech.config import Config
    from speech.plan import Corpus, Measurement, Plan

WORKERS = "1,2,4,8,16,32,64"
MEASURE_SECONDS = 60.0


def train(
    config: ConfigArgument,
    output: Annotated[
        Path | None, typer.Option(file_okay=False, help="Directory of the run.")
    ] = None,
    resume: ResumeOption = False,
    settings: SettingsOption = None,
    plan: Annotated[
        str | None,
        typer.Option(metavar="HOURS|MANIFEST", help="Train nothing: say what it would take."),
    ] = None,
    workers: Annotated[
        str, typer.Option(metavar="N,N,...", help="With --plan: numbers of workers.")
    ] = WORKERS,
    measure_seconds: Annotated[
        float, typer.Option(min=0.1, help="With --plan: how long steps are measured.")
    ] = MEASURE_SECONDS,
) -> None:
    """Train a model. Also under torchrun: torchrun --nproc-per-node 2 -m speech train ...

    Where train.init_from names a TOML file, that one is trained first, in OUTPUT/NAME.

    The run directory holds best/ (a model), last.pt (to resume from), history.json, curves.png and
    TensorBoard events. Ctrl-C or SIGTERM ends the run after a step, ready to --resume; the exit
    status is then 130.

    With --plan, steps of the configured network are measured on this machine for a minute, and what
    a corpus of so many hours (or that of a manifest) would take is worked out for more workers:
    hours, memory, storage, and what was assumed.
    """
    from speech.config import Config
    from speech.recipes import load_recipe

    if plan is None and (output is None or workers != WORKERS):
        raise typer.BadParameter("a training needs --output; --workers belongs to --plan")
    loaded = load_recipe(Config, config, settings or [])  # a mistake is told before torch is loaded
    if plan is not None:
        if output is not None or resume:
            raise typer.BadParameter("--plan trains nothing: it takes no --output and no --resume")
        _plan(loaded, plan, _numbers(workers), measure_seconds)
        return
    assert output is not None  # said above
    from speech.stages import read_stages, train_stages

    stages = read_stages(config, settings or [], output)
    if not train_stages(stages, lambda stage: training_display(stage.config.train), resume):
        sys.exit(INTERRUPTED)


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1:
        raise typer.BadParameter(f"--workers needs numbers from 1, as in {WORKERS}; got {text!r}")
    return numbers


def _plan(config: Config, wanted: str, workers: list[int], measure_seconds: float) -> None:
    from speech.plan import make_plan, shares, utterances_per_batch
    from speech.plan_measurement import measure
    from speech.progress import progress_bar

    corpus = _corpus(wanted, config)
    batch = utterances_per_batch(config, corpus)
    pair_share = shares(batch, [2])[2]
    needed = sorted({pair_share, *shares(batch, workers).values()}, reverse=True)
    with progress_bar("measuring steps", len(needed) + 1) as advance:
        measured = measure(
            config, corpus.utterance_seconds, needed, pair_share, measure_seconds,
            lambda: advance(1),
        )  # fmt: skip
    _print_plan(config, corpus, measured, make_plan(config, corpus, measured, workers))


def _corpus(wanted: str, config: Config) -> Corpus:
    """So many hours of speech, or the utterances of a manifest that would be trained on."""
    from speech.manifest import read_manifest
    from speech.plan import Corpus

    try:
        hours = float(wanted)
    except ValueError:
        pass
    else:
        if not 0 < hours < float("inf"):
            raise typer.BadParameter(f"--plan needs hours above 0, got {wanted}")
        return Corpus.of_hours(hours)
    data = config.data
    chosen = [one for one in read_manifest(wanted)
              if data.min_seconds <= one.duration <= data.max_seconds]  # fmt: skip
    if not chosen:
        raise ManifestError(
            f"{wanted}: no utterance of {data.min_seconds} to {data.max_seconds} s to train on"
        )
    sizes = [one.audio_path.stat().st_size for one in chosen if one.audio_path.exists()]
    missing = len(chosen) - len(sizes)
    note = (f"{missing} files of the manifest are not here: their size is not counted",)
    return Corpus(
        len(chosen), sum(one.duration for one in chosen), sum(sizes), note if missing else ()
    )


def _print_plan(config: Config, corpus: Corpus, measured: Measurement, plan: Plan) -> None:
    epochs = config.train.last_epoch
    print(
        f"{corpus.seconds / 3600:,.1f} h, {corpus.utterances:,} utterances of "
        f"{corpus.utterance_seconds:.1f} s; {measured.parameters:,} parameters; "
        f"{plan.steps_per_epoch:,} steps an epoch, each of {plan.batch_utterances} utterances "
        f"(train.batch_seconds {config.train.batch_seconds:g}); {epochs} epochs"
    )
    print(f"measured in {measured.wall_seconds:.0f} s on {measured.machine}\n")
    print("workers  utterances each  s a step  h an epoch  h in all  GB a worker  GB in all")
    for row in plan.rows:
        print(
            f"{row.workers:7}  {row.share:15}  {row.step_seconds:8.3f}  {row.epoch_hours:10.2f}  "
            f"{row.epoch_hours * epochs:8.1f}  {row.worker_bytes / 1e9:11.2f}  "
            f"{row.total_bytes / 1e9:9.1f}" + ("  *" if row.busy < row.workers else "")
        )
    if any(row.busy < row.workers for row in plan.rows):
        least = max(row.workers for row in plan.rows) * corpus.utterance_seconds
        print(
            f"* a batch has work for {plan.batch_utterances} workers only; "
            f"--set train.batch_seconds={least:.0f} or more feeds all"
        )
    print(
        f"\nstorage: audio {plan.audio_bytes / 1e9:,.1f} GB; decoded audio, with data.cache, "
        f"{plan.cache_bytes / 1e9:,.1f} GB on each machine; run directory "
        f"{plan.checkpoint_bytes / 1e9:.2f} GB"
    )
    for line in plan.assumptions:
        print(f"assumed: {line}")
