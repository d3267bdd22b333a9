"""Settings of a word classifier, read from TOML like the recogniser's.

A config file has the tables ``[classes]``, ``[features]``, ``[model]``, ``[augment]``, ``[data]``
and ``[train]``; features, network and augmentation are the recogniser's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from speech.config import (
    AudioLoopConfig,
    AugmentConfig,
    FeatureConfig,
    ModelConfig,
    SourcesConfig,
    require,
)

POOLINGS = ("mean", "last", "attention")


@dataclass(frozen=True)
class ClassesConfig:
    """What is told apart, and when a recording is none of it."""

    words: tuple[str, ...] = ()  # as the normaliser writes them; the order of the outputs
    unknown: bool = True  # a class of its own for everything else, the last output
    # A word whose probability is lower is not believed: the answer is then "unknown".
    threshold: float = 0.5
    # How an utterance's output frames become one vector, one of POOLINGS.
    pooling: str = "mean"

    def __post_init__(self) -> None:
        require(len(set(self.words)) == len(self.words), "different words", self)
        require(self.pooling in POOLINGS, f"pooling in {POOLINGS}", self)
        require(0 <= self.threshold < 1, "threshold in [0, 1)", self)

    @property
    def count(self) -> int:
        """How many classes there are, that of everything else included."""
        return len(self.words) + self.unknown


@dataclass(frozen=True)
class ClassDataConfig(SourcesConfig):
    """Which manifests are trained on, and what judges and tests.

    An utterance whose whole text is one of the words is of that class. One that holds none of them
    is of the class for everything else; of a longer one each epoch cuts another part.
    """

    dev: tuple[str, ...] = ()
    dev_share: float = 0.0  # of the training utterances, chosen by their ids, that judge instead
    without: tuple[str, ...] = ()  # words that training must not hear, to test rejection with
    without_speakers: tuple[str, ...] = ()  # speakers that it must not hear either
    test: tuple[str, ...] = ()  # what `speech study classification` tests on
    cut_seconds: tuple[float, ...] = (0.4, 1.0)  # shortest and longest part of a longer utterance

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.dev_share < 1, "dev_share in [0, 1)", self)
        require(len(self.cut_seconds) == 2 and 0 < self.cut_seconds[0] <= self.cut_seconds[1],
                "cut_seconds as [shortest, longest]", self)  # fmt: skip


@dataclass(frozen=True)
class ClassTrainConfig(AudioLoopConfig):
    """How the weights are found, with defaults of its own."""

    epochs: int = 20
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    # Recogniser (directory or shipped name) whose convolutions and first layers begin, as many as
    # the classifier has; empty: random weights. Also understood as model.init_from.
    init_from: str = ""
    batch_seconds: float = 40.0


@dataclass(frozen=True)
class ClassifierConfig:
    """Everything that defines a word classifier and its training."""

    classes: ClassesConfig = field(default_factory=ClassesConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    data: ClassDataConfig = field(default_factory=ClassDataConfig)
    train: ClassTrainConfig = field(default_factory=ClassTrainConfig)

    def __post_init__(self) -> None:
        require(len(self.classes.words) > 0, "at least one of words", self.classes)
        require(self.classes.count > 1, "two words, or one and unknown", self.classes)
        if self.classes.pooling == "last":
            # A projection mixes both directions, whose last frames are at either end.
            require(
                not (self.model.bidirectional and self.model.projection),
                "bidirectional = false or projection = 0 for pooling last",
                self.model,
            )
