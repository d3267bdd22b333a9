"""One utterance for the eye and the ear: sound, log-mel spectrogram, posteriors, aligned texts.

All times are shares of the shown length in percent, so that a page can lay everything over one
another at any width.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from speech.audio import load_audio, to_mp3
from speech.decode import greedy
from speech.errors import AudioError
from speech.metrics import Edit, align
from speech.results import Score
from speech.tokenizer import BLANK, CharTokenizer
from speech.transcribe import Recogniser

SHOWN_SECONDS = 30.0  # of an utterance; what is longer is cut
PLAYER_SAMPLE_RATE = 16000
CURVE_FLOOR = 0.02  # probabilities below are not drawn
CURVE_HEIGHT = 100.0
COLOURS = 64  # of a spectrogram: more cannot be told apart, and cost bytes
PNG_PALETTE = 3  # colour type of the PNG specification, section 11.2.1
VOWELS = frozenset("aeiouy")


class Curve(NamedTuple):
    """The posterior of one token where it is above the floor: points of an SVG polygon."""

    kind: str  # blank, space, vowel or consonant
    character: str
    points: str


class Mark(NamedTuple):
    """A text at a place of the time axis."""

    text: str
    left: float  # percent
    width: float  # percent
    confidence: float


@dataclass(frozen=True)
class Pictures:
    """What is seen and heard of the first `seconds` of an utterance."""

    seconds: float
    cut: bool  # the utterance is longer
    audio: bytes  # MP3
    spectrogram: bytes  # PNG
    spectrogram_width: float  # percent
    mel_marks: tuple[tuple[str, float], ...]  # label, height in percent
    curves: tuple[Curve, ...]
    characters: tuple[Mark, ...]
    frames: int  # T', over the width of the curves
    curves_left: float  # percent
    curves_width: float  # percent


@dataclass(frozen=True)
class UtteranceView:
    """An utterance with its errors; `pictures` is None where its audio cannot be read."""

    score: Score
    edits: tuple[Edit, ...]
    words: tuple[Mark, ...]
    pictures: Pictures | None
    problem: str = ""


def view_utterance(score: Score, audio_path: Path, recogniser: Recogniser) -> UtteranceView:
    """Return what a page shows of an utterance; unreadable audio leaves the texts and says so."""
    edits = tuple(align(score.reference.split(), score.hypothesis.split()))
    try:
        pictures = draw(audio_path, recogniser)
    except AudioError as error:
        return UtteranceView(score, edits, (), None, str(error))
    words = tuple(
        Mark(word.word, 100 * word.start / pictures.seconds,
             100 * (min(word.end, pictures.seconds) - word.start) / pictures.seconds,
             word.confidence)
        for word in score.heard
        if word.start < pictures.seconds
    )  # fmt: skip
    return UtteranceView(score, edits, words, pictures)


def draw(audio_path: Path, recogniser: Recogniser) -> Pictures:
    """Return sound and pictures of a recording. Raises `AudioError` where it cannot be read."""
    features = recogniser.model.config.features
    samples = load_audio(audio_path, features.sample_rate).samples
    player = load_audio(audio_path, PLAYER_SAMPLE_RATE).samples
    shown = samples[: round(SHOWN_SECONDS * features.sample_rate)]
    seconds = len(shown) / features.sample_rate
    with torch.inference_mode():
        log_mel = recogniser.model.extractor.log_mel(torch.from_numpy(shown).to(recogniser.device))
    (log_probs,) = recogniser.log_probs([shown])
    step = 100 * recogniser.model.seconds_per_frame / seconds
    offset = 100 * recogniser.model.calibration.word_times.start_offset_seconds / seconds
    return Pictures(
        seconds=seconds,
        cut=len(shown) < len(samples),
        audio=to_mp3(player[: round(seconds * PLAYER_SAMPLE_RATE)], PLAYER_SAMPLE_RATE),
        spectrogram=to_png(log_mel.cpu().numpy()),
        spectrogram_width=100 * len(log_mel) * features.hop_samples / len(shown),
        mel_marks=tuple(_mel_marks(features.min_hz, features.max_hz)),
        curves=tuple(_curves(np.exp(log_probs), recogniser.model.tokenizer)),
        characters=tuple(_characters(log_probs, recogniser.model.tokenizer, step, offset)),
        frames=len(log_probs),
        curves_left=offset,
        curves_width=step * len(log_probs),
    )


def to_png(log_mel: NDArray[np.float32]) -> bytes:
    """Draw log-mel frames (T, M) as a PNG, one pixel a value, low bands at the bottom.

    Each pixel is one byte, a place in a palette: a third of what colours would take.
    """
    from matplotlib import colormaps  # half a second to import

    low, high = np.quantile(log_mel, (0.02, 0.998))  # digital silence would darken the rest
    shares = (log_mel.T[::-1] - low) / max(high - low, 1e-3)
    levels = np.round(np.clip(shares, 0, 1) * (COLOURS - 1)).astype(np.uint8)
    palette = colormaps["magma"](np.linspace(0, 1, COLOURS), bytes=True)[:, :3]
    rows = np.pad(levels, ((0, 0), (1, 0)))  # each row begins with its filter: 0, none
    header = struct.pack(">IIBBBBB", levels.shape[1], levels.shape[0], 8, PNG_PALETTE, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", palette.tobytes()),
              (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def data_uri(content: bytes, media_type: str) -> str:
    """Return the content as an address that needs no network."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _mel_marks(min_hz: float, max_hz: float) -> Iterator[tuple[str, float]]:
    """Where on Slaney's mel scale some round frequencies lie, bottom 0 to top 100."""
    low, high = _slaney_mel(min_hz), _slaney_mel(max_hz)
    for hz in (500, 1000, 2000, 4000):
        if min_hz < hz < max_hz:
            yield f"{hz / 1000:g} kHz", 100 * (_slaney_mel(hz) - low) / (high - low)


def _slaney_mel(hz: float) -> float:
    """Linear below 1 kHz, logarithmic above (Slaney, Auditory Toolbox, 1998)."""
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * float(np.log(hz / 1000) / np.log(6.4))


def _curves(posteriors: NDArray[np.float32], tokenizer: CharTokenizer) -> Iterator[Curve]:
    """Yield the stretches (T', V) where each token is above the floor, the blank's first."""
    for token in range(posteriors.shape[1]):
        above = np.flatnonzero(posteriors[:, token] > CURVE_FLOOR)
        if not len(above):
            continue
        for stretch in np.split(above, np.flatnonzero(np.diff(above) > 1) + 1):
            character = "" if token == BLANK else tokenizer.decode([token])
            yield Curve(_kind(character), character or "blank",
                        _polygon(stretch, posteriors[stretch, token]))  # fmt: skip


def _kind(character: str) -> str:
    if not character.strip():
        return "space" if character else "blank"
    return "vowel" if character in VOWELS else "consonant"


def _polygon(frames: NDArray[np.int64], heights: NDArray[np.float32]) -> str:
    """Points from the floor up, along the heights in the middle of each frame, and down again."""
    first, last = int(frames[0]), int(frames[-1]) + 1
    tops = [
        f"{frame + 0.5:g},{CURVE_HEIGHT * (1 - height):.1f}"
        for frame, height in zip(frames.tolist(), heights.tolist(), strict=True)
    ]
    return " ".join([f"{first:g},{CURVE_HEIGHT:g}", *tops, f"{last:g},{CURVE_HEIGHT:g}"])


def _characters(
    log_probs: NDArray[np.float32], tokenizer: CharTokenizer, step: float, offset: float
) -> Iterator[Mark]:
    """Yield the characters of the best path in the middle of where they were emitted."""
    best = greedy(log_probs)
    spans = zip(best.tokens, best.frames, best.end_frames, best.confidences, strict=True)
    for token, start, end, confidence in spans:
        text = tokenizer.decode([token])
        yield Mark(
            "␣" if text.isspace() else text, offset + step * (start + end) / 2, 0.0, confidence
        )
