"""Where the models lie that come with the package."""

from __future__ import annotations

from pathlib import Path

LANGUAGE_MODEL_FILE = "lm.bin"  # in the directory of a language model
CHAR_WEIGHTS_FILE = "lm.safetensors"  # in that of a neural one
CLASSIFIER_WEIGHTS_FILE = "classifier.safetensors"  # in that of a word classifier
VOICE_WEIGHTS_FILE = "voice.safetensors"  # in that of a voice-activity network


def model_directories() -> list[Path]:
    """Where names are looked for: in an installed wheel its own models, else the checkout's."""
    package = Path(__file__).resolve().parent
    bundled = package / "_models"
    return [bundled] if bundled.is_dir() else [package.parent / "models"]
