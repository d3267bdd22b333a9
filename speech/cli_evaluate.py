"""Commands around evaluation: storing and reporting a result, comparing two."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speech.cli_decoding import load_recogniser, takes_decoder_options
from speech.cli_options import JsonOption, ModelOption, ThreadsOption
from speech.progress import progress_bar

if TYPE_CHECKING:
    from speech.compare import Comparison, Pair
    from speech.decoder import DecoderOptions
    from speech.manifest import Utterance
    from speech.results import Evaluation
    from speech.transcribe import Recogniser

DEFAULT_CHANGED = 5


def store(
    result: Evaluation,
    utterances: Sequence[Utterance],
    manifests: Sequence[Path],
    recogniser: Recogniser,
    settings: Mapping[str, object],
    output: Path | None,
    report: Path | None,
) -> None:
    """Write what `evaluate` found where its options say, with how it was made."""
    from speech.bootstrap import RESAMPLES, SEED
    from speech.calibration import CALIBRATION_FILE
    from speech.char_language_model import find_char_model
    from speech.checkpoint import WEIGHTS_FILE, find_model
    from speech.evaluate import measure_noise
    from speech.language_model import find_language_model
    from speech.provenance import run_facts
    from speech.report_page import ReportSettings, write_report
    from speech.results import NO_LANGUAGE_MODEL, write_results
    from speech.shipped import CHAR_WEIGHTS_FILE

    sample_rate = recogniser.model.config.features.sample_rate
    seconds = sum(utterance.duration for utterance in utterances)
    with progress_bar("measuring noise", seconds) as advance:
        result = measure_noise(result, utterances, sample_rate, lambda u: advance(u.duration))
    directory = find_model(result.model)
    files = {"model": directory / WEIGHTS_FILE} | {str(path): path for path in manifests}
    if (directory / CALIBRATION_FILE).is_file():
        files["calibration"] = directory / CALIBRATION_FILE
    if result.lm != NO_LANGUAGE_MODEL:
        files["language_model"] = find_language_model(result.lm)
    decoder = recogniser.decoder
    if decoder is not None and decoder.rescorer is not None:
        name = str(decoder.rescorer.settings()["model"])
        files["rescoring_model"] = find_char_model(name) / CHAR_WEIGHTS_FILE
    facts = {"model": result.model, "lm": result.lm, "normaliser": result.normaliser, **settings,
             "bootstrap": {"resamples": RESAMPLES, "seed": SEED}}  # fmt: skip
    command = shlex.join(["speech", *sys.argv[1:]])
    result = dataclasses.replace(result, run=run_facts(command, files, facts))
    if output is not None:
        write_results(output, result)
    if report is not None:
        shown = ReportSettings()
        with progress_bar("drawing", min(shown.worst, len(utterances))) as advance:
            paths = [utterance.audio_path for utterance in utterances]
            page = write_report(report, result, paths, recogniser, shown, lambda: advance(1))
        print(f"speech: report in {page}", file=sys.stderr)


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A stored result: the baseline.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another one of the same utterances.")],
    as_json: JsonOption = False,
    changed: Annotated[
        int, typer.Option(min=0, help="Show the N utterances that changed most, each way.")
    ] = DEFAULT_CHANGED,
    resamples: Annotated[int, typer.Option(min=100, help="Draws of the bootstrap.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
) -> None:
    """Say whether B is better than A, by paired bootstrap, and what changed.

    A and B are what `speech evaluate --output FILE` or `--report DIR` stored. Whole speakers are
    drawn where the manifest names two or more (Bisani & Ney 2004). Exit status 1 if the results are
    not of the same utterances; which of the two is better does not change it.
    """
    from speech.compare import compare as run
    from speech.results import finite, read_results

    result = run(read_results(a), read_results(b), resamples=resamples, seed=seed)
    if as_json:
        print(json.dumps(finite(result.to_dict(changed))))
        return
    better, worse = result.changed(changed)
    _print_changes("fewer errors in B", better)
    _print_changes("more errors in B", worse)
    print(_verdict(result))


def _print_changes(title: str, pairs: list[Pair]) -> None:
    from speech.compare import render_pair

    if pairs:
        print(f"--- {title} ---\n")
    for pair in pairs:
        print(render_pair(pair) + "\n")


def _verdict(result: Comparison) -> str:
    """Return the figures of a comparison as lines."""
    low, high = result.bootstrap.interval
    reduction = result.relative_reduction
    share = "A makes no error" if reduction is None else f"{reduction:.1%} of A's errors taken away"
    improved = sum(pair.added_errors < 0 for pair in result.pairs)
    worsened = sum(pair.added_errors > 0 for pair in result.pairs)
    return (
        f"A: WER {result.a.words.rate:.2%}  (model {result.a.model}, lm {result.a.lm})\n"
        f"B: WER {result.b.words.rate:.2%}  (model {result.b.model}, lm {result.b.lm})\n"
        f"B - A: {100 * result.bootstrap.difference:+.2f} points "
        f"(95 % interval {100 * low:+.2f} to {100 * high:+.2f}), {share}\n"
        f"probability of improvement {result.bootstrap.probability_of_improvement:.3f}; the "
        f"difference is {'' if result.bootstrap.significant else 'not '}significant at the 5 % "
        f"level ({result.resamples} draws of {result.drawn} {result.resampled})\n"
        f"{len(result.pairs)} utterances: {improved} with fewer errors in B, "
        f"{worsened} with more, {len(result.pairs) - improved - worsened} with as many"
    )


@takes_decoder_options
def hallucinations(
    audio: Annotated[
        list[Path] | None, typer.Argument(metavar="[AUDIO...]", help="Files without speech.")
    ] = None,
    model: ModelOption = "base",
    as_json: JsonOption = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the generated signals.")] = 0,
    threads: ThreadsOption = None,
    *,
    decoding: DecoderOptions,
) -> None:
    """Count the words heard per minute in silence, noise and music, where there are none.

    Ten minutes of generated signals, the same on every machine, and any files of your own.
    """
    from speech.hallucinations import hallucinations as run
    from speech.hallucinations import total_of_all, totals_by_kind
    from speech.nonspeech import SIGNALS

    files = audio or []
    recogniser = load_recogniser(model, threads, decoding)
    with progress_bar("listening", SIGNALS + len(files)) as advance:
        heard = run(recogniser, files, seed, lambda: advance(1))
    rows = [*totals_by_kind(heard), total_of_all(heard)]
    if as_json:
        kinds = [dataclasses.asdict(row) | {"words_per_minute": row.words_per_minute}
                 for row in rows]  # fmt: skip
        signals = [dataclasses.asdict(one) for one in heard]
        print(json.dumps({"kinds": kinds, "signals": signals, "model": model,
                          "lm": recogniser.lm_name, "seed": seed}))  # fmt: skip
        return
    for one in heard:
        if one.words:
            print(f"{one.kind}: {one.name}: {one.text} (mean confidence {one.confidence:.2f})")
    print(f"{'kind':12} {'signals':>7} {'seconds':>8} {'words':>6} {'words per minute':>17}")
    for row in rows:
        print(f"{row.kind:12} {row.signals:7} {row.seconds:8.0f} {row.words:6} "
              f"{row.words_per_minute:17.2f}")  # fmt: skip
