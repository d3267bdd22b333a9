"""Studies of recurrent networks on speech: ``speech study ...``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from speech.cli_options import JsonOption
from speech.progress import progress_bar
from speech.stop import INTERRUPTED

if TYPE_CHECKING:
    from speech.config import Config
    from speech.progress import TrainingDisplay
    from speech.study import Place, Watched

app = typer.Typer(
    no_args_is_help=True, help="What recurrent networks do and why, measured on your speech."
)

PARAMETERS = 1_000_000
LSTM_UNITS = 256

ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="A training recipe.")]
OutputOption = Annotated[
    Path, typer.Option(help="Directory of the study; a stopped one goes on where it was.")
]
TestOption = Annotated[
    list[Path] | None,
    typer.Option("--test", metavar="MANIFEST", help="Speech to test on; else data.dev."),
]
ParametersOption = Annotated[
    int | None,
    typer.Option(min=1, help=f"Weights of every network; {PARAMETERS:,} unless quick."),
]
SettingsOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="table.key=value", help="Override.")
]
QuickOption = Annotated[
    bool, typer.Option("--quick", help="Small networks, a tenth of the data, two epochs, one seed.")
]


@app.command()
def cells(
    config: ConfigArgument,
    output: OutputOption,
    test: TestOption = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each network.")] = 3,
    parameters: ParametersOption = None,
    learning_rate: Annotated[
        list[float] | None,
        typer.Option(help="May be repeated: each network takes its best by the dev set."),
    ] = None,
    encoder: Annotated[list[str] | None, typer.Option(help="Only these; may be repeated.")] = None,
    quick: QuickOption = False,
    settings: SettingsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare feed-forward, RNN, GRU, LSTM and bidirectional LSTM of equal size, trained alike.

    Writes cells.json and cells.png; each training is a run of its own below OUTPUT.
    """
    from speech.study_cells import ENCODERS, CellsStudy, run_cells_study

    recipe, place = _prepare(config, output, test, quick, settings)
    study = CellsStudy(
        recipe, _parameters(parameters, quick), 1 if quick else seeds,
        tuple(learning_rate or ()), tuple(encoder or ENCODERS),
    )  # fmt: skip
    figures = _finished(run_cells_study(study, place, _observe))
    _print(figures, as_json, _print_cells)


@app.command()
def initialisation(
    config: ConfigArgument,
    output: OutputOption,
    test: TestOption = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each trial.")] = 1,
    parameters: ParametersOption = None,
    group: Annotated[
        list[str] | None, typer.Option(help="Only these groups; may be repeated.")
    ] = None,
    quick: QuickOption = False,
    settings: SettingsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare initial weights, gradient clipping and truncated back-propagation through time.

    Writes initialisation.json and initialisation.png.
    """
    from speech.study_initialisation import GROUPS, InitialisationStudy, run_initialisation_study

    for name in group or ():
        if name not in GROUPS:
            raise typer.BadParameter(f"no group {name!r}: needs one of {', '.join(GROUPS)}")
    recipe, place = _prepare(config, output, test, quick, settings)
    study = InitialisationStudy(
        recipe, _parameters(parameters, quick), 1 if quick else seeds, tuple(group or GROUPS)
    )
    figures = _finished(run_initialisation_study(study, place, _observe))
    _print(figures, as_json, _print_trials)


@app.command()
def pretraining(
    config: ConfigArgument,
    output: OutputOption,
    test: TestOption = None,
    hours: Annotated[
        float, typer.Option(min=0.001, help="Of transcribed speech that count as little.")
    ] = 1.0,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each recogniser.")] = 2,
    parameters: Annotated[
        int | None, typer.Option(min=1, help="Weights of the recogniser, if quick.")
    ] = None,
    quick: QuickOption = False,
    settings: SettingsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare a recogniser that begins with forecasting (speech pretrain) with one that does not.

    CONFIG names the pretraining's TOML file in model.init_from. Trained are both on little and on
    all of the transcribed speech. Writes pretraining.json and pretraining.png.
    """
    from speech.config import load_config

    recipe = load_config(config, settings or [])
    from speech.study import Place
    from speech.study_pretraining import (
        quick_study,
        read_pretraining_study,
        run_pretraining_study,
    )

    place = Place.of(recipe, config, output, test or ())
    study = read_pretraining_study(recipe, config, settings or (), hours, seeds)
    if quick:
        study = quick_study(study, place, _parameters(parameters, quick))
    figures = _finished(run_pretraining_study(study, place, _observe))
    _print(figures, as_json, _print_pretraining)


@app.command()
def gradients(
    manifest: Annotated[list[Path], typer.Argument(metavar="MANIFEST...")],
    output: Annotated[Path, typer.Option(help="Directory of figures and pictures.")],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="A trained network to look into; may be repeated. [base]"),
    ] = None,
    utterances: Annotated[int, typer.Option(min=1, help="Drawn from the manifests.")] = 32,
    steps: Annotated[int, typer.Option(min=2, help="Output frames to look back.")] = 250,
    hidden: Annotated[int, typer.Option(min=1, help="Units of the LSTM.")] = LSTM_UNITS,
    quick: Annotated[
        bool, typer.Option("--quick", help="4 utterances, 40 frames, 32 units.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Follow the loss's gradient back in time, by spectral radius of W_h, cell and layer.

    Writes gradients.json, gradients.png (radii, with theory) and gradients-layers.png (the
    trained network).
    """
    from speech.study_gradients import GradientStudy, run_gradient_study

    if quick:
        utterances, steps, hidden = 4, 40, 32
    study = GradientStudy(tuple(manifest), tuple(model or ["base"]), utterances, steps, hidden)
    with progress_bar("following gradients", 1.0) as advance:
        figures = run_gradient_study(study, output, advance)
    _print(figures, as_json, _print_gradients)


def _prepare(
    config: Path,
    output: Path,
    test: Sequence[Path] | None,
    is_quick: bool,
    settings: Sequence[str] | None,
) -> tuple[Config, Place]:
    from speech.config import load_config

    recipe = load_config(config, settings or [])
    from speech.study import Place, quick  # torch comes with it: mistakes in the recipe come first

    place = Place.of(recipe, config, output, test or ())
    return quick(recipe, place.directory) if is_quick else recipe, place


def _parameters(given: int | None, is_quick: bool) -> int:
    from speech.study import QUICK_PARAMETERS

    return given or (QUICK_PARAMETERS if is_quick else PARAMETERS)


def _observe(trial: Watched) -> TrainingDisplay:
    from speech.progress import TrainingDisplay

    print(f"speech: {trial.directory}", file=sys.stderr, flush=True)
    return TrainingDisplay(trial.config.train.last_epoch)


def _finished(figures: dict[str, Any] | None) -> dict[str, Any]:
    """End the command where a training was stopped; the same command goes on with it."""
    if figures is None:
        sys.exit(INTERRUPTED)
    return figures


def _print(
    figures: dict[str, Any], as_json: bool, as_table: Callable[[dict[str, Any]], None]
) -> None:
    from speech.results import finite

    if as_json:
        print(json.dumps(finite(figures)))
    else:
        as_table(figures)


def _print_cells(figures: dict[str, Any]) -> None:
    print(f"{'':12} {'WER':>7} {'95 % interval':>17} {'CER':>7} {'weights':>9} {'s/h':>6}  by seed")
    for name, one in figures["encoders"].items():
        if not one["wer"]:
            print(f"{name:12} diverged in all {one['diverged']} trainings")
            continue
        low, high = one["wer_interval"]
        wers = " ".join(f"{wer:.1%}" for wer in one["wer"])
        lost = f", {one['diverged']} diverged" if one["diverged"] else ""
        print(
            f"{name:12} {_mean(one['wer']):7.2%} {f'{low:.1%} to {high:.1%}':>17} "
            f"{_mean(one['cer']):7.2%} {one['parameters']:>9,} "
            f"{one['seconds_per_hour_of_audio'] or 0:6.0f}  {wers}{lost}"
        )
    for row in figures["reductions"]:
        if row["relative_reduction"] is not None:
            low, high = row["interval"]
            print(
                f"{row['to']} makes {row['relative_reduction']:.1%} fewer word errors than "
                f"{row['from']} (95 % interval {low:.1%} to {high:.1%})"
            )


def _print_trials(figures: dict[str, Any]) -> None:
    print(f"{'':20} {'loss':>7} {'horizon before, after':>22} {'WER':>8}")
    for group in dict.fromkeys(trial["group"] for trial in figures["trials"]):
        print(group)
        for trial in (one for one in figures["trials"] if one["group"] == group):
            wer = f"{_mean(trial['wer']):8.2%}" if trial["wer"] else "diverged"
            after = trial["horizon_after"][0]
            frames = f"{trial['horizon_before'][0]:.0f}, {'-' if after is None else f'{after:.0f}'}"
            print(f"  {trial['name']:18} {_mean(trial['loss']):7.3f} {frames:>22} {wer}")


def _print_pretraining(figures: dict[str, Any]) -> None:
    errors = {
        name.replace("_", " "): e for name, e in figures["forecast"]["mean_absolute_error"].items()
    }
    print(
        "mean absolute error of forecasts: " + ", ".join(f"{n} {e:.3f}" for n, e in errors.items())
    )
    print(f"{'':22} {'WER':>7} {'95 % interval':>17}  by seed")
    for amount, one in figures["amounts"].items():
        for start in ("random", "pretrained"):
            if not (wers := one[start]["wer"]):
                print(f"{amount + ', ' + start:22} diverged")
                continue
            low, high = one[start]["wer_interval"]
            print(
                f"{amount + ', ' + start:22} {_mean(wers):7.2%} {f'{low:.1%} to {high:.1%}':>17}  "
                + " ".join(f"{wer:.1%}" for wer in wers)
            )
        if one["relative_reduction"] is not None:
            low, high = one["interval"]
            print(
                f"{one['hours']:.2g} h of text: pretraining saves {one['relative_reduction']:.1%} "
                f"of the word errors (95 % interval {low:.1%} to {high:.1%})"
            )
        if "wer_difference" in one:
            low, high = one["wer_difference_interval"]
            print(
                f"  these trainings, drawn speakers: {100 * one['wer_difference']:+.2f} points "
                f"({100 * low:+.2f} to {100 * high:+.2f})"
            )


def _print_gradients(figures: dict[str, Any]) -> None:
    print(f"{'':36} {'rate':>7} {'theory':>7} {'half-life':>10} {'horizon':>8} {'vanished':>9}")
    for cell, by_radius in figures["radius"].items():
        for radius, one in by_radius.items():
            layer = one["layers"]["layer 1 forwards"]
            theory = f"{one['predicted_rate']:.3f}" if "predicted_rate" in one else ""
            _print_profile(f"{cell}, radius {radius}", layer, theory)
    for checkpoint in figures["checkpoints"]:
        print(f"{checkpoint['model']} ({checkpoint['cell']})")
        for name, layer in checkpoint["layers"].items():
            _print_profile(f"  {name}", layer, "")
    if figures["half_life_ratio"] is not None:
        print(
            f"at radius 1 the LSTM's half-life is {figures['half_life_ratio']:.1f} times the RNN's"
        )


def _print_profile(name: str, layer: dict[str, Any], theory: str) -> None:
    print(
        f"{name:36} {layer['rate']:7.3f} {theory:>7} {layer['half_life_frames']:10.1f} "
        f"{layer['horizon_frames']:8} {layer['vanished_share']:9.1%}"
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
