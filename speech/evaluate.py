"""A model against manifests: transcribe every utterance and count the errors."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from speech.audio import stream_audio
from speech.errors import AudioError, ManifestError
from speech.manifest import Utterance, corpus_name, read_manifest
from speech.provenance import sha256_of
from speech.results import Evaluation, score_pair
from speech.signal_to_noise import signal_to_noise_db
from speech.tokenizer import normalise_text
from speech.transcribe import Recogniser
from speech.transcript import Transcript


def evaluate(
    manifests: Sequence[Path],
    recogniser: Recogniser,
    model_name: str,
    limit: int | None = None,
    on_utterance: Callable[[Utterance], None] = lambda _: None,
) -> Evaluation:
    """Transcribe every utterance of the manifests as ``speech transcribe`` does, and score.

    `limit` takes the first so many utterances of all. `wall_seconds` counts decoding the audio,
    features, network and search, not loading the model. Raises `ManifestError` for utterances
    without a reference and `AudioError` for unreadable audio: an evaluation leaves nothing out.
    """
    named = read_manifests(manifests, limit)
    utterances = [utterance for _, utterance in named]
    references = [normalise_text(utterance.text) for utterance in utterances]
    began = time.monotonic()
    transcripts = _transcribe(utterances, recogniser, on_utterance)
    wall = time.monotonic() - began
    scores = tuple(
        score_pair(utterance.id, reference, transcript.text, speaker=utterance.speaker,
                   duration=transcript.duration, corpus=corpus, heard=transcript.words)
        for (corpus, utterance), reference, transcript in zip(
            named, references, transcripts, strict=True
        )
    )  # fmt: skip
    seconds = sum(transcript.duration for transcript in transcripts)
    return Evaluation(scores, seconds, wall, model_name, sha256_of(manifests), recogniser.lm_name)


def read_manifests(
    manifests: Sequence[Path], limit: int | None = None
) -> list[tuple[str, Utterance]]:
    """Return the utterances, each with its corpus (`corpus_name`).

    Raises `ManifestError` where there are none.
    """
    named = [
        (corpus_name(manifest), utterance)
        for manifest in manifests
        for utterance in read_manifest(manifest)
    ][:limit]
    if not named:
        raise ManifestError(f"no utterances in {', '.join(map(str, manifests))}")
    return named


def _transcribe(
    utterances: Sequence[Utterance],
    recogniser: Recogniser,
    on_utterance: Callable[[Utterance], None],
) -> list[Transcript]:
    """Return the transcripts in the order of the utterances; the longest are worked on first."""
    order = sorted(range(len(utterances)), key=lambda i: -utterances[i].duration)
    transcripts: dict[int, Transcript] = {}
    results = recogniser.transcribe_many(utterances[i].audio_path for i in order)
    for index, result in zip(order, results, strict=True):
        if isinstance(result, AudioError):
            raise AudioError(f"{utterances[index].source}: {result}")
        transcripts[index] = result
        on_utterance(utterances[index])
    return [transcripts[index] for index in range(len(utterances))]


def measure_noise(
    evaluation: Evaluation,
    utterances: Sequence[Utterance],
    sample_rate: int,
    on_utterance: Callable[[Utterance], None] = lambda _: None,
) -> Evaluation:
    """Return the evaluation with the signal-to-noise ratio of each utterance's audio.

    `utterances[i]` is that of score i. The audio is read again, outside of `wall_seconds`.
    """
    scores = []
    for score, utterance in zip(evaluation.scores, utterances, strict=True):
        ratio = signal_to_noise_db(stream_audio(utterance.audio_path, sample_rate), sample_rate)
        rounded = None if ratio is None else round(ratio, 2)
        scores.append(dataclasses.replace(score, signal_to_noise_db=rounded))
        on_utterance(utterance)
    return dataclasses.replace(evaluation, scores=tuple(scores))
