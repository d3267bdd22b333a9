"""What has gone wrong in other recognisers, each case as a test that it does not go wrong here.

The project and thread stand in the docstring. Issues that a module's own tests hold in full (exact
resume, batches that change nothing, formats of audio, subtitles) are not repeated.
"""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch
from conftest import write_tiny_corpus
from tiny import SAMPLE_RATE, Recorder, save_tiny_model, tiny_config

import speech
from speech.audio import load_audio
from speech.char_config import CharConfig
from speech.checkpoint import find_model, load_model, load_state, save_model
from speech.classifier_config import ClassifierConfig
from speech.config import Config, config_differences, dump_config, load_config, load_config_of
from speech.dataset import epoch_batches, select_examples
from speech.decoder import GREEDY
from speech.errors import AudioError, ConfigError, ModelError, SpeechError, TextError
from speech.evaluate import evaluate
from speech.features import FeatureExtractor
from speech.forecast_config import ForecastConfig
from speech.metrics import word_errors
from speech.model import AcousticModel
from speech.tokenizer import CharTokenizer, normalise_text
from speech.train import train
from speech.transcribe import Recogniser
from speech.voice_config import VoiceConfig

PACKAGE = Path(speech.__file__).parent
REPOSITORY = Path(__file__).parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]


def write_entries(directory: Path, *rows: dict[str, object]) -> Path:
    """Write a manifest whose rows may lack audio or text: then a second of tone, "a"."""
    directory.mkdir(exist_ok=True)
    tone = 0.1 * np.sin(np.arange(SAMPLE_RATE) / 3)
    soundfile.write(directory / "tone.wav", tone, SAMPLE_RATE)
    usual = {"audio_filepath": "tone.wav", "duration": 1.0, "text": "a"}
    lines = [json.dumps(usual | row) for row in rows]
    (directory / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    return directory / "manifest.jsonl"


# --- Installing -----------------------------------------------------------------------------------


def test_no_python_is_too_new() -> None:
    """mozilla/DeepSpeech #3694, #3766, #3784: no wheel for my Python."""
    assert PROJECT["requires-python"] == ">=3.11"


def test_nothing_needs_a_compiler_or_an_old_numpy() -> None:
    """parlance/ctcdecode #85, #182, #214; kpu/kenlm #472; pyctcdecode #119 (numpy < 2)."""
    names = {re.split(r"[^\w-]", line)[0]: line for line in PROJECT["dependencies"]}
    assert not names.keys() & {"ctcdecode", "kenlm", "flashlight-text", "pyctcdecode", "warp-ctc"}
    assert names["numpy"] == "numpy"
    pinned = {name for name, line in names.items() if re.search(r"==|<|~=", line)}
    assert pinned == {"torch", "torchaudio"}


def test_what_torchaudio_has_dropped_is_not_called() -> None:
    """huggingface/datasets #7707, torchcodec #795: torchaudio.load needs a system FFmpeg."""
    used = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("torchaudio."):
                used.add(ast.unparse(node))
    assert len(used) >= 3
    kept = ("torchaudio.transforms", "torchaudio.functional")
    assert all(name.startswith(kept) for name in used), used


# --- Data -----------------------------------------------------------------------------------------


def test_a_text_too_long_for_its_frames_is_left_out_and_counted(tmp_path: Path) -> None:
    """k2-fsa/icefall #135 (11 frames to 2 by subsampling), pytorch #14401: loss inf, then NaN."""
    # A second has 98 frames of 10 ms, 25 after subsampling: 25 labels fit, 13 twice the same too.
    texts = ["abc" * 8 + "d", "abc" * 8 + "de", "a" * 13, "a" * 14]
    manifest = write_entries(tmp_path, *({"text": text} for text in texts))
    config = tiny_config(manifest)
    selection = select_examples(
        config.data, Path(), CharTokenizer(), FeatureExtractor(config.features), 4
    )
    assert [len(example.tokens) for example in selection.examples] == [25, 13]
    (reason,) = selection.left_out
    assert reason == "transcript too long for its frames"
    assert selection.left_out[reason] == [f"{manifest}:2", f"{manifest}:4"]


def test_upper_case_labels_are_no_blanks() -> None:
    """SeanNaren/warp-ctc #111: texts in upper case, labels in lower case, nothing learned."""
    tokenizer = CharTokenizer()
    assert tokenizer.decode(tokenizer.encode(normalise_text("HELLO World"))) == "hello world"
    with pytest.raises(TextError, match="'H'"):
        tokenizer.encode("Hello")


def test_a_character_outside_the_alphabet_stops_a_training_with_its_line(tmp_path: Path) -> None:
    """deepspeech.pytorch's parse_transcript drops such characters and trains on the rest."""
    manifest = write_entries(tmp_path / "data", {}, {"text": "привет"})
    with pytest.raises(TextError, match=re.escape(f"{manifest}:2")):
        train(tiny_config(manifest), tmp_path / "run", Recorder())


def test_audio_that_cannot_be_decoded_never_becomes_silence(tmp_path: Path) -> None:
    """moonshine's micro training labels silence with the text of a clip it could not decode."""
    manifest = write_entries(tmp_path / "data", {}, {"audio_filepath": "broken.wav"})
    (tmp_path / "data" / "broken.wav").write_bytes(b"RIFF" + bytes(100))
    with pytest.raises(AudioError, match=r"broken\.wav"):
        train(tiny_config(manifest), tmp_path / "run", Recorder())


def test_the_longest_batch_comes_first_and_none_exceeds_the_budget(tmp_path: Path) -> None:
    """deepspeech.pytorch #30, #68, #304; DeepSpeech #2026: out of memory in mid-epoch."""
    durations = np.random.default_rng(0).uniform(0.3, 4.0, 60).round(2).tolist()
    manifest = write_entries(tmp_path, *({"duration": seconds} for seconds in durations))
    config = tiny_config(manifest)
    examples = select_examples(
        config.data, Path(), CharTokenizer(), FeatureExtractor(config.features), 4
    ).examples
    for epoch in range(4):
        batches = epoch_batches(examples, 10.0, 1, epoch, easy_first=epoch == 0)
        padded = [len(b) * max(durations[draw.index] for draw in b) for b in batches]
        assert sorted(draw.index for b in batches for draw in b) == list(range(60))
        assert max(padded) <= 10.0
        assert epoch > 0 or padded[0] == max(padded)


def test_a_rate_other_than_the_models_keeps_its_pitch(tmp_path: Path) -> None:
    """skit-ai/kaldi-serve #12, deepspeech.pytorch: 8 kHz audio read as 16 kHz is nonsense."""
    for rate in (8000, 16000, 22050, 48000):
        tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(rate) / rate)
        soundfile.write(tmp_path / "tone.wav", tone, rate)
        audio = load_audio(tmp_path / "tone.wav", 16000)
        assert np.abs(np.fft.rfft(audio.samples)).argmax() == 1000  # Hz: there is one second
        assert audio.source_sample_rate == rate


def test_a_video_call_recording_is_transcribed(tmp_path: Path) -> None:
    """python-soundfile #389, librosa #1456: m4a and mp4 cannot be read."""
    with av.open(tmp_path / "call.mp4", "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        samples = (0.1 * np.sin(np.arange(32000) / 5)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    recogniser = Recogniser.load(save_tiny_model(tmp_path / "model"), threads=1, options=GREEDY)
    assert recogniser.transcribe(tmp_path / "call.mp4").duration == pytest.approx(2.0, abs=0.2)


# --- Lengths and batches --------------------------------------------------------------------------


def test_lengths_are_counted_and_not_multiplied_out() -> None:
    """deepspeech.pytorch: 13 / 22 as float32, times 22, is cut to 12: 4.3 % of pairs."""
    assert int(np.float32(13 / 22) * 22) == 12
    config = tiny_config(Path("nowhere.jsonl"), subsampling=1, layers=1, hidden=2)
    network = AcousticModel(config.model, 16, 5).eval()
    longest = 60
    lengths = torch.arange(1, longest + 1)
    with torch.inference_mode():
        _, output_lengths = network(torch.zeros(longest, longest, 16), lengths)
    assert output_lengths.tolist() == lengths.tolist()


def test_the_error_rate_does_not_depend_on_what_is_evaluated_beside(tmp_path: Path) -> None:
    """NVIDIA NeMo #3495 (0.51 or 0.40 by batch size), speechbrain #924 (20.3 % against 2.8 %)."""
    manifest = write_tiny_corpus(tmp_path / "corpus", 6, sample_rate=SAMPLE_RATE)
    lines = manifest.read_text().splitlines()
    recogniser = Recogniser.load(save_tiny_model(tmp_path / "model"), threads=1, options=GREEDY)
    together = [score.hypothesis for score in evaluate([manifest], recogniser, "tiny").scores]
    alone = []
    for line in lines:
        manifest.write_text(line + "\n")
        alone += [score.hypothesis for score in evaluate([manifest], recogniser, "tiny").scores]
    assert together == alone


def test_an_evaluation_does_not_drop_the_last_utterances(tmp_path: Path) -> None:
    """awni/speech: eval.py reuses a loader with drop_last, so the full set is not the full set."""
    recogniser = Recogniser.load(save_tiny_model(tmp_path / "model"), threads=1, options=GREEDY)
    for count in (1, 7, 13):
        manifest = write_entries(tmp_path, *({} for _ in range(count)))
        figures = evaluate([manifest], recogniser, "tiny").to_dict()
        assert (figures["utterances"], figures["words"]) == (count, count)


def test_an_error_rate_above_one_is_not_cut() -> None:
    """coqui-ai/STT: wer_cer_batch returns min(wer, 1.0) and hides storms of insertions."""
    assert word_errors("yes", "oh yes it is").rate == 3.0


# --- Models and states ----------------------------------------------------------------------------


def test_weights_that_do_not_fit_their_config_are_refused(tmp_path: Path) -> None:
    """deepspeech.pytorch #442, #405: a released model gives garbage with the released code."""
    model = save_tiny_model(tmp_path / "model")
    config = (model / "config.toml").read_text()
    (model / "config.toml").write_text(config.replace("hidden = 12", "hidden = 16"))
    with pytest.raises(ModelError, match=r"weights do not fit config\.toml"):
        load_model(model)


def test_statistics_and_alphabet_travel_with_the_weights(tmp_path: Path) -> None:
    """deepspeech.pytorch #453: features or alphabet of the trainer's machine are missed."""
    model = load_model(save_tiny_model(tmp_path / "model"))
    model.extractor.mean.fill_(-3.0)
    model.extractor.deviation.fill_(2.0)
    save_model(tmp_path / "moved", model, torch.float16)
    moved = load_model(tmp_path / "moved")
    assert moved.tokenizer.alphabet == model.tokenizer.alphabet
    assert moved.config == model.config
    samples = torch.from_numpy(np.random.default_rng(0).normal(size=4000).astype(np.float32))
    assert torch.equal(moved.extractor.extract(samples), model.extractor.extract(samples))


@pytest.mark.parametrize("name", ["config.toml", "tokens.txt", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    """coqui-ai/STT #1969: "Invalid label 0" stands for a file that is not there."""
    model = save_tiny_model(tmp_path / "model")
    (model / name).unlink()
    with pytest.raises(SpeechError, match=re.escape(name)):
        load_model(model)


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_a_strangers_training_state_runs_no_code(tmp_path: Path) -> None:
    """awni/speech, moonshine: whole objects are unpickled, weights_only=False."""
    torch.save({"version": 1, "config": _Bomb(tmp_path / "owned")}, tmp_path / "last.pt")
    with pytest.raises(ModelError, match=r"last\.pt: damaged, or holds other things"):
        load_state(tmp_path / "last.pt")
    pickle.loads(pickle.dumps(_Bomb(tmp_path / "owned")))  # it would have gone off
    assert (tmp_path / "owned").is_dir()


def test_a_gpus_state_is_read_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody's first error: attempting to deserialize object on a CUDA device."""
    places = []
    load = torch.load

    def watch(*arguments: object, **options: object) -> object:
        places.append(options.get("map_location"))
        return load(*arguments, **options)  # type: ignore[arg-type]

    buffer = io.BytesIO()
    torch.save({"version": 1}, buffer)
    (tmp_path / "last.pt").write_bytes(buffer.getvalue())
    monkeypatch.setattr(torch, "load", watch)
    load_state(tmp_path / "last.pt")
    assert places == ["cpu"]


# --- Settings -------------------------------------------------------------------------------------


def shipped_configs() -> Iterator[Path]:
    yield from sorted((REPOSITORY / "models").rglob("*.toml"))


KINDS: dict[str, type[Any]] = {  # by the table that only this kind of config has
    "network": CharConfig,
    "forecast": ForecastConfig,
    "classes": ClassifierConfig,
    "decision": VoiceConfig,
    "model": Config,
}


def kind_of(path: Path) -> str:
    tables = tomllib.loads(path.read_text("utf-8"))
    return next((kind for kind in KINDS if kind in tables), "model")


def test_every_shipped_config_loads() -> None:
    """awni/speech's LibriSpeech config lacks keys; torchtune's test of all sees 3 of 197."""
    configs = list(shipped_configs())
    assert REPOSITORY / "models" / "base" / "config.toml" in configs
    kinds = {path: kind_of(path) for path in configs}
    assert kinds[REPOSITORY / "models" / "english-neural" / "config.toml"] == "network"
    assert kinds[REPOSITORY / "models" / "studies" / "forecasting.toml"] == "forecast"
    for path, kind in kinds.items():
        config = load_config_of(KINDS[kind], path)
        assert config.data.train, path
        assert not config_differences(dump_config(config), config), path


def test_a_misspelt_setting_is_an_error(tmp_path: Path) -> None:
    """deepspeech.pytorch reads noise_levels where its config has noise_min: noise never came."""
    (tmp_path / "config.toml").write_text("[augment]\nnoise_levels = [8.0, 30.0]\n")
    with pytest.raises(ConfigError, match="did you mean 'noise_snr_db'"):
        load_config(tmp_path / "config.toml")


# --- Silence --------------------------------------------------------------------------------------


def test_nothing_is_heard_in_silence(tmp_path: Path) -> None:
    """whisper.cpp #1724, linto-ai/whisper-timestamped #192: words in minutes of silence."""
    try:
        find_model("base")
    except ModelError as error:
        pytest.skip(f"no shipped model yet: {error}")
    rate = 16000
    hiss = 1e-4 * np.random.default_rng(0).standard_normal(60 * rate)
    for name, samples in (("silence", np.zeros(60 * rate)), ("hiss", hiss)):
        soundfile.write(tmp_path / f"{name}.wav", samples, rate, subtype="FLOAT")
        assert (
            Recogniser.load("base", options=GREEDY).transcribe(tmp_path / f"{name}.wav").text == ""
        ), name
