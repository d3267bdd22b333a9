"""Common Voice: sentences read by volunteers and checked by others, mp3, one release a language.

Origin    Mozilla Common Voice. Ardila and others: "Common Voice: a massively-multilingual speech
          corpus", LREC 2020.
Licence   CC0 1.0. Who downloads it promises not to try to find out who the speakers are.
Size      Differs by release and language; so do the counts, which are not checked. The lists are
          checked against the clips, and where clip_durations.tsv is there, against its durations.
Splits    Official: train, dev and test, by speaker. --part validated (or other, invalidated) takes
          another list; these overlap with the three.
Layout    <release>/<language>/clips/*.mp3, <release>/<language>/<split>.tsv with a line of column
          names, among them client_id, path and sentence, and no quoting.
Archive   Not downloaded here: the terms have to be accepted on Mozilla's page. The file from there
          (.tar.gz) may be given in place of a folder.
Texts     With case and punctuation, in the language's script.
"""

from __future__ import annotations

from pathlib import Path

from speech.archive import Archive
from speech.errors import ManifestError
from speech.manifest import Utterance, numbered_lines

EXPECTED_COUNTS: dict[str, int] = {}
ARCHIVES: dict[str, Archive] = {}

SPLITS = ("train", "dev", "test", "validated", "other", "invalidated")
DURATIONS = "clip_durations.tsv"
_DURATION_COLUMNS = ("duration[ms]", "duration")


def read_splits(directory: Path) -> dict[str, list[Utterance]]:
    """The lists of ``directory`` (a language's folder, or one up to two folders above it)."""
    root = _find_language(directory)
    seconds = _read_durations(root / DURATIONS)
    found = [split for split in SPLITS if (root / f"{split}.tsv").is_file()]
    splits = {split: _read_split(root, split, seconds) for split in found}
    return {name: split for name, split in splits.items() if split}


def _find_language(directory: Path) -> Path:
    # A hidden folder is one that is being unpacked, or was when somebody killed it.
    clips = [directory / "clips", *directory.glob("[!.]*/clips"), *directory.glob("[!.]*/*/clips")]
    languages = sorted(path.parent for path in clips if path.is_dir())
    if not languages:
        raise ManifestError(f"{directory}: no Common Voice; needed <language>/clips and train.tsv")
    if len(languages) > 1:
        names = ", ".join(path.name for path in languages)
        raise ManifestError(f"{directory}: holds {names}; needed the folder of one language")
    return languages[0]


def _read_split(root: Path, split: str, seconds: dict[str, float]) -> list[Utterance]:
    utterances = []
    for source, fields in _rows(root / f"{split}.tsv", ("client_id", "path", "sentence")):
        name = fields["path"] if "." in fields["path"] else f"{fields['path']}.mp3"
        id = name.rpartition(".")[0]
        path, duration = root / "clips" / name, seconds.get(name, 0.0)
        text, speaker = fields["sentence"], fields["client_id"]
        utterances.append(Utterance(id, path, duration, text, speaker, source))
    return utterances


def _read_durations(path: Path) -> dict[str, float]:
    """Stated seconds by clip; older releases have none."""
    if not path.is_file():
        return {}
    stated = {}
    for source, fields in _rows(path, ("clip",)):
        value = next((fields[name] for name in _DURATION_COLUMNS if name in fields), "")
        if not value.isdecimal():
            raise ManifestError(f"{source}: needed a clip and its duration in ms, found {value!r}")
        stated[fields["clip"]] = int(value) / 1000
    return stated


def _rows(path: Path, needed: tuple[str, ...]) -> list[tuple[str, dict[str, str]]]:
    """The rows of a tab-separated list with a header, each with its place."""
    lines = numbered_lines(path)
    header = lines[0][1].split("\t") if lines else []
    missing = [name for name in needed if name not in header]
    if missing:
        raise ManifestError(f"{path}: has no column {missing[0]!r}; it has {header}")
    rows = []
    for source, line in lines[1:]:
        fields = line.split("\t")
        if len(fields) != len(header):
            raise ManifestError(f"{source}: {len(fields)} columns; needed {len(header)}")
        rows.append((source, dict(zip(header, fields, strict=True))))
    return rows
