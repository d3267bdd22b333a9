"""Make a corpus of synthetic English speech with flite, eSpeak NG and Festival.

    python scripts/synthesise.py SENTENCES.txt OTHER.txt.xz --output DIR --hours 2.5 --seed 1

Each TEXT holds one sentence a line; equal shares are drawn from every file. DIR gets
`train.jsonl` and `audio/<speaker>/<id>.opus` (16 kHz mono). The same seed, texts and engine
versions give the same sentences, voices and samples. The engines and voices are Debian packages:

    apt-get install flite espeak-ng festival festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts

Only sentences are used that every engine reads as they are spelled: no digits, abbreviations,
capitals inside words or lone letters, so that the manifest's text is what is heard.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
from command import run_command

from speech.errors import SpeechError

SAMPLE_RATE_HZ = 16_000
PEAK = 0.7
RATES = (0.85, 1.2)
PITCHES = (0.88, 1.14)
WORDS = (3, 18)
SPOKEN_SHARE = 0.1  # digit strings and commands together, half each
MIN_WORD_COUNT = 10  # a rarer word is often a name that the engines read wrongly
SENTENCE = re.compile(r"[A-Za-z' ,]+[.?!]")
WORD = re.compile(r"I|a|A|O|[A-Za-z]?[a-z]+(?:'[a-z]+)*")
READ_OTHERWISE = frozenset(
    re.findall(
        r"\w+",
        "mr mrs ms dr st jr sr prof gen col capt lt sgt rev hon messrs mme mlle vs etc vol ch pp"
        " jan feb apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur thurs fri"
        " ave blvd rd ft lb lbs oz kg km cm mm hr hrs sec co inc ltd dept govt",
    )
)


class SynthesisError(SpeechError):
    """An engine is missing or failed; one line says which and what to do."""


@dataclass(frozen=True)
class Voice:
    """One voice of one engine; `f0_hz` is its mean pitch where the engine takes a target."""

    engine: str
    name: str
    share: float = 0.0  # of a drawn corpus
    f0_hz: float = 0.0

    @property
    def speaker(self) -> str:
        return f"{self.engine}-{self.name.replace('+', '-')}"


VOICES = (
    Voice("flite", "slt", 0.19, 170),
    Voice("flite", "rms", 0.15),
    Voice("flite", "awb", 0.15, 125),
    Voice("flite", "kal16", 0.10, 100),
    Voice("flite", "kal", 0.03, 100),  # 8 kHz: no energy above 4 kHz
    Voice("festival", "ked_diphone", 0.08, 105),
    Voice("festival", "kal_diphone", 0.05, 105),
    Voice("festival", "cmu_us_slt_arctic_hts", 0.05),
    *(
        Voice("espeak", name, 0.025)
        for name in ("en-us", "en-us+f2", "en-us+m3", "en-us+f4", "en-gb", "en-gb+f3", "en-gb+m7")
    ),
    Voice("espeak", "en-gb-scotland+m1", 0.025),
)


@dataclass(frozen=True)
class Prompt:
    """What is said by whom; `rate` and `pitch` are factors on the voice's own."""

    text: str
    voice: Voice
    rate: float = 1.0
    pitch: float = 1.0


class TimedWord(NamedTuple):
    """A word and when it is said, in seconds from the beginning of the samples."""

    word: str
    start: float
    end: float


# -- engines ---------------------------------------------------------------------------------


def flite_command(prompt: Prompt, wav: Path) -> list[str]:
    """The flite call that writes `prompt` to `wav` (cmu_us_rms ignores a pitch target)."""
    settings = ["--setf", f"duration_stretch={1 / prompt.rate:.4f}"]
    if prompt.voice.f0_hz:
        settings += ["--setf", f"int_f0_target_mean={prompt.voice.f0_hz * prompt.pitch:.1f}"]
    return ["flite", "-voice", prompt.voice.name, *settings, "-t", prompt.text, "-o", str(wav)]


def espeak_command(prompt: Prompt, wav: Path) -> list[str]:
    """The eSpeak NG call; 160 words a minute and pitch 50 are its calm middle."""
    speed, pitch = round(160 * prompt.rate), round(50 + 100 * (prompt.pitch - 1))
    options = ["-v", prompt.voice.name, "-s", str(speed), "-p", str(pitch), "-w", str(wav)]
    return ["espeak-ng", *options, prompt.text]


# Festival's word and where it starts and ends in seconds, a line a word.
TELL = (
    '(mapcar (lambda (word) (format t "%s %f %f\\n" (item.name word) (item.feat word "word_start")'
    ' (item.feat word "word_end"))) (utt.relation.items spoken (quote Word)))'
)


def festival_command(prompt: Prompt, wav: Path) -> list[str]:
    """The Festival call: Scheme that sets rate and pitch, speaks, saves and prints the words."""
    voice = prompt.voice
    if voice.f0_hz:
        mean = f"(cons (list 'target_f0_mean {voice.f0_hz * prompt.pitch:.1f}) int_lr_params)"
        tune = (
            f"(Parameter.set 'Duration_Stretch {1 / prompt.rate:.4f}) (set! int_lr_params {mean})"
        )
    else:  # HTS voices take a rate and half tones
        half_tones = 12 * math.log2(prompt.pitch)
        extra = f'(list (list "-r" {prompt.rate:.4f}) (list "-fm" {half_tones:.3f}))'
        tune = f"(set! hts_engine_params (append hts_engine_params {extra}))"
    speak = f'(set! spoken (utt.synth (Utterance Text "{prompt.text}")))'
    save = f'(utt.save.wave spoken "{wav}" (quote riff))'
    return ["festival", "--batch", f"(begin (voice_{voice.name}) {tune} {speak} {save} {TELL})"]


COMMANDS = {"flite": flite_command, "espeak": espeak_command, "festival": festival_command}
PROGRAMS = {"flite": "flite", "espeak": "espeak-ng", "festival": "festival"}


def require_engines(voices: tuple[Voice, ...]) -> None:
    """Raise `SynthesisError` naming the programs, or flite's voices, that this machine lacks."""
    needed = {PROGRAMS[voice.engine] for voice in voices}
    missing = sorted(program for program in needed if shutil.which(program) is None)
    if missing:
        names = " ".join(missing)
        raise SynthesisError(f"not installed: {names}; on Debian: apt-get install {names}")
    require_flite_voices({voice.name for voice in voices if voice.engine == "flite"})


def require_flite_voices(names: set[str]) -> None:
    """Flite speaks with its first voice, without a word, where it does not know the one asked."""
    if not names:
        return
    listed = subprocess.run(["flite", "-lv"], capture_output=True, text=True, check=False).stdout
    missing = sorted(names - set(listed.split()))
    if missing:
        raise SynthesisError(f"this flite lacks the voices {missing}; {listed.strip()}")


def run_engine(prompt: Prompt) -> tuple[np.ndarray, int, str]:
    """Samples (S,) float64 of `prompt` as its engine made them, their rate in Hz, what it said."""
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "speech.wav"
        command = COMMANDS[prompt.voice.engine](prompt, wav)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not wav.exists():
            why = (done.stderr.strip().splitlines() or ["no audio written"])[-1]
            raise SynthesisError(f"{prompt.voice.speaker} on {prompt.text!r}: {why}")
        samples, sample_rate = soundfile.read(wav)
    if not np.any(samples):
        raise SynthesisError(f"{prompt.voice.speaker} on {prompt.text!r}: silence")
    return samples, sample_rate, done.stdout


def _speak_at(prompt: Prompt, sample_rate: int) -> tuple[np.ndarray, str]:
    """The samples of `speak_at`, and what the engine printed."""
    samples, engine_rate, told = run_engine(prompt)
    samples = soxr.resample(samples, engine_rate, sample_rate, quality="VHQ")
    return np.asarray(PEAK * samples / np.max(np.abs(samples))), told


def speak_at(prompt: Prompt, sample_rate: int) -> np.ndarray:
    """Samples (S,) float64 of `prompt` at `sample_rate` Hz with a peak of `PEAK`."""
    samples, _ = _speak_at(prompt, sample_rate)
    return samples


def speak_timed(prompt: Prompt, sample_rate: int) -> tuple[np.ndarray, list[TimedWord]]:
    """The samples of `speak_at` and when each word is said, which Festival alone can tell.

    Raises `SynthesisError` where Festival read other words than the prompt's, or split one: "dog's"
    is two for it.
    """
    samples, told = _speak_at(prompt, sample_rate)
    if prompt.voice.engine != "festival":
        return samples, []
    words = [line.split() for line in told.splitlines()]
    timed = [TimedWord(word.lower(), float(start), float(end)) for word, start, end in words]
    if [word.word for word in timed] != words_of(prompt.text):
        raise SynthesisError(f"{prompt.voice.speaker} on {prompt.text!r}: read as {timed}")
    return samples, timed


# -- sentences -------------------------------------------------------------------------------


def words_of(text: str) -> list[str]:
    """The words of `text` in lower case, without punctuation."""
    return re.findall(r"[a-z']+", text.lower())


def is_plain(line: str) -> bool:
    """Whether every engine reads `line` as it is spelled."""
    if not SENTENCE.fullmatch(line):
        return False
    words = line[:-1].replace(",", " ").split()
    plain = all(WORD.fullmatch(word) and word.lower() not in READ_OTHERWISE for word in words)
    return plain and WORDS[0] <= len(words) <= WORDS[1]


def texts_of(path: Path) -> list[str]:
    """The texts of a manifest (`.jsonl`) or the lines of a text file (`.xz` too)."""
    packed = path.read_bytes()
    try:
        data = lzma.decompress(packed) if path.suffix == ".xz" else packed
        lines = [line.strip() for line in data.decode("utf-8").split("\n") if line.strip()]
        return [json.loads(line)["text"] for line in lines] if path.suffix == ".jsonl" else lines
    except (lzma.LZMAError, ValueError, KeyError, TypeError) as error:
        raise SynthesisError(f"{path}: no texts, and no manifest: {error}") from error


def key_of(text: str) -> str:
    """What two texts share when they sound the same: their words."""
    return " ".join(words_of(text))


def read_sentences(path: Path, excluded: frozenset[str]) -> list[str]:
    """The plain sentences of a file, less the excluded, whose words are all common in it."""
    plain = [line for line in texts_of(path) if is_plain(line)]
    counts = Counter(word for line in plain for word in words_of(line))
    common = {word for word, count in counts.items() if count >= MIN_WORD_COUNT}
    return [s for s in plain if common.issuperset(words_of(s)) and key_of(s) not in excluded]


DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "oh")
COMMANDS_SPOKEN = (
    ("turn on|turn off|switch on|switch off|dim", "the", "lights|lamp|radio|heater|fan|television"),
    ("open|close|lock", "the", "door|window|garage|curtains|gate|file"),
    ("play|pause|repeat|skip|stop", "the|this|that|my", "song|music|video|playlist|story|message"),
    ("set|start|cancel|change", "the|a|my", "timer|alarm|reminder|meeting"),
    ("call|text|remind|tell", "my", "mother|father|brother|sister|friend|doctor|teacher|boss"),
    ("show|read|send|save|delete", "the|my|this", "message|picture|list|page|letter|note"),
    ("go|move|turn|look", "left|right|up|down|back|forward", "now|again|slowly|please"),
)
ENDINGS = ("", "", "", "now", "please", "again", "in the kitchen", "in the bedroom", "tonight")


def digit_string(draw: random.Random) -> str:
    """Three to eight spoken digits."""
    return " ".join(draw.choices(DIGITS, k=draw.randint(3, 8)))


def command_sentence(draw: random.Random) -> str:
    """A short order to a machine."""
    parts = [draw.choice(options.split("|")) for options in draw.choice(COMMANDS_SPOKEN)]
    ending = draw.choice(ENDINGS) if parts[-1] not in ("now", "again", "please") else ""
    return " ".join([*parts, ending]).strip()


def draw_prompts(pools: list[list[str]], seed: int) -> Iterator[Prompt]:
    """Endless prompts: sentences in turn from each pool, none twice, and `SPOKEN_SHARE` others."""
    draw = random.Random(seed)
    pools = [draw.sample(pool, len(pool)) for pool in pools]
    shares = [voice.share for voice in VOICES]
    turn = 0
    while True:
        if draw.random() < SPOKEN_SHARE:
            text = draw.choice((digit_string, command_sentence))(draw)
        else:
            turn += 1
            pool = pools[turn % len(pools)]
            if not pool:
                raise SynthesisError("the texts hold too few plain sentences for so many hours")
            text = pool.pop()
        rate, pitch = draw.uniform(*RATES), draw.uniform(*PITCHES)
        yield Prompt(text, draw.choices(VOICES, shares)[0], round(rate, 3), round(pitch, 3))


# -- the corpus ------------------------------------------------------------------------------


def write_utterance(number: int, prompt: Prompt, output: Path) -> dict[str, object]:
    """Speak and store one utterance; its manifest entry."""
    name = f"{prompt.voice.speaker}-{number:06d}"
    path = output / "audio" / prompt.voice.speaker / f"{name}.opus"
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = speak_at(prompt, SAMPLE_RATE_HZ)
    soundfile.write(path, samples, SAMPLE_RATE_HZ, format="OGG", subtype="OPUS")
    return manifest_entry(path, output, prompt)


def manifest_entry(path: Path, folder: Path, prompt: Prompt) -> dict[str, object]:
    """The manifest line of what `prompt` became at `path`; duration in seconds as decoded."""
    decoded, sample_rate = soundfile.read(path)
    return {
        "id": path.stem,
        "audio_filepath": path.relative_to(folder).as_posix(),
        "duration": round(len(decoded) / sample_rate, 4),
        "text": prompt.text,
        "speaker": prompt.voice.speaker,
    }


def write_corpus(prompts: Iterator[Prompt], output: Path, hours: float, jobs: int) -> int:
    """Write utterances until they last `hours`, then the manifest; returns how many there are."""
    entries: list[dict[str, object]] = []
    seconds_left = hours * 3600
    numbered = enumerate(prompts)
    with ThreadPoolExecutor(jobs) as pool:
        while seconds_left > 0:
            batch = list(islice(numbered, 32))
            for entry in pool.map(lambda item: write_utterance(*item, output), batch):
                if seconds_left > 0:
                    entries.append(entry)
                    seconds_left -= float(str(entry["duration"]))
                else:
                    (output / str(entry["audio_filepath"])).unlink()
            print(f"{len(entries)} utterances", file=sys.stderr)
    lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries]
    (output / "train.jsonl").write_text("".join(lines), "utf-8")
    return len(entries)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a corpus of synthetic English speech.")
    parser.add_argument("texts", nargs="+", type=Path, metavar="TEXT", help="one sentence a line")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--exclude",
        type=Path,
        nargs="*",
        default=[],
        metavar="FILE",
        help="manifests or texts whose sentences must not be spoken, such as evaluation sets",
    )
    arguments = parser.parse_args()
    require_engines(VOICES)
    excluded = frozenset(key_of(t) for path in arguments.exclude for t in texts_of(path))
    pools = [read_sentences(path, excluded) for path in arguments.texts]
    prompts = draw_prompts(pools, arguments.seed)
    count = write_corpus(prompts, arguments.output, arguments.hours, arguments.jobs)
    print(f"{count} utterances, {arguments.hours} h in {arguments.output / 'train.jsonl'}")


if __name__ == "__main__":
    run_command(main)
