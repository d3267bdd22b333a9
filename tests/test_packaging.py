"""What gets installed: the wheel with its default model, the pins, the Makefile's one install."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from email.message import Message
from email.parser import Parser
from pathlib import Path
from types import ModuleType

import pytest

import speech

REPOSITORY = Path(__file__).parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
MODEL = "base"
MODEL_FILES = {"config.toml", "model.safetensors", "tokens.txt", "MODEL_CARD.md", "metrics.json"}
LANGUAGE_MODEL = "english"
LANGUAGE_MODEL_FILES = {"lm.bin", "MODEL_CARD.md", "metrics.json"}
CLASSIFIER_FILES = {"config.toml", "classifier.safetensors", "MODEL_CARD.md", "metrics.json"}
VOICE_FILES = {"config.toml", "voice.safetensors", "MODEL_CARD.md", "metrics.json"}
SHIPPED = {
    MODEL: MODEL_FILES,
    "streaming": MODEL_FILES,
    LANGUAGE_MODEL: LANGUAGE_MODEL_FILES,
    "digits": CLASSIFIER_FILES,
    "voice": VOICE_FILES,
}


def package_files() -> set[str]:
    """Return the files of speech/ that belong into a wheel, as its names for them."""
    paths = (path for path in (REPOSITORY / "speech").rglob("*") if path.is_file())
    kept = (path for path in paths if "__pycache__" not in path.parts)
    return {path.relative_to(REPOSITORY).as_posix() for path in kept}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what setuptools reads, with models of empty files in place of real ones."""
    tree = tmp_path_factory.mktemp("tree").resolve()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, tree)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("speech", "scripts", "tests"):
        shutil.copytree(REPOSITORY / name, tree / name, ignore=ignored)
    for model, files in {**SHIPPED, "another": MODEL_FILES}.items():
        (tree / "models" / model).mkdir(parents=True)
        for name in files:
            (tree / "models" / model / name).touch()
    return tree


def build(tree: Path, kind: str, output: Path) -> Path:
    """Return the ``wheel`` or ``sdist`` that the backend builds, as pip does, without a network."""
    code = f"import sys; from setuptools import build_meta as b; b.build_{kind}(sys.argv[1])"
    command = [sys.executable, "-c", code, str(output)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "would be ignored" not in done.stdout + done.stderr  # setuptools on unlisted packages
    (path,) = output.iterdir()
    return path


@pytest.fixture(scope="module")
def installed(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel: what `pip install` puts into site-packages."""
    wheel = build(tree, "wheel", tmp_path_factory.mktemp("wheel"))
    site = tmp_path_factory.mktemp("site").resolve()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


@pytest.fixture(scope="module")
def metadata(installed: Path) -> Message:
    (path,) = installed.glob("*.dist-info/METADATA")
    return Parser().parsestr(path.read_text("utf-8"))


@pytest.fixture
def find_model_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path], Path]:
    """What `find_model` answers where the package lies in a given folder, called from elsewhere."""

    def load(folder: Path, name: str) -> ModuleType:
        path = folder / "speech" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"speech.{name}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    def find(folder: Path) -> Path:
        monkeypatch.chdir(tmp_path)
        load(folder, "shipped")
        return Path(load(folder, "checkpoint").find_model(MODEL))

    return find


def test_wheel_holds_the_package_and_nothing_beside_it(installed: Path) -> None:
    names = {path.relative_to(installed).as_posix() for path in installed.rglob("*.*")}
    files = {name for name in names if (installed / name).is_file()}
    code = {name for name in files if name.startswith("speech/") and "/_models/" not in name}
    assert code == package_files()
    assert "speech/py.typed" in code
    tops = sorted(path.name for path in installed.iterdir())
    assert tops == [f"lstm_speech-{speech.__version__}.dist-info", "speech"]


def test_wheel_carries_the_default_models_only(installed: Path) -> None:
    models = (installed / "speech" / "_models").iterdir()
    assert {path.name: {file.name for file in path.iterdir()} for path in models} == SHIPPED


def test_installed_package_finds_its_model(
    installed: Path, find_model_in: Callable[[Path], Path]
) -> None:
    assert find_model_in(installed) == installed / "speech" / "_models" / MODEL


def test_checkout_finds_its_model(tree: Path, find_model_in: Callable[[Path], Path]) -> None:
    assert find_model_in(tree) == tree / "models" / MODEL


def test_models_of_another_project_are_not_ours(
    installed: Path, tmp_path: Path, find_model_in: Callable[[Path], Path]
) -> None:
    """A top-level ``models`` beside the installed package belongs to somebody else."""
    site = shutil.copytree(installed, tmp_path.resolve() / "site")
    shutil.copytree(site / "speech" / "_models", site / "models")
    assert find_model_in(site) == site / "speech" / "_models" / MODEL


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_model_is_complete(name: str) -> None:
    assert {path.name for path in (REPOSITORY / "models" / name).iterdir()} >= SHIPPED[name]


def test_source_distribution_carries_the_models(tree: Path, tmp_path: Path) -> None:
    archive = build(tree, "sdist", tmp_path)
    with tarfile.open(archive) as files:
        paths = [Path(name) for name in files.getnames()]
    for model, wanted in SHIPPED.items():
        assert {path.name for path in paths if path.parent.name == model} == wanted


def test_metadata(metadata: Message, installed: Path) -> None:
    assert metadata["Name"] == "lstm-speech"
    assert metadata["Version"] == speech.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    (entry_points,) = installed.glob("*.dist-info/entry_points.txt")
    assert "speech = speech.cli:main" in entry_points.read_text("utf-8")
    assert list(installed.glob("*.dist-info/licenses/LICENSE"))


def test_torch_and_torchaudio_are_one_pair(metadata: Message) -> None:
    requires = metadata.get_all("Requires-Dist") or []
    assert len(requires) >= 14
    pair = sorted(line for line in requires if line.startswith("torch"))
    assert pair == ["torch==2.11.*", "torchaudio==2.11.*"]


def test_every_extra_adds_something(metadata: Message) -> None:
    requires = metadata.get_all("Requires-Dist") or []
    extras = metadata.get_all("Provides-Extra") or []
    assert len(extras) >= 2
    for extra in extras:
        assert any(f'extra == "{extra}"' in line for line in requires), extra


def test_constraints_name_every_requirement_once() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*", pin) for pin in pins)
    names = [pin.split("==")[0] for pin in pins]
    assert names == sorted(set(names))
    extras = PROJECT["optional-dependencies"].values()
    wanted = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    packages = {re.split(r"[^\w-]", line)[0] for line in wanted}
    assert packages - {PROJECT["name"]} <= set(names)  # an extra may hold another one


STUB = """#!/bin/sh
# Stands for Python: writes down how it is called, and makes an environment that does the same.
case "$*" in
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip "*) echo "pip ${*##*editable }" >> "$STUB_LOG" ;;
    "-m pytest"*) echo "pytest" >> "$STUB_LOG" ;;
esac
"""


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_installs_once(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, tmp_path)
    stub, log = tmp_path / "python", tmp_path / "log"
    stub.write_text(STUB)
    stub.chmod(0o755)
    environment = os.environ | {"STUB_LOG": str(log)}

    def calls_after(target: str) -> list[str]:
        log.write_text("")
        command = ["make", target, f"PYTHON={stub}"]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
        return log.read_text().splitlines()

    assert calls_after("test") == ["pip .[test]", "pytest"]
    assert calls_after("test") == ["pytest"]
    assert calls_after(".venv/.installed") == []
    os.utime(tmp_path / "pyproject.toml", (4e9, 4e9))  # a change, later than every stamp
    assert calls_after("test") == ["pip .[test]", "pytest"]


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_without_a_python_says_so_in_one_line(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, tmp_path)
    command = ["make", "--silent", "test", "PYTHON=/no/such/python"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "no Python 3.11 or newer" in done.stderr
    assert not (tmp_path / ".venv").exists()
