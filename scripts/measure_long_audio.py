"""Recordings joined to one long file, transcribed, and held against the same ones cut by hand.

    python scripts/measure_long_audio.py MANIFEST [--hours 1] [--model MODEL] [--lm LM] [--cores 2]
        [--again-hours 5] [--gap-seconds 0.5] [--json FILE]

The recordings of the manifest follow each other, from its beginning again if there are too few,
with gaps of 0.1 s to twice --gap-seconds (seeded) of faint noise. `speech transcribe` runs on the
long file as a process of its own: its time and peak memory are those of the whole process. Then
the same recordings are transcribed one by one. Errors are counted recording by recording: a word
belongs to the one that it lies in, so that errors at joins are not hidden by others.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
import soundfile
from command import run_command
from processes import processor_name, run_children

from speech.audio import load_audio
from speech.manifest import Utterance, read_manifest
from speech.metrics import ErrorCounts, word_errors
from speech.tokenizer import normalise_text

SAMPLE_RATE = 16000
NOISE_LEVEL = 1e-4  # of full scale: -80 dB
SEED = 0


@dataclass(frozen=True)
class Part:
    """A recording and where it lies in the long file."""

    utterance: Utterance
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True)
class Figures:
    model: str
    lm: str
    recordings: int
    hours: float
    wer_joined: float
    wer_by_hand: float
    errors_joined: ErrorCounts
    errors_by_hand: ErrorCounts
    words_in_gaps: int
    real_time_factor: float
    peak_megabytes: float
    processor: str
    cores: int


def write_joined(
    utterances: Sequence[Utterance], seconds: float, gap_seconds: float, path: Path
) -> list[Part]:
    """Write whole recordings up to so many seconds (at least one) into a file; return where."""
    random = np.random.default_rng(SEED)
    parts: list[Part] = []
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, "PCM_16") as file:
        for utterance in cycle(utterances):
            samples = load_audio(utterance.audio_path, SAMPLE_RATE).samples
            start = file.frames / SAMPLE_RATE
            if parts and start + len(samples) / SAMPLE_RATE > seconds:
                return parts
            gap = random.uniform(0.1, max(0.1, 2 * gap_seconds))
            noise = NOISE_LEVEL * random.standard_normal(round(gap * SAMPLE_RATE))
            file.write(np.concatenate([samples, noise.astype(np.float32)]))
            parts.append(Part(utterance, start, start + len(samples) / SAMPLE_RATE))
    raise AssertionError("a cycle does not end")


def share_words(words: Sequence[dict], parts: Sequence[Part]) -> tuple[list[str], int]:
    """Return the text of each part, and how many words lie wholly in gaps (of the part before)."""
    texts: list[list[str]] = [[] for _ in parts]
    in_gaps = number = 0
    for word in words:
        middle = (word["start"] + word["end"]) / 2
        while number + 1 < len(parts) and middle >= _boundary(parts, number):
            number += 1
        texts[number].append(word["word"])
        in_gaps += word["start"] >= parts[number].end_seconds
    return [" ".join(text) for text in texts], in_gaps


def _boundary(parts: Sequence[Part], number: int) -> float:
    """The middle of the gap behind a part."""
    return (parts[number].end_seconds + parts[number + 1].start_seconds) / 2


def count(references: Sequence[str], texts: Sequence[str]) -> ErrorCounts:
    total = ErrorCounts(0, 0, 0, 0)
    for reference, text in zip(references, texts, strict=True):
        total += word_errors(reference, text)
    return total


def measure(options: argparse.Namespace, hours: float, directory: Path) -> Figures:
    utterances = list(read_manifest(options.manifest))
    long_file = directory / "joined.wav"
    parts = write_joined(utterances, 3600 * hours, options.gap_seconds, long_file)
    command = [sys.executable, "-m", "speech", "transcribe", "--model", options.model,
               "--lm", options.lm, "--threads", str(options.cores), "--format", "json",
               "--output-dir", str(directory)]  # fmt: skip
    (child,) = run_children([[*command, str(long_file)]], options.cores)
    result = json.loads((directory / "joined.json").read_text("utf-8"))
    texts, in_gaps = share_words(result["words"], parts)
    unique = list(dict.fromkeys(part.utterance.audio_path for part in parts))
    by_hand = transcribe_each(unique, [*command[:-1], str(directory / "each")], options.cores)
    references = [normalise_text(part.utterance.text) for part in parts]
    joined = count(references, texts)
    cut = count(references, [by_hand[part.utterance.audio_path] for part in parts])
    return Figures(
        options.model, options.lm, len(parts), result["duration"] / 3600, joined.rate, cut.rate,
        joined, cut, in_gaps, child.wall_seconds / result["duration"], child.peak_bytes / 2**20,
        processor_name(), options.cores,
    )  # fmt: skip


def transcribe_each(paths: Sequence[Path], command: Sequence[str], cores: int) -> dict[Path, str]:
    """Return the text of each recording, by files that name them by number."""
    each = Path(command[-1])
    sources = each.with_name("sources")
    sources.mkdir(exist_ok=True)
    for number, path in enumerate(paths):
        link = sources / f"{number}{path.suffix}"
        link.unlink(missing_ok=True)
        link.symlink_to(path.resolve())
    run_children([[*command, str(sources)]], cores)
    return {
        path: json.loads((each / f"{number}.json").read_text("utf-8"))["text"]
        for number, path in enumerate(paths)
    }


def show(figures: Figures) -> None:
    print(
        f"{figures.hours:.2f} h of {figures.recordings} recordings in one file, model "
        f"{figures.model}, lm {figures.lm}\n"
        f"WER joined {figures.wer_joined:.2%}, cut by hand {figures.wer_by_hand:.2%}: "
        f"{100 * (figures.wer_joined - figures.wer_by_hand):+.2f} % absolute\n"
        f"  joined:  {_counts(figures.errors_joined)}; {figures.words_in_gaps} words in gaps\n"
        f"  by hand: {_counts(figures.errors_by_hand)}\n"
        f"whole process: real-time factor {figures.real_time_factor:.4f}, peak memory "
        f"{figures.peak_megabytes:.0f} MiB, on {figures.cores} cores of {figures.processor}"
    )


def _counts(errors: ErrorCounts) -> str:
    return (f"{errors.substitutions} substituted, {errors.deletions} deleted, "
            f"{errors.insertions} inserted of {errors.reference_length}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--again-hours", type=float, help="measure a second, longer file too")
    parser.add_argument("--gap-seconds", type=float, default=0.5, help="mean gap")
    parser.add_argument("--model", default="base")
    parser.add_argument("--lm", default="default")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--json", type=Path, help="store the figures")
    options = parser.parse_args()
    found = []
    for hours in filter(None, (options.hours, options.again_hours)):
        with tempfile.TemporaryDirectory() as directory:
            found.append(measure(options, hours, Path(directory)))
        show(found[-1])
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")


if __name__ == "__main__":
    run_command(main)
