"""Make the shipped language model from texts: trained, measured, stored, its card renewed.

    python scripts/make_language_model.py LMTEXT models/english --dev DEV.jsonl

LMTEXT holds books.txt.xz, everyday.txt.xz and SOURCES.tsv. DEV is a manifest whose transcripts, of
the speakers in DEV_SPEAKERS only, guided the choices; its others are measured and guided nothing.
Writes lm.bin and metrics.json, and what the MODEL_CARD.md there says in figures.
"""

from __future__ import annotations

import argparse
import csv
import json
import lzma
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from command import run_command

from speech.language_model import LANGUAGE_MODEL_FILE, NgramModel
from speech.lm_text import read_sentences
from speech.lm_train import NgramSettings, Trained, train_ngram_model
from speech.manifest import read_manifest
from speech.perplexity import measure
from speech.progress import progress_bar
from speech.provenance import sha256_of
from speech.tokenizer import NORMALISER, normalise_text

TEXTS = {"books": 0.9, "everyday": 0.1}  # weight of each in the mixture
# Three words are special: all numbers of words have two bytes. Pruned until the file has 40 MB.
SETTINGS = NgramSettings(order=4, vocabulary=65_000, entropy=2.1e-8)
BITS = 8
HELD_OUT_EVERY = 250  # of the lines of each text, the first one included
SHARED_WORDS = 8  # so many in a row that also stand in the training text count as known to it
DEV_SPEAKERS = ("7859", "226")
SAMPLE = Path(__file__).parent.parent / "data" / "sample" / "manifest.jsonl"
COMMAND = "python scripts/make_language_model.py LMTEXT models/english --dev DEV.jsonl"
BEGIN, END = "<!-- metrics.json begins -->", "<!-- metrics.json ends -->"
KIBIBYTE = 1024

Sentences = list[list[str]]


def make(texts: Path, target: Path, dev: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        parts = {name: split(texts / f"{name}.txt.xz", Path(folder)) for name in TEXTS}
        kept = [part[0] for part in parts.values()]
        trained = train_ngram_model(kept, SETTINGS, list(TEXTS.values()), bar=progress_bar)
        target.mkdir(parents=True, exist_ok=True)
        trained.model().save(target / LANGUAGE_MODEL_FILE, BITS)
        made = {
            "processor_seconds": round(time.process_time()),
            "seconds": round(time.monotonic() - begun),
            "peak_memory_bytes": peak_memory(),
        }
        measured = dev_sentences(dev)
        for name, (_, held_out) in parts.items():
            measured[f"{name}, held out"] = list(read_sentences(held_out))
        measured["data/sample"] = words(u.text for u in read_manifest(SAMPLE))
        shared = shared_sentences(kept, measured)
    figures = {
        "command": COMMAND,
        **made,
        **facts(texts, target, trained),
        "texts": measure_all(target, trained, measured, shared),
    }
    (target / "metrics.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    card = target / "MODEL_CARD.md"
    card.write_text(renewed(card.read_text("utf-8"), figures), encoding="utf-8")


def split(text: Path, folder: Path) -> tuple[Path, Path]:
    """(lines to train on, every 250th line: only measured)."""
    name = text.name.removesuffix(".txt.xz")
    kept, held_out = folder / f"{name}.txt", folder / f"{name}-held-out.txt"
    with lzma.open(text, "rb") as lines, open(kept, "wb") as a, open(held_out, "wb") as b:
        for number, line in enumerate(lines):
            (b if number % HELD_OUT_EVERY == 0 else a).write(line)
    return kept, held_out


def peak_memory() -> int:
    """Bytes of this process so far; Linux counts kibibytes, macOS bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * KIBIBYTE


def dev_sentences(dev: Path) -> dict[str, Sentences]:
    utterances = read_manifest(dev)
    chosen = [u.text for u in utterances if u.speaker in DEV_SPEAKERS]
    others = [u.text for u in utterances if u.speaker not in DEV_SPEAKERS]
    speakers = sorted({str(u.speaker) for u in utterances} - {*DEV_SPEAKERS})
    return {
        f"mini-librispeech dev, speakers {' and '.join(DEV_SPEAKERS)}": words(chosen),
        f"mini-librispeech dev, speaker {' and '.join(speakers)}": words(others),
    }


def words(texts: Iterable[str]) -> Sentences:
    return [normalise_text(text).split() for text in texts]


def shared_sentences(trained_on: Iterable[Path], texts: dict[str, Sentences]) -> dict[str, int]:
    """Of each text the sentences that share eight words in a row with what was trained on."""
    wanted = {run for sentences in texts.values() for s in sentences for run in runs(s)}
    found = {
        run
        for path in trained_on
        for sentence in read_sentences(path, progress_bar)
        for run in runs(sentence)
        if run in wanted
    }
    return {
        name: sum(not found.isdisjoint(runs(s)) for s in sentences)
        for name, sentences in texts.items()
    }


def runs(sentence: Sequence[str]) -> list[tuple[str, ...]]:
    starts = range(len(sentence) - SHARED_WORDS + 1)
    return [tuple(sentence[start : start + SHARED_WORDS]) for start in starts]


def facts(texts: Path, target: Path, trained: Trained) -> dict[str, Any]:
    """What the model is and was made of."""
    file = target / LANGUAGE_MODEL_FILE
    return {
        "order": SETTINGS.order,
        "counts": trained.counts,
        "bytes": file.stat().st_size,
        "sha256": sha256_of([file]),
        "bits": BITS,
        "weights": TEXTS,
        "entropy": SETTINGS.entropy,
        "vocabulary": SETTINGS.vocabulary,
        "normaliser": NORMALISER,
        "held_out_every": HELD_OUT_EVERY,
        "shared_words": SHARED_WORDS,
        "training_words": trained.words,
        "training_oov_rate": trained.unknown_words / trained.words,
        "sources": sources(texts / "SOURCES.tsv"),
        "sources_sha256": {name: sha256_of([texts / f"{name}.txt.xz"]) for name in TEXTS},
    }


def sources(table: Path) -> list[dict[str, Any]]:
    """Of the books together, of every other source alone: number, words, licence."""
    totals: Counter[tuple[str, str, str]] = Counter()
    numbers: Counter[tuple[str, str, str]] = Counter()
    with open(table, encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            title = "books" if row["file"] == "books" else row["title"].partition(" (")[0]
            key = row["file"], title, row["licence"]
            totals[key] += int(row["words"])
            numbers[key] += 1
    return [
        {"text": key[0], "title": key[1], "licence": key[2], "number": numbers[key], "words": count}
        for key, count in totals.most_common()
    ]


def measure_all(
    target: Path, trained: Trained, texts: dict[str, Sentences], shared: dict[str, int]
) -> dict[str, dict[str, Any]]:
    stored, exact = NgramModel.load(target / LANGUAGE_MODEL_FILE), trained.model()
    return {
        name: {
            **measure(stored, sentences).to_dict(),
            "perplexity_before_rounding": measure(exact, sentences).perplexity,
            "sentences_known": shared[name],
        }
        for name, sentences in texts.items()
    }


# --- The card -------------------------------------------------------------------------------------


def renewed(card: str, figures: dict[str, Any]) -> str:
    """The card with all figures between its marks set anew."""
    head, rest = card.split(BEGIN)
    return "\n".join([head + BEGIN, *figure_lines(figures), END + rest.split(END)[1]])


def figure_lines(figures: dict[str, Any]) -> list[str]:
    return [*model_lines(figures), *source_lines(figures), *text_lines(figures)]


def model_lines(figures: dict[str, Any]) -> list[str]:
    counts = ", ".join(f"{count:,} {n}-grams" for n, count in enumerate(figures["counts"], 1))
    weights = ", ".join(f"{name} {weight:g}" for name, weight in figures["weights"].items())
    return [
        "| | |",
        "|---|---|",
        f"| trained on | {figures['training_words']:,} words, "
        f"{figures['training_oov_rate']:.2%} of them outside the vocabulary |",
        f"| weights | {weights} |",
        f"| kept | {counts} |",
        f"| pruned | what raises the perplexity by less than a share of {figures['entropy']:g} |",
        f"| file | `lm.bin`, {figures['bytes'] / 1e6:.1f} MB; numbers of n-grams of two and more "
        f"words rounded to {figures['bits']} bits |",
        f"| normaliser | `{figures['normaliser']}` |",
        f"| made in | {figures['processor_seconds']} s of one processor, with at most "
        f"{figures['peak_memory_bytes'] / 1e9:.1f} GB of memory |",
        f"| by | `{figures['command']}` |",
    ]


def source_lines(figures: dict[str, Any]) -> list[str]:
    lines = ["", "| text | source | words | licence |", "|---|---|---|---|"]
    for source in figures["sources"]:
        title = source["title"]
        if source["number"] > 1:
            title += f" ({source['number']:,})"
        lines.append(f"| {source['text']} | {title} | {source['words']:,} | {source['licence']} |")
    return lines


def text_lines(figures: dict[str, Any]) -> list[str]:
    lines = [
        "",
        "| text | perplexity | without unknown words | before rounding | unknown words "
        f"| words | sentences | of them with {figures['shared_words']} words in a row known |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in figures["texts"].items():
        lines.append(
            f"| {name} | {row['perplexity']:.1f} | {row['perplexity_without_oov']:.1f} "
            f"| {row['perplexity_before_rounding']:.1f} | {row['oov_rate']:.2%} "
            f"| {row['words']:,} | {row['sentences']:,} | {row['sentences_known']:,} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", type=Path, metavar="LMTEXT")
    parser.add_argument("target", type=Path)
    parser.add_argument("--dev", type=Path, required=True, help="manifest of mini-librispeech dev")
    arguments = parser.parse_args()
    make(arguments.texts, arguments.target, arguments.dev)


if __name__ == "__main__":
    run_command(main)
