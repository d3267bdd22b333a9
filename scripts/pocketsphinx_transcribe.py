"""pocketsphinx with its bundled model on recordings, as a process of its own.

    python scripts/pocketsphinx_transcribe.py AUDIO.wav                       print what was said
    python scripts/pocketsphinx_transcribe.py --manifest M --share 0/2 --output FILE.json

Of a manifest, share 0/2 is every other utterance, the longest first, so that processes that run
side by side take equally long. Default settings: the whole of an utterance is normalised at once
(its model says ``-cmn batch``), so that no transcript depends on those before it. It imports
little, since its memory is measured; times are without loading the model.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import wave
from collections.abc import Iterator
from pathlib import Path

from command import run_command
from pocketsphinx import Decoder

from speech.errors import AudioError

SAMPLE_RATE = 16000
TOLD_SECONDS = 30.0  # between two lines about the progress


def transcribe(decoder: Decoder, pcm: bytes) -> str:
    """Return the best hypothesis of 16-bit samples; nothing heard is an empty text."""
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return hypothesis.hypstr if hypothesis is not None else ""


def read_wave(path: Path) -> bytes:
    try:
        with wave.open(str(path)) as file:
            form = file.getframerate(), file.getnchannels(), file.getsampwidth()
            pcm = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise AudioError(f"{path}: not a WAV file: {error}") from error
    if form != (SAMPLE_RATE, 1, 2):
        raise AudioError(f"{path}: needs 16-bit mono at {SAMPLE_RATE} Hz")
    return pcm


def transcribe_share(decoder: Decoder, manifest: Path, share: str) -> dict[str, object]:
    """Return the texts of a share by their places in the manifest, and how long they took."""
    from speech.audio import load_audio
    from speech.manifest import read_manifest

    number, shares = map(int, share.split("/"))
    utterances = read_manifest(manifest)
    longest_first = sorted(range(len(utterances)), key=lambda i: -utterances[i].duration)
    own = longest_first[number::shares]
    texts: dict[int, str] = {}
    seconds: dict[int, float] = {}
    began = time.monotonic()
    for index in _telling(own):
        samples = load_audio(utterances[index].audio_path, SAMPLE_RATE).samples
        pcm = (samples * 32767.0).round().clip(-32768, 32767).astype("<i2").tobytes()
        texts[index] = transcribe(decoder, pcm)
        seconds[index] = len(samples) / SAMPLE_RATE
    return {"texts": texts, "seconds": seconds, "wall_seconds": time.monotonic() - began}


def _telling(indices: list[int]) -> Iterator[int]:
    told = time.monotonic()
    for done, index in enumerate(indices):
        if time.monotonic() - told > TOLD_SECONDS:
            told = time.monotonic()
            print(f"pocketsphinx: {done} of {len(indices)} utterances", file=sys.stderr, flush=True)
        yield index


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("audio", type=Path, nargs="?")
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--share", default="0/1", metavar="N/OF")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if (arguments.audio is None) == (arguments.manifest is None or arguments.output is None):
        parser.error("needs AUDIO, or --manifest and --output")
    decoder = Decoder()
    if arguments.audio is not None:
        print(transcribe(decoder, read_wave(arguments.audio)))
        return
    result = transcribe_share(decoder, arguments.manifest, arguments.share)
    arguments.output.write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
