"""Strings of spoken digits joined from the Free Spoken Digit Dataset: the corpus of digits.toml.

    speech prepare fsdd DIR --output manifests
    python scripts/make_digit_strings.py manifests --output digit-strings

Each string is one speaker's: 3 to 7 digits, drawn by a seed, with short gaps of faint noise
between them and at both ends; strings to train on may be shorter, so that a network learns what
one digit sounds like before it has to tell which one it hears. Written are train, dev and test.
The recordings of a split appear in no other: test strings are made of the official test
recordings, dev strings of the first five of each speaker and digit of the official training ones,
train strings of the rest. The speakers are the same in all three, as the corpus has it.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from command import run_command
from numpy.typing import NDArray

from speech.audio import load_audio
from speech.manifest import Utterance, read_manifest, write_manifest

SAMPLE_RATE = 8000  # that of the recordings
STRINGS = {"train": 1200, "dev": 100, "test": 300}
DIGITS = {"train": (1, 7), "dev": (3, 7), "test": (3, 7)}  # fewest and most in a string
GAP_SECONDS = 0.05, 0.3  # between digits
END_SECONDS = 0.2, 0.5  # before the first and after the last: who hears no future needs time there
NOISE_LEVEL = 3e-4  # of full scale: -70 dB
DEV_RECORDINGS = 5  # of each speaker and digit


@dataclass(frozen=True)
class DigitString:
    """Recordings of one speaker in the order in which they are heard."""

    name: str
    parts: tuple[Utterance, ...]

    @property
    def text(self) -> str:
        return " ".join(part.text for part in self.parts)


def split_recordings(
    train: Sequence[Utterance], test: Sequence[Utterance]
) -> dict[str, list[Utterance]]:
    """Return the recordings of each split; dev takes the first of each speaker and digit."""
    splits: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": list(test)}
    taken: dict[tuple[str | None, str], int] = defaultdict(int)
    for one in sorted(train, key=lambda one: int(one.id.rsplit("_", 1)[1])):
        kind = one.speaker, one.text
        splits["dev" if taken[kind] < DEV_RECORDINGS else "train"].append(one)
        taken[kind] += 1
    return splits


def draw_strings(
    recordings: Sequence[Utterance],
    count: int,
    lengths: tuple[int, int],
    random: np.random.Generator,
) -> Iterator[DigitString]:
    """Yield so many strings of so many digits; speakers take turns, the rest is drawn evenly."""
    by_kind: dict[str, dict[str, list[Utterance]]] = defaultdict(lambda: defaultdict(list))
    for one in recordings:
        by_kind[one.speaker or ""][one.text].append(one)
    speakers = sorted(by_kind)
    for number in range(count):
        speaker = speakers[number % len(speakers)]
        of_speaker = by_kind[speaker]
        digits = random.choice(sorted(of_speaker), random.integers(lengths[0], lengths[1] + 1))
        parts = [of_speaker[digit][random.integers(len(of_speaker[digit]))] for digit in digits]
        yield DigitString(f"{speaker}-{number:04}", tuple(parts))


def join_string(string: DigitString, random: np.random.Generator) -> NDArray[np.float32]:
    """Return the samples of a string, with gaps around every digit."""
    pieces = []
    for number, part in enumerate(string.parts):
        before = GAP_SECONDS if number else END_SECONDS
        pieces += [_gap(before, random), load_audio(part.audio_path, SAMPLE_RATE).samples]
    return np.concatenate([*pieces, _gap(END_SECONDS, random)])


def _gap(seconds: tuple[float, float], random: np.random.Generator) -> NDArray[np.float32]:
    count = round(random.uniform(*seconds) * SAMPLE_RATE)
    return (NOISE_LEVEL * random.standard_normal(count)).astype(np.float32)


def write_split(
    strings: Sequence[DigitString], output: Path, split: str, random: np.random.Generator
) -> float:
    """Write audio and manifest of a split; return its seconds."""
    folder = output / "audio" / split
    folder.mkdir(parents=True, exist_ok=True)
    utterances = []
    for string in strings:
        samples, path = join_string(string, random), folder / f"{string.name}.flac"
        soundfile.write(path, samples, SAMPLE_RATE, "PCM_16")
        seconds = len(samples) / SAMPLE_RATE
        speaker = string.parts[0].speaker
        utterances.append(Utterance(f"{split}/{string.name}", path, seconds, string.text, speaker))
    write_manifest(output / f"{split}.jsonl", utterances)
    return sum(one.duration for one in utterances)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("manifests", type=Path, help="folder of fsdd's train.jsonl and test.jsonl")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    train, test = (read_manifest(options.manifests / f"{name}.jsonl") for name in ("train", "test"))
    for number, (split, recordings) in enumerate(split_recordings(train, test).items()):
        random = np.random.default_rng([options.seed, number])
        strings = list(draw_strings(recordings, STRINGS[split], DIGITS[split], random))
        seconds = write_split(strings, options.output, split, random)
        print(f"{split}: {len(strings)} strings of {len(recordings)} recordings, {seconds:.0f} s")


if __name__ == "__main__":
    run_command(main)
