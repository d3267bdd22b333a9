"""Commands around word classifiers: ``speech classify ...``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from speech.cli_options import ConfigArgument, JsonOption, ResumeOption, RunOption, SettingsOption
from speech.cli_training import print_study, run_shown
from speech.errors import AudioError, SpeechError
from speech.progress import TrainingDisplay, progress_bar
from speech.study_tables import percent

_DEFAULT = "recordings"  # the command that is meant where none is named

ClassifierOption = Annotated[
    str, typer.Option("--model", metavar="MODEL", help="Name of a shipped classifier or a path.")
]
ThresholdOption = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Least probability of a word; else what the model says."),
]


class RecordingsOrCommand(TyperGroup):
    """A group whose first argument may be a recording: then it stands for ``recordings``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default command in front where no other is named.

        The context is Any: its class is click's or typer's own, as typer's version has it.
        """
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=RecordingsOrCommand,
    no_args_is_help=True,
    help="Say which of a few words each recording holds: speech classify AUDIO... [--model MODEL].",
)


@app.command(_DEFAULT)
def recordings(
    audio: Annotated[list[Path], typer.Argument(metavar="AUDIO...")],
    model: ClassifierOption = "digits",
    threshold: ThresholdOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Print the word in each recording, or "unknown", and its probability.

    The same without a command: speech classify AUDIO... A file that cannot be read is reported and
    the others go on; the exit status is then 1.
    """
    from speech.classifier import Classifier

    classifier = Classifier.load(model)
    limit = classifier.config.classes.threshold if threshold is None else threshold
    failed = 0
    for path in audio:
        try:
            score = classifier.classify(path)
        except AudioError as error:
            failed += 1
            print(f"speech: {error}", file=sys.stderr, flush=True)
            continue
        answer = score.answer(limit)
        probability = score.probabilities.get(answer, score.probabilities[score.nearest])
        if as_json:
            fields = {"audio": str(path), "word": answer, "probabilities": score.probabilities}
            print(json.dumps(fields, ensure_ascii=False), flush=True)
        else:
            name = f"{path}\t" if len(audio) > 1 else ""
            print(f"{name}{answer}\t{probability:.3f}", flush=True)
    if failed:
        raise SpeechError(f"{failed} of {len(audio)} files could not be classified")


@app.command()
def train(
    config: ConfigArgument,
    output: RunOption,
    resume: ResumeOption = False,
    settings: SettingsOption = None,
) -> None:
    """Train a word classifier; the run is like one of speech train, its best/ is the model."""
    from speech.classifier_config import ClassifierConfig
    from speech.recipes import load_recipe

    loaded = load_recipe(ClassifierConfig, config, settings or [])  # mistakes come before torch
    from speech.train_classifier import train_classifier

    run_shown(train_classifier, loaded, config.parent, output, resume)


@app.command()
def evaluate(
    manifest: Annotated[list[Path], typer.Argument(metavar="MANIFEST...")],
    model: ClassifierOption = "digits",
    threshold: ThresholdOption = None,
    as_json: JsonOption = False,
    figure: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", dir_okay=False, help="Draw the confusion matrix here."),
    ] = None,
) -> None:
    """Classify the utterances of manifests: accuracy, confusions, and what rejection costs.

    Utterances whose text is none of the words ought to be called unknown.
    """
    from speech.classification import classification_figures
    from speech.classifier import Classifier
    from speech.manifest import read_manifest
    from speech.train_classifier import score_manifests

    classifier = Classifier.load(model)
    limit = classifier.config.classes.threshold if threshold is None else threshold
    total = sum(len(read_manifest(path)) for path in manifest)
    with progress_bar("classifying", total) as advance:
        scores = score_manifests(classifier, manifest, advance)
    figures = classification_figures(scores, classifier.words, limit)
    if figure is not None:
        from speech.study_plots import plot_confusion

        plot_confusion({model: figures}, figure)
    if as_json:
        print(json.dumps(figures | {"model": model}))
    else:
        print_classification(figures)


def classification(
    output: Annotated[
        Path, typer.Option(help="Directory of the study; a stopped one goes on where it was.")
    ],
    config: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[CONFIG.toml]...", help="Classifiers that name data.test."),
    ] = None,
    without_speakers: Annotated[
        list[Path] | None,
        typer.Option(metavar="CONFIG.toml", help="Trained without one speaker at a time."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A tenth of the data, two epochs, two speakers.")
    ] = False,
    settings: SettingsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train classifiers; test them on their words, other words, sounds, and unheard speakers.

    Writes classification.json and classification.png (confusion matrices); each training is a run
    of its own below OUTPUT.
    """
    if not config and not without_speakers:
        raise typer.BadParameter("needs a CONFIG.toml, or one for --without-speakers")
    from speech.study_classification import ClassificationStudy, Recipe, run_classification_study

    study = ClassificationStudy(
        tuple(Recipe.read(path, settings or [], quick) for path in config or ()),
        tuple(Recipe.read(path, settings or [], quick) for path in without_speakers or ()),
        quick,
    )
    print_study(run_classification_study(study, output, _observe), as_json)


def _observe(name: str, epochs: int) -> TrainingDisplay:
    print(f"speech: {name}", file=sys.stderr, flush=True)
    return TrainingDisplay(epochs)


def print_classification(figures: dict[str, Any]) -> None:
    """Print the figures of `speech.classification.classification_figures` as tables."""
    labels = figures["labels"]
    width = max(8, *map(len, labels)) + 1
    print(" " * width + "".join(f"{label:>{width}}" for label in labels) + "   (answers)")
    for label, row in zip(labels, figures["confusion"], strict=True):
        if any(row):
            print(f"{label:{width}}" + "".join(f"{count:>{width}}" for count in row))
    low, high = figures["accuracy_interval"]
    nearest = figures["nearest_accuracy"]
    known = "" if nearest is None else f"; the nearest word is right for {nearest:.2%}"
    print(
        f"accuracy {figures['accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%}) of "
        f"{figures['utterances']} utterances at threshold {figures['threshold']:g}{known}"
    )
    for row in figures["trade_off"]:
        print(
            f"threshold {row['threshold']:4.2f}: words called unknown "
            f"{percent(row['false_rejection'])}, others taken for a word "
            f"{percent(row['false_acceptance'])}"
        )
