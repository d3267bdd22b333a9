"""A classifier of tones: its batches, what it learns from, its files and its commands."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny
import torch
from conftest import Run, spell

from speech.checkpoint import load_model
from speech.class_data import cut, is_held_out, select_class_examples
from speech.classification import UNKNOWN
from speech.classifier import Classifier, find_classifier
from speech.classifier_config import (
    ClassDataConfig,
    ClassesConfig,
    ClassifierConfig,
    ClassTrainConfig,
)
from speech.config import AugmentConfig, dump_config, load_config_of
from speech.errors import ConfigError, ManifestError, ModelError
from speech.model import Attention, UtteranceClassifier
from speech.shipped import CLASSIFIER_WEIGHTS_FILE
from speech.train_classifier import ClassifierTask, train_classifier

WORDS = ("abab", "kkkk")
OTHERS = ("zz zz", "tu tu")
TRAIN = ClassTrainConfig(
    epochs=2, batch_seconds=4.0, learning_rate=1e-2, warmup_steps=4, ema_decay=0.5,
    precision="float32", patience=0,
)  # fmt: skip
NO_MASKS = AugmentConfig(noise_probability=0.0, time_masks=0, frequency_masks=0)


def write_words(directory: Path, texts: tuple[str, ...], copies: int = 4) -> Path:
    random = np.random.default_rng(0)
    directory.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, text in enumerate(texts * copies):
        samples = spell(text, tiny.SAMPLE_RATE, random)
        name = f"{number}.wav"
        soundfile.write(directory / name, samples, tiny.SAMPLE_RATE)
        duration = len(samples) / tiny.SAMPLE_RATE
        entry = {"audio_filepath": name, "duration": duration, "text": text}
        lines.append(json.dumps(entry | {"speaker": str(number // len(texts) % 2)}))
    manifest = directory / "manifest.jsonl"
    manifest.write_text("\n".join(lines) + "\n", "utf-8")
    return manifest


def config_for(manifest: Path, passes: float = 1.0, **data: object) -> ClassifierConfig:
    name = str(manifest.absolute())
    tables = ClassDataConfig(train={name: passes}, dev=(name,), **data)  # type: ignore[arg-type]
    classes = ClassesConfig(WORDS)
    return ClassifierConfig(classes, tiny.FEATURES, tiny.MODEL, NO_MASKS, tables, TRAIN)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run's best model, and the manifest that it has learned by heart."""
    directory = tmp_path_factory.mktemp("classifier")
    manifest = write_words(directory / "corpus", (*WORDS, *OTHERS))
    train_classifier(config_for(manifest, 10.0), directory / "run", tiny.Recorder())
    return directory / "run" / "best", manifest


@pytest.mark.parametrize("pooling", ["mean", "last", "attention"])
@pytest.mark.parametrize("cell", ["lstm", "feedforward"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_padding_and_neighbours_change_nothing(
    pooling: str, cell: str, bidirectional: bool
) -> None:
    torch.manual_seed(0)
    settings = dataclasses.replace(tiny.MODEL, cell=cell, bidirectional=bidirectional)
    network = UtteranceClassifier(settings, 16, 3, pooling).eval()
    long, short = torch.randn(1, 40, 16), torch.randn(1, 13, 16)
    batch = torch.full((2, 40, 16), float("nan"))  # what leaks would show
    batch[0], batch[1, :13] = long[0], short[0]
    with torch.inference_mode():
        both = network(batch, torch.tensor([40, 13]))
        alone = network(short, torch.tensor([13]))
    assert both.shape == (2, 3)
    assert torch.allclose(both[1], alone[0], atol=1e-5)
    assert torch.allclose(both.exp().sum(1), torch.ones(2), atol=1e-5)


def test_last_takes_what_each_direction_has_heard_last() -> None:
    network = UtteranceClassifier(tiny.MODEL, 16, 2, "last")
    x = torch.arange(24.0).reshape(2, 3, 4)
    lengths = torch.tensor([3, 2])
    assert network.pool(x, lengths, True).tolist() == [[8, 9, 2, 3], [16, 17, 14, 15]]
    assert network.pool(x, lengths, False).tolist() == [[8, 9, 10, 11], [16, 17, 18, 19]]


def test_attention_begins_as_the_mean_and_learns_to_prefer_frames() -> None:
    pool = Attention(2)
    x = torch.tensor([[[1.0, 0.0], [3.0, 2.0], [float("nan"), float("nan")]]])
    assert pool(x, torch.tensor([2]), False).tolist() == [[2.0, 1.0]]
    with torch.no_grad():
        pool.score.weight.copy_(torch.tensor([[0.0, math.log(3) / 2]]))  # weights 1 : 3
    assert torch.allclose(pool(x, torch.tensor([2]), False), torch.tensor([[2.5, 1.5]]))


def test_mean_is_of_own_frames() -> None:
    network = UtteranceClassifier(tiny.MODEL, 16, 2, "mean")
    x = torch.tensor([[[1.0], [3.0], [float("nan")]]])
    assert network.pool(x, torch.tensor([2]), True).tolist() == [[2.0]]


def test_every_text_has_its_place(tmp_path: Path) -> None:
    texts = (*WORDS, *OTHERS, "abab zz", "no word")
    manifest = write_words(tmp_path, texts, copies=1)
    selection = select_class_examples(config_for(manifest, without=("word",)), Path())
    assert [example.label for example in selection.train] == [0, 1, 2, 2]
    reasons = {reason: len(places) for reason, places in selection.left_out.items()}
    assert reasons == {"one of the words among others": 2, "a word of data.without": 2}  # dev too
    closed = dataclasses.replace(config_for(manifest), classes=ClassesConfig(WORDS, unknown=False))
    with pytest.raises(ManifestError, match=r"manifest\.jsonl:3: 'zz zz' is none of abab, kkkk"):
        select_class_examples(closed, Path())


def test_a_class_without_examples_is_an_error(tmp_path: Path) -> None:
    manifest = write_words(tmp_path, WORDS)
    with pytest.raises(ManifestError, match="learn 'anything else' from"):
        select_class_examples(config_for(manifest), Path())


def test_longer_utterances_are_cut() -> None:
    samples, random = torch.arange(1000.0), np.random.default_rng(0)
    parts = [cut(samples, (0.2, 0.4), 1000, random) for _ in range(50)]
    assert {len(part) for part in parts} <= set(range(200, 401))
    assert all(torch.equal(part, samples[int(part[0]) :][: len(part)]) for part in parts)
    assert len({float(part[0]) for part in parts}) > 30


def test_the_same_share_judges_by_every_call() -> None:
    held_out = [is_held_out(str(number), 0.2) for number in range(1000)]
    assert 150 < sum(held_out) < 250
    assert held_out == [is_held_out(str(number), 0.2) for number in range(1000)]
    assert not any(is_held_out(str(number), 0.0) for number in range(100))


def test_tones_are_learned_and_others_turned_away(
    trained: tuple[Path, Path], run: Run, tmp_path: Path
) -> None:
    model, manifest = trained
    picture = tmp_path / "confusion.png"
    result = run("classify", "evaluate", manifest, "--model", model, "--json", "--figure", picture)
    figures = json.loads(result.stdout)
    assert figures["accuracy"] == figures["nearest_accuracy"] == 1.0
    assert figures["confusion"] == [[4, 0, 0], [0, 4, 0], [0, 0, 8]]
    assert figures["false_acceptance"] == figures["false_rejection"] == 0.0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_recordings_are_named_without_a_command(trained: tuple[Path, Path], run: Run) -> None:
    model, manifest = trained
    files = [manifest.parent / f"{number}.wav" for number in range(3)]
    result = run("classify", "--model", model, *files)
    answers = [line.split("\t")[:2] for line in result.lines]
    assert answers == [
        [str(file), word] for file, word in zip(files, (*WORDS, UNKNOWN), strict=True)
    ]
    one = run("classify", files[0], "--model", model, "--json")
    assert json.loads(one.stdout)["word"] == WORDS[0]
    assert run("classify", files[0], "--model", model, "--threshold", 1).stdout.startswith(UNKNOWN)


def test_a_file_that_cannot_be_read_is_told_and_passed(
    trained: tuple[Path, Path], run: Run, tmp_path: Path
) -> None:
    model, manifest = trained
    result = run("classify", tmp_path / "missing.wav", manifest.parent / "0.wav", "--model", model)
    assert result.status == 1
    assert WORDS[0] in result.stdout
    assert "1 of 2 files could not be classified" in result.stderr


def test_a_model_is_the_same_from_its_files(trained: tuple[Path, Path], tmp_path: Path) -> None:
    classifier = Classifier.load(trained[0])
    samples = np.random.default_rng(0).normal(0, 0.1, 4000).astype(np.float32)
    classifier.save(tmp_path / "copy")
    again = Classifier.load(tmp_path / "copy")
    expected = classifier.probabilities([samples])
    assert np.array_equal(again.probabilities([samples]), expected)
    batch = again.probabilities([np.tile(samples, 3), samples])
    np.testing.assert_allclose(batch[1], expected[0], atol=1e-5)


def test_a_command_trains_and_is_not_confused_by_settings(run: Run, tmp_path: Path) -> None:
    manifest = write_words(tmp_path / "corpus", (*WORDS, *OTHERS), copies=1)
    path = tmp_path / "config.toml"
    path.write_text(dump_config(config_for(manifest)))
    result = run("classify", "train", path, "--output", tmp_path / "run", "--set", "train.epochs=1")
    assert result.status == 0
    assert "% wrong" in result.stderr
    assert (tmp_path / "run" / "best" / CLASSIFIER_WEIGHTS_FILE).is_file()


def test_mistakes_are_told() -> None:
    with pytest.raises(ModelError, match="no classifier 'nowhere'"):
        find_classifier("nowhere")
    with pytest.raises(ConfigError, match="at least one of words"):
        ClassifierConfig()
    both = dataclasses.replace(tiny.MODEL, bidirectional=True, projection=8)
    with pytest.raises(ConfigError, match="pooling last"):
        ClassifierConfig(ClassesConfig(WORDS, pooling="last"), model=both)


@pytest.mark.parametrize("name", ["commands", "digits"])
def test_shipped_configs_load(name: str) -> None:
    models = Path(__file__).parent.parent / "models"  # a wheel has those with weights only
    config = load_config_of(ClassifierConfig, models / name / "config.toml")
    assert config.classes.unknown


def test_begins_with_the_first_layers_of_a_recogniser(tmp_path: Path) -> None:
    recogniser = load_model(tiny.save_tiny_model(tmp_path / "recogniser"))
    settings = dataclasses.replace(tiny.MODEL, layers=1, dropout=0.3)
    config = dataclasses.replace(
        config_for(write_words(tmp_path, (*WORDS, *OTHERS))), model=settings,
        train=dataclasses.replace(TRAIN, init_from="recogniser"),
    )  # fmt: skip
    begun = ClassifierTask(config, tmp_path).model
    theirs = recogniser.modules().state_dict()
    same = {name for name, value in begun.modules().state_dict().items()
            if name in theirs and torch.equal(value, theirs[name])}  # fmt: skip
    learned = ("features.", "network.subsampler.", "network.layers.0.")
    assert {name for name in theirs if name.startswith(learned)} <= same
    assert tiny.MODEL.layers > 1  # of which one was taken
    deeper = dataclasses.replace(config, model=dataclasses.replace(settings, layers=9))
    with pytest.raises(ModelError, match="layers = "):
        ClassifierTask(deeper, tmp_path)


def test_a_speaker_left_out_is_not_heard(tmp_path: Path) -> None:
    manifest = write_words(tmp_path, (*WORDS, *OTHERS))
    selection = select_class_examples(config_for(manifest, without_speakers=("1",)), Path())
    assert {example.utterance.speaker for example in selection.train} == {"0"}


def test_study_trains_tests_and_goes_on(run: Run, tmp_path: Path) -> None:
    texts = (*WORDS, *OTHERS, "abab zz", "kkkk", "abab", "zz", "tu")  # an odd number of them
    manifest = write_words(tmp_path / "corpus", texts)
    path = tmp_path / "tones.toml"
    name = str(manifest.absolute())
    path.write_text(dump_config(config_for(manifest, test=(name,), without=("zz",))))
    voices = write_words(tmp_path / "voices", WORDS)  # to learn from: none of them is left out
    voices.write_text(voices.read_text().replace('"speaker": "', '"speaker": "voice-'))
    arguments = ("study", "classification", path, "--without-speakers", path, "--quick",
                 "--output", tmp_path / "study", "--set", "train.epochs=1",
                 "--set", f"data.train.{voices.absolute()}=1")  # fmt: skip
    wide = ("--set", f"data.train.{name}=10")  # a tenth of it is one pass
    assert run(*arguments, *wide).status == 0
    stored = tmp_path / "study" / "classification.json"
    figures = json.loads(stored.read_text())
    tones = figures["classifiers"]["tones"]
    (test,) = tones["tests"].values()
    assert test["utterances"] == 32  # not the four that hold a word among others
    assert sum(map(sum, test["confusion"])) == 32
    assert tones["false_acceptance"]["held-out words"]["recordings"] == 8
    assert tones["false_acceptance"]["sounds without speech"]["recordings"] == 60
    (speakers,) = figures["speakers"].values()
    assert set(speakers["by_speaker"]) == {"0", "1"}
    assert (tmp_path / "study" / "classification.png").is_file()
    before = stored.read_bytes()
    again = run(*arguments, *wide, "--json")
    assert json.loads(again.stdout) == json.loads(before)
