"""Make single spoken words of many synthetic voices, to train a word classifier with.

    python scripts/synthesise_words.py zero one two three --output DIR --clips 4000 --seed 1

DIR gets `train.jsonl` and `audio/<speaker>/<id>.opus` (16 kHz mono). Flite and Festival speak with
their few voices, eSpeak NG with every pair of an English accent and a voice; rate and pitch differ
from clip to clip, and the silence around the word is cut. The same seed, words and engine versions
give the same clips. `synthesise.py` names the Debian packages.
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import soundfile
from command import run_command
from measure_word_times import energy_edges
from synthesise import (
    SAMPLE_RATE_HZ,
    VOICES,
    Prompt,
    Voice,
    require_engines,
    speak_at,
)

from speech.manifest import Utterance, write_manifest

RATES = (0.7, 1.4)
PITCHES = (0.8, 1.3)
MARGIN_SECONDS = (0.0, 0.06)  # of silence kept on either side
FLITE_SHARE, FESTIVAL_SHARE = 0.4, 0.1  # the rest is eSpeak NG's
ESPEAK_ACCENTS = (
    "en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd",
    "en-029", "en-us-nyc",
)  # fmt: skip
# Those that sound like people: no robots, whispers or croaks.
ESPEAK_VOICES = re.findall(
    r"\w+",
    "m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f3 f4 f5 adam antonio belinda benjamin boris caleb david ed "
    "edward edward2 grandma grandpa gustave iven iven2 iven3 iven4 john linda marcelo max michel "
    "miguel norbert pablo paul pedro quincy rob robert sandro shelby steph steph2 steph3 travis "
    "victor zac Alex Alicia Andrea Andy Annie Denis Diogo Gene Gene2 Henrique Hugo Jacky Lee "
    "Marco Mario Michael Mike Nguyen",
)


def voices_of(engine: str) -> list[Voice]:
    """Every voice of an engine that a clip may have."""
    if engine != "espeak":
        return [voice for voice in VOICES if voice.engine == engine]
    return [Voice("espeak", f"{a}+{name}") for a in ESPEAK_ACCENTS for name in ESPEAK_VOICES]


def draw_prompts(words: Sequence[str], seed: int) -> Iterator[Prompt]:
    """Endless prompts: the words in turn, engine, voice, rate and pitch drawn."""
    draw = random.Random(seed)
    voices = {engine: voices_of(engine) for engine in ("flite", "festival", "espeak")}
    shares = (FLITE_SHARE, FESTIVAL_SHARE, 1 - FLITE_SHARE - FESTIVAL_SHARE)
    while True:
        for word in words:
            engine = draw.choices(list(voices), shares)[0]
            rate, pitch = draw.uniform(*RATES), draw.uniform(*PITCHES)
            yield Prompt(word, draw.choice(voices[engine]), round(rate, 3), round(pitch, 3))


def write_clip(number: int, prompt: Prompt, output: Path, seed: int) -> Utterance:
    """Speak, cut and store one word."""
    speaker = prompt.voice.speaker
    path = output / "audio" / speaker / f"{prompt.text}-{speaker}-{number:06d}.opus"
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = speak_at(prompt, SAMPLE_RATE_HZ)
    start, end = energy_edges(samples)
    draw = random.Random(f"{seed} {number}")
    first = max(0, round((start - draw.uniform(*MARGIN_SECONDS)) * SAMPLE_RATE_HZ))
    last = round((end + draw.uniform(*MARGIN_SECONDS)) * SAMPLE_RATE_HZ)
    soundfile.write(path, samples[first:last], SAMPLE_RATE_HZ, format="OGG", subtype="OPUS")
    seconds = len(samples[first:last]) / SAMPLE_RATE_HZ
    return Utterance(path.stem, path, round(seconds, 4), prompt.text, speaker)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("words", nargs="+")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    require_engines(VOICES)
    numbered = enumerate(islice(draw_prompts(options.words, options.seed), options.clips))
    with ThreadPoolExecutor(options.jobs) as pool:
        clips = list(
            pool.map(lambda item: write_clip(*item, options.output, options.seed), numbered)
        )
    write_manifest(options.output / "train.jsonl", clips)
    voices = len({clip.speaker for clip in clips})
    print(f"{len(clips)} clips of {voices} voices, {sum(one.duration for one in clips):.0f} s")


if __name__ == "__main__":
    run_command(main)
