"""Models for other runtimes: a directory that transcribes without torch or this package."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import speech
from speech import onnx_runner
from speech.checkpoint import (
    TOKENS_FILE,
    WEIGHTS_FILE,
    Model,
    replace_file,
    save_calibration,
)
from speech.config import dump_config
from speech.errors import ModelError
from speech.shipped import CONFIG_FILE

RUNNER_FILE, README_FILE = "transcribe.py", "README.md"
_QUANTISED = ("LSTM", "MatMul")  # what onnxruntime computes in int8, of what a model is made of


def export_onnx(model: Model, directory: Path, name: str, int8: bool = False) -> Path:
    """Write a directory with the model as ONNX, and return the graph's path.

    Beside ``model.onnx``: the tokens, the config, the calibration if there is one, a script that
    transcribes with numpy and onnxruntime alone, and a README. `name` is what they call the model.
    With `int8` weights are whole numbers of 8 bits and so are, for each product, the values that
    they meet, scaled by their largest (dynamic quantisation). Raises `ModelError` where ``onnx`` or
    ``onnxruntime`` is missing, for a network that has no int8 form, and where a model lies.
    """
    if (directory / WEIGHTS_FILE).exists():
        raise ModelError(f"{directory} holds a model to train on: name another --output")
    graph = _graph(model, name)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / onnx_runner.MODEL_FILE
    if int8:
        replace_file(path, lambda partial: _write_int8(graph, model, partial))
    else:
        replace_file(path, lambda partial: partial.write_bytes(graph.SerializeToString()))
    config = dump_config(model.config)
    replace_file(directory / CONFIG_FILE, lambda file: file.write_text(config, encoding="utf-8"))
    replace_file(directory / TOKENS_FILE, model.tokenizer.save)
    save_calibration(directory, model.calibration)
    shutil.copyfile(onnx_runner.__file__, directory / RUNNER_FILE)
    (directory / README_FILE).write_text(_readme(model, name, int8, path), encoding="utf-8")
    return path


def _graph(model: Model, name: str) -> Any:
    try:
        from speech.onnx_graph import build_graph
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    facts = {
        "name": name,
        "sample_rate": str(model.config.features.sample_rate),
        "seconds_per_frame": str(model.seconds_per_frame),
        "speech_version": speech.__version__,
    }
    return build_graph(model, facts)


def _write_int8(graph: Any, model: Model, path: Path) -> None:
    """Write the graph with what follows the features in int8, as far as that pays."""
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    cell = model.config.model.cell
    if cell != "lstm":
        raise ModelError(f"int8 needs layers of LSTM units, the model's are model.cell = {cell!r}")
    from speech.onnx_graph import MEL_NODE

    quantize_dynamic(
        graph, path, op_types_to_quantize=list(_QUANTISED), nodes_to_exclude=[MEL_NODE],
        weight_type=QuantType.QInt8, per_channel=True,
    )  # fmt: skip


def _missing(error: ModuleNotFoundError) -> ModelError:
    return ModelError(f"export needs {error.name}: pip install 'lstm-speech[onnx]'")


_README = """# {name}

A speech recogniser as one ONNX graph ({megabytes:.1f} MB, {numbers}),
exported by speech {version}. It runs under onnxruntime, without torch and the package that made it:

    pip install numpy onnxruntime
    python {runner} recording.wav            # 16-bit mono at {rate} Hz

| file | |
|---|---|
| `{graph}` | samples in, log-probabilities out; the log-mel features are inside |
| `{tokens}` | the token of each output, one a line; the first is CTC's blank |
| `{config}` | features and network, for the record |
| `{runner}` | reads WAV, runs the graph, takes the likeliest character of every frame |

| input or output | type | |
|---|---|---|
| `samples` | float32 (B, S) | mono, in [-1, 1], {rate} Hz |
| `lengths` | int64 (B,) | how many of each row are the recording's own; the rest is ignored |
| `log_probs` | float32 (B, T, {vocabulary}) | logarithms; a frame each {milliseconds:g} ms |
| `log_prob_lengths` | int64 (B,) | how many frames of each row hold a meaning |

{batches}
The network knows pieces of up to {longest:g} s; the script cuts longer ones where it is quietest.
"""
_BATCHES = {  # by whether the graph is int8
    False: "A recording gives the same log-probabilities alone and in any padded batch.",
    True: "A batch is scaled as one, so that its recordings touch each other's numbers a little.",
}


def _readme(model: Model, name: str, int8: bool, path: Path) -> str:
    return _README.format(
        name=name,
        megabytes=path.stat().st_size / 1e6,
        numbers="int8 weights, quantised dynamically" if int8 else "float32",
        version=speech.__version__,
        rate=model.config.features.sample_rate,
        milliseconds=1000 * model.seconds_per_frame,
        vocabulary=model.tokenizer.size,
        longest=onnx_runner.MAX_SECONDS,
        batches=_BATCHES[int8],
        graph=path.name, tokens=TOKENS_FILE, config=CONFIG_FILE, runner=RUNNER_FILE,
    )  # fmt: skip
