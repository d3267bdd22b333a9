"""Kaldi data directories: the lists that Kaldi's and many later recipes write.

Layout    <directory>/{wav.scp,text} and optionally utt2spk and segments, or one such folder a
          split in <directory>. ``wav.scp`` lines are "<utterance> <path>", ``text``
          "<utterance> <words>", ``utt2spk`` "<utterance> <speaker>"; tabs serve as well.
Paths     Relative ones start where the recipe ran, which the lists do not tell: the folder of the
          list, the given directory and its parents are tried in this order.
Commands  "flac -c -d -s PATH |", "sph2pipe -f wav PATH |" and "cat PATH |" are read as PATH, since
          the audio reader decodes these itself. Any other command changes the sound or runs a
          program, and is refused.
Segments  Where there is a list ``segments`` with lines "<utterance> <recording> <start> <end>" in
          seconds, wav.scp names recordings, which are cut into one flac an utterance.
Splits    Named after their folders. Origin, licence and size are those of the corpus it describes.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from speech.archive import Archive
from speech.cut import Segment
from speech.errors import ManifestError
from speech.manifest import Utterance, numbered_lines

EXPECTED_COUNTS: dict[str, int] = {}
ARCHIVES: dict[str, Archive] = {}

# Decoders whose options, where they are among these, change nothing of the sound.
_DECODERS: dict[str, frozenset[str]] = {
    "flac": frozenset({"-c", "-d", "-s", "-cd", "-dc", "-cds", "-dcs", "-sdc"}),
    "sph2pipe": frozenset({"-f", "wav", "rif", "-p"}),
    "cat": frozenset(),
}

Table = dict[str, tuple[str, str]]  # key: (source, value)


def read_splits(directory: Path) -> dict[str, list[Utterance]]:
    """The utterances of each data directory in ``directory``, or of itself if it is one."""
    lists = [directory / "wav.scp"]
    if not lists[0].is_file():
        lists = sorted(directory.glob("*/wav.scp"))
    folders = [path.parent for path in lists]
    if not folders:
        raise ManifestError(f"{directory}: no Kaldi data directory; needed wav.scp and text")
    return {folder.resolve().name: _read_folder(folder, directory) for folder in folders}


def _read_folder(folder: Path, directory: Path) -> list[Utterance]:
    texts, speakers = _read_table(folder / "text"), {}
    if (folder / "utt2spk").exists():
        speakers = _read_table(folder / "utt2spk")
    utterances = []
    for utterance in _read_audio(folder, directory):
        id, source = utterance.id, utterance.source
        if id not in texts:
            raise ManifestError(f"{source}: {id} has no transcript in {folder / 'text'}")
        if speakers and id not in speakers:
            raise ManifestError(f"{source}: {id} has no speaker in {folder / 'utt2spk'}")
        speaker = speakers[id][1] if speakers else None
        utterances.append(replace(utterance, text=texts.pop(id)[1], speaker=speaker))
    for id, (source, _) in texts.items():
        raise ManifestError(f"{source}: {id} has no audio in {folder / 'wav.scp'}")
    return utterances


def _read_audio(folder: Path, directory: Path) -> list[Utterance]:
    """The utterances without texts: files of wav.scp, or segments of them."""
    recordings = {
        id: Utterance(
            id, _find(_audio_path(value, source), folder, directory, source), 0.0, "", None, source
        )
        for id, (source, value) in _read_table(folder / "wav.scp").items()
    }
    if not (folder / "segments").exists():
        return list(recordings.values())
    segments = _read_table(folder / "segments")
    return [_segment(id, value, recordings, source) for id, (source, value) in segments.items()]


def _segment(id: str, value: str, recordings: dict[str, Utterance], source: str) -> Segment:
    try:
        recording, start, end = value.split()
        begin, stop = float(start), float(end)
    except ValueError as error:
        raise ManifestError(f"{source}: needed utterance, recording, start and end") from error
    if recording not in recordings:
        raise ManifestError(f"{source}: {recording} is not in wav.scp")
    path = recordings[recording].audio_path
    return Segment(id, path, 0.0, "", None, source, begin, stop)


def _read_table(path: Path) -> Table:
    table: Table = {}
    for source, line in numbered_lines(path):
        key, *rest = line.strip().split(maxsplit=1)
        if key in table:
            raise ManifestError(f"{source}: {key} stands already in {table[key][0]}")
        table[key] = source, rest[0] if rest else ""
    return table


def _audio_path(value: str, source: str) -> Path:
    """The file of a ``wav.scp`` entry: a path, or a command that only decodes one."""
    if not value:
        raise ManifestError(f"{source}: names no file")
    if not value.endswith("|"):
        return Path(value)
    try:
        program, *options, path = shlex.split(value.removesuffix("|"))
    except ValueError:  # fewer than two words, or an open quotation mark
        program, options, path = "", [], ""
    allowed = _DECODERS.get(Path(program).name)
    if allowed is None or not allowed.issuperset(options):
        raise ManifestError(
            f"{source}: the command {value!r} is not run; needed a path, or flac, sph2pipe or cat "
            "with nothing but decoding"
        )
    return Path(path)


def _find(path: Path, folder: Path, directory: Path, source: str) -> Path:
    if path.is_absolute():
        return path
    for start in (folder, directory, *directory.resolve().parents):
        if (start / path).is_file():
            return start / path
    raise ManifestError(f"{source}: {path} is neither in {folder} nor in a folder above it")
