"""Folders that carry manifests in this package's format: checked, rewritten, merged by split.

Layout    <directory>/<split>.jsonl, or <corpus>/<split>.jsonl for several corpora in <directory>;
          a single manifest file is taken as well.
Splits    Named after the files. Where several corpora have a split of one name, their utterances
          follow each other in the order of the corpora's names; ids and speakers get the corpus'
          name in front ("fsdd/7_george_3"), so that they stay apart.
Texts     Untouched. Durations are measured anew; wrong ones are reported and corrected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from speech.archive import Archive
from speech.errors import ManifestError
from speech.manifest import Utterance, read_manifest

EXPECTED_COUNTS: dict[str, int] = {}
ARCHIVES: dict[str, Archive] = {}


def read_splits(directory: Path) -> dict[str, list[Utterance]]:
    """The utterances of all manifests in ``directory`` and its folders, by split."""
    if directory.is_file():
        return {directory.stem: read_manifest(directory)}
    paths = sorted(directory.glob("*.jsonl"))
    if paths:
        return {path.stem: read_manifest(path) for path in paths}
    return _merge(directory, sorted(directory.glob("*/*.jsonl")))


def _merge(directory: Path, paths: Sequence[Path]) -> dict[str, list[Utterance]]:
    if not paths:
        raise ManifestError(f"{directory}: holds no manifests; needed <split>.jsonl")
    splits: dict[str, list[Utterance]] = {}
    for path in paths:
        corpus = path.parent.name
        splits.setdefault(path.stem, []).extend(
            _of_corpus(utterance, corpus) for utterance in read_manifest(path)
        )
    return splits


def _of_corpus(utterance: Utterance, corpus: str) -> Utterance:
    speaker = None if utterance.speaker is None else f"{corpus}/{utterance.speaker}"
    return replace(utterance, id=f"{corpus}/{utterance.id}", speaker=speaker)
