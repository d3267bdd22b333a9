"""The command that makes word confidences probabilities."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speech.cli_decoding import recogniser_of, takes_decoder_options
from speech.cli_options import ModelOption, ThreadsOption, WithoutSpeakerOption
from speech.progress import progress_bar

if TYPE_CHECKING:
    from speech.confidence import Reliability
    from speech.decoder import DecoderOptions


@takes_decoder_options
def calibrate(
    manifest: Annotated[list[Path], typer.Argument(metavar="MANIFEST...")],
    model: ModelOption = "base",
    without_speaker: WithoutSpeakerOption = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", dir_okay=False, help="Draw the reliability curves."),
    ] = None,
    store: Annotated[
        bool, typer.Option(help="Write the map to the model's calibration.json.")
    ] = True,
    threads: ThreadsOption = None,
    *,
    decoding: DecoderOptions,
) -> None:
    """Make a model's word confidences probabilities, by speech that it was not trained on.

    Transcribes the manifests, fits a map from raw confidences to the share of words that is right,
    and prints how well confidences hold before and after, cross-validated over the speakers.
    """
    from speech.calibrate import fit_confidences, with_confidence_map, without_confidence_map
    from speech.checkpoint import find_model, load_model, save_calibration
    from speech.evaluate import evaluate, read_manifests
    from speech.report import plot_reliability

    loaded = load_model(model)
    seconds = sum(utterance.duration for _, utterance in read_manifests(manifest))
    recogniser = recogniser_of(without_confidence_map(loaded), threads, decoding)
    with progress_bar("calibrating", seconds) as advance:
        result = evaluate(
            manifest, recogniser, model, on_utterance=lambda utterance: advance(utterance.duration)
        )
    fit = fit_confidences(result, without_speaker or ())
    if plot is not None:
        plot_reliability({"raw": fit.before, "calibrated": fit.after}, plot)
    if store:
        directory = find_model(model)
        fitted = with_confidence_map(loaded, result.lm, fit.confidence_map)
        save_calibration(directory, fitted)
        print(f"stored beside the model, for decoding with language model {result.lm}: {directory}",
              file=sys.stderr)  # fmt: skip
    _print_table("raw", fit.before)
    _print_table("calibrated, cross-validated", fit.after)


def _print_table(title: str, table: Reliability) -> None:
    print(f"{title}: expected calibration error {table.expected_calibration_error:.4f}, "
          f"{table.words} words in {len(table.bins)} bins of equally many")  # fmt: skip
    print(f"{'confidence':>16} {'mean':>7} {'right':>7} {'words':>7}")
    for one in table.bins:
        print(f"{one.low:7.3f} to {one.high:.3f} {one.confidence:7.3f} {one.accuracy:7.3f} "
              f"{one.words:7}")  # fmt: skip
    print()
