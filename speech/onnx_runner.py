"""Transcribe WAV files by an exported model; needs numpy and onnxruntime, and no torch.

    python transcribe.py recording.wav ...

It stands alone: ``speech export`` writes it beside the model as ``transcribe.py``. As a module:
``OnnxRecogniser("DIR").transcribe(samples)``.
"""

from __future__ import annotations

import argparse
import sys
import wave
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MODEL_FILE, TOKENS_FILE = "model.onnx", "tokens.txt"
MAX_SECONDS = 30.0  # longer recordings are cut: the network has heard nothing longer
_PAUSE_SECONDS = 0.2  # a cut is in the middle of the quietest stretch of this length
_BLANK = 0
_NAMED_TOKENS = {"<space>": " "}


class OnnxRecogniser:
    """An exported model at work under onnxruntime: samples to log-probs to text."""

    def __init__(self, directory: str | Path, threads: int = 0) -> None:
        """Load the model of a directory; `threads` of 0 takes all cores."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        path = Path(directory) / MODEL_FILE
        if not path.is_file():
            raise FileNotFoundError(2, "no exported model", str(path))
        self._session: Any = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        facts = self._session.get_modelmeta().custom_metadata_map
        self.sample_rate = int(facts["sample_rate"])
        lines = (Path(directory) / TOKENS_FILE).read_text(encoding="utf-8").splitlines()
        self.symbols = [_NAMED_TOKENS.get(line, line) for line in lines]

    def log_probs(self, samples: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Return the log-probs (T', V) of each sample vector (S,), computed as one batch."""
        lengths = np.array([len(one) for one in samples], np.int64)
        if not len(lengths) or not lengths.min():
            raise ValueError(f"needs sample vectors with samples, got lengths {lengths.tolist()}")
        batch = np.zeros((len(samples), lengths.max()), np.float32)
        for row, one in zip(batch, samples, strict=True):
            row[: len(one)] = one
        log_probs, counts = self._session.run(None, {"samples": batch, "lengths": lengths})
        return [row[:count] for row, count in zip(log_probs, counts, strict=True)]

    def text(self, log_probs: NDArray[np.float32]) -> str:
        """Return the text of the likeliest path (T', V): repeats merged, blanks removed."""
        path = [_BLANK, *log_probs.argmax(1).tolist()]
        tokens = [token for before, token in pairwise(path) if token not in (before, _BLANK)]
        return "".join(self.symbols[token] for token in tokens).strip()

    def transcribe(self, samples: NDArray[np.float32]) -> str:
        """Return what is said in samples (S,) of any length: mono, in [-1, 1], the model's rate."""
        texts = [self.text(self.log_probs([one])[0]) for one in self._pieces(samples)]
        return " ".join(text for text in texts if text)

    def _pieces(self, samples: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """Yield pieces of at most MAX_SECONDS that leave nothing out, cut where it is quietest."""
        longest, width = (
            int(seconds * self.sample_rate) for seconds in (MAX_SECONDS, _PAUSE_SECONDS)
        )
        while len(samples) > longest:
            half = longest // 2
            energy = np.cumsum(np.square(samples[half:longest], dtype=np.float64))
            cut = half + int(np.argmin(energy[width:] - energy[:-width])) + width // 2
            yield samples[:cut]
            samples = samples[cut:]
        if len(samples):
            yield samples


def read_wav(path: str | Path, sample_rate: int) -> NDArray[np.float32]:
    """Return the samples (S,) of a 16-bit mono WAV file. Raises ValueError for any other file."""
    try:
        with wave.open(str(path), "rb") as file:
            found = file.getframerate(), file.getnchannels(), 8 * file.getsampwidth()
            content = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{path}: not a WAV file: {error}") from error
    if found != (sample_rate, 1, 16):
        raise ValueError(
            f"{path}: {found[0]} Hz, {found[1]} channels of {found[2]} bits; needs {sample_rate} "
            f"Hz, 1 channel of 16 bits: ffmpeg -i IN -ar {sample_rate} -ac 1 -c:a pcm_s16le OUT.wav"
        )
    return np.frombuffer(content, "<i2").astype(np.float32) / np.float32(32768)


def main() -> None:
    """Print the transcript of each file that is named; exit status 1 if one cannot be read."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("wav", nargs="+", help="16-bit mono WAV at the model's sample rate")
    parser.add_argument("--model", default=Path(__file__).parent, help="directory of the model")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: all cores")
    arguments = parser.parse_args()
    recogniser = OnnxRecogniser(arguments.model, arguments.threads)
    failed = False
    for path in arguments.wav:
        try:
            text = recogniser.transcribe(read_wav(path, recogniser.sample_rate))
        except (OSError, ValueError) as error:
            failed = True
            print(error, file=sys.stderr)
            continue
        print(f"{path}\t{text}" if len(arguments.wav) > 1 else text, flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
