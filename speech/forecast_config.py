"""Settings of a pretraining by forecasting, read from TOML like the recogniser's.

A config file has the tables ``[features]``, ``[model]``, ``[augment]``, ``[data]`` and ``[train]``
of a recogniser, so that the weights fit one, and ``[forecast]``, which says that it is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from speech.config import (
    AudioLoopConfig,
    AugmentConfig,
    DataConfig,
    FeatureConfig,
    ModelConfig,
    load_config_of,
    read_tables,
    require_above_zero,
)
from speech.errors import ConfigError


@dataclass(frozen=True)
class AheadConfig:
    """What is forecast."""

    # Output frames ahead: 1 forecasts the log-mel frames right behind the last one seen, as many as
    # make an output frame (model.subsampling), 2 those behind these, and so on.
    steps: int = 2

    def __post_init__(self) -> None:
        require_above_zero(self, "steps")


@dataclass(frozen=True)
class ForecastConfig:
    """Everything that defines a pretraining. Texts of the manifests are not read."""

    features: FeatureConfig = field(default_factory=FeatureConfig)
    model: ModelConfig = field(default_factory=lambda: ModelConfig(bidirectional=False))
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    data: DataConfig = field(default_factory=DataConfig)
    forecast: AheadConfig = field(default_factory=AheadConfig)
    train: AudioLoopConfig = field(default_factory=AudioLoopConfig)

    def __post_init__(self) -> None:
        if self.model.bidirectional or self.model.lookahead_frames:
            raise ConfigError(
                "forecasting needs model.bidirectional = false and model.lookahead_frames = 0, "
                f"got {str(self.model.bidirectional).lower()} and {self.model.lookahead_frames}: "
                "else the network sees what it is to forecast"
            )


def is_forecast_config(path: Path) -> bool:
    """Whether a TOML file has a table ``[forecast]``. Raises `ConfigError` where it is none."""
    return "forecast" in read_tables(path)


# Overrides of a recogniser that hold for the pretraining that it begins with, too.
_SHARED = ("features.", "model.", "data.root", "data.cache")


def load_beginning(path: Path, overrides: Sequence[str]) -> ForecastConfig:
    """Read what a recogniser begins with; of its `overrides` hold those that must be of both."""
    shared = [
        override
        for override in overrides
        if override.startswith(_SHARED) and not override.startswith("model.init_from")
    ]
    return load_config_of(ForecastConfig, path, shared)
