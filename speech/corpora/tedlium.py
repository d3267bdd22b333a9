"""TED-LIUM 3, legacy distribution: English TED talks, 16 kHz NIST sphere.

Origin    LIUM and Ubiqus, OpenSLR 51. Hernandez, Nguyen, Ghannay, Tomashenko, Estève: "TED-LIUM 3:
          twice as much data and corpus repartition for experiments on speaker adaptation", 2018.
Licence   CC BY-NC-ND 3.0: not for commercial use. The talks and texts belong to TED.
Size      2,351 talks, 452 hours, and 19 talks for dev and test; 54,320,173,876 bytes packed.
Splits    Official, by talk, the segments that are to be scored:
          train  268,263   (TensorFlow Datasets' catalogue)
          dev        507   (ESPnet's results)
          test     1,155   (ESPnet's results)
Layout    TEDLIUM_release-3/legacy/<split>/{sph/<talk>.sph,stm/<talk>.stm}; of train these may be
          links into TEDLIUM_release-3/data, which is read where they are missing. STM lines are
          "<talk> <channel> <speaker> <start> <end> <labels> <text>", times in seconds.
Texts     Lower case without punctuation. Marks that are no words are taken out, as in Kaldi's and
          ESPnet's recipes: <sil>, <unk> (a few frames of a word that was cut off), {NOISE} and
          [NOISE], a number in parentheses behind a word (its pronunciation), and a last (id).
          Endings that stand apart are joined ("it 's" to "it's").
Segments  Talks are cut into one flac an utterance beside the manifests, named after talk, start
          and end in 1/100 s; that takes room a third time.
          Lines with ignore_time_segment_in_scoring are left out.
Archive   Size and SHA-256 as in TensorFlow Datasets and torchaudio 2.11.
"""

from __future__ import annotations

import re
from pathlib import Path

from speech.archive import Archive, openslr_urls, root_in
from speech.cut import Segment
from speech.download import RemoteFile
from speech.errors import ManifestError
from speech.manifest import Utterance, numbered_lines

EXPECTED_COUNTS: dict[str, int] = {"train": 268263, "dev": 507, "test": 1155}

_NAME = "TEDLIUM_release-3.tgz"
ARCHIVES: dict[str, Archive] = {
    "tedlium": Archive(
        RemoteFile(
            _NAME,
            openslr_urls(51, _NAME),
            size=54320173876,
            checksum="sha256:ad1e454d14d1ad550bc2564c462d87c7a7ec83d4dc2b9210f22ab4973b9eccdb",
        ),
        root="TEDLIUM_release-3",
    )
}

IGNORED = "ignore_time_segment_in_scoring"
_MARKS = re.compile(r"<sil>|<unk>|\{[^{}]*\}|\[[^\[\]]*\]|(?<=\w)\(\d+\)|(?<!\S)\([^()\s]*\)\s*$")
_APART = re.compile(r"(?<=\w) '(?=\w)")


def read_splits(directory: Path) -> dict[str, list[Utterance]]:
    """The segments of ``directory`` (``TEDLIUM_release-3`` or the folder around it)."""
    root = root_in(directory, ARCHIVES["tedlium"])
    folders = {split: root / "legacy" / split for split in EXPECTED_COUNTS}
    if not (folders["train"] / "stm").is_dir():
        folders["train"] = root / "data"
    found = {split: folder for split, folder in folders.items() if (folder / "stm").is_dir()}
    if not found:
        raise ManifestError(f"{root}: no TED-LIUM 3; needed legacy/<split>/stm and sph")
    return {split: _read_folder(folder) for split, folder in found.items()}


def _read_folder(folder: Path) -> list[Utterance]:
    segments = [
        segment
        for stm in sorted((folder / "stm").glob("*.stm"))
        for source, line in numbered_lines(stm)
        if (segment := _segment(line, folder / "sph", source)) is not None
    ]
    if not segments:
        raise ManifestError(f"{folder / 'stm'}: holds no segments; needed <talk>.stm")
    return list(segments)


def _segment(line: str, sounds: Path, source: str) -> Segment | None:
    """The segment on an STM line; None for a comment and for what is not to be scored."""
    if line.startswith(";;"):
        return None
    fields = line.split(maxsplit=6)
    try:
        talk, _, speaker, start, end, _ = fields[:6]
        begin, stop = float(start), float(end)
    except ValueError as error:
        raise ManifestError(
            f"{source}: needed talk, channel, speaker, start, end, labels and text"
        ) from error
    text = fields[6] if len(fields) == 7 else ""
    if text.strip() == IGNORED:
        return None
    id = f"{talk}-{round(begin * 100):07}-{round(stop * 100):07}"
    words = " ".join(_MARKS.sub(" ", text).split())
    return Segment(
        id, sounds / f"{talk}.sph", 0.0, _APART.sub("'", words), speaker, source, begin, stop
    )
