"""Studies of recurrent networks on speech: ``speech study ...``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speech.cli_options import JsonOption
from speech.cli_training import print_study
from speech.progress import progress_bar

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
    Path,
    typer.Option(
        file_okay=False, help="Directory of the study; a stopped one goes on where it was."
    ),
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
    print_study(run_cells_study(study, place, _observe), as_json)


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
    print_study(run_initialisation_study(study, place, _observe), as_json)


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
    print_study(run_pretraining_study(study, place, _observe), as_json)


@app.command()
def gradients(
    manifest: Annotated[list[Path], typer.Argument(metavar="MANIFEST...")],
    output: Annotated[
        Path, typer.Option(file_okay=False, help="Directory of figures and pictures.")
    ],
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
    print_study(figures, as_json)


@app.command()
def show(
    stored: Annotated[list[Path], typer.Argument(metavar="FIGURES.json...")],
    draw: Annotated[bool, typer.Option("--draw", help="Draw the pictures beside anew.")] = False,
) -> None:
    """Print the tables of studies that were stored, such as models/studies/cells.json."""
    from speech.study_results import draw_study, read_study

    for path in stored:
        figures = read_study(path)
        if len(stored) > 1:
            print(path)
        print_study(figures)
        for picture in draw_study(figures, path) if draw else ():
            print(f"speech: wrote {picture}", file=sys.stderr)


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
