"""Where the models lie that come with the package."""

from __future__ import annotations

from pathlib import Path

from speech.errors import ModelError

CONFIG_FILE = "config.toml"  # in the directory of every network
LANGUAGE_MODEL_FILE = "lm.bin"  # in the directory of a language model
CHAR_WEIGHTS_FILE = "lm.safetensors"  # in that of a neural one
CLASSIFIER_WEIGHTS_FILE = "classifier.safetensors"  # in that of a word classifier
VOICE_WEIGHTS_FILE = "voice.safetensors"  # in that of a voice-activity network


def model_directories() -> list[Path]:
    """Where names are looked for: in an installed wheel its own models, else the checkout's."""
    package = Path(__file__).resolve().parent
    bundled = package / "_models"
    return [bundled] if bundled.is_dir() else [package.parent / "models"]


def find_shipped(
    name_or_path: str | Path, kind: str, *files: str, needed: str = "a directory"
) -> Path:
    """Return the directory of a shipped model's name, or of a path to one, that has these files.

    The last of them tells models of this kind from others. Raises `ModelError` that lists the names
    there are, and says what would have been `needed` with these files.
    """
    path = Path(name_or_path)
    for candidate in (path, *(root / path for root in model_directories())):
        if all((candidate / file).is_file() for file in files):
            return candidate
    roots = [root for root in model_directories() if root.is_dir()]
    names = sorted({found.parent.name for root in roots for found in root.glob(f"*/{files[-1]}")})
    shipped = f", or one of the shipped names: {', '.join(names)}" if names else ""
    raise ModelError(
        f"no {kind} {str(name_or_path)!r}: needs {needed} with {' and '.join(files)}{shipped}"
    )
