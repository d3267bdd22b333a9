"""Make a run of speech classify train a shipped model: half-precision weights, figures, card.

    python scripts/package_classifier.py RUN models/NAME --root DIR

Writes classifier.safetensors (float16), curves.png and metrics.json (what the classifier does on
data.test of the config, on held-out words, and on sounds) into models/NAME, and renews the table in
its MODEL_CARD.md. The config there is the recipe and stays as it is; its threshold may be another
than the run's.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import torch
from command import read_json, run_command
from package_model import PLACES, TABLE_BEGIN, TABLE_END

from speech.classifier import Classifier
from speech.config import config_differences, dump_config
from speech.errors import SpeechError
from speech.report import plot_curves
from speech.run import BEST_MODEL, CURVES, HISTORY
from speech.shipped import CONFIG_FILE
from speech.study_classification import Recipe, recipe_figures
from speech.study_plots import plot_confusion
from speech.train_classifier import ClassifierTask

FREE = PLACES | {"classes.threshold", "data.test"}  # what training does not know of


def package(run: Path, target: Path, root: Path) -> None:
    text = (target / CONFIG_FILE).read_text(encoding="utf-8")
    recipe = Recipe.read(target / CONFIG_FILE, [f"data.root={root.absolute()}"], False)
    trained = Classifier.load(run / BEST_MODEL)
    differences = config_differences(dump_config(trained.config), recipe.config) - FREE
    if differences:
        raise SpeechError(f"{run} was not trained by {target / CONFIG_FILE}: {differences}")
    trained.save(target, torch.float16)
    (target / CONFIG_FILE).write_text(text, encoding="utf-8")
    history = read_json(run / HISTORY)
    plot_curves(history, target / CURVES, ClassifierTask.curves)
    shipped = dataclasses.replace(Classifier.load(target), config=recipe.config)
    figures = recipe_figures(recipe, shipped)
    (target / "metrics.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    test, of_test = next(iter(figures["tests"].items()))
    plot_confusion({f"{target.name}: {test}": of_test}, target / "confusion.png")
    write_table(target / "MODEL_CARD.md", figures)


def write_table(card: Path, figures: dict[str, object]) -> None:
    rows = [
        "| recordings | count | accuracy % | 95 % interval | words called unknown % "
        "| others taken for a word % |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in figures["tests"].items():
        low, high = (f"{100 * bound:.2f}" for bound in row["accuracy_interval"])
        rows.append(
            f"| {name} | {row['utterances']} | {100 * row['accuracy']:.2f} | {low} to {high} "
            f"| {percent(row['false_rejection'])} | {percent(row['false_acceptance'])} |"
        )
    for name, row in figures["false_acceptance"].items():
        rows.append(f"| {name} | {row['recordings']} | | | | {percent(row['rate'])} |")
    head, rest = card.read_text(encoding="utf-8").split(TABLE_BEGIN)
    tail = rest.split(TABLE_END)[1]
    table = "\n".join([TABLE_BEGIN, *rows, TABLE_END])
    card.write_text(f"{head}{table}{tail}", encoding="utf-8")


def percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--root", type=Path, required=True, help="what the manifests lie below")
    arguments = parser.parse_args()
    package(arguments.run, arguments.target, arguments.root)


if __name__ == "__main__":
    run_command(main)
