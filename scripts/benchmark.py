"""Measure this installation: training overhead, speed, memory, start-up times.

    python scripts/benchmark.py [--quick] [--json] [--manifest MANIFEST] [--model MODEL]

Each figure comes with what it was measured on, as a table in Markdown; stderr says what is being
measured. All of it takes some minutes on two cores. Times are of a machine that does nothing
else; ratios are of one process and one run, the two sides taken in turns.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# As the command line does, and before torch is imported: see speech.environment.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")

import numpy as np
import soundfile
import torch
from command import run_command
from processes import REPOSITORY, processor_name, run_child

from speech.checkpoint import create_model, find_model, save_model
from speech.config import Config, TrainConfig, dump_config, load_config
from speech.dataset import Batch, SampleCache, TrainingSet, epoch_batches, select_examples
from speech.decoder import GREEDY, DecoderOptions
from speech.errors import ModelError
from speech.manifest import read_manifest
from speech.model import ctc_losses
from speech.optimiser import create_optimiser
from speech.results import NO_LANGUAGE_MODEL
from speech.run import HISTORY
from speech.task import StepReport
from speech.tokenizer import CharTokenizer
from speech.train import train
from speech.transcribe import Recogniser
from speech.workers import Workers, usable_cores

SAMPLE = REPOSITORY / "data" / "sample" / "manifest.jsonl"
RECIPE = REPOSITORY / "models" / "base" / "config.toml"
TARGET_OVERHEAD = 1.10
Figures = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured."""

    steps: int  # optimiser steps a round, about
    rounds: int
    audio_seconds: float  # transcribed for a real-time factor
    long_minutes: float  # of the file that memory is measured on
    starts: int


FULL = Size(steps=6, rounds=3, audio_seconds=600.0, long_minutes=60.0, starts=3)
QUICK = Size(steps=2, rounds=1, audio_seconds=10.0, long_minutes=1.0, starts=1)


BEGAN = time.monotonic()


def tell(what: str) -> None:
    """Say on stderr what is measured next, and how long this has been going on."""
    print(f"{time.monotonic() - BEGAN:4.0f} s  {what}", file=sys.stderr, flush=True)


class Clock:
    """An observer that keeps the wall time of each step of an epoch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.is_whole = False

    def message(self, text: str) -> None:
        pass

    def step(self, report: StepReport) -> None:
        self.seconds.append(report.wall_seconds)

    def epoch(self, row: dict[str, float]) -> None:
        self.is_whole = True


# --- Training -------------------------------------------------------------------------------------


def training_config(manifest: Path, size: Size, cache: Path, quick: bool) -> Config:
    """The shipped recipe's network and batches, on a manifest repeated to enough steps."""
    recipe = load_config(RECIPE)
    model = dataclasses.replace(recipe.model, layers=1, hidden=32) if quick else recipe.model
    batch_seconds = 20.0 if quick else recipe.train.batch_seconds
    seconds = sum(utterance.duration for utterance in read_manifest(manifest))
    passes = max(1.0, round(size.steps * batch_seconds / seconds))
    data = dataclasses.replace(
        recipe.data, root="/", train={str(manifest.resolve()): passes}, dev=(), cache=str(cache)
    )
    schedule = TrainConfig(
        epochs=1, batch_seconds=batch_seconds, precision=recipe.train.precision, patience=0,
        schedule="constant", warmup_steps=1, easy_first_epochs=0,
    )  # fmt: skip
    return dataclasses.replace(recipe, model=model, data=data, train=schedule)


def with_epochs(config: Config, epochs: int) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=epochs))


def prepared_batches(config: Config, epoch: int) -> list[Batch]:
    """The very batches that `train` computes in an epoch, ready in memory."""
    model = create_model(config, CharTokenizer())
    extractor, subsampling = model.extractor, config.model.subsampling
    cache = SampleCache(Path(config.data.cache), config.features.sample_rate)
    examples = select_examples(
        config.data, Path(), model.tokenizer, extractor, subsampling
    ).examples
    data = TrainingSet(examples, extractor, config.augment, cache, subsampling, config.train.seed)
    batches = epoch_batches(
        examples, config.train.batch_seconds, config.train.seed, epoch, easy_first=False
    )
    return [data.batch(draws, epoch) for draws in batches]


class BareStep:
    """Forward, backward and optimiser step, and nothing else."""

    def __init__(self, config: Config) -> None:
        self.workers = Workers.from_environment()
        self.device = self.workers.device
        self.network = create_model(config, CharTokenizer()).network.train().to(self.device)
        self.optimiser = create_optimiser(self.network, config.train)
        self.precision = self.workers.precision(config.train.precision)

    def seconds(self, batch: Batch) -> float:
        """Return how long a step takes, the batch being where the network is."""
        batch = self.workers.to_device(batch)
        self._synchronise()
        began = time.perf_counter()
        enabled = self.precision is not None
        with torch.autocast(self.device.type, self.precision or torch.bfloat16, enabled=enabled):
            log_probs, lengths = self.network(batch.log_mel, batch.log_mel_lengths)
        losses = ctc_losses(log_probs, lengths, batch.tokens, batch.token_lengths)
        self.optimiser.zero_grad(set_to_none=True)
        (losses.sum() / len(batch.tokens)).backward()
        self.optimiser.step()
        self._synchronise()
        return time.perf_counter() - began

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def measure_overhead(config: Config, size: Size, scratch: Path, threads: int) -> Figures:
    """Real steps over bare ones: what loading, features, clipping and averaging cost.

    The sample cache is warm: `train` reads every file once when it fits the features.
    """
    torch.set_num_threads(threads)
    bare = BareStep(config)
    rounds: list[tuple[float, float]] = []
    for epoch in range(size.rounds + 1):
        tell(f"training steps, {threads} thread(s), round {epoch + 1} of {size.rounds + 1}")
        clock = Clock()
        output = scratch / f"overhead-{threads}"
        train(with_epochs(config, epoch + 1), output, clock, resume=epoch > 0)
        if not clock.is_whole:  # a training takes Ctrl-C or SIGTERM for itself
            raise SystemExit("stopped")
        own = [bare.seconds(batch) for batch in prepared_batches(config, epoch)]
        rounds.append((sum(clock.seconds), sum(own)))
    real, alone = (sum(seconds) for seconds in zip(*rounds[1:], strict=True))  # one warms up
    return {
        "threads": threads,
        "ratio": real / alone,
        "ratios": [one / other for one, other in rounds[1:]],
        "target": TARGET_OVERHEAD,
        "steps": len(own) * size.rounds,
        "real_seconds": real,
        "bare_seconds": alone,
    }


def measure_training_speed(config: Config, scratch: Path, processes: int) -> Figures:
    """Audio a second of `speech train`, alone or under torchrun; the first epoch warms up."""
    tell(f"speech train, {processes} process(es)")
    output = scratch / f"speed-{processes}"
    (scratch / "speed.toml").write_text(dump_config(with_epochs(config, 3)))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    arguments = ["-m", "speech", "train", str(scratch / "speed.toml"), "--output", str(output)]
    command = [sys.executable, *(launcher if processes > 1 else []), *arguments]
    peak = run_child(command).peak_bytes
    warm = json.loads((output / HISTORY).read_text())[1:]
    audio, wall = (sum(row[key] for row in warm) for key in ("audio_seconds", "wall_seconds"))
    narrow = Workers(0, 1, torch.device("cpu")).precision(config.train.precision)
    return {
        "processes": processes,
        "precision": "float32" if narrow is None else "bfloat16",
        "times_real_time": audio / wall,
        "peak_bytes": peak,
    }


# --- Transcription --------------------------------------------------------------------------------


def shipped_or_random_model(name: str, scratch: Path, quick: bool) -> Path:
    """The named model; where it is not there, one of its size, which is as fast."""
    try:
        return find_model(name)
    except ModelError:
        config = load_config(RECIPE)
        if quick:
            config = dataclasses.replace(
                config, model=dataclasses.replace(config.model, layers=1, hidden=32)
            )
        save_model(scratch / "random-weights", create_model(config, CharTokenizer()))
        return scratch / "random-weights"


def measure_transcription(
    model: Path, manifest: Path, size: Size, threads: int, precision: str, options: DecoderOptions
) -> Figures:
    """Processing time over audio time, for many short recordings."""
    tell(f"transcription, lm {options.lm}, {precision}, {threads} thread(s)")
    utterances = read_manifest(manifest)
    seconds = sum(utterance.duration for utterance in utterances)
    paths = [u.audio_path for u in utterances] * max(1, round(size.audio_seconds / seconds))
    recogniser = Recogniser.load(model, threads, precision, options=options)
    list(recogniser.transcribe_many(paths[:2]))
    began = time.perf_counter()
    results = list(recogniser.transcribe_many(paths))
    wall = time.perf_counter() - began
    audio = sum(result.duration for result in results)  # type: ignore[union-attr]
    return {
        "threads": threads,
        "precision": precision,
        "lm": recogniser.lm_name,
        "real_time_factor": wall / audio,
        "times_real_time": audio / wall,
        "audio_seconds": audio,
    }


def measure_memory(model: Path, manifest: Path, size: Size, scratch: Path) -> Figures:
    """Peak memory of a process that transcribes one long file, with the language model."""
    tell(f"one file of {size.long_minutes:.0f} min")
    path = scratch / "long.wav"
    samples = np.concatenate([read_samples(u.audio_path) for u in read_manifest(manifest)])
    with soundfile.SoundFile(path, "w", 16000, 1, subtype="PCM_16") as file:
        for _ in range(round(size.long_minutes * 60 * 16000 / len(samples)) or 1):
            file.write(samples)
    command = [sys.executable, "-m", "speech", "transcribe", str(path), "--model", str(model)]
    child = run_child(command)
    duration = soundfile.info(path).duration
    return {
        "audio_minutes": duration / 60,
        "peak_bytes": child.peak_bytes,
        "wall_seconds": child.wall_seconds,
    }


def read_samples(path: Path) -> np.ndarray[Any, Any]:
    from speech.audio import load_audio

    return load_audio(path, 16000).samples


# --- Start-up and processes -----------------------------------------------------------------------


def measure_starts(model: Path, size: Size, scratch: Path) -> Figures:
    """Seconds from nothing to a result, the median of several starts; files are in memory."""
    five = scratch / "five.wav"
    soundfile.write(five, np.random.default_rng(0).normal(0, 0.1, 5 * 16000), 16000)
    transcribe = ["-m", "speech", "transcribe", str(five), "--model", str(model)]
    commands = {
        "speech --help": ["-m", "speech", "--help"],
        "import speech": ["-c", "import speech"],
        "import speech.transcribe": ["-c", "import speech.transcribe"],
        "speech transcribe, 5 s": transcribe,
        "speech transcribe, 5 s, greedy": [*transcribe, "--lm", "none"],
    }
    found = {}
    for name, arguments in commands.items():
        tell(f"starts of {name}")
        run_child([sys.executable, *arguments])  # reads the files, and may compile the beam search
        starts = (run_child([sys.executable, *arguments]) for _ in range(size.starts))
        found[name] = statistics.median(start.wall_seconds for start in starts)
    return found


def machine() -> Figures:
    native = Workers(0, 1, torch.device("cpu")).precision("auto") is torch.bfloat16
    return {
        "processor": processor_name(),
        "cores": usable_cores(),
        "native_bfloat16": native,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


# --- All of it ------------------------------------------------------------------------------------


def measure(arguments: argparse.Namespace, scratch: Path) -> Figures:
    size = QUICK if arguments.quick else FULL
    manifest = arguments.manifest
    config = training_config(manifest, size, scratch / "cache", arguments.quick)
    model = shipped_or_random_model(arguments.model, scratch, arguments.quick)
    threads = sorted({1, usable_cores()})
    parts: dict[str, Callable[[], Any]] = {
        "machine": machine,
        "starts": lambda: measure_starts(model, size, scratch),
        "overhead": lambda: [
            measure_overhead(config, size, scratch, count) for count in reversed(threads)
        ],
        "training": lambda: [
            measure_training_speed(config, scratch, processes) for processes in (1, 2)
        ],
        "transcription": lambda: [
            measure_transcription(model, manifest, size, count, precision, options)
            for options in (GREEDY, DecoderOptions())
            for precision in ("float32", "bfloat16")
            for count in threads
        ],
        "memory": lambda: measure_memory(model, manifest, size, scratch),
    }
    figures: Figures = {"quick": arguments.quick, "model": model.name}
    for name, part in parts.items():
        if name in (arguments.only or parts):
            figures[name] = part()
    return figures


def rows(figures: Figures) -> list[tuple[str, str]]:
    """What was measured, and what came of it."""
    found = [(name, f"{seconds:.2f} s") for name, seconds in figures.get("starts", {}).items()]
    if one := figures.get("machine"):
        bfloat16 = "native" if one["native_bfloat16"] else "emulated"
        value = f"{one['cores']} cores of {one['processor']}, bfloat16 {bfloat16}"
        found.insert(0, ("machine", f"{value}, torch {one['torch']}"))
    for one in figures.get("overhead", []):
        name = f"training step over its bare arithmetic, {one['threads']} thread(s)"
        low, high = min(one["ratios"]), max(one["ratios"])
        value = f"{one['ratio']:.3f} (target {one['target']:.2f}; {one['steps']} steps, "
        found.append((name, f"{value}rounds {low:.3f} to {high:.3f})"))
    for one in figures.get("training", []):
        name = f"training, {one['precision']}, {one['processes']} process(es)"
        memory = f"{one['peak_bytes'] / 1e9:.2f} GB in the largest process"
        found.append((name, f"{one['times_real_time']:.0f} s of audio a second, {memory}"))
    for one in figures.get("transcription", []):
        decoding = "greedy" if one["lm"] == NO_LANGUAGE_MODEL else f"with {one['lm']}"
        name = f"transcription, {decoding}, {one['precision']}, {one['threads']} thread(s)"
        speed = f"{one['times_real_time']:.0f} times real time"
        found.append((name, f"real-time factor {one['real_time_factor']:.4f} ({speed})"))
    if one := figures.get("memory"):
        minutes, seconds = one["audio_minutes"], one["wall_seconds"]
        factor = f"real-time factor {seconds / minutes / 60:.4f}"
        value = f"{seconds:.1f} s ({factor}), {one['peak_bytes'] / 1e9:.2f} GB at most"
        found.append((f"one file of {minutes:.0f} min, from the shell", value))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small network: shows that it works")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--manifest", type=Path, default=SAMPLE)
    parser.add_argument("--model", default="base")
    parser.add_argument("--only", action="append", metavar="PART",
                        choices=("machine", "starts", "overhead", "training", "transcription",
                                 "memory"))  # fmt: skip
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(arguments, Path(scratch))
    if arguments.json:
        print(json.dumps(figures, indent=1))
        return
    print(
        "\n".join(
            ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows(figures))]
        )
    )


if __name__ == "__main__":
    run_command(main)
