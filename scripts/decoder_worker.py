"""A beam search at work for `benchmark_decoders.py`: a process, perhaps a Python, of its own.

    python decoder_worker.py KIND DIR LM.arpa

DIR holds log_probs.npz and words.txt. A job is a line of JSON on stdin: beam_size, threads,
lm_weight, word_bonus (natural logarithms) and utterances, how many to decode; the answer is a line
on stdout: seconds and texts. Needs what the decoder needs and NumPy, nothing else.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

Job = dict[str, Any]
Decode = Callable[[np.ndarray], str]
PRUNED_THRESHOLD, PRUNED_TOKENS = 20.0, 10  # torchaudio pruned about as ours is
BLANK_NAME, SPACE_NAME = "-", "|"  # of flashlight's tokens

_current: list[Decode] = []  # what the processes of a pool inherit
_pools: list[Any] = []
_log_probs: list[np.ndarray] = []


def ours(folder: Path, lm: str, alphabet: list[str], closed: bool) -> Callable[[Job], Any]:
    """Our search: threads of one process."""
    from speech.beam_search import BeamDecoder, BeamSettings
    from speech.language_model import NgramModel
    from speech.tokenizer import CharTokenizer

    tokenizer = CharTokenizer(alphabet)
    lexicon = (folder / "words.txt").read_text("utf-8").split() if closed else None
    decoder = BeamDecoder(tokenizer, None, NgramModel.load(Path(lm)), (), lexicon)

    def prepare(job: Job) -> Callable[[list[np.ndarray]], list[str]]:
        settings = BeamSettings(job["beam_size"], lm_weight=job["lm_weight"],
                                word_bonus=job["word_bonus"])  # fmt: skip
        chosen = decoder.with_settings(settings)

        def run(log_probs: list[np.ndarray]) -> list[str]:
            found = chosen.decode_many(log_probs, job["threads"])
            return [tokenizer.decode(one[0].tokens).strip() for one in found]

        return run

    return prepare


def torchaudio(folder: Path, lm: str, alphabet: list[str], pruned: bool) -> Callable[[Job], Any]:
    """flashlight-text behind torchaudio, with a lexicon; its language model is loaded once."""
    import torch
    from torchaudio.models.decoder import ctc_decoder

    torch.set_num_threads(1)
    tokens = [BLANK_NAME, *(SPACE_NAME if one == " " else one for one in alphabet)]
    words = (folder / "words.txt").read_text("utf-8").split()
    lines = [f"{word} {' '.join(word)} {SPACE_NAME}\n" for word in words]
    pruning = {"beam_threshold": PRUNED_THRESHOLD, "beam_size_token": PRUNED_TOKENS}
    with tempfile.NamedTemporaryFile("w", suffix=".txt", delete=False) as lexicon:
        lexicon.writelines(lines)
    common: dict[str, Any] = {
        "lexicon": lexicon.name, "tokens": tokens, "log_add": True, **(pruning if pruned else {})
    }  # fmt: skip
    loaded = ctc_decoder(**common, lm=lm).lm

    def prepare(job: Job) -> Callable[[list[np.ndarray]], list[str]]:
        decoder = ctc_decoder(
            **common, lm=loaded, beam_size=job["beam_size"], word_score=job["word_bonus"],
            lm_weight=job["lm_weight"] * math.log(10),  # it weighs logarithms to base 10
        )  # fmt: skip

        def decode(log_probs: np.ndarray) -> str:
            return " ".join(decoder(torch.from_numpy(log_probs)[None])[0][0].words)

        return in_processes(decode, job["threads"])

    return prepare


def pyctcdecode(folder: Path, lm: str, alphabet: list[str]) -> Callable[[Job], Any]:
    """pyctcdecode with the language model's words as unigrams and its own pruning."""
    from pyctcdecode import build_ctcdecoder

    words = (folder / "words.txt").read_text("utf-8").split()
    decoder = build_ctcdecoder(["", *alphabet], lm, words)

    def prepare(job: Job) -> Callable[[list[np.ndarray]], list[str]]:
        decoder.reset_params(alpha=job["lm_weight"], beta=job["word_bonus"])

        def decode(log_probs: np.ndarray) -> str:
            return str(decoder.decode(log_probs, beam_width=job["beam_size"]))

        return in_processes(decode, job["threads"])

    return prepare


def in_processes(decode: Decode, processes: int) -> Callable[[list[np.ndarray]], list[str]]:
    """Several processes that share what is loaded: the best that these decoders allow."""
    while _pools:
        _pools.pop().terminate()
    if processes == 1:
        return lambda log_probs: list(map(decode, log_probs))
    _current[:] = [decode]
    pool = multiprocessing.get_context("fork").Pool(processes)
    pool.map(abs, range(processes))  # all have started
    _pools.append(pool)

    def run(log_probs: list[np.ndarray]) -> list[str]:
        return pool.map(_decode, range(len(log_probs)), chunksize=1)

    return run


def _decode(index: int) -> str:
    return _current[0](_log_probs[index])


KINDS: dict[str, tuple[Callable[..., Callable[[Job], Any]], tuple[bool, ...], tuple[str, ...]]] = {
    "ours": (ours, (False,), ()),
    "ours-lexicon": (ours, (True,), ()),
    "torchaudio": (torchaudio, (False,), ("torchaudio", "flashlight-text", "kenlm")),
    "torchaudio-pruned": (torchaudio, (True,), ("torchaudio", "flashlight-text", "kenlm")),
    "pyctcdecode": (pyctcdecode, (), ("pyctcdecode", "kenlm")),
}


def work(kind: str, folder: Path, lm: str) -> None:
    """Answer jobs until stdin ends; the first line says what is at work."""
    build, options, packages = KINDS[kind]
    with np.load(folder / "log_probs.npz") as content:
        stored, ends = content["log_probs"], np.cumsum(content["frames"])
        alphabet = [str(letter) for letter in content["alphabet"]]
    _log_probs[:] = [np.ascontiguousarray(one) for one in np.split(stored, ends[:-1])]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    prepare = build(folder, lm, alphabet, *options)
    print(json.dumps({name: version(name) for name in packages}), file=answers, flush=True)
    every_core = sorted(os.sched_getaffinity(0))
    before: Job = {}
    for line in sys.stdin:
        job: Job = json.loads(line)
        os.sched_setaffinity(0, every_core[: job["threads"]])
        chosen = _log_probs[: job.pop("utterances")]
        if job != before:
            run, before = prepare(job), job
        run(chosen[:2])  # compiles, warms up
        began = time.perf_counter()
        texts = run(chosen)
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds, "texts": texts}), file=answers, flush=True)


if __name__ == "__main__":
    work(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
