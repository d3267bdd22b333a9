"""Studies: trials that are repeated and gone on with; figures that say what was measured."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import Run, write_tiny_corpus
from tiny import FEATURES, MODEL, SAMPLE_RATE, Recorder, save_tiny_model, tiny_config
from typer.testing import CliRunner

import speech.trainer
from speech.cli import app
from speech.config import AudioLoopConfig, DataConfig, dump_config, load_config
from speech.errors import ConfigError, DivergedError, ManifestError
from speech.forecast import BASELINES
from speech.forecast_config import ForecastConfig
from speech.manifest import read_manifest
from speech.model import count_parameters
from speech.study import Outcome, Place, Trial, changed, over_seeds, quick, run_trial, wer_figures
from speech.study_cells import ENCODERS, CellsStudy, encoder_config, run_cells_study
from speech.study_gradients import GradientStudy, run_gradient_study
from speech.study_initialisation import GROUPS, InitialisationStudy, run_initialisation_study
from speech.study_pretraining import amounts, read_pretraining_study
from speech.study_results import study_table
from speech.tokenizer import CharTokenizer

PARAMETERS = 20_000
STUDIES = Path(__file__).parent.parent / "models" / "studies"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_corpus(tmp_path_factory.mktemp("corpus"), 6, sample_rate=SAMPLE_RATE, seed=5)


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no curves of the single runs."""
    monkeypatch.setattr(speech.trainer, "plot_curves", lambda _, path, __: path.touch())


def place_of(manifest: Path, output: Path) -> Place:
    return Place.of(tiny_config(manifest), manifest, output, ())


class Counter:
    """Counts the trainings that are begun."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    def __call__(self, trial: Trial) -> AbstractContextManager[Recorder]:
        self.begun.append(trial.directory)
        return nullcontext(Recorder())


# --- Trials ---------------------------------------------------------------------------------------


def test_a_finished_trial_is_not_repeated_and_another_recipe_is_refused(
    manifest: Path, tmp_path: Path
) -> None:
    config, counter = tiny_config(manifest, epochs=1), Counter()
    place = place_of(manifest, tmp_path)
    (trial,) = over_seeds(config, "one", 1)
    first, second = (run_trial(trial, place, counter) for _ in range(2))
    assert counter.begun == ["one-seed1"]
    assert isinstance(first, Outcome)
    assert isinstance(second, Outcome)
    assert first.history == second.history
    assert first.test is not None
    assert second.test is not None
    assert first.test.words == second.test.words
    assert first.last("dev_wer") is not None
    assert first.sums("audio_seconds") > 0
    with pytest.raises(ConfigError, match=r"other settings of train\.learning_rate"):
        run_trial(Trial("one", changed(config, learning_rate=0.5)), place, counter)


def test_a_trial_that_diverged_is_told_and_not_tried_again(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: Any) -> None:
        raise DivergedError("losses are not finite")

    monkeypatch.setattr("speech.study.train", diverge)
    place, counter = place_of(manifest, tmp_path), Counter()
    (trial,) = over_seeds(tiny_config(manifest), "one", 1)
    for _ in range(2):
        outcome = run_trial(trial, place, counter)
        assert outcome is not None
        assert (outcome.test, outcome.diverged) == (None, "losses are not finite")
    assert counter.begun == ["one-seed1"]
    assert wer_figures([outcome]) == {"wer": [], "cer": [], "diverged": 1}


def test_quick_takes_a_tenth_but_enough(tmp_path: Path, manifest: Path) -> None:
    config = quick(tiny_config(manifest), manifest.parent)
    assert list(config.data.train.values()) == [1.0]  # six utterances are few already
    assert config.train.last_epoch == 2


def test_a_study_without_anything_to_test_on_is_refused(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--test MANIFEST"):
        Place.of(tiny_config(manifest, dev=()), manifest, tmp_path, ())


# --- Cells ----------------------------------------------------------------------------------------


def test_encoders_are_of_equal_size(manifest: Path) -> None:
    study = CellsStudy(tiny_config(manifest), PARAMETERS)
    sizes = {
        name: count_parameters(encoder_config(study, name).model, 16, CharTokenizer().size)
        for name in ENCODERS
    }
    assert all(size == pytest.approx(PARAMETERS, rel=0.05) for size in sizes.values()), sizes
    ahead = changed(study.config, cell="lstm", bidirectional=False, lookahead_frames=3)
    study = CellsStudy(ahead, PARAMETERS)
    looks = {name: encoder_config(study, name).model.lookahead_frames for name in ENCODERS}
    assert looks == {"feedforward": 0, "rnn": 3, "gru": 3, "lstm": 3, "blstm": 0}
    with pytest.raises(ConfigError, match="no encoder 'transformer': needs one of feedforward"):
        encoder_config(study, "transformer")


def test_cells_end_to_end(manifest: Path, tmp_path: Path) -> None:
    """Two encoders, two seeds, two learning rates for the first seed; then nothing to do."""
    study = CellsStudy(
        tiny_config(manifest, epochs=1), PARAMETERS, 2, (3e-3, 1e-6), ("feedforward", "lstm")
    )
    counter = Counter()
    figures = run_cells_study(study, place_of(manifest, tmp_path), counter)
    assert figures is not None
    assert len(counter.begun) == 6
    stored = json.loads((tmp_path / "cells.json").read_text("utf-8"))
    lstm = stored["encoders"]["lstm"]
    assert len(lstm["wer"]) == len(lstm["seconds"]) == len(lstm["curves"]) == 2
    low, high = lstm["wer_interval"]
    assert low <= sum(lstm["wer"]) / 2 <= high
    assert set(lstm["wer_by_speaker"]) == {"tone-0", "tone-1"}
    assert min(lstm["wer_by_speaker"].values()) <= sum(lstm["wer"]) / 2
    assert max(lstm["wer_by_speaker"].values()) >= sum(lstm["wer"]) / 2
    assert any(line.startswith("lstm, by speaker: tone-0 ") for line in study_table(stored))
    assert abs(lstm["parameters"] - stored["encoders"]["feedforward"]["parameters"]) < 1000
    assert [(row["from"], row["to"]) for row in stored["reductions"]] == [("feedforward", "lstm")]
    assert stored["test"]
    assert (tmp_path / "cells.png").read_bytes().startswith(b"\x89PNG")
    assert run_cells_study(study, place_of(manifest, tmp_path), counter) == figures
    assert len(counter.begun) == 6


# --- Initialisation -------------------------------------------------------------------------------


def test_initialisation_end_to_end(manifest: Path, tmp_path: Path) -> None:
    groups = ("LSTM, bias of the forget gate", "LSTM, truncated back-propagation")
    study = InitialisationStudy(tiny_config(manifest, epochs=1), PARAMETERS, 1, groups)
    counter = Counter()
    figures = run_initialisation_study(study, place_of(manifest, tmp_path), counter)
    assert len(counter.begun) == 5  # the usual LSTM is in both groups
    assert figures is not None
    names = [trial["name"] for trial in figures["trials"]]
    assert names == ["lstm-forget0", "lstm-forget1", "lstm-forget2",
                     "lstm-bptt10", "lstm-bptt50", "lstm-bpttall"]  # fmt: skip
    before = {trial["name"]: trial["horizon_before"][0] for trial in figures["trials"]}
    assert before["lstm-forget0"] <= before["lstm-forget2"]
    assert before["lstm-bptt10"] == before["lstm-bpttall"]  # the same weights
    assert all(math.isfinite(trial["loss"][0]) for trial in figures["trials"])
    assert (tmp_path / "initialisation.png").is_file()
    assert json.loads((tmp_path / "initialisation.json").read_text("utf-8"))["trials"]


def test_groups_differ_in_what_they_say(manifest: Path) -> None:
    config = tiny_config(manifest)
    for group, trials in GROUPS.items():
        recipes = [dump_config(changed(config, **settings)) for settings in trials.values()]
        assert len(set(recipes)) == len(trials) > 1, group


# --- Pretraining ----------------------------------------------------------------------------------


def pretraining_recipe(manifest: Path, directory: Path) -> Path:
    """Write a recipe of one direction and the pretraining that it begins with."""
    before = ForecastConfig(
        FEATURES, dataclasses.replace(MODEL, bidirectional=False),
        data=DataConfig(train={str(manifest): 1.0}, dev=(str(manifest),)),
        train=AudioLoopConfig(epochs=1, batch_seconds=2.0, warmup_steps=2,
                                  precision="float32"),
    )  # fmt: skip
    (directory / "forecasting.toml").write_text(dump_config(before), "utf-8")
    config = tiny_config(manifest, bidirectional=False, init_from="forecasting.toml", epochs=1)
    path = directory / "recipe.toml"
    path.write_text(dump_config(config), "utf-8")
    return path


def test_pretraining_end_to_end(
    manifest: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quick command; then nothing to do."""
    path = pretraining_recipe(manifest, tmp_path)
    command = ["study", "pretraining", path, "--output", tmp_path / "out", "--quick",
               "--parameters", "12000", "--set", "features.mel_bands=16"]  # fmt: skip
    result = run(*command)
    assert result.status == 0, result.stderr
    assert "mean absolute error of forecasts: network 0." in result.stdout
    stored = json.loads((tmp_path / "out" / "pretraining.json").read_text("utf-8"))
    little, everything = stored["amounts"].values()
    assert 0 < little["hours"] < everything["hours"]
    assert little["pretrained"]["steps"] >= 2
    assert set(stored["forecast"]["mean_absolute_error"]) == {"network", *BASELINES}
    for amount in (little, everything):
        for start in ("random", "pretrained"):
            assert len(amount[start]["wer"]) == 1
            low, high = amount[start]["wer_interval"]
            assert low <= amount[start]["wer"][0] <= high
    config = (tmp_path / "out" / "all-pretrained-seed1" / "best" / "config.toml").read_text()
    assert str(tmp_path / "out" / "pretraining") in config
    assert (tmp_path / "out" / "pretraining.png").read_bytes().startswith(b"\x89PNG")

    def refuse(*_: Any) -> None:
        raise AssertionError("trained again")

    for name in ("speech.study.train", "speech.study_pretraining.pretrain"):
        monkeypatch.setattr(name, refuse)
    again = run(*command, "--json")
    assert json.loads(again.stdout) == stored


def test_little_speech_is_drawn_alike_and_gone_through_more_often(
    manifest: Path, tmp_path: Path
) -> None:
    path = pretraining_recipe(manifest, tmp_path)
    config = load_config(path)
    place = Place.of(config, path, tmp_path / "out", ())
    seconds = [one.duration for one in read_manifest(manifest)]
    study = read_pretraining_study(config, path, (), sum(seconds) / 2 / 3600, 1)
    little, everything = amounts(study, place)
    ((drawn, passes),) = little.train.items()
    chosen = [one.duration for one in read_manifest(drawn)]
    assert sum(chosen) * passes == pytest.approx(everything.seconds) == pytest.approx(sum(seconds))
    assert sum(chosen) - max(chosen) < sum(seconds) / 2 <= sum(chosen) == little.seconds
    assert amounts(study, place) == [little, everything]
    more = dataclasses.replace(study, hours=1.0)
    with pytest.raises(ManifestError, match=r"needs more than that in data\.train"):
        amounts(more, place)


def test_a_study_of_pretraining_needs_one(manifest: Path, tmp_path: Path) -> None:
    path = pretraining_recipe(manifest, tmp_path)
    config = load_config(path, ["model.init_from=base"])
    with pytest.raises(ConfigError, match=r"needs the TOML file of one in model\.init_from"):
        read_pretraining_study(config, path, (), 1.0, 1)


# --- Gradients ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three utterances of 2.5 s."""
    directory = tmp_path_factory.mktemp("long")
    whole = write_tiny_corpus(directory, 3, sample_rate=SAMPLE_RATE, seed=5)
    lines = [json.loads(line) for line in whole.read_text("utf-8").splitlines()]
    for line in lines:
        path = directory / line["audio_filepath"]
        samples, rate = soundfile.read(path, dtype="float32")
        repeated = np.tile(samples, 5)[: int(2.5 * rate)]
        soundfile.write(path, repeated, rate)
        line["duration"] = len(repeated) / rate
    whole.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return whole


def test_gradients_end_to_end(long_manifest: Path, tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model")
    study = GradientStudy((long_manifest,), (str(model),), 3, 12, 16, (0.5, 1.0))
    shares: list[float] = []
    figures = run_gradient_study(study, tmp_path / "study", shares.append)
    assert sum(shares) == pytest.approx(1.0)
    rnn = {radius: one["layers"]["layer 1 forwards"] for radius, one in
           figures["radius"]["rnn_tanh"].items()}  # fmt: skip
    assert rnn["0.5"]["rate"] < rnn["1"]["rate"] <= 1.05
    for radius, layer in rnn.items():  # the theory holds where the states are those it was given
        predicted = figures["radius"]["rnn_tanh"][radius]["predicted_rate"]
        assert predicted <= float(radius)
        assert layer["rate"] == pytest.approx(predicted, rel=0.15)
    assert set(figures["checkpoints"][0]["layers"]) >= {"layer 1 forwards", "layer 2 backwards"}
    sizes = {
        one["hidden"] for by_radius in figures["radius"].values() for one in by_radius.values()
    }
    faint = figures["radius"]["rnn_tanh, faint inputs"]
    for radius in ("0.5", "1"):  # nearly linear: the power of the radius itself
        rate = faint[radius]["layers"]["layer 1 forwards"]["rate"]
        assert rate == pytest.approx(float(radius), rel=0.01)
    assert len(sizes) == 2  # equal weights, not equal units
    stored = json.loads((tmp_path / "study" / "gradients.json").read_text("utf-8"))
    assert stored["utterances"] == 3
    for name in ("gradients.png", "gradients-layers.png"):
        assert (tmp_path / "study" / name).is_file()


def test_short_utterances_have_no_past(manifest: Path, tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model")
    with pytest.raises(ManifestError, match=r"no utterance of 2\.0 s or more"):
        run_gradient_study(GradientStudy((manifest,), (str(model),)), tmp_path)


# --- Command line ---------------------------------------------------------------------------------


def recipe(manifest: Path, path: Path) -> Path:
    path.write_text(dump_config(tiny_config(manifest)), "utf-8")
    return path


def test_quick_commands_print_their_tables(
    manifest: Path, long_manifest: Path, tmp_path: Path
) -> None:
    config = str(recipe(manifest, tmp_path / "recipe.toml"))
    small = ["--quick", "--parameters", "12000", "--set", "train.precision=float32"]
    chosen = ["--encoder", "rnn", "--encoder", "lstm"]
    result = CliRunner().invoke(
        app, ["study", "cells", config, "--output", str(tmp_path / "c"), *small, *chosen]
    )
    assert result.exit_code == 0, result.output
    assert "lstm makes" in result.stdout
    group = ["--group", "tanh RNN, gradient clipping"]
    result = CliRunner().invoke(
        app, ["study", "initialisation", config, "--output", str(tmp_path / "i"), *small, *group]
    )
    assert result.exit_code == 0, result.output
    assert "rnn-noclip" in result.stdout
    model = str(save_tiny_model(tmp_path / "model"))
    result = CliRunner().invoke(
        app, ["study", "gradients", str(long_manifest), "--output", str(tmp_path / "g"),
              "--model", model, "--quick", "--json"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["radius"]["lstm"]["1.5"]["layers"]


def test_stored_studies_are_shown_and_drawn_again(tmp_path: Path, run: Run) -> None:
    """All that ship: their tables are printed and their pictures are drawn, each of them small."""
    for path in STUDIES.glob("*.json"):
        shutil.copy(path, tmp_path)
    stored = sorted(tmp_path.glob("*.json"))
    assert len(stored) == 6
    result = run("study", "show", *stored, "--draw")
    assert result.status == 0, result.stderr
    lines = "blstm makes ", "at radius 1 the LSTM's", "rnn-noclip ", "1 h of text: ", "without "
    assert all(line in result.stdout for line in lines)
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == {path.name for path in STUDIES.glob("*.png")}
    for path in (*STUDIES.glob("*.png"), *tmp_path.glob("*.png")):
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size < 200_000, path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: no such file"),
        ("{", "not JSON: "),
        ('{"wer": 1}', "not a study's figures: needs one of encoders, "),
    ],
)
def test_what_is_no_study_is_refused(
    content: str | None, message: str, tmp_path: Path, run: Run
) -> None:
    path = tmp_path / "figures.json"
    if content is not None:
        path.write_text(content, "utf-8")
    result = run("study", "show", path)
    assert result.status == 1
    assert f"{path}: {message}" in result.stderr
