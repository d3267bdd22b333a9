"""Neural language models on the command line: ``speech lm train --neural``, ``lm generate``."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from speech.cli_training import run_shown
from speech.progress import progress_bar

DEFAULT_LENGTH = 300
_TEXT_CACHE = "texts"  # in a run's directory


def train_neural(
    texts: Mapping[Path, float],
    output: Path,
    config: Path | None,
    settings: Sequence[str],
    resume: bool,
) -> None:
    """Train a character language model on texts (file -> passes per epoch) or the config's own.

    Ends the process with 130 where the run was stopped.
    """
    from speech.char_config import CharConfig
    from speech.recipes import load_recipe
    from speech.train_char import CharTask
    from speech.trainer import run_training

    loaded = load_recipe(CharConfig, config, settings)
    if texts:
        own = {str(path.absolute()): share for path, share in texts.items()}
        loaded = dataclasses.replace(loaded, data=dataclasses.replace(loaded.data, train=own))
    if not loaded.data.train:
        raise typer.BadParameter("needs a TEXT, or a CONFIG.toml that names some in [data.train]")
    if not loaded.data.cache:
        cache = str((output / _TEXT_CACHE).absolute())
        loaded = dataclasses.replace(loaded, data=dataclasses.replace(loaded.data, cache=cache))
    directory = config.parent if config else Path()
    train = partial(run_training, partial(CharTask, bar=progress_bar))
    run_shown(train, loaded, directory, output, resume)


def generate(
    model: Annotated[
        str, typer.Argument(metavar="LM", help="A directory that 'lm train --neural' made.")
    ],
    seed: Annotated[
        str, typer.Option(metavar="TEXT", help="A character, a word or more to go on from.")
    ] = "",
    length: Annotated[int, typer.Option(min=1, help="Characters to generate.")] = DEFAULT_LENGTH,
    temperature: Annotated[
        float, typer.Option(min=0, help="Below 1: more of the probable; 0: always the most so.")
    ] = 1.0,
    random_seed: Annotated[
        int, typer.Option(min=0, help="Of the draws: the same gives the same text.")
    ] = 0,
) -> None:
    """Let a neural language model write on from one character or word, a sentence a line.

    A seed that ends with a space is a finished word; one that does not may become a longer word.
    """
    from speech.char_language_model import CharLanguageModel
    from speech.tokenizer import normalise_text

    begun = normalise_text(seed)
    if begun and seed[-1].isspace():
        begun += " "
    written = CharLanguageModel.load(model).generate(begun, temperature, random_seed)
    print(begun, end="")
    for character in itertools.islice(written, length):
        print(character, end="", flush=True)
    print()


def is_neural(model: str) -> bool:
    """Whether a name or path is that of a neural language model."""
    from speech.char_language_model import find_char_model
    from speech.errors import ModelError

    try:
        find_char_model(model)
    except ModelError:
        return False
    return True


def print_neural_perplexity(model: str, texts: Sequence[Path], as_json: bool) -> None:
    """Print bits per character and perplexity per word of each text."""
    from speech.char_language_model import CharLanguageModel, find_char_model
    from speech.char_text import read_lines

    loaded = CharLanguageModel.load(model)
    for text in texts:
        lines = read_lines(text, loaded.tokenizer, progress_bar)
        score = loaded.measure([loaded.tokenizer.decode(row.tolist()) for row in lines.rows()])
        figures = {"lm": str(find_char_model(model)), "text": str(text), **score.to_dict()}
        if as_json:
            print(json.dumps(figures | {"left_out": lines.left_out}))
            continue
        print(
            f"{text}: perplexity {score.perplexity_per_character:.3f} per character "
            f"({score.bits_per_character:.3f} bits), {score.perplexity_per_word:.2f} per word; "
            f"{score.words} words in {score.sentences} sentences, {lines.left_out} lines left out"
        )
