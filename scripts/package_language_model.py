"""Make a training run of ``speech lm train --neural`` a shipped model.

    python scripts/package_language_model.py RUN models/NAME TEXT...

Writes lm.safetensors (float16), tokens.txt, curves.png and metrics.json (the figures of
``speech lm perplexity`` for each held-out text) into models/NAME. The config there is the recipe
and stays as it is.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from command import read_json, run_command

from speech.char_config import CharConfig
from speech.char_language_model import CharLanguageModel
from speech.char_text import read_lines
from speech.config import config_differences, dump_config, load_config_of
from speech.errors import SpeechError
from speech.report import plot_curves
from speech.run import BEST_MODEL, CURVES, HISTORY
from speech.shipped import CONFIG_FILE
from speech.train_char import CharTask

PLACES = {"data.root", "data.cache"}  # where files lie is no part of a recipe


def package(run: Path, target: Path, texts: list[Path]) -> None:
    recipe = (target / CONFIG_FILE).read_text(encoding="utf-8")
    model = CharLanguageModel.load(run / BEST_MODEL)
    wanted = load_config_of(CharConfig, target / CONFIG_FILE)
    if differences := config_differences(dump_config(model.config), wanted) - PLACES:
        raise SpeechError(f"{run} was not trained by {target / CONFIG_FILE}: {differences}")
    model.save(target, torch.float16)
    (target / CONFIG_FILE).write_text(recipe, encoding="utf-8")
    history = read_json(run / HISTORY)
    plot_curves(history, target / CURVES, CharTask.curves)
    shipped = CharLanguageModel.load(target)
    figures = {text.name: figures_of(shipped, text) for text in texts}
    (target / "metrics.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=1))


def figures_of(model: CharLanguageModel, text: Path) -> dict[str, float]:
    lines = read_lines(text, model.tokenizer)
    score = model.measure([model.tokenizer.decode(row.tolist()) for row in lines.rows()])
    return score.to_dict() | {"left_out": lines.left_out}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("texts", nargs="*", type=Path)
    arguments = parser.parse_args()
    package(arguments.run, arguments.target, arguments.texts)


if __name__ == "__main__":
    run_command(main)
