"""The recordings that a command line means: files, directories, patterns and manifests."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from speech.audio import probe_audio
from speech.errors import AudioError, SpeechError
from speech.manifest import read_audio_paths, relative_audio_path

# Of files in directories; a file that is named is read whatever it is called.
AUDIO_SUFFIXES = frozenset({
    ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".au", ".caf", ".flac", ".m4a", ".m4b",
    ".mka", ".mkv", ".mov", ".mp2", ".mp3", ".mp4", ".mpga", ".oga", ".ogg", ".opus", ".sph",
    ".w64", ".wav", ".wave", ".weba", ".webm", ".wma",
})  # fmt: skip
MANIFEST_SUFFIXES = (".jsonl", ".json")


@dataclass(frozen=True)
class Recording:
    """A file, and where its result belongs below an output directory (without suffix)."""

    path: Path
    place: Path


def find_recordings(named: Iterable[Path]) -> list[Recording]:
    """Return the files named, in order, with those in directories and of patterns, sorted.

    Directories are searched to any depth for AUDIO_SUFFIXES; results keep their places in them.
    They and patterns add no file a second time. A manifest (MANIFEST_SUFFIXES) stands for its
    recordings, in its order. A name that is nothing stays, to fail by itself.
    Raises `SpeechError` for a directory, pattern or manifest that leads to nothing.
    """
    found: list[Recording] = []
    for name in named:
        taken = {recording.path for recording in found}
        is_file = not (name.is_dir() or _is_pattern(name))
        found += [one for one in _recordings(name) if is_file or one.path not in taken]
    return found


def _is_pattern(name: Path) -> bool:
    return glob.has_magic(str(name)) and not name.exists()


def _recordings(name: Path) -> list[Recording]:
    if name.is_dir():
        return _in_directory(name)
    if name.suffix in MANIFEST_SUFFIXES and name.is_file():
        return _in_manifest(name)
    if not _is_pattern(name):
        return [Recording(name, Path(name.stem))]
    matches = [Path(match) for match in sorted(glob.glob(str(name), recursive=True))]
    if not matches:
        raise SpeechError(f"{name}: no file matches this pattern")
    return [one for match in matches for one in _recordings(match)]


def _in_directory(directory: Path) -> list[Recording]:
    paths = sorted(
        path
        for path in directory.rglob("*")
        if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file()
    )
    if not paths:
        raise SpeechError(f"{directory}: no audio files in this directory")
    return [Recording(path, path.relative_to(directory).with_suffix("")) for path in paths]


def _in_manifest(manifest: Path) -> list[Recording]:
    places = [
        (path, PurePosixPath(relative_audio_path(path, manifest.parent)))
        for path in read_audio_paths(manifest)
    ]
    # What lies outside the manifest's folder must not lead its result out of the output's.
    return [
        Recording(path, Path(path.stem if ".." in place.parts else place.with_suffix("")))
        for path, place in places
    ]


def total_seconds(paths: Iterable[Path]) -> float:
    """Return how long all files that can be read are, as their headers say."""
    total = 0.0
    for path in paths:
        try:
            total += probe_audio(path).duration
        except AudioError:  # it is reported when its turn comes
            continue
    return total
