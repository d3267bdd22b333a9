"""Recipes given to the command they are for, and to others."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from speech.char_config import CharConfig
from speech.classifier_config import ClassesConfig, ClassifierConfig
from speech.config import Config, dump_config
from speech.errors import ConfigError
from speech.forecast_config import ForecastConfig
from speech.recipes import COMMANDS, load_recipe
from speech.voice_config import VoiceConfig

RECIPES = (
    Config(),
    ForecastConfig(),
    ClassifierConfig(ClassesConfig(words=("yes", "no"))),
    VoiceConfig(),
    CharConfig(),
)


@pytest.mark.parametrize(("written", "asked"), list(permutations(RECIPES, 2)))
def test_a_recipe_for_another_command_names_it(written: Any, asked: Any, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(dump_config(written))
    assert load_recipe(type(written), path) == written
    with pytest.raises(ConfigError) as raised:
        load_recipe(type(asked), path)
    needed, got = COMMANDS[type(asked)], COMMANDS[type(written)]
    assert str(raised.value) == f"{path}: needs a recipe for `{needed}`, got one for `{got}`"


def test_a_misspelt_table_of_another_recipe_does_not_hide_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("[forecast]\nsteps = 2\n[train]\nepoch = 3\n")
    with pytest.raises(ConfigError, match="got one for `speech pretrain`"):
        load_recipe(Config, path)


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("[train]\nepoch = 3\n", (), "did you mean 'epochs'?"),
        ("[train]\nepochs = 3\n", ("forecast.steps=2",), "unknown table"),
        ("[train]\nepochs = 0\n", (), "epochs above zero"),
        ("[train\n", (), "not valid TOML"),
    ],
)
def test_other_mistakes_are_told_as_they_are(
    text: str, overrides: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_recipe(Config, path, overrides)
    assert message in str(raised.value)


def test_without_a_file_there_are_the_defaults() -> None:
    assert load_recipe(CharConfig, None) == CharConfig()
    with pytest.raises(ConfigError, match="epochs above zero"):
        load_recipe(CharConfig, None, ["train.epochs=0"])


def test_what_tables_need_of_each_other_is_told_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("[train]\nepochs = 3\n")
    with pytest.raises(ConfigError, match=r"recipe\.toml: needs at least one of words"):
        load_recipe(ClassifierConfig, path)
