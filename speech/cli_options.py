"""Arguments and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

PRECISION_VARIABLE = "SPEECH_PRECISION"  # of the environment


class Precision(StrEnum):
    """Arithmetic of the network."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"

    @property
    def same_everywhere(self) -> str:
        """Its name, for results that may not depend on the machine."""
        return Precision.float32.value if self is Precision.auto else self.value


ModelOption = Annotated[
    str, typer.Option("--model", metavar="MODEL", help="Name of a shipped model or a directory.")
]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="CPU threads, each with batches of its own.")
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        envvar=PRECISION_VARIABLE,
        help="auto: bfloat16 where a self-test found it faster and heard the same; it is done "
        "once, before five minutes of audio or more.",
    ),
]
WithoutSpeakerOption = Annotated[
    list[str] | None, typer.Option(metavar="SPEAKER", help="Leave out; may be repeated.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")]

# --- Of trainings ---------------------------------------------------------------------------------

ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG.toml")]
RunOption = Annotated[Path, typer.Option("--output", file_okay=False, help="Directory of the run.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with the run there.")]
SettingsOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="table.key=value", help="Override.")
]
