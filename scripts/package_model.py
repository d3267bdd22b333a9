"""Make a training run a shipped model: half-precision weights, measured figures, card.

    python scripts/package_model.py RUN models/NAME --root DIR MANIFEST...

Writes model.safetensors (float16), tokens.txt, curves.png and metrics.json (the figures of
``speech evaluate`` for each manifest, named by its path below DIR) into models/NAME, and renews the
table in its MODEL_CARD.md. The config there is the recipe and stays as it is.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from command import read_json, run_command

from speech.checkpoint import load_model, save_model
from speech.config import config_differences, dump_config, load_config
from speech.decoder import GREEDY
from speech.errors import SpeechError
from speech.evaluate import evaluate
from speech.report import plot_curves
from speech.run import BEST_MODEL, CURVES, HISTORY
from speech.shipped import CONFIG_FILE
from speech.train import RECOGNISER_CURVES
from speech.transcribe import Recogniser

TABLE_BEGIN, TABLE_END = "<!-- metrics.json begins -->", "<!-- metrics.json ends -->"
PLACES = {"data.root", "data.cache", "train.init_from"}  # where files lie is no part of a recipe


def package(run: Path, target: Path, root: Path, manifests: list[str], stages: list[Path]) -> None:
    recipe = (target / CONFIG_FILE).read_text(encoding="utf-8")
    model = load_model(run / BEST_MODEL)
    differences = config_differences(dump_config(model.config), load_config(target / CONFIG_FILE))
    if differences - PLACES:
        raise SpeechError(
            f"{run} was not trained by {target / CONFIG_FILE}: {differences - PLACES}"
        )
    save_model(target, model, torch.float16)
    (target / CONFIG_FILE).write_text(recipe, encoding="utf-8")
    plot_curves(joined_history([*stages, run]), target / CURVES, RECOGNISER_CURVES)
    recogniser = Recogniser.load(target, options=GREEDY)
    figures = {}
    for name in manifests:
        result = evaluate([root / name], recogniser, target.name).to_dict()
        figures[name.removesuffix(".jsonl")] = result
        print(f"{name}: WER {result['wer']:.2%}, {result['words']} words")
    (target / "metrics.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    write_table(target / "MODEL_CARD.md", figures)


def joined_history(runs: list[Path]) -> list[dict[str, float]]:
    """The epochs of runs that began with one another's weights, counted through."""
    rows = [row for run in runs for row in read_json(run / HISTORY)]
    return [row | {"epoch": number} for number, row in enumerate(rows, 1)]


def write_table(card: Path, figures: dict[str, dict[str, object]]) -> None:
    rows = ["| manifest | WER % | 95 % interval | CER % | words |", "|---|---|---|---|---|"]
    for name, row in figures.items():
        low, high = row["wer_interval"]
        rows.append(
            f"| {name} | {row['wer']:.2%} | {low:.2%} to {high:.2%} | {row['cer']:.2%} "
            f"| {row['words']} |".replace("%", "")
        )
    head, rest = card.read_text(encoding="utf-8").split(TABLE_BEGIN)
    tail = rest.split(TABLE_END)[1]
    table = "\n".join([TABLE_BEGIN, *rows, TABLE_END])
    card.write_text(f"{head}{table}{tail}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--root", type=Path, required=True, help="what the manifests lie below")
    parser.add_argument("--stage", type=Path, action="append", default=[], dest="stages",
                        metavar="RUN", help="an earlier run, in order, for the curves")  # fmt: skip
    parser.add_argument("manifests", nargs="+")
    arguments = parser.parse_args()
    package(arguments.run, arguments.target, arguments.root, arguments.manifests, arguments.stages)


if __name__ == "__main__":
    run_command(main)
