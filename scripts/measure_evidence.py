"""How much evidence of words a model finds in speech, and the least that its segments must have.

    python scripts/measure_evidence.py MANIFEST... [--model MODEL] [--store]

The network hears the recordings of the manifests, which should be a development set; its log-probs
are cut into pieces of a second, shorter than nearly all segments with words. The least mean
confidence among pieces with characters, and a little more room, is what `speech.calibration`'s
LeastEvidence asks for: less than seconds of speech have. --store writes it beside the model.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from command import run_command
from numpy.typing import NDArray

from speech.calibration import LeastEvidence
from speech.checkpoint import find_model, save_calibration
from speech.decode import greedy
from speech.manifest import read_manifest
from speech.transcribe import Recogniser

PIECE_SECONDS = 1.0
ROOM = 0.85  # of the least mean confidence found: cut elsewhere, pieces have less
PER_SECOND, IN_ALL = 0.1, 1.5  # fewer characters than of one short word in a quarter of a minute


def pieces(log_probs: NDArray[np.float32], frames: int) -> Iterator[NDArray[np.float32]]:
    """Whole pieces of log-probs (T', V) from the beginning on."""
    for start in range(0, len(log_probs) - frames + 1, frames):
        yield log_probs[start : start + frames]


def measure(recogniser: Recogniser, manifests: Sequence[Path]) -> LeastEvidence:
    """What all pieces with characters meet."""
    frames = round(PIECE_SECONDS / recogniser.model.seconds_per_frame)
    heard = [
        greedy(piece).confidences
        for manifest in manifests
        for utterance in read_manifest(manifest)
        for log_probs in recogniser.segment_log_probs(utterance.audio_path)
        for piece in pieces(log_probs, frames)
    ]
    least = min(float(np.mean(one)) for one in heard if one)
    per_second = min(sum(one) / PIECE_SECONDS for one in heard if one)
    return LeastEvidence(
        math.floor(100 * ROOM * least) / 100, min(PER_SECOND, per_second), IN_ALL,
        {
            "manifests": [f"{path.parent.name}/{path.stem}" for path in manifests],
            "piece_seconds": PIECE_SECONDS, "pieces": len(heard),
            "least_confidence": round(least, 3), "least_per_second": round(per_second, 2),
        },
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("manifests", nargs="+", type=Path)
    parser.add_argument("--model", default="base")
    parser.add_argument("--store", action="store_true", help="write it beside the model")
    given = parser.parse_args()
    recogniser = Recogniser.load(given.model)
    least = measure(recogniser, given.manifests)
    print(least)
    if given.store:
        calibration = dataclasses.replace(recogniser.model.calibration, least_evidence=least)
        save_calibration(find_model(given.model), calibration)


if __name__ == "__main__":
    run_command(main)
