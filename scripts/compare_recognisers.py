"""Run pocketsphinx and our models side by side: errors, speed, memory, start-up, size.

    pip install pocketsphinx                                   # the extra [peers]
    python scripts/compare_recognisers.py MANIFEST... --output DIR
        [--recogniser pocketsphinx] [--recogniser base] [--recogniser base+english] [--limit N]

A recogniser is ``pocketsphinx``, a model, or MODEL+LANGUAGE_MODEL. The first one is what the others
are compared with. DIR gets comparison.json, comparison.md and comparison.png. What was measured
stays in DIR/measured, so that an interrupted comparison goes on where it was; a change of model,
code, manifest or machine measures anew.

Each measurement is a process of its own, kept to the stated number of cores and away from GPUs.
Times are of a machine that does nothing else. Both sides' transcripts go through the same
normaliser. Real-time factors are of all utterances together and leave out the loading of models;
start-up is from nothing to the transcript of a file of 5 s, the files being in memory.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import wave
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from command import run_command
from comparison_report import draw, markdown
from processes import processor_name, run_child
from recognisers import (
    POCKETSPHINX,
    Figures,
    Recogniser,
    measure_size,
    parse_recogniser,
    sha256,
)

import speech
from speech.audio import load_audio
from speech.compare import compare
from speech.manifest import Utterance, read_manifest
from speech.metrics import sum_errors
from speech.results import (
    Evaluation,
    error_figures,
    finite,
    read_results,
    write_json,
    write_results,
)
from speech.tokenizer import NORMALISER
from speech.workers import usable_cores

PARTS = ("transcription", "start", "size")
CLIP_SECONDS, CLIP_RATE = 5.0, 16000
SPEAKERS_TOLD = 10  # at most; of more, single rates say little


# --- Measuring ------------------------------------------------------------------------------------


def measure_transcription(
    recogniser: Recogniser, manifest: Path, cores: int, results: Path
) -> Figures:
    """Transcribe a manifest on so many cores; the evaluation goes to `results`."""
    with tempfile.TemporaryDirectory() as folder:
        peak, evaluation = recogniser.transcribe(manifest, cores, Path(folder))
    write_results(results, evaluation)
    return {
        "cores": cores,
        "real_time_factor": evaluation.real_time_factor,
        "wall_seconds": evaluation.wall_seconds,
        "peak_bytes": peak,
    }


def measure_start(recogniser: Recogniser, clip: Path, starts: int) -> Figures:
    """Seconds and memory from nothing to a transcript: medians of several starts."""
    command = recogniser.start_command(clip)
    children = [run_child(command) for _ in range(starts)]
    return {
        "seconds": statistics.median(child.wall_seconds for child in children),
        "all_seconds": [child.wall_seconds for child in children],
        "peak_bytes": round(statistics.median(child.peak_bytes for child in children)),
    }


class Measured:
    """What was measured, a file each, under what it depends on; it is measured once."""

    def __init__(self, directory: Path, fixed: Figures) -> None:
        """Take the directory, and what all figures depend on: the machine."""
        self.directory = directory
        self.fixed = fixed

    def path(self, *parts: str) -> Path:
        """Return where figures of that name lie."""
        return self.directory.joinpath(*map(slug, parts)).with_suffix(".json")

    def get(self, path: Path, depends: Figures, measure: Callable[[], Figures]) -> Figures:
        """Return the stored figures if they are of the same things, else measure and store."""
        key = json.loads(json.dumps(self.fixed | depends))
        if path.is_file():
            stored = json.loads(path.read_text("utf-8"))
            if stored["depends"] == key:
                return dict(stored["figures"])
        print(f"measuring {path.relative_to(self.directory)} ...", file=sys.stderr, flush=True)
        figures = measure()
        whole = path.with_suffix(".part")  # a file that was cut short would be taken for figures
        write_json(whole, {"depends": key, "figures": figures})
        whole.replace(path)
        return figures


def slug(text: str) -> str:
    """Return a name that can stand in a path: a model may be called by one."""
    return "".join(c if c.isalnum() or c in "+-_" else "-" for c in text).strip("-")


# --- The manifests --------------------------------------------------------------------------------


def spread(utterances: Sequence[Utterance], limit: int | None) -> list[Utterance]:
    """Return `limit` utterances at even steps, so that they are of all speakers."""
    count = min(limit or len(utterances), len(utterances))
    return [utterances[number * len(utterances) // count] for number in range(count)]


def write_selection(path: Path, utterances: Sequence[Utterance]) -> None:
    """Write a manifest of utterances that lie anywhere."""
    lines = [
        json.dumps({
            "id": utterance.id, "audio_filepath": str(utterance.audio_path.resolve()),
            "duration": utterance.duration, "text": utterance.text, "speaker": utterance.speaker,
        })
        for utterance in utterances
    ]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_clip(path: Path, utterances: Sequence[Utterance]) -> None:
    """Write the first 5 s of speech of some utterances as 16-bit mono at 16 kHz."""
    needed = round(CLIP_SECONDS * CLIP_RATE)
    samples = np.zeros(0, dtype=np.float32)
    for utterance in utterances:
        if len(samples) >= needed:
            break
        samples = np.append(samples, load_audio(utterance.audio_path, CLIP_RATE).samples)
    pcm = (np.resize(samples, needed) * 32767.0).round().clip(-32768, 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(CLIP_RATE)
        file.writeframes(pcm.tobytes())


# --- All of it ------------------------------------------------------------------------------------


def measure(arguments: argparse.Namespace) -> Figures:
    """Return everything that was asked for as plain data."""
    recognisers = [parse_recogniser(name) for name in arguments.recognisers]
    machine = {"processor": processor_name(), "cores": usable_cores()}
    measured = Measured(arguments.output / "measured", {"machine": machine})
    manifests = arguments.manifests if "transcription" in arguments.only else []
    return {
        "machine": machine,
        "versions": {"python": platform.python_version(), "speech": speech.__version__},
        "normaliser": NORMALISER,
        "baseline": recognisers[0].name,
        "manifests": {
            manifest_name(manifest): compare_on(manifest, recognisers, measured, arguments)
            for manifest in manifests
        },
        "recognisers": {
            one.name: installation_figures(one, measured, arguments) for one in recognisers
        },
    }


def installation_figures(
    recogniser: Recogniser, measured: Measured, arguments: argparse.Namespace
) -> Figures:
    """Return what a recogniser takes whatever it transcribes: its start-up and its size."""
    figures: Figures = {}
    if "start" in arguments.only:
        clip = measured.directory / "clip.wav"
        clip.parent.mkdir(parents=True, exist_ok=True)
        write_clip(clip, read_manifest(arguments.manifests[0]))
        depends = {**recogniser.identity(), "clip": sha256(clip), "starts": arguments.starts}
        figures["start"] = measured.get(
            measured.path(recogniser.name, "start"), depends,
            lambda: measure_start(recogniser, clip, arguments.starts),
        )  # fmt: skip
    if "size" in arguments.only:
        figures["size"] = measure_size(recogniser)
    return figures


def manifest_name(manifest: Path) -> str:
    return f"{manifest.resolve().parent.name}/{manifest.stem}"


def compare_on(
    manifest: Path, recognisers: Sequence[Recogniser], measured: Measured,
    arguments: argparse.Namespace,
) -> Figures:  # fmt: skip
    """Return the figures of all recognisers on one manifest, and of their differences."""
    name = manifest_name(manifest)
    everything = read_manifest(manifest)
    chosen = spread(everything, arguments.limit)
    selection = measured.directory / slug(name) / "selection.jsonl"
    write_selection(selection, chosen)
    figures: Figures = {}
    evaluations: dict[str, Evaluation] = {}
    for one in recognisers:
        runs, evaluations[one.name] = transcriptions(one, selection, measured, arguments.cores)
        figures[one.name] = {
            **error_figures(evaluations[one.name].scores),
            "speakers": dict(speaker_figures(evaluations[one.name])),
            "transcription": runs,
        }
    first, *others = recognisers
    return {
        "manifest_sha256": sha256(manifest),
        "utterances": len(chosen),
        "utterances_in_manifest": len(everything),
        "audio_seconds": evaluations[first.name].audio_seconds,
        "recognisers": figures,
        "against_baseline": {
            one.name: compare(evaluations[first.name], evaluations[one.name]).to_dict(0)
            for one in others
        },
    }


def transcriptions(
    recogniser: Recogniser, selection: Path, measured: Measured, cores: Sequence[int]
) -> tuple[list[Figures], Evaluation]:
    """Return the figures for each number of cores, and the evaluation of the first."""
    depends = {**recogniser.identity(), "selection": sha256(selection)}
    folder = selection.parent.name
    paths = [measured.path(folder, recogniser.name, f"cores-{count}") for count in cores]
    runs = []
    for path, count in zip(paths, cores, strict=True):
        results = path.with_suffix(".results.json")
        run = partial(measure_transcription, recogniser, selection, count, results)
        runs.append(measured.get(path, depends, run))
    return runs, read_results(paths[0].with_suffix(".results.json"))


def speaker_figures(evaluation: Evaluation) -> Iterator[tuple[str, Figures]]:
    """Yield the word error rate of each speaker where they are few."""
    speakers = sorted({score.speaker for score in evaluation.scores if score.speaker})
    for speaker in speakers if len(speakers) <= SPEAKERS_TOLD else ():
        words = sum_errors(s.words for s in evaluation.scores if s.speaker == speaker)
        yield speaker, {"wer": words.rate, "words": words.reference_length}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifests", type=Path, nargs="+", metavar="MANIFEST")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--recogniser", action="append", dest="recognisers", metavar="NAME",
                        help="pocketsphinx, MODEL or MODEL+LM; the first is the baseline "
                        "(default: pocketsphinx, base)")  # fmt: skip
    parser.add_argument("--limit", type=int, metavar="N", help="N utterances at even steps")
    parser.add_argument("--cores", type=int, nargs="+", default=sorted({1, min(2, usable_cores())}),
                        help="the first one's transcripts are scored")  # fmt: skip
    parser.add_argument("--starts", type=int, default=5, metavar="N")
    parser.add_argument("--only", action="append", choices=PARTS)
    parsed = parser.parse_args(arguments)
    parsed.recognisers = parsed.recognisers or [POCKETSPHINX, "base"]
    parsed.only = parsed.only or PARTS
    counts = [parsed.starts, *parsed.cores, *([] if parsed.limit is None else [parsed.limit])]
    if min(counts) < 1 or max(parsed.cores) > usable_cores():
        parser.error(f"counts start at 1, and there are {usable_cores()} cores")
    for given in (parsed.recognisers, [manifest_name(path) for path in parsed.manifests]):
        if len(set(map(slug, given))) < len(given):
            parser.error(f"given twice, or called alike: {', '.join(given)}")
    return parsed


def write_report(directory: Path, report: Mapping[str, Any]) -> None:
    """Write the figures as JSON, as tables and, where there are errors and speeds, as a picture."""
    write_json(directory / "comparison.json", report)
    (directory / "comparison.md").write_text(markdown(report), encoding="utf-8")
    if report["manifests"]:
        draw(report, directory / "comparison.png")


def main() -> None:
    arguments = parse_arguments()
    report: Any = finite(measure(arguments))
    write_report(arguments.output, report)
    print(markdown(report), end="")


if __name__ == "__main__":
    run_command(main)
