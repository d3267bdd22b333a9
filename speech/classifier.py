"""A word classifier: one utterance in, one of a few words out, or "unknown".

The same features and network as the recogniser's (`speech.model`); where that has an output for
each frame, this one has a single output for all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from speech.audio import load_audio
from speech.checkpoint import (
    load_model,
    read_weights,
    require_same,
    save_config,
    stored_weights,
    write_weights,
)
from speech.classification import UNKNOWN, ClassScore
from speech.classifier_config import ClassifierConfig
from speech.config import load_config_of
from speech.errors import AudioError
from speech.features import FeatureExtractor, pad_features
from speech.model import UtteranceClassifier
from speech.shipped import CLASSIFIER_WEIGHTS_FILE, CONFIG_FILE, find_shipped

DEFAULT_CLASSIFIER = "digits"


@dataclass(frozen=True)
class Classifier:
    """Everything that turns samples into the probabilities of words."""

    config: ClassifierConfig
    extractor: FeatureExtractor
    network: UtteranceClassifier

    @classmethod
    def create(cls, config: ClassifierConfig) -> Classifier:
        """Return a classifier with initial weights, drawn from torch's global generator."""
        return cls(config, FeatureExtractor(config.features), _network(config))

    @classmethod
    def load(cls, name_or_path: str | Path = DEFAULT_CLASSIFIER) -> Classifier:
        """Return a classifier in evaluation mode with float32 weights on the CPU."""
        directory = find_classifier(name_or_path)
        config = load_config_of(ClassifierConfig, directory / CONFIG_FILE)
        with torch.device("meta"):  # shapes only: the weights are read
            network = _network(config)
        classifier = cls(config, FeatureExtractor(config.features), network)
        read_weights(directory / CLASSIFIER_WEIGHTS_FILE, classifier.modules())
        return classifier

    def save(self, directory: Path, dtype: torch.dtype = torch.float32) -> None:
        """Write a model directory; weights as `dtype`, statistics of the features as float32."""
        save_config(directory, self.config)
        write_weights(directory / CLASSIFIER_WEIGHTS_FILE, stored_weights(self.modules(), dtype))

    def modules(self) -> nn.ModuleDict:
        """The parts with weights and buffers under the names they have on disk."""
        return nn.ModuleDict({"features": self.extractor, "network": self.network})

    @property
    def words(self) -> tuple[str, ...]:
        """The words that are told apart."""
        return self.config.classes.words

    @property
    def labels(self) -> tuple[str, ...]:
        """The outputs of the network: the words, and UNKNOWN where that is a class."""
        return (*self.words, UNKNOWN)[: self.config.classes.count]

    def probabilities(self, samples: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return (B, V) of each sample vector (S,), computed as one batch.

        A row is the same whatever else is in the batch, up to rounding.
        """
        with torch.inference_mode():
            features = [self.extractor.extract(torch.from_numpy(one)) for one in samples]
            log_probs: torch.Tensor = self.network(*pad_features(features))
        return np.asarray(log_probs.exp().numpy())

    def classify(self, source: str | Path) -> ClassScore:
        """Return how probable each word is in an audio file. Raises `AudioError`."""
        samples = load_audio(source, self.config.features.sample_rate).samples
        if not len(samples):
            raise AudioError(f"{source}: holds no samples to classify")
        return self.score(str(source), self.probabilities([samples])[0])

    def score(
        self, name: str, row: NDArray[np.float32], said: str = UNKNOWN, text: str = "",
        speaker: str | None = None,
    ) -> ClassScore:  # fmt: skip
        """Return a row of `probabilities` by the names of the classes."""
        named = dict(zip(self.labels, row.tolist(), strict=True))
        return ClassScore(name, speaker, said, text, named)


def _network(config: ClassifierConfig) -> UtteranceClassifier:
    classes = config.classes
    return UtteranceClassifier(
        config.model, config.features.mel_bands, classes.count, classes.pooling
    )


def start_from_recogniser(source: Path, classifier: Classifier) -> None:
    """Copy a recogniser's convolutions, first layers and feature statistics into a classifier.

    Raises `ModelError` unless both have the same features and network, apart from dropout, how
    weights start, and layers, of which the recogniser needs at least as many.
    """
    start, ours = load_model(source), classifier.config.model
    theirs = start.config.model
    require_same(source, "[features]", start.config.features, classifier.config.features)
    if theirs.layers > ours.layers:
        theirs = dataclasses.replace(theirs, layers=ours.layers)
    require_same(source, "[model]", theirs, ours)
    classifier.extractor.load_state_dict(start.extractor.state_dict())
    network = classifier.network
    network.subsampler.load_state_dict(start.network.subsampler.state_dict())
    for layer, learned in zip(network.layers, start.network.layers, strict=False):
        layer.load_state_dict(learned.state_dict())


def find_classifier(name_or_path: str | Path) -> Path:
    """Return the directory of a shipped classifier's name, or of a path to one.

    Raises `ModelError` that lists the names there are.
    """
    return find_shipped(name_or_path, "classifier", CONFIG_FILE, CLASSIFIER_WEIGHTS_FILE)
