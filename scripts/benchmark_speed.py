"""How near the recogniser comes to what its processor can do: ratios, each measured in one run.

    python scripts/benchmark_speed.py [MANIFEST] [--limit N] [--only PART] [--output FILE] [--quick]

acoustic    the network's arithmetic a second over that of the fastest matrix product in its dtype
transcribe  the bare network's time over that of everything that `speech transcribe` does
features    librosa's time for a log-mel spectrogram over ours for normalised features
training    the bare arithmetic of training steps over the whole steps
int8        size, speed and word errors of the float32, bfloat16 and int8 forms, torch and ONNX

One thread throughout, and processor time, which other programs stretch less than wall time; the
training steps are wall time. Printed are tables in Markdown, --output keeps the figures as JSON.
Without a manifest: data/sample. Sixty utterances of 13 s take some minutes.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")

import librosa
import numpy as np
import torch
from benchmark import FULL, QUICK, SAMPLE, measure_overhead, tell, training_config
from command import run_command
from numpy.typing import NDArray
from processes import processor_name
from torch import Tensor, nn

from speech.audio import load_audio
from speech.checkpoint import Model, load_model
from speech.decode import greedy
from speech.evaluate import read_manifests
from speech.export import export_onnx
from speech.features import pad_features
from speech.manifest import Utterance
from speech.model import output_length
from speech.onnx_runner import OnnxRecogniser
from speech.results import error_figures, score_texts
from speech.transcribe import Recogniser, pack_utterances

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TARGETS = {"acoustic": 0.7, "transcribe": 0.5, "features": 10.0, "training": 0.9}
MATRIX_SIZES = (512, 1024, 2048)
ROUNDS = 3  # of which the fastest counts
Samples = NDArray[np.float32]
Figures = dict[str, Any]


def cpu_seconds(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Processor time of the fastest of some rounds, after one that makes ready."""
    work()
    times = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


# --- The machine's rate ---------------------------------------------------------------------------


def matrix_rate(dtype: torch.dtype) -> float:
    """Operations a second of the fastest product of square matrices that any library here has."""
    return max(
        2 * size**3 / cpu_seconds(product, rounds=5)
        for size in MATRIX_SIZES
        for product in products(size, dtype)
    )


def products(size: int, dtype: torch.dtype) -> list[Callable[[], object]]:
    one, other = (torch.randn(size, size).to(dtype) for _ in range(2))
    found: list[Callable[[], object]] = [
        lambda: one @ other,
        lambda: nn.functional.linear(one, other),
    ]
    if dtype == torch.float32:
        arrays = one.numpy(), other.numpy()
        blocked = one.to_mkldnn(), other.to_mkldnn()
        found.append(lambda: arrays[0] @ arrays[1])
        found.append(lambda: torch.ops.aten.mkldnn_linear(*blocked))
    return found


def operations(model: Model, frames: int) -> int:
    """Multiplications and additions that an utterance of so many frames needs."""
    network = model.network
    total, time_steps, bands = 0, frames, model.config.features.mel_bands
    for stride, convolution in zip(
        network.subsampler.strides, network.subsampler.convolutions, strict=True
    ):
        time_steps, bands = output_length(time_steps, stride), output_length(bands, 2)
        total += convolution.weight.numel() * time_steps * bands
    for module in network.modules():
        if isinstance(module, nn.RNNBase | nn.Linear | nn.Conv1d):
            matrices = (weight for weight in module.parameters() if weight.ndim > 1)
            total += sum(weight.numel() for weight in matrices) * time_steps
    return 2 * total


# --- Parts ----------------------------------------------------------------------------------------


def batches_of(model: Model, samples: Sequence[Samples]) -> list[tuple[Tensor, Tensor]]:
    """The utterances' features in the batches that transcribing them makes."""
    rate = model.config.features.sample_rate
    seconds = [len(one) / rate for one in samples]
    with torch.inference_mode():
        features = [model.extractor.extract(torch.from_numpy(one)) for one in samples]
    packed = pack_utterances(seconds, threads=1, device=torch.device("cpu"))
    return [pad_features([features[index] for index in batch]) for batch in packed]


def run_network(
    network: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], dtype: torch.dtype
) -> None:
    enabled = dtype == torch.bfloat16
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        for log_mel, lengths in batches:
            network(log_mel, lengths)


def measure_acoustic(model: Model, samples: Sequence[Samples]) -> list[Figures]:
    """Arithmetic that the utterances' own frames need, none of the padding, a second."""
    batches = batches_of(model, samples)
    work = sum(operations(model, int(n)) for _, lengths in batches for n in lengths)
    rows = []
    for name, dtype in DTYPES.items():
        tell(f"acoustic, {name}")
        seconds = cpu_seconds(lambda dtype=dtype: run_network(model.network, batches, dtype))
        rate = matrix_rate(dtype)
        rows.append({"name": name, "ratio": work / seconds / rate,
                     "network_gflops": work / seconds / 1e9, "matrix_gflops": rate / 1e9,
                     "utterances_a_batch": len(samples) / len(batches)})  # fmt: skip
    return rows


def measure_transcribe(
    model: Model, samples: Sequence[Samples], utterances: Sequence[Utterance]
) -> list[Figures]:
    """Files to words, with reading, voice activity, features and greedy decoding."""
    batches, audio = batches_of(model, samples), sum(map(len, samples)) / sample_rate(model)
    paths = [one.audio_path for one in utterances]
    rows = []
    for name, dtype in DTYPES.items():
        tell(f"transcribe, {name}")
        recogniser = Recogniser(model, threads=1, precision=name)
        whole = cpu_seconds(lambda recogniser=recogniser: list(recogniser.transcribe_many(paths)))
        bare = cpu_seconds(lambda dtype=dtype: run_network(model.network, batches, dtype))
        reading = cpu_seconds(lambda: [load_audio(path, sample_rate(model)) for path in paths])
        rows.append({"name": name, "ratio": bare / whole, "real_time_factor": whole / audio,
                     "bare_real_time_factor": bare / audio,
                     "reading_real_time_factor": reading / audio})  # fmt: skip
    return rows


def measure_features(model: Model, samples: Sequence[Samples]) -> list[Figures]:
    tell("features")
    config = model.config.features

    def with_librosa() -> None:
        for one in samples:
            power = librosa.feature.melspectrogram(
                y=one, sr=config.sample_rate, n_fft=config.n_fft, win_length=config.window_samples,
                hop_length=config.hop_samples, center=False, n_mels=config.mel_bands,
                fmin=config.min_hz, fmax=config.max_hz,
            )  # fmt: skip
            np.log(np.maximum(power, config.log_floor))

    def with_ours() -> None:
        with torch.inference_mode():
            for one in samples:
                model.extractor.extract(torch.from_numpy(one))

    def transforms_alone() -> None:  # which both need: no features take less
        for one in samples:
            windows = torch.from_numpy(one).unfold(0, config.n_fft, config.hop_samples)
            for block in windows.split(256):  # frames, as ours: they stay in the cache
                torch.fft.rfft(block)

    theirs, ours = cpu_seconds(with_librosa), cpu_seconds(with_ours)
    alone = cpu_seconds(transforms_alone)
    audio = sum(map(len, samples)) / config.sample_rate
    return [{"name": "utterances of the manifest", "ratio": theirs / ours,
             "librosa_real_time_factor": theirs / audio,
             "ours_real_time_factor": ours / audio,
             "fourier_transforms_alone": alone / audio}]  # fmt: skip


def measure_training(manifest: Path, quick: bool) -> list[Figures]:
    size = QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as scratch:
        config = training_config(manifest, size, Path(scratch) / "cache", quick)
        found = measure_overhead(config, size, Path(scratch), threads=1)
    return [{"name": f"{found['steps']} steps", "ratio": 1 / found["ratio"]}]


# --- Forms of a model -----------------------------------------------------------------------------


def measure_forms(
    model: Model, samples: Sequence[Samples], references: Sequence[str]
) -> list[Figures]:
    """Each form transcribes the utterances one by one, greedily."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, (megabytes, log_probs) in forms(model, Path(scratch)).items():
            tell(f"int8: {name}")
            began = time.process_time()
            found = [log_probs(one) for one in samples]
            seconds = time.process_time() - began
            heard = [model.tokenizer.decode(greedy(one).tokens) for one in found]
            scores = error_figures(score_texts(references, heard))
            audio = sum(map(len, samples)) / sample_rate(model)
            rows.append({"name": name, "megabytes": megabytes, "wer": scores["wer"],
                         "wer_interval": scores["wer_interval"],
                         "real_time_factor": seconds / audio})  # fmt: skip
    return rows


Form = tuple[float, Callable[[Samples], Samples]]


def forms(model: Model, scratch: Path) -> dict[str, Form]:
    """Megabytes of each form's weights, and what computes an utterance's log-probs."""
    narrow = copy.copy(model)
    object.__setattr__(narrow, "network", quantised(model.network))
    found: dict[str, Form] = {
        "torch float32": (megabytes(model.network), alone(Recogniser(model, 1))),
        "torch bfloat16": (
            megabytes(copy.deepcopy(model.network).bfloat16()),
            alone(Recogniser(model, 1, "bfloat16")),
        ),
        "torch int8": (megabytes(narrow.network), alone(Recogniser(narrow, 1))),
    }
    for name, int8 in (("float32", False), ("int8", True)):
        path = export_onnx(model, scratch / name, "benchmark", int8)
        size = path.stat().st_size / 1e6
        found[f"onnxruntime {name}"] = (size, alone(OnnxRecogniser(path.parent, threads=1)))
    return found


def alone(recogniser: Recogniser | OnnxRecogniser) -> Callable[[Samples], Samples]:
    return lambda samples: recogniser.log_probs([samples])[0]


def quantised(network: nn.Module) -> nn.Module:
    """The network with int8 weights in its LSTM and linear layers, and products quantised."""
    layers = {nn.LSTM, nn.Linear}
    return torch.ao.quantization.quantize_dynamic(network, layers, dtype=torch.qint8)


def megabytes(network: nn.Module) -> float:
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    return file.tell() / 1e6


# --- All of it ------------------------------------------------------------------------------------


def sample_rate(model: Model) -> int:
    return model.config.features.sample_rate


def measure(arguments: argparse.Namespace) -> Figures:
    torch.set_num_threads(1)
    model = load_model(arguments.model)
    limit = 4 if arguments.quick else arguments.limit
    utterances = [one for _, one in read_manifests([arguments.manifest], limit)]
    samples = [load_audio(one.audio_path, sample_rate(model)).samples for one in utterances]
    parts: dict[str, Callable[[], list[Figures]]] = {
        "acoustic": lambda: measure_acoustic(model, samples),
        "transcribe": lambda: measure_transcribe(model, samples, utterances),
        "features": lambda: measure_features(model, samples),
        "training": lambda: measure_training(arguments.manifest, arguments.quick),
        "int8": lambda: measure_forms(model, samples, [one.text for one in utterances]),
    }
    figures: Figures = {
        "processor": processor_name(), "torch": torch.__version__, "quick": arguments.quick,
        "manifest": arguments.manifest.name, "utterances": len(utterances),
        "audio_seconds": sum(map(len, samples)) / sample_rate(model),
    }  # fmt: skip
    for name, part in parts.items():
        if name in (arguments.only or parts):
            figures[name] = part()
            if arguments.output:  # what is there stays if somebody stops the rest
                text = json.dumps(figures, indent=1) + "\n"
                arguments.output.write_text(text, encoding="utf-8")
    return figures


def table(figures: Figures) -> list[str]:
    """The figures as a table in Markdown."""
    speech = f"{figures['utterances']} utterances of {figures['manifest']}"
    lines = [f"{figures['processor']}, torch {figures['torch']}, one thread; "
             f"{speech}, {figures['audio_seconds']:.0f} s", "",
             "| ratio | | measured | target |", "|---|---|---|---|"]  # fmt: skip
    for part, target in TARGETS.items():
        for row in figures.get(part, []):
            others = {key: value for key, value in row.items() if key not in ("name", "ratio")}
            details = [f"{key.replace('_', ' ')} {value:.4g}" for key, value in others.items()]
            said = ", ".join([row["name"], *details])
            lines.append(f"| {part} | {said} | {row['ratio']:.2f} | {target} |")
    if "int8" in figures:
        lines += ["", "| form | MB | WER, greedy | 95 % interval | real-time factor |",
                  "|---|---|---|---|---|"]  # fmt: skip
    for row in figures.get("int8", []):
        low, high = row["wer_interval"]
        lines.append(f"| {row['name']} | {row['megabytes']:.1f} | {row['wer']:.2%} | "
                     f"{low:.2%} to {high:.2%} | {row['real_time_factor']:.4f} |")  # fmt: skip
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", nargs="?", type=Path, default=SAMPLE)
    parser.add_argument("--model", default="base")
    parser.add_argument("--limit", type=int, help="only the first N utterances")
    parser.add_argument("--quick", action="store_true", help="four utterances: shows that it works")
    parser.add_argument("--only", action="append", choices=(*TARGETS, "int8"))
    parser.add_argument("--output", type=Path, help="a file for the figures as JSON")
    arguments = parser.parse_args()
    figures = measure(arguments)
    print("\n".join(table(figures)))


if __name__ == "__main__":
    run_command(main)
