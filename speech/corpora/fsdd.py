"""Free Spoken Digit Dataset (FSDD): English digits, trimmed, 8 kHz mono wav.

Origin    Zohar Jackson and contributors, the repository "free-spoken-digit-dataset" (Zenodo DOI
          10.5281/zenodo.1342401).
Licence   CC BY-SA 4.0.
Size      3,000 recordings (6 speakers, 50 of each digit each), 22 minutes, 16 MB.
Splits    Official: recordings 0 to 4 of each speaker and digit are test (300), the others train
          (2,700). The speakers are the same in both.
Layout    recordings/<digit>_<speaker>_<index>.wav
Texts     The digit as a word; the corpus gives it as a figure in the file name.
Archive   Version 1.0.10 as GitHub packs it on demand: neither size nor checksum is published. The
          CRC-32 of every file in the zip and the counts are checked.
"""

from __future__ import annotations

import re
from pathlib import Path

from speech.archive import Archive, root_in
from speech.download import RemoteFile
from speech.errors import ManifestError
from speech.manifest import Utterance

EXPECTED_COUNTS: dict[str, int] = {"train": 2700, "test": 300}

_URL = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.zip"
_ROOT = "free-spoken-digit-dataset-1.0.10"
ARCHIVES: dict[str, Archive] = {"fsdd": Archive(RemoteFile(f"{_ROOT}.zip", (_URL,)), _ROOT)}

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEST_INDICES = range(5)
_NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>\w+)_(?P<index>\d+)", re.ASCII)


def read_splits(directory: Path) -> dict[str, list[Utterance]]:
    """Train and test of ``directory`` (the repository, its ``recordings``, or around it)."""
    repository = root_in(directory, ARCHIVES["fsdd"])
    nested = repository / "recordings"
    root = nested if nested.is_dir() else repository
    paths = sorted(root.glob("*.wav"))
    if not paths:
        raise ManifestError(f"{root}: holds no recordings; needed <digit>_<speaker>_<index>.wav")
    splits: dict[str, list[Utterance]] = {"train": [], "test": []}
    for path in paths:
        match = _NAME.fullmatch(path.stem)
        if match is None:
            raise ManifestError(f"{path}: needed a name like 7_jackson_32.wav")
        split = "test" if int(match["index"]) in TEST_INDICES else "train"
        text = DIGITS[int(match["digit"])]
        splits[split].append(
            Utterance(path.stem, path, 0.0, text, match["speaker"], source=str(path))
        )
    return {name: split for name, split in splits.items() if split}
