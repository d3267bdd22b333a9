"""Splits manifests so that no sentence stands in two splits: the corpus of speech.toml.

    python scripts/hold_out_sentences.py kathleen/train.jsonl ljspeech-part/train.jsonl \
        philipp/train.jsonl grid-s1/train.jsonl --output held-out

Sentences are counted in the order in which they first appear, as the recogniser would write them:
of every ten, the first is held out for dev, the sixth for test, with all of its readings. A split
by utterance would leave a sentence that was read twice, or by two readers, on both sides. The
readers are the same in all three, so that error rates are those of voices that were heard before.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable
from pathlib import Path

from command import run_command

from speech.manifest import Utterance, corpus_name, read_manifest, write_manifest
from speech.tokenizer import normalise_text

EVERY = 10  # sentences, one of which is dev's and one test's
PLACES = {0: "dev", 5: "test"}  # among them; the others are train's


def hold_out(utterances: Iterable[Utterance]) -> dict[str, list[Utterance]]:
    """Return the utterances of each split, in their order."""
    splits: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": []}
    numbers: dict[str, int] = {}
    for utterance in utterances:
        number = numbers.setdefault(normalise_text(utterance.text), len(numbers))
        splits[PLACES.get(number % EVERY, "train")].append(utterance)
    return splits


def read_corpora(manifests: Iterable[Path]) -> Iterable[Utterance]:
    """Yield the utterances of all manifests, named after their corpus as well."""
    for manifest in manifests:
        corpus = Path(corpus_name(manifest)).parent
        for utterance in read_manifest(manifest):
            yield dataclasses.replace(utterance, id=f"{corpus}/{utterance.id}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("manifests", type=Path, nargs="+", metavar="MANIFEST")
    parser.add_argument("--output", type=Path, required=True, help="folder of the new manifests")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for split, utterances in hold_out(read_corpora(options.manifests)).items():
        write_manifest(options.output / f"{split}.jsonl", utterances)
        seconds = sum(one.duration for one in utterances)
        print(f"{split}: {len(utterances)} utterances, {seconds / 3600:.2f} h")


if __name__ == "__main__":
    run_command(main)
