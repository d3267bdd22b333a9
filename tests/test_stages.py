"""Trainings that build on each other."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import write_tiny_corpus
from tiny import SAMPLE_RATE, Recorder, assert_same_run, tiny_config

from speech.config import AudioLoopConfig, dump_config
from speech.errors import ConfigError, TrainingError
from speech.forecast_config import ForecastConfig
from speech.stages import Stage, read_stages, train_stages
from speech.task import StepReport


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_corpus(tmp_path_factory.mktemp("corpus"), 4, sample_rate=SAMPLE_RATE)


@pytest.fixture(scope="module")
def last(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of the last of three stages, each of two epochs."""
    directory = tmp_path_factory.mktemp("configs")
    for name, before in (("first", ""), ("second", "first.toml"), ("third", "second.toml")):
        config = tiny_config(manifest, epochs=2, init_from=before)
        (directory / f"{name}.toml").write_text(dump_config(config))
    return directory / "third.toml"


class Watch:
    """Observers for stages, by name; a step of the stage `stop_in` brings SIGTERM."""

    def __init__(self, stop_in: str = "") -> None:
        self.recorders: dict[str, Recorder] = {}
        self._stop_in = stop_in

    @contextlib.contextmanager
    def __call__(self, stage: Stage) -> Iterator[Recorder]:
        def at_step(report: StepReport) -> None:
            if stage.path.stem == self._stop_in and report.step == 1:
                signal.raise_signal(signal.SIGTERM)

        self.recorders[stage.path.stem] = recorder = Recorder(at_step)
        yield recorder

    @property
    def steps(self) -> dict[str, int]:
        return {name: len(recorder.steps) for name, recorder in self.recorders.items()}


def test_stages_are_found_first_one_first(last: Path, tmp_path: Path) -> None:
    stages = read_stages(last, ["train.seed=7"], tmp_path)
    assert [stage.path.name for stage in stages] == ["first.toml", "second.toml", "third.toml"]
    assert [stage.output for stage in stages] == [tmp_path / "first", tmp_path / "second", tmp_path]
    assert [stage.config.train.seed for stage in stages] == [7, 7, 7]
    assert [stage.config.train.init_from for stage in stages] == [
        "", str(tmp_path / "first" / "best"), str(tmp_path / "second" / "best"),
    ]  # fmt: skip


def test_a_config_without_stages_is_one(last: Path, tmp_path: Path) -> None:
    (stage,) = read_stages(last.with_name("first.toml"), [], tmp_path)
    assert (stage.output, stage.config.train.init_from) == (tmp_path, "")


def test_a_pretraining_may_be_the_first_stage(manifest: Path, tmp_path: Path) -> None:
    """Overrides that only a recogniser has are not for it; those of the network are for both."""
    config = tiny_config(manifest, epochs=1, bidirectional=False, init_from="pre.toml")
    before = ForecastConfig(
        config.features, config.model, data=config.data,
        train=AudioLoopConfig(epochs=1, batch_seconds=2.0, precision="float32"),
    )  # fmt: skip
    for name, one in (("pre", before), ("recipe", config)):
        (tmp_path / f"{name}.toml").write_text(dump_config(one))
    overrides = ["model.hidden=14", "train.consistency=0.2", "train.learning_rate=0.01"]
    stages = read_stages(tmp_path / "recipe.toml", overrides, tmp_path / "out")
    assert [stage.config.model.hidden for stage in stages] == [14, 14]
    assert [stage.config.train.learning_rate for stage in stages] == [1e-3, 1e-2]
    watch = Watch()
    assert train_stages(stages, watch, resume=False)
    assert list(watch.recorders) == ["pre", "recipe"]
    assert (tmp_path / "out" / "pre" / "best" / "forecaster.toml").is_file()
    assert (tmp_path / "out" / "best" / "config.toml").is_file()


def test_a_circle_is_refused(manifest: Path, tmp_path: Path) -> None:
    for name, before in (("a", "b.toml"), ("b", "a.toml")):
        config = tiny_config(manifest, init_from=before)
        (tmp_path / f"{name}.toml").write_text(dump_config(config))
    with pytest.raises(ConfigError, match=r"a\.toml: train\.init_from leads back"):
        read_stages(tmp_path / "a.toml", [], tmp_path / "run")


def test_stages_follow_each_other_and_go_on_where_they_were_stopped(
    last: Path, tmp_path: Path
) -> None:
    stages = read_stages(last, [], tmp_path / "run")
    uninterrupted = Watch()
    assert train_stages(stages, uninterrupted, resume=False)
    steps = uninterrupted.steps["first"]
    assert uninterrupted.steps == {"first": steps, "second": steps, "third": steps}

    (tmp_path / "run").rename(tmp_path / "whole")
    assert not train_stages(stages, Watch(stop_in="second"), resume=False)
    resumed = Watch()
    assert train_stages(stages, resumed, resume=True)
    assert resumed.steps["first"] == 0
    assert 0 < resumed.steps["second"] < steps
    assert resumed.steps["third"] == steps
    for name in ("first", "second", "."):
        assert_same_run(tmp_path / "whole" / name, tmp_path / "run" / name)


def test_refusals_come_before_the_first_step(last: Path, tmp_path: Path) -> None:
    stages = read_stages(last, [], tmp_path / "run")
    with pytest.raises(TrainingError, match="no run to resume"):
        train_stages(stages, Watch(), resume=True)
    train_stages(stages[:1], Watch(stop_in="first"), resume=False)
    watch = Watch()
    with pytest.raises(TrainingError, match="first holds a run: --resume it"):
        train_stages(stages, watch, resume=False)
    assert not watch.recorders
