"""Google Speech Commands v0.02: single English words, 16 kHz wav of a second or less.

Origin    Warden: "Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition",
          arXiv 1804.03209, 2018.
Licence   CC BY 4.0.
Size      105,829 utterances of 35 words by 2,618 speakers, 2.3 GB packed.
Splits    Official, by speaker: testing_list.txt (11,005), validation_list.txt (9,981), the others
          are train (84,843).
Layout    <word>/<speaker, 8 hex>_nohash_<n>.wav, testing_list.txt, validation_list.txt (relative
          paths); _background_noise_/*.wav holds noise without words and is left out.
Texts     The folder's name. Every recording was crowd-sourced; some hold a cut or another word.
Archive   2,428,923,189 bytes; size and SHA-256 as in TensorFlow Datasets and torchaudio 2.11.
"""

from __future__ import annotations

from pathlib import Path

from speech.archive import Archive, root_in
from speech.download import RemoteFile
from speech.errors import ManifestError
from speech.manifest import Utterance, numbered_lines

EXPECTED_COUNTS: dict[str, int] = {"train": 84843, "dev": 9981, "test": 11005}

_NAME = "speech_commands_v0.02.tar.gz"
ARCHIVES: dict[str, Archive] = {
    "speech_commands": Archive(
        RemoteFile(
            _NAME,
            (
                f"https://storage.googleapis.com/download.tensorflow.org/data/{_NAME}",
                f"http://download.tensorflow.org/data/{_NAME}",
            ),
            size=2428923189,
            checksum="sha256:af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
        ),
        root="speech_commands_v0.02",
        is_flat=True,
    )
}

LISTS = {"dev": "validation_list.txt", "test": "testing_list.txt"}


def read_splits(directory: Path) -> dict[str, list[Utterance]]:
    """Train, dev and test of ``directory`` (the folder that holds the word folders, or around)."""
    directory = root_in(directory, ARCHIVES["speech_commands"])
    split_of = {
        name: (split, source)
        for split, file in LISTS.items()
        for source, name in numbered_lines(directory / file)
    }
    splits: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": []}
    for path in sorted(directory.glob("[!_.]*/*.wav")):
        name = f"{path.parent.name}/{path.name}"
        split, _ = split_of.pop(name, ("train", ""))
        splits[split].append(_utterance(path))
    for name, (_, source) in split_of.items():
        raise ManifestError(f"{source}: {name} is listed, but not in {directory}")
    return {name: split for name, split in splits.items() if split}


def _utterance(path: Path) -> Utterance:
    word = path.parent.name
    speaker, hash_mark, _ = path.stem.partition("_nohash_")
    if not hash_mark:
        raise ManifestError(f"{path}: needed a name like 0a7c2a8d_nohash_0.wav")
    return Utterance(f"{word}/{path.stem}", path, 0.0, word, speaker, source=str(path))
