"""Forecasting: what is forecast has not been seen, and what is learned starts a recogniser."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Run, write_tiny_corpus
from tiny import FEATURES, MODEL, SAMPLE_RATE, Recorder, assert_same_run, tiny_config
from torch import Tensor

import speech.trainer
from speech.checkpoint import create_model
from speech.config import (
    AudioLoopConfig,
    DataConfig,
    ModelConfig,
    TrainConfig,
    dump_config,
    load_config,
    load_config_of,
)
from speech.errors import ConfigError, ManifestError, ModelError
from speech.forecast import (
    BASELINES,
    Forecaster,
    Window,
    find_forecaster,
    mean_absolute_errors,
    start_from_forecaster,
)
from speech.forecast_config import (
    AheadConfig,
    ForecastConfig,
)
from speech.pretrain import ForecastTask, pretrain
from speech.task import StepReport
from speech.tokenizer import CharTokenizer
from speech.train import begin_with, train

ONE_WAY = dataclasses.replace(MODEL, bidirectional=False)
BANDS = FEATURES.mel_bands


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech.trainer, "plot_curves", lambda _, path, __: path.touch())


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six utterances whose texts are empty."""
    directory = tmp_path_factory.mktemp("corpus")
    path = write_tiny_corpus(directory, 6, sample_rate=SAMPLE_RATE, seed=5)
    lines = [json.loads(line) | {"text": ""} for line in path.read_text("utf-8").splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def tiny_forecast(manifest: Path, **train: Any) -> ForecastConfig:
    settings = {"epochs": 3, "batch_seconds": 2.0, "precision": "float32", "ema_decay": 0.9,
                "warmup_steps": 2, "patience": 0, "learning_rate": 3e-3}  # fmt: skip
    name = str(manifest)
    return ForecastConfig(
        FEATURES, ONE_WAY, data=DataConfig(train={name: 1.0}, dev=(name,)),
        train=AudioLoopConfig(**(settings | train)),
    )  # fmt: skip


# --- What is forecast -----------------------------------------------------------------------------


@pytest.mark.parametrize("subsampling", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("cell", ["lstm", "feedforward"])
def test_no_frame_has_a_part_in_its_own_forecast(subsampling: int, steps: int, cell: str) -> None:
    """The gradient of what output frame t says ends exactly at the last frame it may see."""
    model = dataclasses.replace(ONE_WAY, subsampling=subsampling, cell=cell)
    torch.manual_seed(1)
    forecaster = Forecaster.create(
        ForecastConfig(FEATURES, model, forecast=AheadConfig(steps))
    )  # fmt: skip
    network, window = forecaster.network.eval(), forecaster.window
    frames, at = 60, 2
    log_mel = torch.randn(1, frames, BANDS, requires_grad=True)
    lengths = torch.tensor([frames])
    said = network(log_mel, lengths)[0, at]
    (gradient,) = torch.autograd.grad(said.square().sum(), log_mel)
    felt = gradient[0].abs().sum(1).nonzero().flatten()
    last_seen = subsampling * at + window.reach
    assert felt.max() == last_seen
    # Each frame is its number: where a target comes from.
    numbers = torch.arange(float(frames))[None, :, None].expand(1, frames, BANDS)
    targets, own = window.targets(numbers, lengths)
    assert own[0, at].all()
    assert targets[0, at, :, 0].tolist() == [last_seen + distance for distance in window.distances]
    assert window.distances[0] == (steps - 1) * subsampling + 1 > 0


def test_targets_end_with_each_utterance() -> None:
    window = Window(factor=4, reach=6, steps=2)
    assert window.first == 11  # 6 seen, 4 skipped, one behind these
    numbers = torch.arange(20.0)[None, :, None].expand(2, 20, 1)
    targets, own = window.targets(numbers, torch.tensor([20, 13]))
    assert own.sum((1, 2)).tolist() == [20 - 11, 13 - 11]
    assert targets[own].flatten().tolist() == [*range(11, 20), 11, 12]


def test_baselines_of_a_ramp_by_hand() -> None:
    """Frames 0, 1, 2, ...: a line is exact, what is now falls behind by the distance."""
    window = Window(factor=4, reach=6, steps=2)
    ramp = torch.arange(40.0)[None, :, None].expand(1, 40, 2)
    targets, own = window.targets(ramp, torch.tensor([40]))
    errors = {
        name: float(mean_absolute_errors(forecast, targets, own))
        for name, forecast in window.baselines(ramp).items()
    }
    assert tuple(errors) == BASELINES
    assert errors["linear"] == 0.0
    distances = [(5 + place, 40 - 11 - place) for place in range(4)]  # frames ahead, how often
    times = [-(-left // 4) for _, left in distances]
    expected = sum(d * n for (d, _), n in zip(distances, times, strict=True)) / sum(times)
    assert errors["same_as_now"] == pytest.approx(expected)
    assert errors["mean"] == pytest.approx(sum(range(11, 40)) / 29)


def test_padding_changes_no_loss() -> None:
    window = Window(factor=4, reach=6, steps=1)
    log_mel, said = torch.randn(1, 24, 3), torch.randn(1, 6, 4, 3)
    padded = torch.cat([log_mel, torch.full((1, 8, 3), float("nan"))], 1)
    more = torch.cat([said, torch.randn(1, 2, 4, 3)], 1)
    lengths = torch.tensor([24])

    def loss(said: Tensor, log_mel: Tensor) -> float:
        return float(mean_absolute_errors(said, *window.targets(log_mel, lengths)))

    assert loss(more, padded) == pytest.approx(loss(said, log_mel))


@pytest.mark.parametrize("setting", ["bidirectional=true", "lookahead_frames=2"])
def test_a_network_that_sees_what_it_is_to_forecast_is_refused(
    tmp_path: Path, setting: str
) -> None:
    path = tmp_path / "pretrain.toml"
    path.write_text("[model]\nbidirectional = false\n")
    assert load_config_of(ForecastConfig, path).model == ModelConfig(bidirectional=False)
    with pytest.raises(ConfigError, match=r"needs model\.bidirectional = false and model\.look"):
        load_config_of(ForecastConfig, path, [f"model.{setting}"])


# --- The run --------------------------------------------------------------------------------------


def test_a_run_is_better_than_its_start_and_goes_on_to_the_same_end(
    manifest: Path, tmp_path: Path
) -> None:
    def stop(report: StepReport) -> None:
        if report.step == 4:
            signal.raise_signal(signal.SIGTERM)

    config, whole = tiny_forecast(manifest, epochs=4, ema_decay=0.0, learning_rate=1e-2), Recorder()
    pretrain(config, tmp_path / "whole", whole)
    assert "without their texts; forecast are frames 5 to 8" in whole.messages[0]
    first, last = whole.rows[0], whole.rows[-1]
    assert last["dev_loss"] < first["dev_loss"]
    assert {f"dev_{name}" for name in BASELINES} < set(last)
    stopped = pretrain(config, tmp_path / "parts", Recorder(stop))
    assert stopped.step == 5
    pretrain(config, tmp_path / "parts", Recorder(), resume=True)
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_masks_are_heard_but_not_forecast(manifest: Path) -> None:
    config = tiny_forecast(manifest)
    task = ForecastTask(config, Path())
    (draws, *_) = task.epoch_batches(0)
    batch = task.batch(draws, 0)
    assert batch.heard.shape == batch.log_mel.shape
    assert not torch.equal(batch.heard, batch.log_mel)
    changed = batch.heard != batch.log_mel
    assert (batch.heard[changed] == 0).all()
    assert batch.targets.sum() == task.batch_size(draws).units


def test_an_utterance_too_short_is_left_out_and_named(manifest: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.jsonl"
    line = json.loads(manifest.read_text("utf-8").splitlines()[0])
    line |= {"audio_filepath": str(manifest.parent / line["audio_filepath"]), "duration": 0.13}
    short.write_text(json.dumps(line) + "\n", "utf-8")
    config = tiny_forecast(manifest)
    both = dataclasses.replace(config.data, train={**config.data.train, str(short): 1.0})
    task = ForecastTask(dataclasses.replace(config, data=both), Path())
    (message,) = task.summary()[1]
    assert message.startswith("left out 1 utterances, too short to forecast anything: ")
    alone = dataclasses.replace(config.data, train={str(short): 1.0})
    with pytest.raises(ManifestError, match="no utterance to train on"):
        ForecastTask(dataclasses.replace(config, data=alone), Path())


# --- A recogniser begins with it ------------------------------------------------------------------


def saved(directory: Path, **model: Any) -> Forecaster:
    torch.manual_seed(3)
    changed = dataclasses.replace(ONE_WAY, **model)
    forecaster = Forecaster.create(ForecastConfig(FEATURES, changed))
    forecaster.extractor.mean.fill_(-7.0)
    forecaster.save(directory)
    return forecaster


@pytest.mark.parametrize(("layers", "taken"), [(0, ("layers.",)), (1, ("layers.0",))])
def test_layers_are_taken_and_the_rest_is_new(
    tmp_path: Path, layers: int, taken: tuple[str, ...]
) -> None:
    forecaster = saved(tmp_path / "run" / "best")
    assert find_forecaster(tmp_path / "run") == find_forecaster(tmp_path / "run" / "best")
    torch.manual_seed(4)
    config = tiny_config(Path("none.jsonl"), bidirectional=False, dropout=0.3, lookahead_frames=2)
    model = create_model(config, CharTokenizer())
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    begin_with(TrainConfig(init_from="run", init_layers=layers), tmp_path, model)
    theirs = forecaster.network.state_dict()
    for name, value in model.network.state_dict().items():
        if name.startswith(("subsampler.", *taken)):
            assert torch.equal(value, theirs[name]), name
        else:
            assert torch.equal(value, before[name]), name
    assert torch.equal(model.extractor.mean, forecaster.extractor.mean)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bidirectional": True}, r"its \[model\] has bidirectional = False, not True"),
        ({"hidden": 13}, r"its \[model\] has hidden = 12, not 13"),
        ({"layers": 3, "cell": "gru"}, r"layers = 2, not 3; cell = 'lstm', not 'gru'"),
        ({"mel_bands": 20}, r"its \[features\] has mel_bands = 16, not 20"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    saved(tmp_path)
    config = tiny_config(Path("none.jsonl"), **({"bidirectional": False} | changes))
    with pytest.raises(ModelError, match=f"cannot start from .*{said}"):
        start_from_forecaster(tmp_path, create_model(config, CharTokenizer()))


def test_some_layers_are_those_of_a_forecaster_that_has_them(tmp_path: Path) -> None:
    saved(tmp_path / "run")
    config = tiny_config(Path("none.jsonl"), bidirectional=False)
    model = create_model(config, CharTokenizer())
    with pytest.raises(ModelError, match=r"cannot take 3 layers from .*: it has 2"):
        begin_with(TrainConfig(init_from="run", init_layers=3), tmp_path, model)
    with pytest.raises(ConfigError, match=r"init_layers = 1 needs a run of `speech pretrain`"):
        begin_with(TrainConfig(init_from="base", init_layers=1), tmp_path, model)
    with pytest.raises(ConfigError, match="init_layers = 0 unless there is an init_from"):
        TrainConfig(init_layers=1)


def test_model_init_from_is_the_same_key_as_that_of_train(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("[train]\ninit_from = 'base'\n")
    assert load_config(path, ["model.init_from=runs/pre"]).train.init_from == "runs/pre"
    path.write_text("[model]\ninit_from = 'runs/pre'\n")
    assert load_config(path).train.init_from == "runs/pre"
    path.write_text("[model]\ninit_from = 'a'\n[train]\ninit_from = 'b'\n")
    with pytest.raises(ConfigError, match=r"model\.init_from and train\.init_from are the same"):
        load_config(path)


def test_the_command_and_the_recogniser_that_begins_with_its_run(run: Run, tmp_path: Path) -> None:
    spoken = write_tiny_corpus(tmp_path / "corpus", 4, sample_rate=SAMPLE_RATE, seed=6)
    path = tmp_path / "pretrain.toml"
    path.write_text(dump_config(tiny_forecast(spoken, epochs=1)), "utf-8")
    result = run("pretrain", path, "--output", tmp_path / "pre")
    assert result.status == 0, result.stderr
    assert "below same as now" in result.stderr
    recorder = Recorder()
    config = tiny_config(spoken, epochs=1, bidirectional=False, init_from=str(tmp_path / "pre"))
    train(config, tmp_path / "run", recorder)
    assert recorder.rows[-1]["train_loss"] > 0
    result = run("transcribe", spoken, "--model", tmp_path / "pre")
    assert result.status == 1
    assert "needs a directory with config.toml" in result.stderr
