"""Published corpora and the common list formats to manifests, one module each.

A corpus module's docstring is its data card: origin, licence, size, splits, layout. It has

    read_splits(directory) -> {split: utterances}   in a fixed order, texts as published; durations
                                                    are 0.0 where only the audio knows them
    EXPECTED_COUNTS: {split: utterances}            as published; empty where nothing is
    ARCHIVES: {part: archive}                       what can be downloaded; empty where nothing can

``fetch`` downloads and unpacks; ``prepare`` does the rest, the same for all: it reads every audio
header, refuses what is not there, and writes one manifest a split.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast

from speech.archive import Archive, install, install_local
from speech.audio import probe_audio
from speech.cut import cut
from speech.download import Patience, Progress
from speech.errors import AudioError, ManifestError
from speech.manifest import Utterance, durations_agree, write_manifest
from speech.unpack import is_archive


@dataclass(frozen=True)
class Corpus:
    """A name that ``prepare`` knows."""

    description: str
    module: str = ""  # where it is not the name
    parts: tuple[str, ...] = ()  # where the name means only some of the module's
    downloads: tuple[str, ...] = ()  # the parts that are fetched unless others are named


CORPORA: dict[str, Corpus] = {
    "an4": Corpus("AN4: spelled names, addresses and dates, 1,078 utterances"),
    "common_voice": Corpus(
        "Common Voice, from the archive that you have: sentences read by volunteers",
        parts=("train", "dev", "test"),
    ),
    "fsdd": Corpus("Free Spoken Digit Dataset: 3,000 digits by 6 speakers, 8 kHz"),
    "kaldi": Corpus("a Kaldi data directory: wav.scp, text, utt2spk"),
    "librispeech": Corpus(
        "LibriSpeech: read audiobooks, 960 hours",
        downloads=("train-clean-100", "train-clean-360", "train-other-500",
                   "dev-clean", "dev-other", "test-clean", "test-other"),
    ),
    "ljspeech": Corpus("LJSpeech: books read by one woman, 24 hours"),
    "manifest": Corpus("folders that carry manifests in this package's format; merged by split"),
    "mini_librispeech": Corpus(
        "mini-LibriSpeech: 7 hours of LibriSpeech",
        module="librispeech",
        parts=("train-clean-5", "dev-clean-2"),
    ),
    "nemo": Corpus("NeMo manifests: JSON Lines with audio_filepath, duration, text"),
    "speech_commands": Corpus("Google Speech Commands v0.02: 105,829 single words"),
    "tedlium": Corpus("TED-LIUM 3: talks, 452 hours; not for commercial use"),
    "vctk": Corpus("VCTK 0.92: newspaper sentences by 109 speakers of many accents"),
    "yesno": Corpus("YesNo: 60 recordings of Hebrew yes and no"),
}  # fmt: skip

HEADER_THREADS = 8  # waiting for files, not for the processor


@dataclass(frozen=True)
class PreparedSplit:
    """One manifest that was written, and what about it differs from what was stated."""

    name: str
    manifest: Path
    utterances: int
    seconds: float
    warnings: tuple[str, ...]


class CorpusModule(Protocol):
    """What a module of this package offers."""

    EXPECTED_COUNTS: dict[str, int]
    ARCHIVES: dict[str, Archive]

    def read_splits(self, directory: Path) -> dict[str, list[Utterance]]:
        """The utterances of each split found in ``directory``."""


def fetch(
    corpus: str,
    directory: Path,
    parts: Sequence[str] = (),
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> None:
    """Download and unpack ``corpus``, or some of its ``parts``, into ``directory``.

    What is there whole is not fetched again; what an earlier call left is gone on with. Raises
    ManifestError where there is nothing to download under these names, else what
    `speech.archive.install` raises.
    """
    known = _known(corpus)
    archives = _module(corpus).ARCHIVES
    if not archives:
        raise ManifestError(f"{corpus}: cannot be downloaded; needed its files in {directory}")
    _refuse_unknown_parts(corpus, parts, known.parts or tuple(archives))
    for part in parts or known.parts or known.downloads or archives:
        install(archives[part], directory, progress, patience)


def prepare(
    corpus: str,
    directory: Path,
    output: Path,
    progress: Progress | None = None,
    parts: Sequence[str] = (),
) -> list[PreparedSplit]:
    """Write ``output/<split>.jsonl`` for every split of ``corpus`` that ``directory`` holds.

    ``directory`` may be an archive, which is unpacked beside itself. The audio stays where it is,
    but for segments of long recordings, which become files in ``output/audio``; durations are those
    of the headers. No manifest is written unless every split is whole and can be: a missing
    transcript, an unreadable file or an id that comes twice is a ManifestError with its
    ``file:line``. Counts or durations unlike the stated are warnings.
    """
    module = _module(corpus)
    if not directory.exists():
        raise ManifestError(f"{directory}: no such directory; needed the folder of {corpus}")
    if is_archive(directory):
        directory = install_local(directory, progress)
    chosen = _chosen(corpus, module.read_splits(directory), parts)
    folder = output / "audio"
    stated = {name: cut(split, folder / name, progress) for name, split in chosen.items()}
    measured = _measure(stated, progress)
    for split in measured.values():
        _refuse_duplicate_ids(split)
    _write_all({output / f"{name}.jsonl": split for name, split in measured.items()})
    return [
        _describe(output, name, split, module.EXPECTED_COUNTS.get(name), stated[name])
        for name, split in measured.items()
    ]


def _known(corpus: str) -> Corpus:
    name = corpus.replace("-", "_")
    if name not in CORPORA:
        raise ManifestError(f"unknown corpus {corpus!r}; there are {', '.join(CORPORA)}")
    return CORPORA[name]


def _module(corpus: str) -> CorpusModule:
    name = _known(corpus).module or corpus.replace("-", "_")
    return cast(CorpusModule, importlib.import_module(f"speech.corpora.{name}"))


def _chosen(
    corpus: str, splits: dict[str, list[Utterance]], parts: Sequence[str]
) -> dict[str, list[Utterance]]:
    """The splits that are wanted: those named, else those that the corpus' name means."""
    named = _known(corpus).parts
    if parts:
        _refuse_unknown_parts(corpus, parts, tuple(splits))
        return {name: splits[name] for name in splits if name in parts}
    chosen = {name: split for name, split in splits.items() if not named or name in named}
    if not chosen:
        raise ManifestError(f"{corpus}: found {', '.join(splits)}; needed {' or '.join(named)}")
    return chosen


def _refuse_unknown_parts(corpus: str, parts: Sequence[str], known: Sequence[str]) -> None:
    for part in parts:
        if part not in known:
            raise ManifestError(f"{corpus} has no part {part!r}; there are {', '.join(known)}")


def _measure(
    splits: dict[str, list[Utterance]], progress: Progress | None
) -> dict[str, list[Utterance]]:
    """The same utterances with the durations of their audio headers."""
    total = sum(len(split) for split in splits.values())
    measured: dict[str, list[Utterance]] = {name: [] for name in splits}
    names = [name for name, split in splits.items() for _ in split]
    utterances = [utterance for split in splits.values() for utterance in split]
    with ThreadPoolExecutor(HEADER_THREADS) as pool:
        try:
            results = zip(names, pool.map(_with_duration, utterances), strict=True)
            for done, (name, utterance) in enumerate(results, start=1):
                measured[name].append(utterance)
                if progress is not None:
                    progress("reading audio headers", done, total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return measured


def _with_duration(utterance: Utterance) -> Utterance:
    try:
        return replace(utterance, duration=probe_audio(utterance.audio_path).duration)
    except AudioError as error:
        raise ManifestError(f"{utterance.source}: {error}") from error


def _refuse_duplicate_ids(split: Sequence[Utterance]) -> None:
    first: dict[str, Utterance] = {}
    for utterance in split:
        if utterance.id in first:
            other = first[utterance.id].source
            raise ManifestError(f"{utterance.source}: id {utterance.id!r} is also that of {other}")
        first[utterance.id] = utterance


def _write_all(manifests: dict[Path, list[Utterance]]) -> None:
    """Write all manifests, or none where one of them cannot be."""
    partial = {path: path.with_name(f".{path.name}.partial") for path in manifests}
    try:
        for path, utterances in manifests.items():
            write_manifest(partial[path], utterances)
        for path in manifests:
            os.replace(partial[path], path)
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)


def _describe(
    output: Path,
    name: str,
    split: Sequence[Utterance],
    expected: int | None,
    stated: Sequence[Utterance],
) -> PreparedSplit:
    path = output / f"{name}.jsonl"
    warnings = _count_warnings(split, expected) + _duration_warnings(split, stated)
    seconds = sum(utterance.duration for utterance in split)
    return PreparedSplit(name, path, len(split), seconds, tuple(warnings))


def _count_warnings(split: Sequence[Utterance], expected: int | None) -> list[str]:
    if expected is None or len(split) == expected:
        return []
    return [f"{len(split)} utterances; the published split has {expected}"]


def _duration_warnings(split: Sequence[Utterance], stated: Sequence[Utterance]) -> list[str]:
    """Stated durations (above 0) that the audio contradicts: how many, and the first."""
    wrong = [
        (there, said)
        for there, said in zip(split, stated, strict=True)
        if said.duration > 0 and not durations_agree(there.duration, said.duration)
    ]
    if not wrong:
        return []
    there, said = wrong[0]
    return [
        f"{len(wrong)} durations were wrong and are corrected, first {said.source}: "
        f"{said.duration:.3f} s stated, {there.duration:.3f} s by the audio"
    ]
