"""NeMo manifests: JSON Lines as the NeMo toolkit reads and writes them.

Layout    <directory>/<split>.json or .jsonl, one object a line with ``audio_filepath``,
          ``duration`` (s), ``text``; a single manifest file is taken as well.
Paths     Absolute, or relative to the manifest.
Slices    A non-zero ``offset`` is refused: one file an utterance is needed. Audio inside tar files
          is not found, and is told so by its line.
Splits    Named after the files. Origin, licence and size are those of the corpus it describes.
"""

from __future__ import annotations

from pathlib import Path

from speech.archive import Archive
from speech.errors import ManifestError
from speech.manifest import Utterance, read_manifest

EXPECTED_COUNTS: dict[str, int] = {}
ARCHIVES: dict[str, Archive] = {}


def read_splits(directory: Path) -> dict[str, list[Utterance]]:
    """The utterances of every manifest in ``directory``."""
    if directory.is_file():
        return {directory.stem: read_manifest(directory)}
    paths = sorted([*directory.glob("*.json"), *directory.glob("*.jsonl")])
    if not paths:
        raise ManifestError(f"{directory}: holds no NeMo manifests; needed <split>.json")
    splits: dict[str, list[Utterance]] = {}
    for path in paths:
        if path.stem in splits:
            raise ManifestError(f"{path}: there is a second manifest of split {path.stem!r}")
        splits[path.stem] = read_manifest(path)
    return splits
