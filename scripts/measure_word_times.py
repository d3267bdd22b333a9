"""Measure how far a model's word times are from the truth, and store the constant part with it.

    python scripts/measure_word_times.py base             print the errors of word starts and ends
    python scripts/measure_word_times.py base --store     also write the offsets to calibration.json

Festival tells when it says each word; of flite and eSpeak NG the first word of an utterance is
known to start, and the last to end, at the edges of its energy. Utterances of the sample's texts
are joined with silences of known length into recordings. One half of them gives the offsets of
starts and ends, the other is transcribed with these as any file is, and its errors are printed.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from command import run_command
from synthesise import (
    VOICES,
    Prompt,
    Voice,
    require_engines,
    speak_timed,
    texts_of,
    words_of,
)

from speech.calibration import WordTimes
from speech.checkpoint import find_model, load_model, save_calibration
from speech.transcribe import Recogniser
from speech.transcript import Word
from speech.word_times import TimeErrors, fit_word_times, sum_time_errors, time_errors

SAMPLE_RATE_HZ = 16_000
SAMPLE_TEXTS = Path(__file__).resolve().parent.parent / "data" / "sample" / "manifest.jsonl"
PAUSE_SECONDS = (0.3, 1.0)
UTTERANCES_PER_RECORDING = 6
EDGE_DB = -40.0  # against the loudest 10 ms: speech begins and ends there
EDGE_WINDOW_SAMPLES = SAMPLE_RATE_HZ // 100
SEED = 1
ENGINES = ["festival", "flite"]


@dataclasses.dataclass(frozen=True)
class Recording:
    """Joined utterances of one voice and the words whose times are known."""

    samples: np.ndarray
    words: tuple[Word, ...]


def energy_edges(samples: np.ndarray) -> tuple[float, float]:
    """Where speech begins and ends, in seconds, to 10 ms."""
    count = len(samples) // EDGE_WINDOW_SAMPLES
    windows = samples[: count * EDGE_WINDOW_SAMPLES].reshape(count, EDGE_WINDOW_SAMPLES)
    energy = np.square(windows).mean(axis=1)
    loud = np.flatnonzero(energy > energy.max() * 10 ** (EDGE_DB / 10))
    seconds = EDGE_WINDOW_SAMPLES / SAMPLE_RATE_HZ
    return float(loud[0] * seconds), float((loud[-1] + 1) * seconds)


def spoken_words(prompt: Prompt) -> tuple[np.ndarray, list[Word]]:
    """Samples of one utterance and its words; times that nobody knows are NaN."""
    samples, timed = speak_timed(prompt, SAMPLE_RATE_HZ)
    if timed:
        return samples, [Word(word, start, end, 1.0) for word, start, end in timed]
    words = words_of(prompt.text)
    starts, ends = [np.nan] * len(words), [np.nan] * len(words)
    starts[0], ends[-1] = energy_edges(samples)
    return samples, [Word(*known, 1.0) for known in zip(words, starts, ends, strict=True)]


def join_with_pauses(prompts: Sequence[Prompt], draw: random.Random) -> Recording:
    """Speak the prompts one after the other, silence before each and behind the last."""
    pieces: list[np.ndarray] = []
    words: list[Word] = []
    position = 0
    for prompt in prompts:
        silence = round(draw.uniform(*PAUSE_SECONDS) * SAMPLE_RATE_HZ)
        samples, spoken = spoken_words(prompt)
        shift = (position + silence) / SAMPLE_RATE_HZ
        words += [
            dataclasses.replace(one, start=one.start + shift, end=one.end + shift) for one in spoken
        ]
        pieces += [np.zeros(silence), samples]
        position += silence + len(samples)
    pieces.append(np.zeros(round(PAUSE_SECONDS[0] * SAMPLE_RATE_HZ)))
    return Recording(np.concatenate(pieces), tuple(words))


def make_recordings(voice: Voice, texts: Sequence[str]) -> list[Recording]:
    """All texts in one voice, in recordings of a few utterances."""
    draw = random.Random(f"{SEED} {voice.speaker}")
    return [
        join_with_pauses(
            [Prompt(text, voice) for text in texts[first : first + UTTERANCES_PER_RECORDING]], draw
        )
        for first in range(0, len(texts), UTTERANCES_PER_RECORDING)
    ]


def measure(recogniser: Recogniser, recordings: Sequence[Recording]) -> TimeErrors:
    """The errors of all words that were heard right and whose times are known."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.wav" for number in range(len(recordings))]
        for path, recording in zip(paths, recordings, strict=True):
            soundfile.write(path, recording.samples, SAMPLE_RATE_HZ)
        heard = [recogniser.transcribe(path).words for path in paths]
    errors = [
        time_errors(recording.words, words)
        for recording, words in zip(recordings, heard, strict=True)
    ]
    return sum_time_errors(errors)


def print_errors(name: str, errors: TimeErrors) -> None:
    within = [np.nanquantile(np.abs(one), 0.9) for one in (errors.starts, errors.ends)]
    print(
        f"{name:32} {known_starts(errors):6} {1000 * errors.median_start:9.0f} "
        f"{1000 * within[0]:9.0f} {1000 * errors.median_end:9.0f} {1000 * within[1]:9.0f}"
    )


def known_starts(errors: TimeErrors) -> int:
    return int(np.isfinite(errors.starts).sum())


def with_times(model_name: str, times: WordTimes) -> Recogniser:
    model = load_model(model_name)
    calibration = dataclasses.replace(model.calibration, word_times=times)
    return Recogniser(dataclasses.replace(model, calibration=calibration))


def fit_and_test(model_name: str, voices: Sequence[Voice], texts: Sequence[str]) -> WordTimes:
    """Fit the offsets on one half of each voice's recordings, print the errors on the other."""
    recordings = {voice: make_recordings(voice, texts) for voice in voices}
    halves = [[one for both in recordings.values() for one in both[half::2]] for half in (0, 1)]
    raw = measure(with_times(model_name, WordTimes()), halves[0])
    times = fit_word_times(raw)
    print(
        f"median of   {'':20} {'words':>6} {'starts ms':>9} {'90 %':>9} {'ends ms':>9} {'90 %':>9}"
    )
    print_errors("without offsets, first half", raw)
    recogniser = with_times(model_name, times)
    for voice in voices:
        print_errors(voice.speaker, measure(recogniser, recordings[voice][1::2]))
    tested = measure(recogniser, halves[1])
    print_errors("with offsets, second half", tested)
    measured = {
        "words": known_starts(tested),
        "median_start_error_seconds": round(tested.median_start, 4),
        "median_end_error_seconds": round(tested.median_end, 4),
        "voices": [voice.speaker for voice in voices],
    }
    offsets = (
        times.start_offset_seconds, times.end_offset_seconds, times.pause_start_offset_seconds,
    )  # fmt: skip
    return WordTimes(*(round(offset, 4) for offset in offsets), measured)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="name of a shipped model or a directory")
    parser.add_argument("--store", action="store_true", help="write the offsets beside the model")
    parser.add_argument("--texts", type=Path, default=SAMPLE_TEXTS, help="sentences to speak")
    parser.add_argument("--limit", type=int, help="only the first N sentences")
    parser.add_argument("--engines", nargs="+", default=ENGINES, choices=[*ENGINES, "espeak"])
    arguments = parser.parse_args()
    voices = [voice for voice in VOICES if voice.engine in arguments.engines]
    require_engines(tuple(voices))
    texts = texts_of(arguments.texts)[: arguments.limit]
    times = fit_and_test(arguments.model, voices, texts)
    print(
        f"offsets: starts {times.start_offset_seconds} s, behind a pause "
        f"{times.pause_start_offset_seconds} s, ends {times.end_offset_seconds} s"
    )
    if arguments.store:
        directory = find_model(arguments.model)
        known = load_model(directory).calibration
        save_calibration(directory, dataclasses.replace(known, word_times=times))


if __name__ == "__main__":
    run_command(main)
