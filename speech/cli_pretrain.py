"""Pretraining on the command line: ``speech pretrain``."""

from __future__ import annotations

from speech.cli_options import ConfigArgument, ResumeOption, RunOption, SettingsOption
from speech.cli_training import run_shown


def pretrain(
    config: ConfigArgument,
    output: RunOption,
    resume: ResumeOption = False,
    settings: SettingsOption = None,
) -> None:
    """Learn to forecast log-mel frames from audio without transcripts; also under torchrun.

    The run's weights start a recogniser of the same features and layers, of one direction:
    speech train RECIPE.toml --set model.init_from=OUTPUT
    """
    from speech.forecast_config import ForecastConfig
    from speech.recipes import load_recipe

    loaded = load_recipe(ForecastConfig, config, settings or [])  # mistakes come before torch
    from speech.pretrain import pretrain as run

    run_shown(run, loaded, config.parent, output, resume)
