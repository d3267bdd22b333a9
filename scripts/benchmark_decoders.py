"""Our beam search beside others on the same log-probs and the same ARPA language model.

    pip install flashlight-text kenlm            # what torchaudio's ctc_decoder needs
    python -m venv OTHER; OTHER/bin/pip install pyctcdecode kenlm 'numpy<2'
    speech lm convert english -o english.arpa    # the form that all of them read
    python scripts/benchmark_decoders.py MANIFEST --lm english.arpa --output DIR
        --python pyctcdecode=OTHER/bin/python [--beam 10 ...] [--threads 1 2] [--limit N]

``ours`` hears any word, ``ours-lexicon`` only those of the language model, as ``torchaudio``
(flashlight-text) does; ``torchaudio-pruned`` prunes about as ours does, ``torchaudio`` as it comes.
pyctcdecode asks for an older NumPy, and so for a Python of its own. What is not installed is left
out, and said. Each decoder gets the weights that make the fewest errors in the same small grid.

Decoders are loaded before the clock starts. For each beam size and number of threads they take
turns, several times, and the best time of each counts; what took longer than --once-seconds is not
repeated, as there its share of chance is small. Ours on two threads is one process; the others get
two processes that share what is loaded. DIR gets benchmark.json and benchmark.md. Times are of a
machine that does nothing else; all of mini-librispeech dev should take ten minutes (an estimate).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from command import run_command
from decoder_worker import KINDS
from processes import REPOSITORY, processor_name

from speech.audio import load_audio
from speech.decoder import GREEDY
from speech.errors import SpeechError
from speech.language_model import SPECIAL_WORDS, NgramModel
from speech.manifest import read_manifest
from speech.metrics import sum_errors, word_errors
from speech.progress import progress_bar
from speech.provenance import sha256_of
from speech.results import write_json
from speech.tokenizer import normalise_text
from speech.transcribe import Recogniser

GRID = [(weight, bonus) for weight in (0.4, 0.7, 1.0, 1.4) for bonus in (0.0, 1.0, 2.0)]
TUNING_BEAM_SIZE = 50
WORKER = Path(__file__).with_name("decoder_worker.py")


@dataclass(frozen=True)
class Task:
    """What all decoders get: normalised references, and how long the audio is."""

    references: tuple[str, ...]
    audio_seconds: float


@dataclass
class Row:
    """One decoder at one beam size on so many threads; rates are of the best time."""

    decoder: str
    beam_size: int
    threads: int
    wer: float
    seconds: float
    utterances_per_second: float
    utterance_seconds_per_second: float


class Worker:
    """A decoder in a process of its own."""

    def __init__(self, kind: str, python: str, folder: Path, lm: Path) -> None:
        """Start it and wait until it is loaded. SpeechError where it cannot."""
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": ""}
        self.kind = kind
        self._log = folder / f"{kind}.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [python, str(WORKER), kind, str(folder), str(lm)], env=environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        self.versions: dict[str, str] = self._answer()

    def run(self, **job: Any) -> dict[str, Any]:
        """Decode; returns seconds and texts."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            told = self._log.read_text("utf-8").strip().splitlines() or ["it ended"]
            raise SpeechError(f"{self.kind}: {told[-1]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def prepare(manifest: Path, model: str, lm: Path, folder: Path, limit: int | None) -> Task:
    """Write what the workers read: log-probs of whole utterances, and the words of the ARPA."""
    folder.mkdir(parents=True, exist_ok=True)
    utterances = read_manifest(manifest)[:limit]
    recogniser = Recogniser.load(model, options=GREEDY)
    rate = recogniser.model.config.features.sample_rate
    log_probs, seconds = [], 0.0
    with progress_bar("computing log-probs", len(utterances)) as advance:
        for utterance in utterances:
            samples = load_audio(utterance.audio_path, rate).samples
            log_probs += recogniser.log_probs([samples])
            seconds += len(samples) / rate
            advance(1)
    np.savez(
        folder / "log_probs.npz",
        log_probs=np.concatenate(log_probs),
        frames=[len(one) for one in log_probs],
        alphabet=recogniser.model.tokenizer.alphabet,
    )
    words = [word for word in NgramModel.load(lm).words if word not in SPECIAL_WORDS]
    (folder / "words.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return Task(tuple(normalise_text(one.text) for one in utterances), seconds)


def start(kinds: Sequence[str], pythons: dict[str, str], folder: Path, lm: Path) -> list[Worker]:
    """The decoders that are installed."""
    workers = []
    for kind in kinds:
        try:
            workers.append(Worker(kind, pythons.get(kind, sys.executable), folder, lm))
        except SpeechError as error:
            print(f"left out: {error}", file=sys.stderr)
    return workers


def tune(worker: Worker, task: Task, utterances: int) -> tuple[float, float]:
    """The weights of the grid with the fewest word errors in the first utterances."""
    errors = {}
    for weight, bonus in GRID:
        found = worker.run(beam_size=TUNING_BEAM_SIZE, threads=1, lm_weight=weight,
                           word_bonus=bonus, utterances=utterances)  # fmt: skip
        errors[weight, bonus] = wer(task, found["texts"])
    return min(errors, key=lambda pair: errors[pair])


def wer(task: Task, texts: Sequence[str]) -> float:
    """Word error rate of the first utterances."""
    return sum_errors(map(word_errors, task.references, texts)).rate


def measure(
    workers: Sequence[Worker], weights: dict[str, tuple[float, float]], task: Task,
    beam_sizes: Iterable[int], threads: Iterable[int], repeats: int, once_seconds: float,
) -> list[Row]:  # fmt: skip
    """A row for each decoder, beam size and number of threads; decoders take turns.

    What takes longer than `once_seconds` is done once, all else `repeats` times.
    """
    count, rows = len(task.references), []
    settings = [(size, number) for size in beam_sizes for number in threads]
    with progress_bar("decoding", len(settings) * repeats * len(workers)) as advance:
        for beam_size, number in settings:
            best: dict[str, dict[str, Any]] = {}
            for _ in range(repeats):
                for worker in workers:
                    advance(1)
                    if worker.kind in best and best[worker.kind]["seconds"] > once_seconds:
                        continue
                    weight, bonus = weights[worker.kind]
                    found = worker.run(beam_size=beam_size, threads=number, lm_weight=weight,
                                       word_bonus=bonus, utterances=count)  # fmt: skip
                    before = best.setdefault(worker.kind, found)
                    best[worker.kind] = min(before, found, key=lambda one: float(one["seconds"]))
            rows += [_row(kind, beam_size, number, found, task) for kind, found in best.items()]
    return rows


def _row(kind: str, beam_size: int, threads: int, found: dict[str, Any], task: Task) -> Row:
    seconds = found["seconds"]
    return Row(kind, beam_size, threads, wer(task, found["texts"]), seconds,
               len(task.references) / seconds, task.audio_seconds / seconds)  # fmt: skip


def fastest_as_good(rows: Sequence[Row], of: Row, kind: str, threads: int) -> Row | None:
    """The fastest row of a decoder with no more errors than another's."""
    as_good = [one for one in rows
               if (one.decoder, one.threads) == (kind, threads) and one.wer <= of.wer]  # fmt: skip
    return min(as_good, key=lambda one: one.seconds, default=None)


def markdown(rows: Sequence[Row], weights: dict[str, tuple[float, float]]) -> str:
    """Tables: everything measured, and how many times as fast we are at no more errors."""
    lines = ["| beam | threads | decoder | WER | audio s per s | utterances per s |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    lines += [
        f"| {row.beam_size} | {row.threads} | {row.decoder} | {row.wer:.2%} | "
        f"{row.utterance_seconds_per_second:.0f} | {row.utterances_per_second:.1f} |"
        for row in rows
    ]
    lines += ["", "Times as fast as the other on one thread, by our fastest beam size with no more "
              "errors, on so many threads:", "",
              "| other | beam | WER | ours | threads | beam | WER | times as fast |",
              "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for other in rows:
        if other.decoder.startswith("ours") or other.threads != 1:
            continue
        for threads in sorted({row.threads for row in rows}):
            for kind in sorted({row.decoder for row in rows if row.decoder.startswith("ours")}):
                lines.append(
                    _ratio(other, kind, threads, fastest_as_good(rows, other, kind, threads))
                )
    chosen = ", ".join(f"{kind} {weight} and {bonus}" for kind, (weight, bonus) in weights.items())
    return "\n".join([*lines, "", f"Language model weight and word bonus: {chosen}.", ""])


def _ratio(other: Row, kind: str, threads: int, own: Row | None) -> str:
    head = f"| {other.decoder} | {other.beam_size} | {other.wer:.2%} | {kind} | {threads} |"
    if own is None:
        return f"{head} | | none as good |"
    return f"{head} {own.beam_size} | {own.wer:.2%} | {other.seconds / own.seconds:.2f} |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--lm", type=Path, required=True, metavar="LM.arpa")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default="base")
    parser.add_argument("--decoder", action="append", choices=KINDS)
    parser.add_argument("--python", action="append", default=[], metavar="DECODER=PYTHON")
    parser.add_argument("--beam", type=int, nargs="+", default=[10, 50, 100, 500])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--once-seconds", type=float, default=5.0, help="more is not repeated")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--tune-utterances", type=int, default=200)
    chosen = parser.parse_args(arguments)
    task = prepare(chosen.manifest, chosen.model, chosen.lm, chosen.output, chosen.limit)
    pythons = dict(one.split("=", 1) for one in chosen.python)
    workers = start(chosen.decoder or list(KINDS), pythons, chosen.output, chosen.lm)
    count = min(chosen.tune_utterances, len(task.references))
    with progress_bar("tuning", len(workers)) as advance:
        weights = {}
        for worker in workers:
            weights[worker.kind] = tune(worker, task, count)
            advance(1)
    rows = measure(workers, weights, task, chosen.beam, chosen.threads, chosen.repeats,
                   chosen.once_seconds)  # fmt: skip
    for worker in workers:
        worker.close()
    write_json(chosen.output / "benchmark.json", {
        "rows": [asdict(row) for row in rows], "weights": weights, "repeats": chosen.repeats,
        "once_seconds": chosen.once_seconds,
        "utterances": len(task.references), "audio_seconds": task.audio_seconds,
        "model": chosen.model, "versions": {one.kind: one.versions for one in workers},
        "sha256": {"manifest": sha256_of([chosen.manifest]), "lm": sha256_of([chosen.lm])},
        "machine": f"{processor_name()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
    })  # fmt: skip
    table = markdown(rows, weights)
    (chosen.output / "benchmark.md").write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    run_command(main)
