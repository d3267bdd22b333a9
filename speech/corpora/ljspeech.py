"""LJSpeech 1.1: passages of seven books read by one woman, 22.05 kHz wav.

Origin    Keith Ito and Linda Johnson: "The LJ Speech Dataset", 2017, from LibriVox recordings.
Licence   Public domain in the United States.
Size      13,100 clips, 24 hours, 2,748,572,632 bytes packed.
Splits    None is published: all are train (13,100).
Layout    LJSpeech-1.1/metadata.csv with lines "<id>|<text>|<normalised text>" and no quoting;
          LJSpeech-1.1/wavs/<id>.wav
Texts     The normalised column: numbers, money and ordinals are spelled out; case and punctuation
          are kept.
Archive   Size and SHA-256 as in TensorFlow Datasets and torchaudio 2.11.
"""

from __future__ import annotations

from pathlib import Path

from speech.archive import Archive, root_in
from speech.download import RemoteFile
from speech.errors import ManifestError
from speech.manifest import Utterance, numbered_lines

EXPECTED_COUNTS: dict[str, int] = {"train": 13100}

_NAME = "LJSpeech-1.1.tar.bz2"
ARCHIVES: dict[str, Archive] = {
    "ljspeech": Archive(
        RemoteFile(
            _NAME,
            (
                f"https://data.keithito.com/data/speech/{_NAME}",
                f"http://data.keithito.com/data/speech/{_NAME}",
            ),
            size=2748572632,
            checksum="sha256:be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5",
        ),
        root="LJSpeech-1.1",
    )
}

SPEAKER = "LJ"


def read_splits(directory: Path) -> dict[str, list[Utterance]]:
    """Train of ``directory`` (``LJSpeech-1.1`` or the folder around it)."""
    root = root_in(directory, ARCHIVES["ljspeech"])
    lines = numbered_lines(root / "metadata.csv")
    if not lines:
        raise ManifestError(f"{root / 'metadata.csv'}: is empty; needed id|text|normalised text")
    return {"train": [_utterance(root, line, source) for source, line in lines]}


def _utterance(root: Path, line: str, source: str) -> Utterance:
    fields = line.split("|")
    if len(fields) != 3:
        raise ManifestError(f"{source}: {len(fields)} columns; needed id|text|normalised text")
    id, _, text = fields
    return Utterance(id, root / f"wavs/{id}.wav", 0.0, text, SPEAKER, source)
