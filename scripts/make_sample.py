"""Make data/sample: synthetic utterances by several engines and voices, in several formats.

    python scripts/make_sample.py                 remake data/sample in place
    python scripts/make_sample.py --exclude F...  also check that no F holds a sample sentence

Same engine versions, same samples. A file whose decoded samples are already right is left alone:
an Ogg stream carries a random number, which would make every run a change. Engines and voices
come from the same Debian packages as in synthesise.py, whose engine calls this script uses.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from command import run_command
from synthesise import (
    Prompt,
    SynthesisError,
    TimedWord,
    Voice,
    key_of,
    manifest_entry,
    require_engines,
    speak_timed,
    texts_of,
)

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "sample"
RIGHT_GAIN = 0.6  # the stereo file is louder on the left, so that mixing down has work to do


@dataclass(frozen=True)
class Format:
    """A container and coding as libsndfile names them."""

    suffix: str
    container: str
    coding: str
    sample_rate_hz: int = 16_000
    channels: int = 1


FLAC = Format("flac", "FLAC", "PCM_16")
OPUS = Format("opus", "OGG", "OPUS")
TELEPHONE = Format("wav", "WAV", "PCM_16", sample_rate_hz=8_000)
STEREO = Format("mp3", "MP3", "MPEG_LAYER_III", sample_rate_hz=44_100, channels=2)

SLT = Voice("flite", "slt", f0_hz=170)
RMS = Voice("flite", "rms")
AWB = Voice("flite", "awb", f0_hz=125)
KAL16 = Voice("flite", "kal16", f0_hz=100)
KED = Voice("festival", "ked_diphone", f0_hz=105)
KAL = Voice("festival", "kal_diphone", f0_hz=105)
SLT_HTS = Voice("festival", "cmu_us_slt_arctic_hts")
ESPEAK_US = Voice("espeak", "en-us")
ESPEAK_GB = Voice("espeak", "en-gb+f3")

UTTERANCES = (
    (FLAC, Prompt("The children left their wet boots beside the kitchen door.", SLT)),
    (FLAC, Prompt("Please bring two more chairs and put them around the big table.", RMS)),
    (FLAC, Prompt("My uncle bakes fresh bread in a small shop near the bridge.", AWB)),
    (OPUS, Prompt("The old clock on the wall has been ten minutes slow since summer.", KAL16)),
    (FLAC, Prompt("Could you read that last line once more, a little louder?", SLT, pitch=1.1)),
    (FLAC, Prompt("We painted the fence green, but the gate is still white.", KED)),
    (OPUS, Prompt("The doctor said I should drink more water and walk every evening.", SLT)),
    (TELEPHONE, Prompt("A yellow bird built its nest above our bedroom window.", RMS)),
    (FLAC, Prompt("She found her missing glasses inside the bread box!", SLT_HTS)),
    (FLAC, Prompt("Snow covered the road, so the bus turned back before noon.", AWB, rate=0.9)),
    (STEREO, Prompt("After supper we will count the falling stars from the roof.", SLT)),
    (FLAC, Prompt("The farmer counted his sheep twice and smiled.", KAL)),
    (FLAC, Prompt("Half of the class wanted to learn the piano this year.", RMS, rate=1.1)),
    (FLAC, Prompt("I forgot the milk, but I remembered your birthday cake.", ESPEAK_GB)),
    (FLAC, Prompt("The river was so clear that we could count every stone.", AWB, pitch=0.9)),
    (FLAC, Prompt("Turn the heating down and close the small window, please.", SLT, rate=1.15)),
    (OPUS, Prompt("Nobody told the cook that twelve more guests were coming.", KED, rate=1.1)),
    (FLAC, Prompt("Her brother repairs bicycles in the cellar and never asks for money.", RMS)),
    (FLAC, Prompt("Why does the moon look larger when it hangs over the sea?", SLT_HTS)),
    (OPUS, Prompt("The teacher opened the box slowly, and everyone held their breath.", AWB)),
    (FLAC, Prompt("If the weather stays dry, we will plant beans on Monday.", ESPEAK_US)),
    (FLAC, Prompt("He folded the letter twice and hid it under the carpet.", KAL16, rate=0.95)),
)


def with_channels(samples: np.ndarray, channels: int) -> np.ndarray:
    """(S,) as it is for one channel, or (S, 2) with a quieter right side."""
    return samples if channels == 1 else np.stack([samples, RIGHT_GAIN * samples], axis=1)


def same_samples(first: Path, second: Path) -> bool:
    """Whether both files exist and decode to equal samples at equal rates."""
    if not first.exists():
        return False
    (one, one_rate), (other, other_rate) = soundfile.read(first), soundfile.read(second)
    return bool(one_rate == other_rate and np.array_equal(one, other))


def write_audio(path: Path, prompt: Prompt, form: Format) -> list[TimedWord]:
    """Speak `prompt` into `path` unless it holds just that; when each word is said, if known."""
    mono, words = speak_timed(prompt, form.sample_rate_hz)
    samples = with_channels(mono, form.channels)
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / path.name
        soundfile.write(
            fresh, samples, form.sample_rate_hz, subtype=form.coding, format=form.container
        )
        if not same_samples(path, fresh):
            path.write_bytes(fresh.read_bytes())
    return words


def make_utterance(
    number: int, form: Format, prompt: Prompt, folder: Path
) -> tuple[dict[str, object], list[TimedWord]]:
    """Write one utterance; its manifest entry, and when each word is said, if known."""
    path = folder / "audio" / f"{number:02d}-{prompt.voice.speaker}.{form.suffix}"
    words = write_audio(path, prompt, form)
    return manifest_entry(path, folder, prompt), words


def check_unseen(files: list[Path]) -> None:
    """Raise `SynthesisError` where a text file or manifest holds a sentence of the sample."""
    ours = {key_of(prompt.text) for _, prompt in UTTERANCES}
    for path in files:
        for text in texts_of(path):
            if key_of(text) in ours:
                raise SynthesisError(f"{path} holds a sentence of the sample: {text}")


def make_sample(folder: Path) -> list[dict[str, object]]:
    """Write audio, manifest and word times to `folder`, remove other audio; returns the entries."""
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    numbered = enumerate(UTTERANCES, start=1)
    made = [make_utterance(number, form, prompt, folder) for number, (form, prompt) in numbered]
    entries = [entry for entry, _ in made]
    written = {folder / str(entry["audio_filepath"]) for entry in entries}
    for stale in set((folder / "audio").iterdir()) - written:
        stale.unlink()
    lines = [json.dumps(entry) + "\n" for entry in entries]
    (folder / "manifest.jsonl").write_text("".join(lines), encoding="utf-8")
    rows = [json.dumps({"id": entry["id"], "words": words}) for entry, words in made if words]
    (folder / "word_times.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return entries


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the synthetic sample in data/sample.")
    parser.add_argument("--output", type=Path, default=SAMPLE)
    parser.add_argument(
        "--exclude",
        type=Path,
        nargs="*",
        default=[],
        metavar="FILE",
        help="manifests or texts (one sentence a line) that must not hold a sentence",
    )
    arguments = parser.parse_args()
    require_engines(tuple(prompt.voice for _, prompt in UTTERANCES))
    check_unseen(arguments.exclude)
    entries = make_sample(arguments.output)
    seconds = sum(float(str(entry["duration"])) for entry in entries)
    print(f"{len(entries)} utterances, {seconds:.1f} s in {arguments.output / 'manifest.jsonl'}")


if __name__ == "__main__":
    run_command(main)
