"""Settings of a character language model, read from TOML like the recogniser's.

A config file has the tables ``[network]``, ``[data]`` and ``[train]``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from speech.config import (
    LoopConfig,
    SourcesConfig,
    require,
    require_above_zero,
    require_not_negative,
)


@dataclass(frozen=True)
class NetworkConfig:
    """The network: embedding, stacked LSTM, linear layer."""

    embedding: int = 64  # units that stand for a character
    layers: int = 2
    hidden: int = 384  # units per layer
    projection: int = 0  # units of a linear layer after each LSTM layer; 0: none
    layer_norm: bool = True  # before each LSTM layer and before the output
    dropout: float = 0.0  # between layers
    forget_bias: float = 1.0  # initial bias of the forget gate

    def __post_init__(self) -> None:
        require_above_zero(self, "embedding", "layers", "hidden")
        require_not_negative(self, "projection")
        require(0 <= self.dropout < 1, "dropout in [0, 1)", self)

    @property
    def cell(self) -> str:
        """What the layers are made of."""
        return "lstm"

    @property
    def recurrent_init(self) -> str:
        """How recurrent weights start."""
        return "orthogonal"

    @property
    def bidirectional(self) -> bool:
        """No: what comes next must not be seen."""
        return False


@dataclass(frozen=True)
class TextConfig(SourcesConfig):
    """Which texts, a sentence a line: plain, .xz, .gz, or manifests.

    A tenth of a pass per epoch takes another tenth of the lines in each until all have been seen.
    """

    dev_share: float = 0.002  # of the lines, chosen by their text, that judge and do not train
    max_characters: int = 400  # longer lines are not trained on, and counted

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.dev_share < 1, "dev_share in [0, 1)", self)
        require_above_zero(self, "max_characters")


@dataclass(frozen=True)
class CharTrainConfig(LoopConfig):
    """How the weights are found: the loop's settings and the size of a batch."""

    epochs: int = 10
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    # In one optimiser step, padding included, over all workers.
    batch_characters: int = 16384

    def __post_init__(self) -> None:
        super().__post_init__()
        require_above_zero(self, "batch_characters")


@dataclass(frozen=True)
class CharConfig:
    """Everything that defines a character language model and its training."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    data: TextConfig = field(default_factory=TextConfig)
    train: CharTrainConfig = field(default_factory=CharTrainConfig)
