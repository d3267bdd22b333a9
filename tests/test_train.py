"""Training: exact resume, refusals, bad losses, early stopping, signals."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import write_tiny_corpus
from tiny import SAMPLE_RATE, Recorder, assert_same_run, differences, tiny_config
from torch import Tensor

import speech.train
import speech.trainer
from speech.checkpoint import load_model, load_state
from speech.config import Config, dump_config
from speech.dataset import Batch, Draw
from speech.errors import ConfigError, ModelError, TrainingError, WorkerLostError
from speech.run import Progress, is_finished
from speech.stop import StopFlag
from speech.task import StepReport
from speech.train import RecogniserTask, train
from speech.trainer import Trainer
from speech.workers import Workers

ALONE = Workers(0, 1, torch.device("cpu"))
PATIENT_SECONDS = 300  # for a process that computes for seconds, on a busy machine


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven utterances: with 2 s a batch an epoch has four steps."""
    return write_tiny_corpus(tmp_path_factory.mktemp("corpus"), 7, sample_rate=SAMPLE_RATE, seed=5)


@pytest.fixture(autouse=True)
def plotted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no curves, which takes longer than the training, but where a test looks at them."""
    if "with_curves" not in request.fixturenames:
        monkeypatch.setattr(speech.trainer, "plot_curves", lambda _, path, __: path.touch())


@pytest.fixture
def with_curves() -> None:
    """Let the test draw curves."""


def stop_after(step: int) -> Recorder:
    """Return an observer that asks the process to end after a step."""

    def ask(report: StepReport) -> None:
        if report.step == step:
            signal.raise_signal(signal.SIGTERM)

    return Recorder(ask)


# --- Resuming -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole_run(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four epochs without interruption, the rate falling along a cosine."""
    output = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speech.trainer, "plot_curves", lambda _, path, __: path.touch())
        progress = train(tiny_config(manifest), output, Recorder())
    assert (progress.epoch, progress.step) == (4, 16)
    return output


def test_two_and_two_epochs_equal_four(manifest: Path, tmp_path: Path) -> None:
    settings = {"schedule": "constant"}  # the others know how many epochs there will be
    train(tiny_config(manifest, **settings), tmp_path / "whole", Recorder())
    train(tiny_config(manifest, epochs=2, **settings), tmp_path / "parts", Recorder())
    assert load_state(tmp_path / "parts" / "last.pt")["progress"]["epoch"] == 2
    train(tiny_config(manifest, **settings), tmp_path / "parts", Recorder(), resume=True)
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize("step", [1, 3, 4, 6, 15, 16], ids=lambda step: f"step-{step}")
def test_a_run_stopped_anywhere_goes_on_to_the_same_end(
    manifest: Path, whole_run: Path, tmp_path: Path, step: int
) -> None:
    config, output = tiny_config(manifest), tmp_path / "run"
    first = stop_after(step)
    progress = train(config, output, first)
    stopped_at = min(step + 1, 16)  # the flag is looked at in the step after
    assert progress.step == stopped_at
    assert is_finished(progress, config.train) == (stopped_at == 16 and step == 16)
    if step < 16:
        assert "--resume goes on from" in first.messages[-1]
        assert f"after batch {(stopped_at - 1) % 4 + 1};" in first.messages[-1]
    progress = train(config, output, Recorder(), resume=True)
    assert is_finished(progress, config.train)
    assert_same_run(output, whole_run)


def test_a_run_stopped_again_and_again_goes_on_to_the_same_end(
    manifest: Path, whole_run: Path, tmp_path: Path
) -> None:
    config, output = tiny_config(manifest), tmp_path / "run"
    progress, lives = Progress(), 0
    while not is_finished(progress, config.train):
        first = stop_after(progress.step + 1)
        progress = train(config, output, first, resume=output.exists())
        lives += 1
    assert lives == 9  # two steps each, and one that only finishes the last epoch
    assert_same_run(output, whole_run)


def test_what_is_random_differs_from_epoch_to_epoch_but_not_from_run_to_run(
    manifest: Path, whole_run: Path, tmp_path: Path
) -> None:
    train(tiny_config(manifest), tmp_path / "same", Recorder())
    assert_same_run(tmp_path / "same", whole_run)
    train(tiny_config(manifest, seed=2), tmp_path / "other", Recorder())
    states = [load_state(run / "last.pt") for run in (whole_run, tmp_path / "other")]
    assert len(differences(states[0]["network"], states[1]["network"])) > 5


def test_a_crash_before_the_state_is_written_leaves_the_history_ahead_and_it_is_written_again(
    manifest: Path, whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, output = tiny_config(manifest), tmp_path / "run"
    save = Trainer.save_last

    def crash(trainer: Trainer[Draw, Batch]) -> None:
        if trainer.progress.epoch == 3:
            raise KeyboardInterrupt
        save(trainer)

    monkeypatch.setattr(Trainer, "save_last", crash)
    with pytest.raises(KeyboardInterrupt):
        train(config, output, Recorder())
    assert len(json.loads((output / "history.json").read_text())) == 3
    assert load_state(output / "last.pt")["progress"]["epoch"] == 2
    monkeypatch.setattr(Trainer, "save_last", save)
    train(config, output, Recorder(), resume=True)
    assert_same_run(output, whole_run)


def test_resuming_a_run_that_has_no_checkpoint_yet_starts_it(
    manifest: Path, whole_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    train(tiny_config(manifest), tmp_path / "run", Recorder(), resume=True)
    assert_same_run(tmp_path / "run", whole_run)


def test_resuming_a_finished_run_does_nothing(manifest: Path, tmp_path: Path) -> None:
    config = tiny_config(manifest, epochs=1)
    train(config, tmp_path / "run", Recorder())
    before = (tmp_path / "run" / "last.pt").read_bytes()
    again = Recorder()
    train(config, tmp_path / "run", again, resume=True)
    assert again.steps == []
    assert "nothing to resume" in again.messages[-1]
    assert (tmp_path / "run" / "last.pt").read_bytes() == before


def test_checkpoints_are_also_written_within_an_epoch(manifest: Path, tmp_path: Path) -> None:
    seen = []

    def look(_: StepReport) -> None:
        path = tmp_path / "run" / "last.pt"
        seen.append(load_state(path)["progress"]["step"] if path.exists() else 0)

    config = tiny_config(manifest, epochs=1, checkpoint_minutes=0.0)
    train(config, tmp_path / "run", Recorder(look))
    assert seen == [0, 1, 2, 3]


def test_nothing_half_written_stays_behind(whole_run: Path) -> None:
    names = {path.name for path in whole_run.iterdir()}
    assert names == {"last.pt", "best", "history.json", "curves.png", "tensorboard", ".lock"}
    assert len(list((whole_run / "best").iterdir())) == 3


# --- What a resumed or a new run is refused -------------------------------------------------------


def test_changed_settings_are_refused_by_name(manifest: Path, tmp_path: Path) -> None:
    train(tiny_config(manifest, epochs=1), tmp_path / "run", Recorder())
    before = (tmp_path / "run" / "last.pt").read_bytes()
    changed = tiny_config(manifest, epochs=1, hidden=13, learning_rate=1e-4)
    with pytest.raises(ConfigError, match=r"other settings of model\.hidden, train\.learning_rate"):
        train(changed, tmp_path / "run", Recorder(), resume=True)
    assert (tmp_path / "run" / "last.pt").read_bytes() == before


def test_settings_that_do_not_change_the_steps_may_change(manifest: Path, tmp_path: Path) -> None:
    train(tiny_config(manifest, epochs=1), tmp_path / "run", Recorder())
    changed = tiny_config(
        manifest, epochs=2, patience=7, max_bad_steps=3, cache=str(tmp_path / "cache")
    )
    assert train(changed, tmp_path / "run", Recorder(), resume=True).epoch == 2
    assert load_state(tmp_path / "run" / "last.pt")["config"] == dump_config(changed)


def test_a_directory_that_holds_a_run_is_refused(manifest: Path, tmp_path: Path) -> None:
    config = tiny_config(manifest, epochs=1)
    train(config, tmp_path / "run", Recorder())
    with pytest.raises(TrainingError, match="holds a run: --resume it or name another"):
        train(config, tmp_path / "run", Recorder())


@pytest.mark.parametrize("resume", [False, True])
def test_a_directory_in_which_another_training_works_is_refused(
    manifest: Path, tmp_path: Path, resume: bool
) -> None:
    with open(tmp_path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(TrainingError, match="in use: another training works there"):
            train(tiny_config(manifest), tmp_path, Recorder(), resume=resume)


def test_resuming_what_is_not_there_is_refused(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no run to resume"):
        train(tiny_config(manifest), tmp_path / "missing", Recorder(), resume=True)
    assert not (tmp_path / "missing").exists()


def test_a_damaged_state_is_refused_and_kept(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(b"PK\3\4 not a state")
    with pytest.raises(ModelError, match=r"last\.pt: damaged training state"):
        train(tiny_config(manifest), tmp_path, Recorder(), resume=True)
    assert (tmp_path / "last.pt").exists()


def test_float16_on_a_cpu_is_refused(manifest: Path, tmp_path: Path) -> None:
    config = tiny_config(manifest, precision="float16")
    with pytest.raises(ConfigError, match="float16 needs a GPU"):
        train(config, tmp_path / "run", Recorder(), workers=ALONE)


def test_bfloat16_trains(manifest: Path, tmp_path: Path) -> None:
    whole = Recorder()
    train(tiny_config(manifest, epochs=1, precision="bfloat16"), tmp_path / "run", whole)
    assert all(math.isfinite(report.loss) for report in whole.steps)


# --- Losses and gradients that are not finite -----------------------------------------------------


def write_impossible_corpus(directory: Path, good: Path) -> Path:
    """A manifest whose fourth line claims more audio than there is: no path spells its text."""
    soundfile.write(directory / "bad.wav", np.zeros(SAMPLE_RATE // 10, "float32"), SAMPLE_RATE)
    lines = good.read_text().splitlines()[:3]
    lines = [line.replace('"audio/', f'"{good.parent}/audio/') for line in lines]
    entry = {"audio_filepath": "bad.wav", "duration": 1.9, "text": "abba abba abba"}
    manifest = directory / "manifest.jsonl"
    manifest.write_text("\n".join([*lines, json.dumps(entry)]) + "\n")
    return manifest


def test_a_loss_that_is_not_finite_is_skipped_and_named(manifest: Path, tmp_path: Path) -> None:
    broken = write_impossible_corpus(tmp_path, manifest)
    observer = Recorder()
    progress = train(tiny_config(broken, epochs=2, dev=()), tmp_path / "run", observer)
    skipped = [text for text in observer.messages if "skipped" in text]
    assert len(skipped) == 2
    assert all(f"loss inf for {broken}:4 (bad.wav)" in text for text in skipped)
    bad = [report for report in observer.steps if math.isnan(report.loss)]
    assert [
        f"step {report.step} skipped" in text for report, text in zip(bad, skipped, strict=True)
    ]
    assert progress.bad_steps < 2  # in a row
    assert all(0 < row["train_loss"] < math.inf for row in observer.rows)


def trainer_of(config: Config, output: Path, observer: Recorder) -> Trainer[Draw, Batch]:
    output.mkdir(exist_ok=True)
    return Trainer(config, lambda: RecogniserTask(config, Path()), output, observer, ALONE)


def task_of(trainer: Trainer[Draw, Batch]) -> RecogniserTask:
    assert isinstance(trainer.task, RecogniserTask)
    return trainer.task


def copies(module: torch.nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def test_the_run_gives_up_when_losses_stay_bad_with_its_weights_untouched(
    manifest: Path, tmp_path: Path
) -> None:
    broken = write_impossible_corpus(tmp_path, manifest)
    broken.write_text(broken.read_text().splitlines()[-1] + "\n")
    observer = Recorder()
    trainer = trainer_of(tiny_config(broken, max_bad_steps=3, dev=()), tmp_path / "run", observer)
    before = copies(trainer.network), copies(trainer.average)
    with pytest.raises(TrainingError, match="3 steps in a row with non-finite losses"):
        trainer.run(StopFlag())
    assert differences([*before], [copies(trainer.network), copies(trainer.average)]) == []
    assert len(observer.messages) == 1 + 3  # the selection, then each skipped step
    assert not trainer.optimiser.state


def test_the_run_gives_up_when_gradients_stay_bad_with_its_weights_untouched(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = speech.train.ctc_losses

    def steep(log_probs: Tensor, *others: Tensor) -> Tensor:
        return losses(log_probs, *others) + (log_probs.sum() * 0).sqrt()  # slope inf times 0

    monkeypatch.setattr(speech.train, "ctc_losses", steep)
    observer = Recorder()
    config = tiny_config(manifest, max_bad_steps=3, dev=())
    trainer = trainer_of(config, tmp_path / "run", observer)
    before = copies(trainer.network), copies(trainer.average)
    with pytest.raises(TrainingError, match="3 steps in a row with non-finite gradients"):
        trainer.run(StopFlag())
    assert differences([*before], [copies(trainer.network), copies(trainer.average)]) == []
    assert "step 1 skipped: gradient norm nan" in observer.messages


# --- Judging a run --------------------------------------------------------------------------------


def test_a_network_that_says_only_blanks_is_explained_after_the_warm_up(
    manifest: Path, tmp_path: Path
) -> None:
    def messages(warmup_steps: int, bias: float) -> str:
        config = tiny_config(manifest, epochs=1, learning_rate=1e-9, warmup_steps=warmup_steps)
        observer = Recorder()
        trainer = trainer_of(config, tmp_path / f"{warmup_steps}{bias}", observer)
        for network in (trainer.network, trainer.average):
            with torch.no_grad():
                network.output.bias[0] = bias
        trainer.run(StopFlag())
        return "\n".join(observer.messages)

    assert "7 of 7 dev transcripts are empty: the network says only blanks" in messages(1, 100.0)
    assert "only blanks" not in messages(3, 100.0)  # 4 steps are less than twice the warm-up
    assert "only blanks" not in messages(1, -100.0)


def test_patience_ends_a_run_that_gets_no_better(manifest: Path, tmp_path: Path) -> None:
    config = tiny_config(manifest, epochs=9, patience=2, learning_rate=1e-9)
    observer = Recorder()
    progress = train(config, tmp_path / "run", observer)
    assert (progress.epoch, progress.stale) == (3, 2)  # one to set the mark, two to miss it
    assert observer.messages[-1] == "no better dev WER in 2 validations: stopping"
    assert train(config, tmp_path / "run", Recorder(), resume=True).epoch == 3
    more = dataclasses.replace(config, train=dataclasses.replace(config.train, patience=3))
    assert train(more, tmp_path / "run", Recorder(), resume=True).epoch == 4


def test_the_best_model_is_that_of_the_lowest_dev_wer(manifest: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    observer = Recorder()
    wer_of_best = []
    config = tiny_config(manifest, epochs=6, learning_rate=1e-2, ema_decay=0.5)
    trainer = trainer_of(config, output, observer)
    task = task_of(trainer)
    save = task.save

    def note(directory: Path, network: torch.nn.Module) -> None:
        model = dataclasses.replace(task.model, network=network)
        wer_of_best.append(task.dev.score(model, ALONE, None).words.rate)
        save(directory, network)

    task.save = note  # type: ignore[method-assign]
    trainer.run(StopFlag())
    assert wer_of_best[-1] == min(row["dev_wer"] for row in observer.rows)
    assert wer_of_best == sorted(set(wer_of_best), reverse=True)
    saved = dataclasses.replace(task.model, network=load_model(output / "best").network)
    assert task.dev.score(saved, ALONE, None).words.rate == wer_of_best[-1]


def test_a_share_of_the_first_weights_is_in_those_that_are_kept(
    manifest: Path, whole_run: Path, tmp_path: Path
) -> None:
    begun = whole_run / "best"
    config = tiny_config(manifest, epochs=1, init_from=str(begun), init_share=0.25)
    train(config, tmp_path / "run", Recorder())
    first = load_model(begun).network.state_dict()
    own = load_state(tmp_path / "run" / "last.pt")["average"]
    kept = load_model(tmp_path / "run" / "best").network.state_dict()
    assert differences(first, own)
    for name, weights in kept.items():
        torch.testing.assert_close(weights, 0.25 * first[name] + 0.75 * own[name], msg=name)
    with pytest.raises(ConfigError, match="init_share = 0 unless there is an init_from"):
        tiny_config(manifest, init_share=0.25)


def test_a_run_that_ends_early_is_the_beginning_of_the_whole(
    manifest: Path, whole_run: Path, tmp_path: Path
) -> None:
    """The rate falls as if there were more to come, and what comes can still come."""
    rows = json.loads((whole_run / "history.json").read_text())
    train(tiny_config(manifest, end_epoch=2, evaluate_every=2), tmp_path / "run", Recorder())
    begun = json.loads((tmp_path / "run" / "history.json").read_text())
    assert [row["train_loss"] for row in begun] == [row["train_loss"] for row in rows[:2]]
    assert begun[-1]["dev_wer"] == rows[1]["dev_wer"]
    train(tiny_config(manifest), tmp_path / "run", Recorder(), resume=True)
    states = [load_state(run / "last.pt")["network"] for run in (whole_run, tmp_path / "run")]
    assert differences(*states) == []


def test_without_a_dev_set_the_newest_model_is_kept(manifest: Path, tmp_path: Path) -> None:
    observer = Recorder()
    config = tiny_config(manifest, epochs=2, dev=(), patience=1)
    assert train(config, tmp_path / "run", observer).epoch == 2
    best, last = load_model(tmp_path / "run" / "best"), load_state(tmp_path / "run" / "last.pt")
    assert differences(dict(best.network.state_dict()), dict(last["average"])) == []
    assert not any("dev_wer" in row for row in observer.rows)


@pytest.mark.usefixtures("with_curves")
def test_a_run_leaves_figures_behind(manifest: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config, output = tiny_config(manifest, epochs=2), tmp_path / "run"
    train(config, output, stop_after(5))
    observer = Recorder()
    train(config, output, observer, resume=True)
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")
    history = json.loads((output / "history.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2]
    assert history[1] == observer.rows[-1]
    seconds = [json.loads(line)["duration"] for line in manifest.read_text().splitlines()]
    assert history[0]["audio_seconds"] == pytest.approx(sum(seconds))
    events = EventAccumulator(str(output / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("step/loss")] == list(range(1, 9))
    assert [event.step for event in events.Scalars("epoch/dev_wer")] == [4, 8]


def test_utterances_that_are_left_out_are_told(manifest: Path, tmp_path: Path) -> None:
    observer = Recorder()
    config = tiny_config(manifest, epochs=1, max_seconds=0.65)
    train(config, tmp_path / "run", observer)
    assert "worker(s) on cpu" in observer.messages[0]
    long = [n for n, line in enumerate(manifest.read_text().splitlines(), 1)
            if json.loads(line)["duration"] > 0.65]  # fmt: skip
    assert f"left out {len(long)} utterances, longer than 0.65 s" in observer.messages[1]
    assert f"{manifest}:{long[0]}" in observer.messages[1]


def test_a_lost_worker_leaves_the_run_as_it_was_before_the_step(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network tells of it in the backward pass, when the step is counted but not taken."""
    config = tiny_config(manifest, dropout=0.0, dev=())
    train(config, tmp_path / "whole", Recorder())
    observer, output = Recorder(), tmp_path / "run"
    update = Trainer._update

    def update_nine_times(trainer: Trainer[Draw, Batch], loss: Tensor, rate: float) -> float:
        if len(observer.steps) == 9:
            raise RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer")
        return update(trainer, loss, rate)

    monkeypatch.setattr(Trainer, "_update", update_nine_times)
    with pytest.raises(WorkerLostError, match=r"peer; stopped in epoch 3 after batch 1; --resume"):
        train(config, output, observer)
    monkeypatch.undo()
    assert load_state(output / "last.pt")["progress"]["step"] == 9
    train(config, output, Recorder(), resume=True)
    assert_same_run(output, tmp_path / "whole")


# --- Processes ------------------------------------------------------------------------------------


def environment(**variables: str) -> dict[str, str]:
    package = Path(speech.__file__).parent.parent
    return os.environ | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"} | variables


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_signal_to_the_command_leaves_a_run_to_resume(
    manifest: Path, tmp_path: Path, number: signal.Signals
) -> None:
    config = tiny_config(manifest, epochs=10_000, schedule="constant", dev=())
    (tmp_path / "config.toml").write_text(dump_config(config))
    output = tmp_path / "run"
    command = [sys.executable, "-m", "speech", "train", "config.toml", "--output", "run"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + PATIENT_SECONDS
        while not (output / "last.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        _, told = process.communicate(timeout=PATIENT_SECONDS)
    assert process.returncode == 130
    assert "--resume goes on from" in told
    assert "Traceback" not in told
    stopped = load_state(output / "last.pt")["progress"]
    more = dataclasses.replace(config.train, epochs=stopped["epoch"] + 1)
    config = dataclasses.replace(config, train=more)
    assert train(config, output, Recorder(), resume=True).epoch == stopped["epoch"] + 1


DRIVER = """
import os, signal, sys
from pathlib import Path

from speech.config import load_config
from speech.train import train

class Observer:
    def message(self, text):
        print(f"{rank}: {text}", flush=True)
    def step(self, report):
        if report.step == stop_at and rank == 1:
            signal.raise_signal(signal.SIGTERM)
    def epoch(self, row):
        pass

rank, stop_at = int(os.environ["RANK"]), int(sys.argv[2])
config = load_config("config.toml")
progress = train(config, Path(sys.argv[1]), Observer(), resume=sys.argv[3] == "resume")
threads = [open(f"/proc/self/task/{one}/comm").read() for one in os.listdir("/proc/self/task")]
alive = sum("gloo" in name for name in threads)
print(f"{rank}: ended at step {progress.step}; {alive} gloo threads", flush=True)
"""


def run_two_workers(directory: Path, output: str, stop_at: int = 0, resume: bool = False) -> str:
    """Train with two processes; the second gets SIGTERM after `stop_at`. Return what they print."""
    (directory / "driver.py").write_text(DRIVER)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "driver.py", output, str(stop_at), "resume" if resume else "new",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=directory, env=environment(), capture_output=True, text=True,
        timeout=PATIENT_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_two_views_without_masks_train_as_one_and_with_masks_otherwise(
    manifest: Path, tmp_path: Path
) -> None:
    """Views that are alike agree: the mean of two equal losses and no more."""
    quiet = {"dropout": 0.0, "epochs": 2, "dev": ()}
    masks = {"time_masks": 0, "frequency_masks": 0}
    weights = {}
    for name, settings in (
        ("one", masks), ("two", masks | {"consistency": 0.5}), ("masked", {"consistency": 0.5}),
    ):  # fmt: skip
        train(tiny_config(manifest, **quiet, **settings), tmp_path / name, Recorder())
        weights[name] = load_state(tmp_path / name / "last.pt")["network"]
    for key, value in weights["one"].items():
        torch.testing.assert_close(weights["two"][key], value, rtol=0, atol=1e-4, msg=key)
    key = "output.weight"
    assert not torch.allclose(weights["masked"][key], weights["one"][key], atol=1e-3)


def test_two_workers_stopped_and_resumed_equal_one_process(tmp_path: Path) -> None:
    """Sums of gradients are added in another order: 1e-6, grown by AdamW over 16 steps to 1e-4."""
    # Without dropout, which each worker draws for itself; speed, noise and masks as ever.
    manifest = write_tiny_corpus(tmp_path / "corpus", 7, sample_rate=SAMPLE_RATE, seed=4)
    config = tiny_config(manifest, dropout=0.0, batch_seconds=2.3, checkpoint_minutes=1e-4)
    (tmp_path / "config.toml").write_text(dump_config(config))
    alone = Recorder()
    trainer = trainer_of(config, tmp_path / "alone", alone)
    task = task_of(trainer)
    sizes = {len(batch) for epoch in range(4) for batch in task.epoch_batches(epoch)}
    assert sizes == {1, 2, 3}  # uneven shares, and a worker with nothing of its own
    trainer.run(StopFlag())
    told = run_two_workers(tmp_path, "pair", stop_at=6)
    assert "0: ended at step 7; 0 gloo threads" in told
    assert "1: ended at step 7; 0 gloo threads" in told
    told = run_two_workers(tmp_path, "pair", resume=True)
    assert f"1: ended at step {len(alone.steps)}; 0 gloo threads" in told
    one, two = (load_state(tmp_path / name / "last.pt") for name in ("alone", "pair"))
    for part in ("network", "average"):
        for name, weights in one[part].items():
            torch.testing.assert_close(two[part][name], weights, rtol=0, atol=1e-4, msg=name)
    assert one["progress"]["step"] == two["progress"]["step"]
    for row, other in zip(*(state["progress"]["history"] for state in (one, two)), strict=True):
        same = {key for key in row if key != "wall_seconds"}
        assert {k: row[k] for k in same} == pytest.approx({k: other[k] for k in same}, rel=1e-3)


def test_two_workers_skip_a_bad_loss_together_and_name_it(manifest: Path, tmp_path: Path) -> None:
    broken = write_impossible_corpus(tmp_path, manifest)
    # A batch of all four: the bad one is the longest, so it falls to the second worker.
    config = tiny_config(broken, epochs=1, batch_seconds=20.0, dev=())
    (tmp_path / "config.toml").write_text(dump_config(config))
    told = run_two_workers(tmp_path, "pair")
    for rank in (0, 1):
        assert f"{rank}: step 1 skipped: loss inf for {broken}:4 (bad.wav)" in told
        assert f"{rank}: ended at step 1; 0 gloo threads" in told
