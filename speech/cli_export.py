"""``speech export``."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from speech.cli_options import ModelOption


class ExportFormat(StrEnum):
    """Forms of a model that other runtimes read."""

    onnx = "onnx"


def export(
    output: Annotated[
        Path, typer.Option(metavar="DIR", file_okay=False, help="Where the exported model goes.")
    ],
    model: ModelOption = "base",
    format: Annotated[ExportFormat, typer.Option(help="For which runtime.")] = ExportFormat.onnx,
    int8: Annotated[
        bool, typer.Option("--int8", help="A quarter of the size: weights as 8-bit numbers.")
    ] = False,
) -> None:
    r"""Write a model that runs without torch: an ONNX graph, features included, and a script.

    Needs the extra: pip install 'lstm-speech\[onnx]'. The README in DIR says how to use it.
    """
    from speech.checkpoint import find_model, load_model
    from speech.export import RUNNER_FILE, export_onnx

    name = find_model(model).resolve().name
    path = export_onnx(load_model(model), output, name, int8)
    print(
        f"speech: {path} ({path.stat().st_size / 1e6:.1f} MB); "
        f"try: python {output / RUNNER_FILE} recording.wav",
        file=sys.stderr,
    )
