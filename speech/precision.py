"""Which arithmetic a model is computed in where nobody says: what a short self-test finds best.

bfloat16 multiplies twice as fast where a processor has it, and changes a character in a thousand.
The self-test takes it only if this machine is faster with it and the model hears the same. It is
done once a machine and model, where enough audio is to come that it pays, and is kept; until then
the arithmetic is float32. Its speech is one utterance of the synthetic sample
(data/sample/README.md).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

from speech.audio import load_audio
from speech.checkpoint import Model, replace_file
from speech.config import dump_config
from speech.decode import collapse
from speech.environment import cache_directory
from speech.metrics import character_errors
from speech.provenance import processor_name
from speech.workers import Workers

AUTO, FLOAT32, BFLOAT16 = "auto", "float32", "bfloat16"
LEAST_GAIN = 1.1  # times as fast; less is not worth another arithmetic
MOST_CHANGED = 0.01  # share of the characters heard
# Audio to come that makes a self-test worth its 0.3 s of processor time: bfloat16 saves about 1 ms
# on each second of it.
WORTH_SECONDS = 300.0
CACHE_FILE = "precision.json"
_ROUNDS = 2  # of each arithmetic, in turns; the first also makes ready
_ROWS = 2  # utterances computed together
_MOST_KEPT = 100  # self-tests


@dataclass(frozen=True)
class SelfTest:
    """How many times as fast bfloat16 is as float32, and what share of the text it changes."""

    gain: float
    changed: float

    @property
    def precision(self) -> str:
        """Return the better arithmetic's name."""
        better = self.gain >= LEAST_GAIN and self.changed <= MOST_CHANGED
        return BFLOAT16 if better else FLOAT32

    def __str__(self) -> str:
        changed = f"{self.changed:.1%} of the text changed (allowed: {MOST_CHANGED:.0%})"
        heard = changed if self.changed else "the same heard"
        fast = f"{self.gain:.2f} times as fast here (needed: {LEAST_GAIN:g})"
        return f"{self.precision}: bfloat16 is {fast}, {heard}"


def choose_precision(model: Model, device: torch.device, audio_seconds: float = 0.0) -> str:
    """Return ``float32`` or ``bfloat16``: what the self-test of this machine and model found.

    Where none is kept, it is done if WORTH_SECONDS of audio or more are to come; else ``float32``.
    """
    if not has_bfloat16(device):
        return FLOAT32
    path, key = cache_directory() / CACHE_FILE, _key(model, device)
    kept = _read(path)
    if key not in kept:
        if audio_seconds < WORTH_SECONDS:
            return FLOAT32
        kept[key] = self_test(model, device)
        _write(path, kept)
    return kept[key].precision


def describe_precision(model: Model, device: torch.device) -> str:
    """Do the self-test again, keep what it finds, and return it in words."""
    if not has_bfloat16(device):
        return "float32: this processor does not multiply in bfloat16"
    path = cache_directory() / CACHE_FILE
    found = self_test(model, device)
    _write(path, {**_read(path), _key(model, device): found})
    return str(found)


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies in bfloat16 by itself."""
    return Workers(0, 1, device).precision(AUTO) is torch.bfloat16


def self_test(model: Model, device: torch.device) -> SelfTest:
    """Measure a model, which is on the device, in both arithmetics, on one thread."""
    rate = model.config.features.sample_rate
    samples = torch.from_numpy(load_audio(_speech(), rate).samples).to(device)
    # What else the machine does costs no processor time of this thread, which does all the work.
    clock = time.perf_counter if device.type == "cuda" else time.thread_time
    seconds: dict[bool, list[float]] = {False: [], True: []}
    heard: dict[bool, str] = {}
    with _one_thread(), torch.inference_mode():
        log_mel = model.extractor.extract(samples).expand(_ROWS, -1, -1).contiguous()
        lengths = torch.full((_ROWS,), log_mel.shape[1], device=device)
        for _ in range(_ROUNDS):
            for narrow in (False, True):
                began = clock()
                log_probs = _log_probs(model, log_mel, lengths, narrow)
                path = log_probs[0].argmax(-1).tolist()  # waits for a GPU
                seconds[narrow].append(clock() - began)
                heard[narrow] = model.tokenizer.decode(collapse(path))
    gain = min(seconds[False]) / min(seconds[True])
    return SelfTest(gain, character_errors(heard[False], heard[True]).rate)


def _log_probs(model: Model, log_mel: Tensor, lengths: Tensor, narrow: bool) -> Tensor:
    with torch.autocast(log_mel.device.type, torch.bfloat16, enabled=narrow):
        log_probs, _ = model.network(log_mel, lengths)
    result: Tensor = log_probs
    return result


def _speech() -> bytes:
    return files("speech").joinpath("self_test.opus").read_bytes()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute as a recogniser's threads do, each of which has batches of its own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _key(model: Model, device: torch.device) -> str:
    """Return what stands for this machine, its torch, the model's settings and its last layer."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    parts = [name, torch.__version__, dump_config(model.config)]
    weights = model.network.output.weight.detach().float().cpu().numpy().tobytes()
    return hashlib.sha256("\n".join(parts).encode() + weights).hexdigest()


def _read(path: Path) -> dict[str, SelfTest]:
    """Return the self-tests that are kept; none of a file that is missing or something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): SelfTest(float(one["gain"]), float(one["changed"]))
                for key, one in content.items()}  # fmt: skip
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _write(path: Path, kept: dict[str, SelfTest]) -> None:
    """Keep the latest self-tests, if this user may write there."""
    latest = dict(list(kept.items())[-_MOST_KEPT:])
    text = json.dumps({key: asdict(one) for key, one in latest.items()}, indent=1)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))
