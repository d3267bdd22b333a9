"""YesNo: Hebrew yes and no, eight of them in each of sixty recordings, 8 kHz wav.

Origin    OpenSLR 1, made for Kaldi by a contributor who stays anonymous.
Licence   Its README states none; it was made "to test out the Kaldi scripts for free".
Size      60 recordings by one man, 4,703,754 bytes packed.
Splits    As in Kaldi's recipe: the first half of the sorted names is train (30), the second test
          (30).
Layout    waves_yesno/<8 flags, joined by _>.wav
Texts     What is said, "ken" (yes, flag 1) and "lo" (no, flag 0); the corpus gives only the flags.
Archive   SHA-256 as in torchaudio 2.11 and TensorFlow Datasets.
"""

from __future__ import annotations

from pathlib import Path

from speech.archive import Archive, openslr_urls, root_in
from speech.download import RemoteFile
from speech.errors import ManifestError
from speech.manifest import Utterance

EXPECTED_COUNTS: dict[str, int] = {"train": 30, "test": 30}

_NAME = "waves_yesno.tar.gz"
ARCHIVES: dict[str, Archive] = {
    "yesno": Archive(
        RemoteFile(
            _NAME,
            openslr_urls(1, _NAME),
            size=4703754,
            checksum="sha256:c3f49e0cca421f96b75b41640749167b52118f232498667ca7a5f9416aef8e73",
        ),
        root="waves_yesno",
    )
}

WORDS = {"0": "lo", "1": "ken"}
SPEAKER = "yesno"


def read_splits(directory: Path) -> dict[str, list[Utterance]]:
    """Train and test of ``directory`` (``waves_yesno`` or the folder around it)."""
    root = root_in(directory, ARCHIVES["yesno"])
    utterances = [_utterance(path) for path in sorted(root.glob("*.wav"))]
    if len(utterances) < 2:
        raise ManifestError(
            f"{root}: holds {len(utterances)} recordings; needed 0_0_1_1_0_1_1_0.wav"
        )
    half = len(utterances) // 2
    return {"train": utterances[:half], "test": utterances[half:]}


def _utterance(path: Path) -> Utterance:
    flags = path.stem.split("_")
    if len(flags) != 8 or not set(flags) <= set(WORDS):
        raise ManifestError(f"{path}: needed a name like 0_0_1_1_0_1_1_0.wav")
    text = " ".join(WORDS[flag] for flag in flags)
    return Utterance(path.stem, path, 0.0, text, SPEAKER, source=str(path))
