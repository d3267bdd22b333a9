"""What an installation has: versions, processor, devices, models."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

import speech
from speech.checkpoint import DEFAULT_MODEL, find_model, load_model
from speech.errors import SpeechError
from speech.precision import describe_precision
from speech.workers import default_device, usable_cores

_PACKAGES = ("torch", "torchaudio", "numpy", "soundfile", "av", "soxr")


def diagnose() -> dict[str, str]:
    """Return facts about this installation by name; a fact that fails says how."""
    facts = {
        "speech": speech.__version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
    }
    facts |= {name: _version(name) for name in _PACKAGES}
    facts["cores"] = f"{usable_cores()} usable, {torch.get_num_threads()} torch threads"
    facts["GPU"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "none usable"
    return facts | _model_facts()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "MISSING"


def _model_facts() -> dict[str, str]:
    """What the default model is, and the arithmetic that ``--precision auto`` gives it here."""
    try:
        model = load_model(DEFAULT_MODEL)
    except SpeechError as error:
        return {"default model": f"NOT USABLE: {error}"}
    parameters = sum(p.numel() for p in model.network.parameters())
    device = default_device()
    model.modules().to(device)
    return {
        "default model": f"{find_model(DEFAULT_MODEL)} ({parameters:,} parameters)",
        "precision auto": describe_precision(model, device),
    }
