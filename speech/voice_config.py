"""Settings of a network that tells speech from everything else, frame by frame.

A config file has the tables ``[features]``, ``[model]``, ``[data]``, ``[train]`` and
``[decision]``; features and network are the recogniser's, with two outputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from speech.config import (
    FeatureConfig,
    LoopConfig,
    ModelConfig,
    SourcesConfig,
    require,
    require_above_zero,
)


@dataclass(frozen=True)
class VoiceDataConfig(SourcesConfig):
    """Which clean speech is mixed with what, into clips of which the truth is known.

    Passes per epoch are relative frequencies here: clips draw from the manifests.
    """

    dev: tuple[str, ...] = ()
    clip_seconds: float = 10.0
    clips: int = 600  # an epoch
    dev_clips: int = 60
    speech_share: float = 0.85  # of the clips; the others hold a sound or silence alone
    snr_db: tuple[float, ...] = (0.0, 30.0)  # lowest and highest, over the speech
    # Kinds or names of `speech.nonspeech` that training never hears, to judge with.
    without_sounds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        require_above_zero(self, "clip_seconds", "clips", "dev_clips")
        require(0 <= self.speech_share <= 1, "speech_share in [0, 1]", self)
        require(len(self.snr_db) == 2 and self.snr_db[0] <= self.snr_db[1],
                "snr_db as [lowest, highest]", self)  # fmt: skip


@dataclass(frozen=True)
class VoiceTrainConfig(LoopConfig):
    """How the weights are found: the loop's settings and the size of a batch."""

    epochs: int = 10
    learning_rate: float = 3e-3
    warmup_steps: int = 50
    batch_clips: int = 8  # in one optimiser step, over all workers

    def __post_init__(self) -> None:
        super().__post_init__()
        require_above_zero(self, "batch_clips")


@dataclass(frozen=True)
class DecisionConfig:
    """How probable speech must be to count as voice."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        require(0 < self.probability < 1, "probability in (0, 1)", self)


@dataclass(frozen=True)
class VoiceConfig:
    """Everything that defines a voice-activity network and its training."""

    features: FeatureConfig = field(default_factory=FeatureConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: VoiceDataConfig = field(default_factory=VoiceDataConfig)
    train: VoiceTrainConfig = field(default_factory=VoiceTrainConfig)
    decision: DecisionConfig = field(default_factory=DecisionConfig)

    @property
    def frame_samples(self) -> int:
        """Samples from one output frame to the next."""
        return self.model.subsampling * self.features.hop_samples
