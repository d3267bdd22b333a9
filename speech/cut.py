"""Slices of long recordings to files of their own, which utterances need here."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from speech.audio import load_audio, probe_audio, write_flac
from speech.download import Progress
from speech.errors import AudioError, ManifestError
from speech.manifest import Utterance

OVERSHOOT_SECONDS = 0.5  # by which a slice may end after its recording, as in Kaldi's tools
CUT_THREADS = 4


@dataclass(frozen=True)
class Segment(Utterance):
    """An utterance between two times of ``audio_path``; no other slice of it has the same id."""

    start_seconds: float = 0.0
    end_seconds: float = 0.0


def cut(
    utterances: Sequence[Utterance], folder: Path, progress: Progress | None = None
) -> list[Utterance]:
    """The utterances in their order, every segment with a flac of its own in ``folder``.

    A file is named after its recording and the utterance's id, and one that is there is not made
    again. Raises ManifestError with the segment's source where its recording cannot be read or does
    not reach so far.
    """
    by_recording: dict[Path, list[Segment]] = {}
    for utterance in utterances:
        if isinstance(utterance, Segment):
            by_recording.setdefault(utterance.audio_path, []).append(utterance)
    with ThreadPoolExecutor(CUT_THREADS) as pool:
        try:
            work = pool.map(
                lambda segments: _cut_recording(segments, folder), by_recording.values()
            )
            for done, _ in enumerate(work, start=1):
                if progress is not None:
                    progress("cutting recordings", done, len(by_recording))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [
        _as_file(utterance, folder) if isinstance(utterance, Segment) else utterance
        for utterance in utterances
    ]


def _as_file(segment: Segment, folder: Path) -> Utterance:
    path = folder / segment.audio_path.stem / f"{segment.id}.flac"
    seconds = segment.end_seconds - segment.start_seconds
    return Utterance(segment.id, path, seconds, segment.text, segment.speaker, segment.source)


def _cut_recording(segments: Sequence[Segment], folder: Path) -> None:
    """Write the missing files of one recording's segments."""
    missing = [one for one in segments if not _as_file(one, folder).audio_path.exists()]
    if not missing:
        return
    recording = missing[0].audio_path
    try:
        audio = load_audio(recording, probe_audio(recording).sample_rate)
    except AudioError as error:
        raise ManifestError(f"{missing[0].source}: {error}") from error
    for segment in missing:
        start, end = segment.start_seconds, segment.end_seconds
        if not 0 <= start < min(end, audio.duration) or end > audio.duration + OVERSHOOT_SECONDS:
            raise ManifestError(
                f"{segment.source}: from {start:g} to {end:g} s is not a part of {recording}, "
                f"which has {audio.duration:.2f} s"
            )
        samples = audio.samples[round(start * audio.sample_rate) : round(end * audio.sample_rate)]
        write_flac(_as_file(segment, folder).audio_path, samples, audio.sample_rate)
