"""The layers of the package: imports point down, torch and printing stay where they belong.

Every import statement counts: at the top, inside a function, or under ``TYPE_CHECKING``.
"""

from __future__ import annotations

import ast
import graphlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import speech

PACKAGE = Path(speech.__file__).parent
REPOSITORY = Path(__file__).parent.parent

# A module may import those of the rows above its own line here, and none of its own row; only
# corpora, which stands for all modules of that package, sees its own.
LAYERS = (
    ("errors",),
    ("audio_source", "collector", "environment", "whole_file"),
    ("audio_ffmpeg", "audio_libsndfile"),
    ("config", "audio", "tokenizer", "manifest", "metrics", "transcript", "confidence", "stop"),
    ("shipped", "arpa", "array_file", "ngram_compact", "onnx_runner"),
    ("signal_to_noise", "nonspeech", "provenance", "voice_activity", "download", "unpack"),
    ("join", "recordings", "read_ahead", "shards", "archive", "cut", "voice_mixture"),
    ("features", "augment", "decode", "segment", "bootstrap", "calibration", "corpora"),
    ("isolated_audio", "openai_format"),
    (
        "language_model",
        "lexicon",
        "results",
        "alignment",
        "words",
        "char_config",
        "forecast_config",
        "classification",
        "classifier_config",
        "voice_config",
    ),
    ("word_times", "recipes"),
    ("hot_words", "prefix_trie"),
    ("prefix_space",),
    ("prefix_worth",),
    ("prefix_search",),
    ("beam",),
    ("beam_stream",),
    ("beam_search", "tuning"),
    ("decoder",),
    ("compare", "error_tables", "perplexity", "lm_text", "ngram_levels", "ngram_counts"),
    ("ngram", "ngram_prune"),
    ("lm_train",),
    ("layers", "cells"),
    ("model", "workers", "optimiser", "batching"),
    ("dataset", "check", "char_text", "gradients"),
    ("checkpoint",),
    (
        "char_language_model",
        "run",
        "network_stream",
        "onnx_graph",
        "precision",
        "classifier",
        "class_data",
        "voice_network",
        "plan",
    ),
    ("rescore", "forecast", "export"),
    ("transcribe", "shared_batches"),
    ("evaluate", "tune", "report", "validate", "utterance_view", "hallucinations", "cluster"),
    ("live", "server_metrics"),
    ("streaming",),
    ("service", "http_guard", "uploads", "measure_stream"),
    ("live_session",),
    ("serve_app",),
    ("report_page", "task"),
    ("agreement",),
    ("trainer",),
    (
        "train",
        "train_char",
        "train_classifier",
        "train_voice",
        "pretrain",
        "serve",
        "doctor",
        "calibrate",
    ),
    ("stages", "plan_measurement", "study", "study_plots", "study_tables"),
    ("study_results",),
    (
        "study_classification",
        "study_cells",
        "study_initialisation",
        "study_gradients",
        "study_pretraining",
        "study_voice",
    ),
    ("progress", "cli_options"),
    ("cli_training",),
    ("cli_neural", "cli_decoding"),
    ("cli_tune", "cli_cluster"),
    ("cli_live", "cli_export"),
    (
        "cli_evaluate",
        "cli_lm",
        "cli_prepare",
        "cli_serve",
        "cli_calibrate",
        "cli_transcribe",
        "cli_study",
        "cli_pretrain",
        "cli_classify",
        "cli_voice",
        "cli_train",
    ),
    ("cli",),
    ("__main__",),
)
TORCH_FREE_LAYERS = 20  # of these rows only the next two may use torch
TORCH_EXCEPTIONS = ("features", "augment")
TORCH = {"torch", "torchaudio", "safetensors", "tensorboard"}
OWNERS = {  # third-party package: the only modules that may import it
    "soundfile": ("audio", "audio_libsndfile"),
    "av": ("audio_ffmpeg",),
    "soxr": ("audio", "live_session"),
    "fastapi": ("serve", "serve_app"),
    "starlette": ("http_guard", "live_session", "serve_app", "uploads"),
    "uvicorn": ("serve",),
    "prometheus_client": ("server_metrics",),
    "onnx": ("onnx_graph",),
    "onnxruntime": ("export", "onnx_runner"),
    "num2words": ("tokenizer",),
    "typer": (
        "cli",
        "cli_calibrate",
        "cli_classify",
        "cli_decoding",
        "cli_evaluate",
        "cli_export",
        "cli_live",
        "cli_lm",
        "cli_neural",
        "cli_options",
        "cli_prepare",
        "cli_serve",
        "cli_train",
        "cli_transcribe",
        "cli_study",
        "cli_tune",
        "cli_voice",
    ),
    "sounddevice": ("cli_live",),
    "rich": ("progress",),
    "PIL": ("study_plots",),
    "ray": ("cluster",),
}
DISTRIBUTIONS = {"PIL": "pillow"}  # packages that are installed by another name
PRINTERS = (
    "cli", "cli_calibrate", "cli_classify", "cli_cluster", "cli_decoding", "cli_evaluate",
    "cli_export", "cli_live", "cli_lm", "cli_neural", "cli_prepare", "cli_serve",
    "cli_study", "cli_train", "cli_training", "cli_transcribe", "cli_tune", "cli_voice",
    "onnx_runner", "progress",
)  # fmt: skip
PRINTING_NAMES = {"print", "input", "exit", "quit", "SystemExit"}
PRINTING_ATTRIBUTES = {"sys.exit", "sys.stdout", "sys.stderr", "os._exit"}
HELP_LIBRARY_SHARES = 2.2


def module_name(path: Path) -> str:
    """Return the dotted name inside the package: ``corpora.fsdd``; the package itself is ``""``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = [name for name in SOURCES if name]
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in SOURCES.items()}


def absolute_names(node: ast.AST, package: list[str]) -> list[str]:
    """Return the dotted names that `node` imports, seen from inside ``package``."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        above = package[: len(package) - node.level + 1] if node.level else []
        origin = ".".join([*above, *([node.module] if node.module else [])])
        return [f"{origin}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and dotted(node.func).endswith(("import_module", "__import__")):
        return called_import(node)
    return []


def called_import(call: ast.Call) -> list[str]:
    """Return what `import_module` may import: of a computed name, all that begin as it does."""
    name = call.args[0] if call.args else None
    if isinstance(name, ast.JoinedStr) and isinstance(name.values[0], ast.Constant):
        prefix = str(name.values[0].value)
        found = [f"speech.{m}" for m in MODULES if f"speech.{m}".startswith(prefix)]
        assert found, f"line {call.lineno}: imports something of {prefix!r}"
        return found
    assert isinstance(name, ast.Constant), f"line {call.lineno}: a computed import"
    return [str(name.value)]


def dotted(node: ast.AST) -> str:
    """Return ``a.b.c`` for a chain of attributes, ``""`` for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and dotted(node.value):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def read_imports(tree: ast.AST, package: list[str]) -> tuple[set[str], set[str]]:
    """Return the package's own modules that a tree imports, and other top-level packages."""
    names = [name for node in ast.walk(tree) for name in absolute_names(node, package)]
    own = {name.removeprefix("speech.") for name in names if name.startswith("speech.")}
    other = {name.split(".")[0] for name in names} - {"speech"}
    # `from speech.audio import load_audio` reads as audio.load_audio: cut back to a module
    return {name if name in SOURCES else name.rpartition(".")[0] for name in own}, other


def imports_of(module: str) -> tuple[set[str], set[str]]:
    inside = ["speech", *module.split(".")] if module else ["speech"]
    is_package = SOURCES[module].name == "__init__.py"
    return read_imports(TREES[module], inside if is_package else inside[:-1])


def row(module: str) -> int:
    """Return the layer of a module; the bare package, which imports nothing, is below all."""
    if not module:
        return -1
    rows = [number for number, names in enumerate(LAYERS) if module.split(".")[0] in names]
    assert len(rows) == 1, f"speech/{module}: give it one place in LAYERS"
    return rows[0]


def may_import(module: str, imported: str) -> bool:
    """Whether the layers allow it; within a row only the package corpora sees its own modules."""
    return row(imported) < row(module) or (module == "corpora" and imported.startswith("corpora."))


def test_reader_sees_every_kind_of_import() -> None:
    source = """
import speech.audio as a
from speech import errors
from speech.config import load_config
from . import decode
from ..speech import metrics
if TYPE_CHECKING:
    from speech.model import AcousticModel
def later():
    import torch.nn, numpy
    import_module("speech.train")
    importlib.import_module("soundfile")
"""
    own, other = read_imports(ast.parse(source), ["speech"])
    expected = {"audio", "errors", "config", "decode", "model", "train"}
    assert own - {""} >= expected & set(MODULES)
    assert other >= {"torch", "numpy", "soundfile"}
    own, _ = read_imports(ast.parse('import_module(f"speech.tok{name}")'), ["speech"])
    assert own == {"tokenizer"}
    for computed in ("import_module(name)", 'import_module(f"{name}.x")'):
        with pytest.raises(AssertionError, match="computed import"):
            read_imports(ast.parse(computed), ["speech"])


def test_layers_refuse_what_points_up_or_sideways() -> None:
    assert may_import("audio", "errors")
    assert may_import("corpora", "corpora.fsdd")
    assert may_import("cli", "train")
    assert not may_import("audio", "manifest")
    assert not may_import("audio", "features")
    assert not may_import("corpora.fsdd", "corpora")
    assert not may_import("corpora.fsdd", "corpora.librispeech")


def test_every_file_is_seen() -> None:
    files = [
        os.path.join(folder, name)
        for folder, _, names in os.walk(PACKAGE)
        for name in names
        if name.endswith(".py")
    ]
    assert len(TREES) == len(files) >= 20
    assert len(TREES) == len(MODULES) + 1


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    own, _ = imports_of(module)
    wrong = sorted(name for name in own if not may_import(module, name))
    assert not wrong, f"speech.{module} (layer {row(module)}) may not import {wrong}"


def test_package_itself_imports_nothing() -> None:
    assert imports_of("") == (set(), set())


def test_there_is_no_cycle() -> None:
    graph = {module: imports_of(module)[0] for module in SOURCES}
    assert sum(len(imported) for imported in graph.values()) > len(graph)
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("module", MODULES)
def test_other_packages_stay_where_they_belong(module: str) -> None:
    _, other = imports_of(module)
    if row(module) < TORCH_FREE_LAYERS and module not in TORCH_EXCEPTIONS:
        assert not other & TORCH, f"speech.{module} has to work without torch"
    if row(module) == 0:
        assert other <= sys.stdlib_module_names
    strangers = sorted(name for name in other if module not in OWNERS.get(name, (module,)))
    assert not strangers, f"speech.{module} imports {strangers}: see OWNERS"


def test_every_other_package_is_declared() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = ("serve", "microphone", "cluster", "onnx")
    lines = [*project["dependencies"], *(line for name in wanted for line in extras[name])]
    declared = {re.split(r"[^\w-]", line)[0].replace("-", "_") for line in lines}
    imported = set().union(*(imports_of(module)[1] for module in MODULES))
    imported = {DISTRIBUTIONS.get(name, name) for name in imported}
    assert imported - sys.stdlib_module_names <= declared


def printing(tree: ast.AST) -> list[tuple[int, str]]:
    """Return where a tree prints, exits or touches the standard streams, as (line, what)."""
    found = []
    for node in ast.walk(tree):
        name = dotted(node)
        if name in PRINTING_ATTRIBUTES or (isinstance(node, ast.Name) and name in PRINTING_NAMES):
            found.append((node.lineno, name))
    return sorted(found)


def test_printing_is_found() -> None:
    source = "print(1)\nsys.exit(2)\nraise SystemExit\nsys.stderr.write(s)\nmodel.exit()\n"
    assert [line for line, _ in printing(ast.parse(source))] == [1, 2, 3, 4]


@pytest.mark.parametrize("module", [name for name in MODULES if name not in PRINTERS])
def test_only_the_command_line_prints_or_exits(module: str) -> None:
    assert not printing(TREES[module]), f"speech.{module}: raise an error or return a value"


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with this package first on the path, wherever it is installed."""
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, check=True
    )


def loaded_after(code: str) -> set[str]:
    """Return the top-level modules in memory after a fresh interpreter ran `code`."""
    lines = f"{code}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    return set(run_python("-c", lines).stdout.splitlines()[-1].split())


def test_import_speech_is_light() -> None:
    assert not loaded_after("import speech") & (TORCH | {"numpy", "librosa", "typer"})


def test_modules_of_the_first_layers_load_no_torch() -> None:
    light = [
        name for name in MODULES if row(name) < TORCH_FREE_LAYERS and name not in TORCH_EXCEPTIONS
    ]
    assert {*LAYERS[0], *LAYERS[1], "decode"} <= set(light)
    loaded = loaded_after("\n".join(f"import speech.{name}" for name in light))
    assert "numpy" in loaded
    assert not loaded & (TORCH | {"librosa", "matplotlib"})


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['speech', '--help']\ntry:\n    import speech.__main__ as m\n    "
    )
    code += "m.main()\nexcept SystemExit: pass"
    loaded = loaded_after(code)
    assert "typer" in loaded
    assert not loaded & (TORCH | {"librosa", "matplotlib", "scipy", "numba"})


def test_greedy_decoding_spares_the_compiler() -> None:
    loaded = loaded_after("import speech.transcribe")
    assert "torch" in loaded
    assert "numba" not in loaded


def cpu_seconds(*arguments: str) -> float:
    """Return what a fresh interpreter computed, which a busy machine does not stretch."""
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    child = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, env=environment
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    return usage.ru_utime + usage.ru_stime


def test_help_answers_at_once() -> None:
    """Ours costs little beside what the command-line library costs on the same machine."""
    ours, library = ("-m", "speech", "--help"), ("-c", "import typer.rich_utils")
    for arguments in (ours, library):
        cpu_seconds(*arguments)  # the first run may write byte code
    runs = [(cpu_seconds(*ours), cpu_seconds(*library)) for _ in range(8)]
    # What shares a core with us only adds to a run: the least of each is the nearest to the truth.
    assert min(run[0] for run in runs) < HELP_LIBRARY_SHARES * min(run[1] for run in runs), runs
