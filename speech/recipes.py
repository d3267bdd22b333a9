"""What can be trained, each from a recipe of its own kind by a command of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from speech.char_config import CharConfig
from speech.classifier_config import ClassifierConfig
from speech.config import Config, load_config_of, read_tables, unknown_keys
from speech.errors import ConfigError
from speech.forecast_config import ForecastConfig
from speech.voice_config import VoiceConfig

R = TypeVar("R", Config, ForecastConfig, ClassifierConfig, VoiceConfig, CharConfig)

COMMANDS: dict[type[object], str] = {
    Config: "speech train",
    ForecastConfig: "speech pretrain",
    ClassifierConfig: "speech classify train",
    VoiceConfig: "speech voice train",
    CharConfig: "speech lm train --neural",
}


def load_recipe(kind: type[R], path: Path | None, overrides: Sequence[str] = ()) -> R:
    """Read a recipe as `load_config_of` does; raise `ConfigError` where it is for another command.

    A recipe is for the command that knows most of its keys.
    """
    try:
        return load_config_of(kind, path, overrides)
    except ConfigError:
        command = command_for(path, kind) if path is not None else COMMANDS[kind]
        if command == COMMANDS[kind]:
            raise
    raise ConfigError(f"{path}: needs a recipe for `{COMMANDS[kind]}`, got one for `{command}`")


def command_for(path: Path, kind: type[object]) -> str:
    """Return the command that knows most keys of a recipe; that of `kind` if no other knows more.

    Raises `ConfigError` where the file is no TOML.
    """
    tables = read_tables(path)
    unknown = {one: len(unknown_keys(one, tables)) for one in (kind, *COMMANDS)}
    return COMMANDS[min(unknown, key=unknown.__getitem__)]
