"""VCTK 0.92: newspaper sentences read by people with many English accents, 48 kHz flac.

Origin    Yamagishi, Veaux, MacDonald: "CSTR VCTK Corpus", University of Edinburgh, 2019,
          DOI 10.7488/ds/2645.
Licence   CC BY 4.0.
Size      110 speakers, about 400 sentences each, 11,747,302,977 bytes packed.
Splits    None is published. One manifest a microphone, of the same readings:
          mic1    44,283   omnidirectional, with noise of very low frequencies
          mic2    43,873   of wide bandwidth; lacks p280
          p315, whose texts were lost, is left out of both; of p362 some audio is missing. Sources:
          43,873 in TensorFlow Datasets' catalogue, 88,156 of both in Hugging Face's datasets.
Layout    wav48_silence_trimmed/<speaker>/<speaker>_<nnn>_mic<1|2>.flac,
          txt/<speaker>/<speaker>_<nnn>.txt
Texts     With case and punctuation, one line a file.
Archive   Without a folder of its own. Size and SHA-256 as in TensorFlow Datasets and torchaudio
          2.11.
"""

from __future__ import annotations

from pathlib import Path

from speech.archive import Archive, root_in
from speech.download import RemoteFile
from speech.errors import ManifestError
from speech.manifest import Utterance, numbered_lines

EXPECTED_COUNTS: dict[str, int] = {"mic1": 44283, "mic2": 43873}

_NAME = "VCTK-Corpus-0.92.zip"
ARCHIVES: dict[str, Archive] = {
    "vctk": Archive(
        RemoteFile(
            _NAME,
            (
                f"https://datashare.ed.ac.uk/bitstream/handle/10283/3443/{_NAME}",
                f"https://datashare.is.ed.ac.uk/bitstream/handle/10283/3443/{_NAME}",
            ),
            size=11747302977,
            checksum="sha256:f96258be9fdc2cbff6559541aae7ea4f59df3fcaf5cf963aae5ca647357e359c",
        ),
        root="VCTK-Corpus-0.92",
        is_flat=True,
    )
}

AUDIO = "wav48_silence_trimmed"
WITHOUT_TEXTS = "p315"


def read_splits(directory: Path) -> dict[str, list[Utterance]]:
    """Both microphones of ``directory`` (the folder with ``txt``, or the one around it)."""
    root = root_in(directory, ARCHIVES["vctk"])
    paths = sorted((root / AUDIO).glob("*/*_mic[12].flac"))
    if not paths:
        raise ManifestError(f"{root}: holds no recordings; needed {AUDIO}/<speaker>/*_mic1.flac")
    texts: dict[str, tuple[str, str]] = {}
    splits: dict[str, list[Utterance]] = {"mic1": [], "mic2": []}
    for path in paths:
        speaker = path.parent.name
        if speaker == WITHOUT_TEXTS:
            continue
        id, _, microphone = path.stem.rpartition("_")
        if id not in texts:
            texts[id] = _read_text(root / f"txt/{speaker}/{id}.txt")
        source, text = texts[id]
        splits[microphone].append(Utterance(id, path, 0.0, text, speaker, source))
    return {name: split for name, split in splits.items() if split}


def _read_text(path: Path) -> tuple[str, str]:
    """Where the text stands, and the text."""
    lines = numbered_lines(path)
    if len(lines) != 1:
        raise ManifestError(f"{path}: {len(lines)} lines of text; needed one")
    source, text = lines[0]
    return source, text.strip()
