"""Commands around voice-activity networks: ``speech voice train``, ``speech study voice``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speech.cli_options import ConfigArgument, JsonOption, ResumeOption, RunOption, SettingsOption
from speech.cli_training import print_study, run_shown
from speech.progress import progress_bar

app = typer.Typer(no_args_is_help=True, help="Networks that tell speech from everything else.")


@app.callback()
def _group() -> None:
    """Keep ``train`` a command of its own, even while it is the only one."""


@app.command()
def train(
    config: ConfigArgument,
    output: RunOption,
    resume: ResumeOption = False,
    settings: SettingsOption = None,
) -> None:
    """Train a voice-activity network on speech mixed with sounds; its best/ is the model."""
    from speech.recipes import load_recipe
    from speech.voice_config import VoiceConfig

    loaded = load_recipe(VoiceConfig, config, settings or [])  # mistakes come before torch
    from speech.train_voice import train_voice

    run_shown(train_voice, loaded, config.parent, output, resume)


def voice(
    manifest: Annotated[list[Path], typer.Argument(metavar="MANIFEST...", help="Clean speech.")],
    output: Annotated[Path, typer.Option(help="Directory of figures and pictures.")],
    model: Annotated[str, typer.Option("--model", help="Name or directory.")] = "voice",
    clips: Annotated[int, typer.Option(min=1, help="Minutes for each sound and ratio.")] = 2,
    as_json: JsonOption = False,
) -> None:
    """Compare the network's voice activity with that by levels, on mixtures of known truth.

    Writes voice_activity.json and voice_activity.png.
    """
    from speech.study_voice import run_voice_study
    from speech.voice_network import VoiceModel

    with progress_bar("mixing and listening", 1.0) as advance:
        figures = run_voice_study(VoiceModel.load(model), manifest, output, clips, advance)
    print_study(figures, as_json)
