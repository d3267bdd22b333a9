"""The recognisers that compare_recognisers.py sets side by side: calls and sizes."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from packaging.requirements import Requirement
from processes import REPOSITORY, run_children

from speech.calibration import CALIBRATION_FILE
from speech.checkpoint import TOKENS_FILE, WEIGHTS_FILE, find_model
from speech.language_model import find_language_model
from speech.manifest import Utterance, read_manifest
from speech.results import NO_LANGUAGE_MODEL, Evaluation, read_results, score_pair
from speech.shipped import CONFIG_FILE
from speech.tokenizer import NORMALISER, normalise_text

PEER_SCRIPT = REPOSITORY / "scripts" / "pocketsphinx_transcribe.py"
POCKETSPHINX = "pocketsphinx"
Figures = dict[str, Any]


class Recogniser(Protocol):
    """Something that transcribes: how it is called, and what it consists of."""

    @property
    def name(self) -> str: ...
    def identity(self) -> Figures: ...
    def transcribe(self, manifest: Path, cores: int, folder: Path) -> tuple[int, Evaluation]: ...
    def start_command(self, clip: Path) -> list[str]: ...
    def model_files(self) -> list[Path]: ...
    def requirements(self) -> list[str]: ...


@dataclasses.dataclass(frozen=True)
class Pocketsphinx:
    """One decoder a process, as many processes as cores."""

    name: str = POCKETSPHINX

    def identity(self) -> Figures:
        version = importlib.metadata.version(POCKETSPHINX)
        return {"version": version, "script": sha256(PEER_SCRIPT), "normaliser": NORMALISER}

    def transcribe(self, manifest: Path, cores: int, folder: Path) -> tuple[int, Evaluation]:
        outputs = [folder / f"share-{number}.json" for number in range(cores)]
        commands = [
            [sys.executable, str(PEER_SCRIPT), "--manifest", str(manifest),
             "--share", f"{number}/{cores}", "--output", str(output)]
            for number, output in enumerate(outputs)
        ]  # fmt: skip
        children = run_children(commands, cores, show=True)
        shares = [json.loads(output.read_text("utf-8")) for output in outputs]
        evaluation = join_shares(read_manifest(manifest), shares, self.name, sha256(manifest))
        return sum(child.peak_bytes for child in children), evaluation

    def start_command(self, clip: Path) -> list[str]:
        return [sys.executable, str(PEER_SCRIPT), str(clip)]

    def model_files(self) -> list[Path]:
        """Acoustic model, dictionary and language model; not the phone loop's, which is unused."""
        from pocketsphinx import get_model_path

        files = (Path(get_model_path()) / "en-us").rglob("*")
        return [path for path in files if path.is_file() and "phone" not in path.name]

    def requirements(self) -> list[str]:
        return [POCKETSPHINX]


@dataclasses.dataclass(frozen=True)
class Ours:
    """A model of this package, called as its users call it, a thread a core."""

    name: str
    model: str
    lm: str

    def identity(self) -> Figures:
        code = hashlib.sha256()
        for path in sorted((REPOSITORY / "speech").rglob("*.py")):
            code.update(path.read_bytes())
        torch = importlib.metadata.version("torch")
        files = {path.name: sha256(path) for path in self.model_files()}
        return {"code": code.hexdigest(), "torch": torch, "files": files}

    def _options(self) -> list[str]:
        return ["--model", self.model, "--lm", self.lm]

    def transcribe(self, manifest: Path, cores: int, folder: Path) -> tuple[int, Evaluation]:
        output = folder / "results.json"
        command = [sys.executable, "-m", "speech", "evaluate", str(manifest), *self._options(),
                   "--threads", str(cores), "--precision", "auto",  # as `speech transcribe`
                   "--json", "--output", str(output)]  # fmt: skip
        (child,) = run_children([command], cores, show=True)
        return child.peak_bytes, read_results(output)

    def start_command(self, clip: Path) -> list[str]:
        return [sys.executable, "-m", "speech", "transcribe", str(clip), *self._options()]

    def model_files(self) -> list[Path]:
        """What recognition reads: the model's files; of a language model, it and its tuning."""
        directory = find_model(self.model)
        names = (CONFIG_FILE, TOKENS_FILE, WEIGHTS_FILE, CALIBRATION_FILE)
        files = [directory / name for name in names if (directory / name).is_file()]
        if self.lm == NO_LANGUAGE_MODEL:
            return files
        lm = find_language_model(self.lm)
        return [*files, lm, *sorted(lm.parent.glob("*tuning.json"))]

    def requirements(self) -> list[str]:
        project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
        return list(project["dependencies"])


def parse_recogniser(name: str) -> Recogniser:
    """Return what a name on the command line means; `SpeechError` if there is no such thing."""
    if name == POCKETSPHINX:
        return Pocketsphinx()
    model, plus, lm = name.rpartition("+")
    ours = Ours(name, model if plus else name, lm if plus else NO_LANGUAGE_MODEL)
    ours.model_files()
    return ours


def join_shares(
    utterances: Sequence[Utterance], shares: Sequence[Figures], name: str, manifest_sha256: str
) -> Evaluation:
    """Return the evaluation of texts that came from processes side by side; the slowest counts."""
    texts = {int(index): text for share in shares for index, text in share["texts"].items()}
    seconds = {int(index): one for share in shares for index, one in share["seconds"].items()}
    scores = tuple(
        score_pair(utterance.id, normalise_text(utterance.text), normalise_text(texts[index]),
                   speaker=utterance.speaker, duration=seconds[index])
        for index, utterance in enumerate(utterances)
    )  # fmt: skip
    wall = max(share["wall_seconds"] for share in shares)
    return Evaluation(scores, sum(seconds.values()), wall, name, manifest_sha256)


# --- Sizes ----------------------------------------------------------------------------------------


def measure_size(recogniser: Recogniser) -> Figures:
    """Bytes of the model's files, and of everything that pip installs to run it."""
    model = sum(path.stat().st_size for path in recogniser.model_files())
    names = distributions(recogniser.requirements())
    files = [file.locate() for name in names for file in importlib.metadata.files(name) or ()]
    installed = sum(os.path.getsize(file) for file in files if os.path.isfile(file))
    return {"model_bytes": model, "installed_bytes": installed, "distributions": sorted(names)}


def distributions(requirements: Sequence[str]) -> set[str]:
    """Return the names of installed distributions that the requirements ask for, all the way."""
    found: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        one = waiting.pop()
        name = one.name.lower().replace("_", "-")
        if name in found or (one.marker and not one.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        waiting += [Requirement(text) for text in importlib.metadata.requires(name) or ()]
    return found


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
