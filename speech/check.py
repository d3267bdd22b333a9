"""What would spoil a training or an evaluation, found before it starts.

Every file is decoded whole, every text is normalised and encoded as training would. Nothing is
changed: a finding names ``manifest:line``, its kind and what to look at.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speech.audio import stream_audio
from speech.audio_source import Samples
from speech.config import FeatureConfig, ModelConfig
from speech.decode import required_frames
from speech.errors import AudioError, ManifestError, TextError
from speech.features import num_frames
from speech.manifest import Utterance, durations_agree, numbered_lines, parse_utterance
from speech.model import output_length
from speech.tokenizer import CharTokenizer, normalise_text

MOST_LINES = 100  # of one manifest that are none and told one by one: it may be another file
NOT_UTF8 = re.compile("[\ud800-\udfff]")  # what decoding with "surrogateescape" makes of it
SILENCE_PEAK = 1e-3  # -60 dB of full scale: below it nobody speaks
LOUDNESS_SECONDS = 0.1  # one root mean square each, to compare takes by
# Of 30 pairs of takes of one sentence, by one reader and alike in duration to 0.02 s, none came
# above 0.91; the same takes encoded anew came to 0.999, and moved by 10 ms to 0.95.
COPY_CORRELATION = 0.95
COPY_WORDS = 3  # single words are alike in loudness whoever says them how often


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: where (``train.jsonl:12``), of what kind, and how."""

    source: str
    kind: str  # one of the keys of KINDS
    message: str


KINDS: dict[str, str] = {
    "line": "not a manifest line",
    "audio": "cannot be decoded to its end",
    "silence": "no sample above -60 dB of full scale",
    "duration": "unlike that of the audio by more than 0.02 s and 1 %",
    "alphabet": "a character outside the alphabet after normalisation",
    "empty text": "nothing is left of the text after normalisation",
    "too long": "more labels and repeats than output frames: CTC has no path",
    "duplicate id": "twice in one manifest",
    "duplicate audio": "the same samples twice, in whatever files",
    "copy": "one take encoded twice: same speaker, text (three words or more), course of loudness",
    "shared speaker": "a speaker of another manifest too, so that they are no separate splits",
}


@dataclass(frozen=True)
class CheckReport:
    """All findings in the order of the manifests' lines, and how much was checked."""

    findings: tuple[Finding, ...]
    utterances: int
    seconds: float


@dataclass(frozen=True)
class _Sound:
    """What is kept of the samples of an utterance; nothing of an unreadable file."""

    samples: int = 0  # at the model's rate
    digest: bytes = b""
    loudness: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))


@dataclass(frozen=True)
class _Examined:
    """An utterance, what is wrong with it alone, and what is needed to compare it."""

    utterance: Utterance
    findings: tuple[Finding, ...]
    text: str | None  # normalised
    sound: _Sound


def check_manifests(
    paths: Sequence[str | Path],
    tokenizer: CharTokenizer | None = None,
    features: FeatureConfig | None = None,
    subsampling: int = ModelConfig.subsampling,
    *,
    threads: int | None = None,
    progress: Callable[[], None] | None = None,
) -> CheckReport:
    """Everything in ``KINDS`` that is found in the manifests, and between them as splits.

    ``tokenizer``, ``features`` and ``subsampling`` are the model's, by default those of a new
    model; ``progress`` is called once an utterance. Raises ManifestError for a manifest that
    cannot be read at all, or holds nothing.
    """
    features = features or FeatureConfig()
    manifests, unreadable = _read_manifests(paths)
    examine = partial(_examine, tokenizer or CharTokenizer(), features, subsampling)
    examined: list[_Examined] = []
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        try:
            for one in pool.map(examine, (u for manifest in manifests for u in manifest)):
                examined.append(one)
                if progress is not None:
                    progress()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    alone = [finding for one in examined for finding in one.findings]
    together = [*_duplicate_ids(manifests), *_duplicate_audio(examined), *_copies(examined),
                *_shared_speakers(manifests)]  # fmt: skip
    seconds = sum(one.sound.samples for one in examined) / features.sample_rate
    findings = _in_line_order([*unreadable, *alone, *together], paths)
    return CheckReport(tuple(findings), len(examined), seconds)


def _read_manifests(
    paths: Sequence[str | Path],
) -> tuple[list[list[Utterance]], list[Finding]]:
    """The utterances of each manifest, and the lines that are none, at most MOST_LINES of each."""
    manifests: list[list[Utterance]] = []
    findings: list[Finding] = []
    for path in map(Path, paths):
        manifests.append([])
        unreadable: list[Finding] = []
        for source, line in numbered_lines(path, errors="surrogateescape"):
            try:
                manifests[-1].append(_parse(line, path.parent, source))
            except ManifestError as error:
                message = str(error).removeprefix(f"{source}: ")
                unreadable.append(Finding(source, "line", message))
        if not manifests[-1] and not unreadable:
            raise ManifestError(f"{path}: holds nothing; a manifest needs at least one line")
        findings += unreadable[:MOST_LINES]
        if left_out := unreadable[MOST_LINES:]:
            message = f"and {len(left_out)} more such lines from here on"
            findings.append(Finding(left_out[0].source, "line", message))
    return manifests, findings


def _parse(line: str, directory: Path, source: str) -> Utterance:
    if NOT_UTF8.search(line):
        raise ManifestError(f"{source}: not UTF-8 text")
    return parse_utterance(line, directory, source)


def _in_line_order(findings: Sequence[Finding], paths: Sequence[str | Path]) -> list[Finding]:
    first_place = {str(Path(path)): place for place, path in reversed(list(enumerate(paths)))}

    def place(finding: Finding) -> tuple[int, int]:
        path, _, line = finding.source.rpartition(":")
        return first_place[path], int(line)

    return sorted(findings, key=place)


# ---------------------------------------------------------------------------- one utterance


def _examine(
    tokenizer: CharTokenizer, features: FeatureConfig, subsampling: int, utterance: Utterance
) -> _Examined:
    findings: list[tuple[str, str]] = []
    text, tokens = _read_text(utterance, tokenizer, findings)
    sound = _read_audio(utterance, features.sample_rate, findings)
    frames = output_length(num_frames(sound.samples, features), subsampling)
    needed = required_frames(tokens)
    if sound.samples and frames < needed:
        seconds = sound.samples / features.sample_rate
        need = f"{len(tokens)} characters need {needed} output frames"
        findings.append(("too long", f"{need}, {seconds:.2f} s give {frames}"))
    named = tuple(Finding(utterance.source, kind, message) for kind, message in findings)
    return _Examined(utterance, named, text, sound)


def _read_text(
    utterance: Utterance, tokenizer: CharTokenizer, findings: list[tuple[str, str]]
) -> tuple[str | None, list[int]]:
    """The normalised text and its tokens; None and no tokens where it has no spelling."""
    try:
        text = normalise_text(utterance.text)
        tokens = tokenizer.encode(text)
    except TextError as error:
        findings.append(("alphabet", str(error)))
        return None, []
    if not tokens:
        findings.append(("empty text", f"nothing is left of {utterance.text!r}"))
    return text, tokens


def _read_audio(utterance: Utterance, sample_rate: int, findings: list[tuple[str, str]]) -> _Sound:
    samples, peak, digest = 0, 0.0, hashlib.blake2b(digest_size=16)
    loudness = [np.zeros(0, np.float32)]
    try:
        for block in stream_audio(utterance.audio_path, sample_rate):
            samples += len(block)
            peak = max(peak, float(np.abs(block).max()))
            digest.update(block.tobytes())
            loudness.append(_loudness(block, round(LOUDNESS_SECONDS * sample_rate)))
    except AudioError as error:
        findings.append(("audio", str(error)))
        return _Sound()
    if peak < SILENCE_PEAK:
        findings.append(("silence", f"{utterance.audio_path} peaks at {peak:.1e} of full scale"))
    seconds = samples / sample_rate
    if not durations_agree(seconds, utterance.duration):
        stated = utterance.duration
        findings.append(("duration", f"{stated:.3f} s stated, the audio has {seconds:.3f} s"))
    return _Sound(samples, digest.digest(), np.concatenate(loudness))


def _loudness(block: Samples, window: int) -> NDArray[np.float32]:
    """Root mean square of each whole window."""
    windows = block[: len(block) // window * window].reshape(-1, window)
    loudness: NDArray[np.float32] = np.sqrt(np.square(windows).mean(axis=1))
    return loudness


# ---------------------------------------------------------------------------- between utterances


def _duplicate_ids(manifests: Sequence[Sequence[Utterance]]) -> Iterator[Finding]:
    for manifest in manifests:
        first: dict[str, Utterance] = {}
        for utterance in manifest:
            other = first.setdefault(utterance.id, utterance)
            if other is not utterance:
                message = f"{utterance.id!r} is also the id of {other.source}"
                yield Finding(utterance.source, "duplicate id", message)


def _duplicate_audio(examined: Sequence[_Examined]) -> Iterator[Finding]:
    first: dict[bytes, Utterance] = {}
    for one in examined:
        if one.sound.samples == 0:
            continue
        other = first.setdefault(one.sound.digest, one.utterance)
        if other is not one.utterance:
            message = f"{one.utterance.audio_path} sounds as {other.audio_path} of {other.source}"
            yield Finding(one.utterance.source, "duplicate audio", message)


def _copies(examined: Sequence[_Examined]) -> Iterator[Finding]:
    """Takes alike in all but their samples; with equal samples they are duplicate audio."""
    takes: dict[tuple[str, str], list[_Examined]] = {}
    for one in examined:
        speaker, text = one.utterance.speaker, one.text
        if speaker is None or text is None or len(text.split()) < COPY_WORDS:
            continue
        others = takes.setdefault((speaker, text), [])
        other = next((other for other in others if _is_copy(one.sound, other.sound)), None)
        if other is not None:
            place = f"{other.utterance.audio_path} of {other.utterance.source}"
            message = f"{one.utterance.audio_path} rises and falls as {place}, with the same text"
            yield Finding(one.utterance.source, "copy", message)
        others.append(one)


def _is_copy(one: _Sound, other: _Sound) -> bool:
    windows = min(len(one.loudness), len(other.loudness))
    if windows < 2 or abs(len(one.loudness) - len(other.loudness)) > 1:
        return False
    first, second = (sound.loudness[:windows] for sound in (one, other))
    if not first.std() or not second.std() or one.digest == other.digest:
        return False
    return float(np.corrcoef(first, second)[0, 1]) > COPY_CORRELATION


def _shared_speakers(manifests: Sequence[Sequence[Utterance]]) -> Iterator[Finding]:
    """Once for each manifest that a speaker of an earlier one stands in."""
    first: dict[str, tuple[int, Utterance]] = {}
    told: set[tuple[int, str]] = set()
    for place, manifest in enumerate(manifests):
        for utterance in manifest:
            if utterance.speaker is None:
                continue
            earlier, other = first.setdefault(utterance.speaker, (place, utterance))
            if earlier != place and (place, utterance.speaker) not in told:
                told.add((place, utterance.speaker))
                message = f"{utterance.speaker!r} also speaks in {other.source}"
                yield Finding(utterance.source, "shared speaker", message)
