"""AN4, the "alphanumeric" or "census" database: names, addresses, dates, spelled; 16 kHz sphere.

Origin    Carnegie Mellon University, about 1991. Acero: "Acoustical and environmental robustness in
          automatic speech recognition", Kluwer, 1993.
Licence   Its README states none; CMU offers it for download.
Size      1,078 utterances, 64 MB packed.
Splits    Official: train (948), test (130), by its README.
Layout    an4/etc/an4_<split>.{fileids,transcription}; the first names an4_clstk/<speaker>/<id>
          (test: an4test_clstk/...), the second has lines "<s> TEXT </s> (<id>)", in test without
          marks. The audio is an4/wav/<name in fileids>.sph.
Texts     Upper case without punctuation; letters stand apart ("G M E F").
Archive   The sphere archive; the headerless .raw ones say nothing of their byte order. SHA-256 as
          in a recipe for NVIDIA's copy; the size is not published.
"""

from __future__ import annotations

import re
from pathlib import Path

from speech.archive import Archive, root_in
from speech.download import RemoteFile
from speech.errors import ManifestError
from speech.manifest import Utterance, numbered_lines

EXPECTED_COUNTS: dict[str, int] = {"train": 948, "test": 130}

ARCHIVES: dict[str, Archive] = {
    "an4": Archive(
        RemoteFile(
            "an4_sphere.tar.gz",
            (
                "https://dldata-public.s3.us-east-2.amazonaws.com/an4_sphere.tar.gz",
                "https://huggingface.co/datasets/espnet/an4/resolve/main/an4_sphere.tar.gz",
                "http://www.speech.cs.cmu.edu/databases/an4/an4_sphere.tar.gz",
            ),
            checksum="sha256:a0525579493735d32b60fb6fa5975dd0eaacde087b0a4eeb7f13b7ef33077b12",
        ),
        root="an4",
    )
}

_LINE = re.compile(r"(?:<s> )?(?P<text>.*?)(?: </s>)? \((?P<id>[^()\s]+)\)")


def read_splits(directory: Path) -> dict[str, list[Utterance]]:
    """Train and test of ``directory`` (``an4`` or the folder around it)."""
    root = root_in(directory, ARCHIVES["an4"])
    if not (root / "etc").is_dir():
        raise ManifestError(f"{root}: no AN4; needed etc/an4_train.fileids and wav/")
    return {split: _read_split(root, split) for split in EXPECTED_COUNTS}


def _read_split(root: Path, split: str) -> list[Utterance]:
    files = numbered_lines(root / f"etc/an4_{split}.fileids")
    texts = numbered_lines(root / f"etc/an4_{split}.transcription")
    if len(files) != len(texts):
        raise ManifestError(
            f"{root}/etc/an4_{split}.transcription: {len(texts)} lines; needed {len(files)}, as "
            "many as in .fileids"
        )
    return [
        _utterance(root, name.strip(), line, source)
        for (_, name), (source, line) in zip(files, texts, strict=True)
    ]


def _utterance(root: Path, name: str, line: str, source: str) -> Utterance:
    match = _LINE.fullmatch(line.strip())
    id = Path(name).name
    if match is None or match["id"] != id:
        raise ManifestError(f"{source}: needed a text and ({id}), as .fileids has it")
    path = root / f"wav/{name}.sph"
    if not path.exists() and path.with_suffix(".raw").exists():
        raise ManifestError(f"{source}: {id}.raw has no header; needed the sphere archive of AN4")
    return Utterance(id, path, 0.0, match["text"], Path(name).parent.name, source)
