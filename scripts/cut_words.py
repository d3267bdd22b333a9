"""Cut single words out of transcribed speech, to train a word classifier with.

    python scripts/cut_words.py MANIFEST... --words zero one two three --output DIR

A recogniser aligns each transcript that holds one of the words with its audio; DIR gets a flac of
every such word that it is sure of, and `train.jsonl`. A margin is kept around a word, but no more
than half of the way to its neighbour.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from command import run_command

from speech.alignment import with_alignment
from speech.audio import load_audio
from speech.checkpoint import Model, load_model
from speech.cut import Segment, cut
from speech.decode import Hypothesis
from speech.errors import SpeechError
from speech.features import pad_features
from speech.manifest import Utterance, corpus_name, read_manifest, write_manifest
from speech.tokenizer import normalise_text
from speech.transcript import Word
from speech.words import WordReader

MARGIN_SECONDS = 0.06
SECONDS = (0.15, 1.2)  # shortest and longest word


def aligned_words(utterance: Utterance, text: str, model: Model) -> tuple[list[Word], float]:
    """The words of a text with their times in the utterance, and how long that is in seconds."""
    audio = load_audio(utterance.audio_path, model.config.features.sample_rate)
    with torch.inference_mode():
        features = model.extractor.extract(torch.from_numpy(audio.samples))
        log_probs, _ = model.network(*pad_features([features]))
    tokens = tuple(model.tokenizer.encode(text))
    aligned = with_alignment(Hypothesis(tokens, (), (), (), 0.0, 0.0), log_probs[0].numpy())
    reader = WordReader(model.tokenizer, model.seconds_per_frame, model.calibration.word_times)
    return reader.words(aligned, 0.0, audio.duration), audio.duration


def segments_of(
    utterance: Utterance, spoken: Sequence[Word], seconds: float, wanted: frozenset[str]
) -> Iterator[tuple[float, Segment]]:
    """The wanted words of a likely length, each with how sure it is."""
    ends = [0.0, *(word.end for word in spoken)]
    starts = [*(word.start for word in spoken[1:]), seconds]
    for number, (word, before, after) in enumerate(zip(spoken, ends, starts, strict=False)):
        start = word.start - min(MARGIN_SECONDS, (word.start - before) / 2)
        end = word.end + min(MARGIN_SECONDS, (after - word.end) / 2)
        if word.word in wanted and SECONDS[0] <= end - start <= SECONDS[1]:
            name = f"{utterance.id.replace('/', '-')}-{number}-{word.word}"
            yield word.confidence, Segment(
                name, utterance.audio_path, round(end - start, 4), word.word, utterance.speaker,
                utterance.source, max(0.0, start), end,
            )  # fmt: skip


def cut_manifest(
    manifest: Path, wanted: frozenset[str], model: Model, sure: float, folder: Path
) -> list[Utterance]:
    """Write the wanted words of a manifest that are sure enough."""
    segments: list[Segment] = []
    for utterance in read_manifest(manifest):
        text = normalise_text(utterance.text)
        if not wanted & set(text.split()):
            continue
        try:
            found = segments_of(utterance, *aligned_words(utterance, text, model), wanted)
            segments += [segment for confidence, segment in found if confidence >= sure]
        except SpeechError as error:
            print(f"{utterance.source}: {error}", file=sys.stderr)
    print(f"{manifest}: {len(segments)} words")
    return cut(segments, folder / corpus_name(manifest).replace("/", "-"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("manifests", nargs="+", type=Path)
    parser.add_argument("--words", nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default="base", help="the recogniser that aligns")
    parser.add_argument("--sure", type=float, default=0.3, help="least confidence of a word")
    options = parser.parse_args()
    model, wanted = load_model(options.model), frozenset(options.words)
    clips: list[Utterance] = []
    for manifest in options.manifests:
        folder = options.output / "audio"
        clips += cut_manifest(manifest, wanted, model, options.sure, folder)
    write_manifest(options.output / "train.jsonl", clips)


if __name__ == "__main__":
    run_command(main)
