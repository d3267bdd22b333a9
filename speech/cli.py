"""The ``speech`` command: the only place that prints, exits, or draws a progress bar.

Results go to stdout, everything else to stderr. Whatever needs torch is imported inside the command
that needs it, so that ``speech --help`` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypedDict

import typer

import speech
from speech.cli_calibrate import calibrate
from speech.cli_classify import app as classifiers
from speech.cli_classify import classification
from speech.cli_decoding import load_recogniser, takes_decoder_options
from speech.cli_evaluate import compare, hallucinations, store
from speech.cli_export import export
from speech.cli_live import listen, measure_stream
from speech.cli_lm import app as language_models
from speech.cli_options import (
    PRECISION_VARIABLE,
    JsonOption,
    ModelOption,
    Precision,
    PrecisionOption,
    ThreadsOption,
)
from speech.cli_prepare import prepare
from speech.cli_pretrain import pretrain
from speech.cli_serve import serve
from speech.cli_study import app as studies
from speech.cli_train import train
from speech.cli_transcribe import transcribe
from speech.cli_voice import app as voice_networks
from speech.cli_voice import voice
from speech.collector import skip_last_collection
from speech.environment import prepare_environment
from speech.errors import SpeechError, line_of, reason_of
from speech.progress import progress_bar

if TYPE_CHECKING:
    from speech.config import FeatureConfig
    from speech.decoder import DecoderOptions
    from speech.results import Score
    from speech.tokenizer import CharTokenizer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Speech recognition by log-mel features, a stacked LSTM trained with CTC, and a decoder.",
)


def main() -> None:
    """Run the command line; a `SpeechError` becomes one line on stderr and exit status 1."""
    prepare_environment()
    skip_last_collection()
    if isinstance(sys.stdout, TextIOWrapper):  # file names need not be text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="speech")
    except (SpeechError, OSError) as error:
        _fail(line_of(error))
    finally:
        _flush()


def _version(wanted: bool) -> None:
    if wanted:
        print(f"speech {speech.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


app.command()(transcribe)


@app.command()
@takes_decoder_options
def evaluate(
    manifest: Annotated[list[Path], typer.Argument(metavar="MANIFEST...")],
    model: ModelOption = "base",
    as_json: JsonOption = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N utterances.")] = None,
    worst: Annotated[int, typer.Option(min=0, help="Show the N worst utterances aligned.")] = 5,
    transcripts: Annotated[
        bool, typer.Option("--transcripts", help="Show every reference and transcript.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", dir_okay=False, help="Store the result, to compare."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", file_okay=False, help="Write a page on the errors here, and its figures."
        ),
    ] = None,
    threads: ThreadsOption = None,
    precision: PrecisionOption = Precision.float32,
    *,
    decoding: DecoderOptions,
) -> None:
    """Transcribe the utterances of manifests and count the errors."""
    from speech.evaluate import evaluate as run
    from speech.evaluate import read_manifests
    from speech.results import finite

    utterances = [utterance for _, utterance in read_manifests(manifest, limit)]
    seconds = sum(utterance.duration for utterance in utterances)
    recogniser = load_recogniser(model, threads, decoding, precision.value, seconds)
    with progress_bar("evaluating", seconds) as advance:
        result = run(manifest, recogniser, model, limit, lambda u: advance(u.duration))
    if output is not None or report is not None:
        settings = {"threads": threads or "one a core", "precision": recogniser.precision_name,
                    "decoder": recogniser.decoder_settings()}  # fmt: skip
        store(result, utterances, manifest, recogniser, settings, output, report)
    figures = result.to_dict()
    if as_json:
        print(json.dumps(finite(figures)))
        return
    if transcripts:
        _print_transcripts(result.scores)
    _print_worst(result.scores, worst)
    _print_rates(figures)
    print(
        f"{result.audio_seconds:.1f} s of audio in {result.wall_seconds:.1f} s "
        f"(real-time factor {figures['real_time_factor']:.4f}), model {model}, lm {result.lm}, "
        f"normaliser {figures['normaliser']}"
    )


@app.command()
def score(
    reference: Annotated[Path, typer.Argument(help="Text a line, or JSON Lines with text.")],
    hypothesis: Annotated[Path, typer.Argument(help="The same for the hypotheses.")],
    as_json: JsonOption = False,
    worst: Annotated[int, typer.Option(min=0, help="Show the N worst lines aligned.")] = 5,
) -> None:
    """Count the errors of stored transcripts: line n against line n, both normalised."""
    from speech.results import error_figures, finite, score_texts
    from speech.tokenizer import NORMALISER

    scores = score_texts(_texts(reference), _texts(hypothesis))
    if not scores:
        raise SpeechError(f"{reference}: no lines to score")
    figures = error_figures(scores) | {"normaliser": NORMALISER}
    if as_json:
        print(json.dumps(finite(figures)))
        return
    _print_worst(scores, worst)
    _print_rates(figures)


app.add_typer(language_models, name="lm")
app.add_typer(classifiers, name="classify")
app.add_typer(voice_networks, name="voice")
studies.command()(classification)
studies.command()(voice)
app.add_typer(studies, name="study")
app.command()(compare)
app.command()(hallucinations)
app.command()(calibrate)
app.command()(listen)
app.command("measure-stream")(measure_stream)


app.command()(train)
app.command()(pretrain)
app.command()(prepare)


@app.command()
def check(
    manifest: Annotated[list[Path], typer.Argument(metavar="MANIFEST...")],
    model: Annotated[
        str | None, typer.Option(help="Check against this model's alphabet and frame rate.")
    ] = None,
) -> None:
    """Find what would spoil a training or an evaluation; exit status 1 if there is anything.

    Several manifests are also checked against each other, as splits: shared speakers and files.
    """
    from speech.check import check_manifests
    from speech.manifest import numbered_lines

    total = sum(len(numbered_lines(path, errors="replace")) for path in manifest)
    with progress_bar("checking", total) as advance:
        settings = _check_settings(model)
        report = check_manifests(manifest, **settings, progress=lambda: advance(1))
    for finding in report.findings:
        print(f"{finding.source}: {finding.kind}: {finding.message}")
    _warn(f"{report.utterances} utterances, {len(report.findings)} findings")
    if report.findings:
        sys.exit(1)


class _CheckSettings(TypedDict, total=False):
    tokenizer: CharTokenizer
    features: FeatureConfig
    subsampling: int


def _check_settings(model: str | None) -> _CheckSettings:
    """What a shipped or trained model asks of manifests; nothing for a new model's defaults."""
    if model is None:
        return {}
    from speech.checkpoint import load_model

    loaded = load_model(model)
    return {
        "tokenizer": loaded.tokenizer,
        "features": loaded.config.features,
        "subsampling": loaded.config.model.subsampling,
    }


app.command()(serve)
app.command()(export)


@app.command()
def doctor() -> None:
    """Say what this installation has: versions, devices, models, and the arithmetic chosen."""
    from speech.doctor import diagnose

    for name, value in diagnose().items():
        print(f"{name:16} {value}")
    if chosen := os.environ.get(PRECISION_VARIABLE):
        print(f"{'precision':16} {chosen}: {PRECISION_VARIABLE} says so, whatever auto finds")


def _texts(path: Path) -> list[str]:
    """Read a text a line; of JSON Lines (manifests, json transcripts) each line's ``text``."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = text.removesuffix("\n").split("\n") if text else []
        if path.suffix not in (".json", ".jsonl"):
            return lines
        return [str(json.loads(line)["text"]) for line in lines if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SpeechError(f"{path}: cannot read the texts: {reason_of(error)}") from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise SpeechError(f"{path}: needs a JSON object with a text on each line") from error


def _print_transcripts(scores: Sequence[Score]) -> None:
    for one in scores:
        print(f"{one.name}\n  said:  {one.reference}\n  heard: {one.hypothesis}")
    print()


def _print_worst(scores: Sequence[Score], count: int) -> None:
    from speech.results import render_score, worst

    for one in worst(scores, count):
        if one.words.errors:
            print(render_score(one) + "\n")


def _print_rates(figures: Mapping[str, Any]) -> None:
    low, high = figures["wer_interval"]
    print(
        f"WER {figures['wer']:.2%} (95 % interval {low:.2%} to {high:.2%}), CER "
        f"{figures['cer']:.2%}: {figures['words']} words in {figures['utterances']} utterances, "
        f"{figures['substitutions']} substituted, {figures['deletions']} deleted, "
        f"{figures['insertions']} inserted"
    )


def _warn(message: str) -> None:
    print(f"speech: {message}", file=sys.stderr, flush=True)


def _fail(message: str) -> NoReturn:
    _warn(f"error: {message}")
    sys.exit(1)


def _flush() -> None:
    """Write out stdout; nothing is wrong with a reader that has seen enough."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
