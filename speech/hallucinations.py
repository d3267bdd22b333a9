"""Words heard where nobody speaks: a standard test on silence, noise and music."""

from __future__ import annotations

import wave
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from speech.errors import AudioError
from speech.nonspeech import nonspeech_signals
from speech.transcribe import Recogniser

FULL_SCALE = 32767  # of 16 bits
OWN_FILES = "your files"


@dataclass(frozen=True)
class Heard:
    """What was heard in one signal without speech."""

    kind: str
    name: str
    seconds: float
    text: str
    confidence: float  # mean of the words', 0 without any

    @property
    def words(self) -> int:
        """How many words that is; all of them are wrong."""
        return len(self.text.split())


@dataclass(frozen=True)
class KindTotal:
    """The signals of one kind together."""

    kind: str
    signals: int
    seconds: float
    words: int

    @property
    def words_per_minute(self) -> float:
        """Words heard per minute of sound."""
        return 60 * self.words / self.seconds


def hallucinations(
    recogniser: Recogniser,
    files: Sequence[Path] = (),
    seed: int = 0,
    on_signal: Callable[[], None] = lambda: None,
) -> list[Heard]:
    """Return what is heard in the 30 signals of `speech.nonspeech` and in files without speech.

    The signals pass through the same reading and cutting as a file of 16-bit samples does. Raises
    `AudioError` for a file that cannot be read.
    """
    sample_rate = recogniser.model.config.features.sample_rate
    with TemporaryDirectory() as directory:
        sources = [(OWN_FILES, str(path), path) for path in files]
        for number, signal in enumerate(nonspeech_signals(sample_rate, seed)):
            path = Path(directory, f"{number}.wav")
            write_wav(path, signal.samples, sample_rate)
            sources.append((signal.kind, signal.name, path))
        heard = []
        results = recogniser.transcribe_many(path for _, _, path in sources)
        for (kind, name, _), result in zip(sources, results, strict=True):
            if isinstance(result, AudioError):
                raise result
            heard.append(Heard(kind, name, result.duration, result.text, result.confidence))
            on_signal()
    return heard


def totals_by_kind(heard: Iterable[Heard]) -> list[KindTotal]:
    """Return the totals of each kind, in the order in which the kinds come."""
    kinds: dict[str, list[Heard]] = {}
    for one in heard:
        kinds.setdefault(one.kind, []).append(one)
    return [_total(kind, members) for kind, members in kinds.items()]


def total_of_all(heard: Sequence[Heard]) -> KindTotal:
    """Return the total of the standard signals, without the user's files."""
    return _total("all", [one for one in heard if one.kind != OWN_FILES])


def _total(kind: str, heard: Sequence[Heard]) -> KindTotal:
    seconds = sum(one.seconds for one in heard)
    return KindTotal(kind, len(heard), seconds, sum(one.words for one in heard))


def write_wav(path: Path, samples: NDArray[np.float32], sample_rate: int) -> None:
    """Write samples (S,) in [-1, 1] as a WAV file of 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(np.round(samples * FULL_SCALE).astype("<i2").tobytes())
