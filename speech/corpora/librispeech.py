"""LibriSpeech and mini-LibriSpeech: English audiobooks read by volunteers, 16 kHz flac.

Origin    OpenSLR 12 (LibriSpeech) and 31 (mini-LibriSpeech), from LibriVox recordings and Project
          Gutenberg texts. Panayotov, Chen, Povey, Khudanpur: "LibriSpeech: an ASR corpus based on
          public domain audio books", ICASSP 2015.
Licence   CC BY 4.0.
Size      about 1,000 hours, 60 GB packed; mini-LibriSpeech 7 hours, 0.5 GB.
Splits    part             hours  speakers  utterances
          dev-clean          5.4        40       2,703
          dev-other          5.3        33       2,864
          test-clean         5.4        40       2,620
          test-other         5.1        33       2,939
          train-clean-100  100.6       251      28,539
          train-clean-360  363.6       921     104,014
          train-other-500  496.7     1,166     148,688
          train-clean-5      5                   1,519   (mini-LibriSpeech)
          dev-clean-2        2                   1,089   (mini-LibriSpeech)
          No speaker stands in two parts; the mini parts are cut from train-clean-100 and dev-clean.
Layout    LibriSpeech/<part>/<speaker>/<chapter>/<speaker>-<chapter>-<nnnn>.flac and, in the same
          folder, <speaker>-<chapter>.trans.txt with lines "<speaker>-<chapter>-<nnnn> TEXT".
Texts     Upper case without punctuation; numbers are spelled out; apostrophes are kept.
Archives  One a part, at OpenSLR and its mirrors. Sizes as in Kaldi's recipes and TensorFlow
          Datasets; SHA-256 of LibriSpeech as in torchaudio 2.11, MD5 of mini-LibriSpeech as in
          OpenSLR 31's md5sum.txt, which PaddleSpeech repeats.
"""

from __future__ import annotations

from pathlib import Path

from speech.archive import Archive, openslr_urls
from speech.download import RemoteFile
from speech.errors import ManifestError
from speech.manifest import Utterance, numbered_lines

EXPECTED_COUNTS: dict[str, int] = {
    "train-clean-100": 28539,
    "train-clean-360": 104014,
    "train-other-500": 148688,
    "train-clean-5": 1519,
    "dev-clean": 2703,
    "dev-other": 2864,
    "dev-clean-2": 1089,
    "test-clean": 2620,
    "test-other": 2939,
}

SIZES = {  # bytes
    "train-clean-100": 6387309499,
    "train-clean-360": 23049477885,
    "train-other-500": 30593501606,
    "train-clean-5": 332954390,
    "dev-clean": 337926286,
    "dev-other": 314305928,
    "dev-clean-2": 126046265,
    "test-clean": 346663984,
    "test-other": 328757843,
}

CHECKSUMS = {
    "train-clean-100": "sha256:d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2",
    "train-clean-360": "sha256:146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf",
    "train-other-500": "sha256:ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2",
    "train-clean-5": "md5:5df7d4e78065366204ca6845bb08f490",
    "dev-clean": "sha256:76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3",
    "dev-other": "sha256:12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365",
    "dev-clean-2": "md5:6d7ab67ac6a1d2c993d050e16d61080d",
    "test-clean": "sha256:39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23",
    "test-other": "sha256:d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29",
}

_MINI = ("train-clean-5", "dev-clean-2")


def _archive(part: str) -> Archive:
    name = f"{part}.tar.gz"
    urls = openslr_urls(31 if part in _MINI else 12, name)
    return Archive(RemoteFile(name, urls, SIZES[part], CHECKSUMS[part]), f"LibriSpeech/{part}")


ARCHIVES: dict[str, Archive] = {part: _archive(part) for part in EXPECTED_COUNTS}


def read_splits(directory: Path) -> dict[str, list[Utterance]]:
    """The utterances of every part in ``directory`` (``LibriSpeech`` or the folder around it)."""
    nested = directory / "LibriSpeech"
    root = nested if nested.is_dir() else directory
    parts = [part for part in EXPECTED_COUNTS if (root / part).is_dir()]
    if not parts:
        raise ManifestError(
            f"{directory}: holds no part of LibriSpeech; needed one of {', '.join(EXPECTED_COUNTS)}"
        )
    return {part: _read_part(root / part) for part in parts}


def _read_part(part: Path) -> list[Utterance]:
    utterances: list[Utterance] = []
    for chapter in sorted(folder for folder in part.glob("*/*") if folder.is_dir()):
        utterances += _read_chapter(chapter)
    if not utterances:
        raise ManifestError(f"{part}: holds no chapters; needed <speaker>/<chapter>/*.flac")
    return utterances


def _read_chapter(chapter: Path) -> list[Utterance]:
    speaker = chapter.parent.name
    transcripts = chapter / f"{speaker}-{chapter.name}.trans.txt"
    utterances = []
    for source, line in numbered_lines(transcripts):
        id, _, text = line.partition(" ")
        utterances.append(Utterance(id, chapter / f"{id}.flac", 0.0, text, speaker, source))
    untold = {path.stem for path in chapter.glob("*.flac")} - {u.id for u in utterances}
    if untold:
        raise ManifestError(f"{transcripts}: lacks the transcript of {min(untold)}.flac")
    return utterances
