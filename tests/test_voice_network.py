"""The network that finds voice: trained on tones in a second, cut anyhow, compared and stored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from conftest import Run, write_tiny_corpus

import speech.voice_network
from speech.config import dump_config, load_config_of
from speech.errors import ManifestError, ModelError
from speech.shipped import VOICE_WEIGHTS_FILE, model_directories
from speech.study_voice import equal_error_rate
from speech.train_voice import ClipMaker, speech_shares, train_voice
from speech.voice_config import (
    VoiceConfig,
    VoiceDataConfig,
    VoiceTrainConfig,
)
from speech.voice_network import NetworkVoiceDetector, VoiceModel


def config_for(manifest: Path) -> VoiceConfig:
    name = str(manifest.absolute())
    data = VoiceDataConfig(
        train={name: 1.0}, dev=(name,), clip_seconds=3.0, clips=40, dev_clips=8,
        snr_db=(15.0, 30.0), without_sounds=("music",),
    )  # fmt: skip
    train = VoiceTrainConfig(
        epochs=2, batch_clips=4, learning_rate=1e-2, warmup_steps=2, ema_decay=0.5,
        precision="float32", patience=0,
    )  # fmt: skip
    return VoiceConfig(tiny.FEATURES, tiny.MODEL, data, train)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_corpus(tmp_path_factory.mktemp("voice"), 8, sample_rate=tiny.SAMPLE_RATE)


@pytest.fixture(scope="module")
def trained(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    recorder = tiny.Recorder()
    train_voice(config_for(manifest), run, recorder)
    first, last = (recorder.steps[n].loss for n in (0, -1))
    assert last < 0.8 * first  # nats per frame: it does learn
    return run / "best"


@pytest.fixture
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech.voice_network, "WINDOW_SECONDS", 0.8)
    monkeypatch.setattr(speech.voice_network, "AROUND_SECONDS", 0.2)


@pytest.mark.usefixtures("short_windows")
@pytest.mark.parametrize("seconds", [0.001, 0.5, 0.8, 2.4, 2.41, 7.3])
def test_how_audio_is_cut_changes_nothing(trained: Path, seconds: float) -> None:
    model = VoiceModel.load(trained)
    random = np.random.default_rng(0)
    samples = random.normal(0, 0.1, round(seconds * tiny.SAMPLE_RATE)).astype(np.float32)

    def decided(*pieces: np.ndarray) -> np.ndarray:
        detector = NetworkVoiceDetector(model)
        return np.concatenate([*(detector.probabilities_of(p) for p in pieces),
                               detector.last_probabilities()])  # fmt: skip

    whole = decided(samples)
    assert len(whole) == -(-len(samples) // model.config.frame_samples)
    for size in (777, 4000, 30_000):
        pieces = [samples[at : at + size] for at in range(0, len(samples), size)]
        np.testing.assert_allclose(decided(*pieces), whole, atol=1e-5)


@pytest.mark.usefixtures("short_windows")
def test_memory_does_not_grow(trained: Path) -> None:
    detector = NetworkVoiceDetector(VoiceModel.load(trained))
    second = np.zeros(tiny.SAMPLE_RATE, np.float32)
    held = []
    for _ in range(40):
        detector.push(second)
        held.append(len(detector._samples))
    assert max(held[20:]) <= max(held[:20])


def test_clips_are_the_same_by_every_call(manifest: Path) -> None:
    maker = ClipMaker({manifest: 1.0}, config_for(manifest), Path(), is_dev=False)
    one, again, other = maker.clip(3, 5), maker.clip(3, 5), maker.clip(4, 5)
    assert np.array_equal(one.samples, again.samples)
    assert not np.array_equal(one.samples, other.samples)
    with pytest.raises(ManifestError, match=r"needs manifests in data\.train"):
        ClipMaker({}, config_for(manifest), Path(), is_dev=False)


def test_shares_of_frames_are_means() -> None:
    truth = np.array([1, 1, 1, 0, 0, 0, 1], bool)
    assert speech_shares(truth, 2, 5).tolist() == [1.0, 0.5, 0.0, 0.5, 0.0]
    assert speech_shares(truth, 2, 2).tolist() == [1.0, 0.5]


def test_equal_error_rate_is_where_the_curves_meet() -> None:
    missed, false = np.array([0.0, 0.1, 0.3]), np.array([0.4, 0.2, 0.0])
    assert equal_error_rate(missed, false) == pytest.approx(0.15)
    assert equal_error_rate(np.array([0.5, 0.6]), np.array([0.2, 0.1])) == 0.5


def test_commands_train_and_compare(
    run: Run, manifest: Path, trained: Path, tmp_path: Path
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(dump_config(config_for(manifest)))
    settings = ("--set", "train.epochs=1", "--set", "data.clips=4")
    assert run("voice", "train", path, "--output", tmp_path / "run", *settings).status == 0
    assert (tmp_path / "run" / "best" / VOICE_WEIGHTS_FILE).is_file()


def test_study_counts_every_frame(
    run: Run, manifest: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speech.study_voice.CLIP_SECONDS", 6.0)
    monkeypatch.setattr("speech.study_voice.SNRS_DB", (20.0,))
    output = tmp_path / "study"
    result = run("study", "voice", manifest, "--model", trained, "--output", output, "--clips", 1)
    assert "equal error rate" in result.stdout
    figures = json.loads((output / "voice_activity.json").read_text())
    assert len(figures["by_case"]) == 4  # two kinds of music, with speech and alone
    for row in figures["by_case"]:
        assert row["speech_frames"] + row["other_frames"] == 300
        assert all(n <= row["speech_frames"] for n in row["network"]["missed"])
    for name in ("network", "levels"):
        misses = figures["overall"][name]["miss_rate"]
        assert misses == sorted(misses)
    assert (output / "voice_activity.png").read_bytes().startswith(b"\x89PNG")


def test_a_missing_model_is_told() -> None:
    with pytest.raises(ModelError, match="no voice-activity model 'nowhere'"):
        VoiceModel.load("nowhere")


def test_the_shipped_config_loads() -> None:
    config = load_config_of(VoiceConfig, model_directories()[0] / "voice" / "config.toml")
    assert config.frame_samples == 640
