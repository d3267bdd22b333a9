"""Training on two hosts: network namespaces with a cable between them, and what happens to it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import write_tiny_corpus
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import SAMPLE_RATE, Recorder, tiny_config

import speech
from speech.checkpoint import load_state
from speech.config import Config, dump_config, load_config
from speech.train import train

pytestmark = pytest.mark.slow

PATIENT_SECONDS = 300
PORT = 29_411
ADDRESSES = ("10.213.7.1", "10.213.7.2")
CABLE = "cable"  # the name of each host's end of it
Host = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Two network namespaces, each with an address of its own; skipped where not permitted."""
    names = (f"speech-{os.getpid()}-a", f"speech-{os.getpid()}-b")
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", CABLE, "netns", names[0], "type", "veth",
           "peer", "name", CABLE, "netns", names[1])  # fmt: skip
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", CABLE)
            ip("-n", name, "link", "set", CABLE, "up")
            ip("-n", name, "link", "set", "lo", "up")
    except (OSError, subprocess.CalledProcessError) as error:
        remove(names)
        pytest.skip(f"no network namespaces here: {error}")
    yield names
    remove(names)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def kill(name: str) -> None:
    """End all that runs on a host at once; torchrun's workers have sessions of their own."""
    inside = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
    for pid in inside.stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def remove(names: tuple[str, str]) -> None:
    for name in names:
        kill(name)
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def start(hosts: tuple[str, str], rank: int, folder: Path, *options: str) -> subprocess.Popen[str]:
    """Begin one node's part of a training, as its user would; the run is the first node's."""
    command = [
        "ip", "netns", "exec", hosts[rank],
        sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(rank),
        "--nproc-per-node", "1", "--master-addr", ADDRESSES[0], "--master-port", str(PORT),
        "-m", "speech", "train", "config.toml", "--output", f"run-{rank}", *options,
    ]  # fmt: skip
    environment = os.environ | {
        "PYTHONPATH": str(Path(speech.__file__).parent.parent),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": CABLE,
    }
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def start_both(hosts: tuple[str, str], folder: Path, *options: str) -> list[subprocess.Popen[str]]:
    return [start(hosts, rank, folder, *options) for rank in (0, 1)]


def write_config(folder: Path, **settings: object) -> Config:
    """Without dropout, which each worker draws for itself; speed, noise and masks as ever."""
    manifest = folder / "corpus" / "manifest.jsonl"
    if not manifest.exists():
        write_tiny_corpus(folder / "corpus", 7, sample_rate=SAMPLE_RATE, seed=4)
    config = tiny_config(manifest, dropout=0.0, batch_seconds=2.3, **settings)
    (folder / "config.toml").write_text(dump_config(config))
    return config


def step_losses(run: Path) -> list[float]:
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return [event.value for event in events.Scalars("step/loss")]


def wait_for(path: Path, processes: list[subprocess.Popen[str]]) -> None:
    deadline = time.monotonic() + PATIENT_SECONDS
    while not path.exists():
        assert time.monotonic() < deadline, "no checkpoint came"
        for process in processes:
            assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def own_lines(process: subprocess.Popen[str]) -> list[str]:
    """Return what our command, not torchrun, said before it failed, as it must within a time."""
    _, told = process.communicate(timeout=PATIENT_SECONDS)
    assert process.returncode == 1, told
    return [line for line in told.splitlines() if "speech: error" in line]


def test_two_hosts_train_as_one_process_does(hosts: tuple[str, str], tmp_path: Path) -> None:
    """Sums of gradients are added in another order: 1e-6, grown by AdamW over 13 steps to 1e-4."""
    config = write_config(tmp_path)
    train(config, tmp_path / "alone", Recorder())
    for process in start_both(hosts, tmp_path):
        _, told = process.communicate(timeout=PATIENT_SECONDS)
        assert process.returncode == 0, told
    losses = step_losses(tmp_path / "alone")
    assert len(losses) > 10
    assert step_losses(tmp_path / "run-0") == pytest.approx(losses, rel=1e-3)
    rows, pair = (json.loads((tmp_path / name / "history.json").read_text())
                  for name in ("alone", "run-0"))  # fmt: skip
    assert [row["dev_wer"] for row in pair] == pytest.approx([row["dev_wer"] for row in rows])
    assert not (tmp_path / "run-1").exists()  # what the second host needs is the manifest


def test_a_host_that_dies_stops_the_run_ready_to_resume(
    hosts: tuple[str, str], tmp_path: Path
) -> None:
    config = write_config(tmp_path, epochs=10_000, schedule="constant", dev=())
    first, second = start_both(hosts, tmp_path)
    wait_for(tmp_path / "run-0" / "last.pt", [first, second])
    kill(hosts[1])
    second.communicate()
    (line,) = own_lines(first)
    assert "lost contact with another worker" in line
    assert "--resume goes on from" in line
    stopped = load_state(tmp_path / "run-0" / "last.pt")["progress"]
    settings = dataclasses.replace(config.train, epochs=stopped["epoch"] + 2)
    config = dataclasses.replace(config, train=settings)
    (tmp_path / "config.toml").write_text(dump_config(config))
    # Both go on; only the first host has what to resume from.
    for process in start_both(hosts, tmp_path, "--resume"):
        _, told = process.communicate(timeout=PATIENT_SECONDS)
        assert process.returncode == 0, told
    train(config, tmp_path / "alone", Recorder())
    assert load_state(tmp_path / "run-0" / "last.pt")["progress"]["epoch"] == settings.epochs
    ends = [step_losses(tmp_path / name)[-8:] for name in ("run-0", "alone")]
    assert ends[0] == pytest.approx(ends[1], rel=0.05)  # over some hundreds of steps


def test_a_cable_that_breaks_stops_both_hosts(hosts: tuple[str, str], tmp_path: Path) -> None:
    """Nobody says goodbye: only the time tells."""
    write_config(tmp_path, epochs=10_000, schedule="constant", dev=(), worker_timeout_minutes=0.1)
    processes = start_both(hosts, tmp_path)
    wait_for(tmp_path / "run-0" / "last.pt", processes)
    ip("-n", hosts[1], "link", "set", CABLE, "down")
    lines = [own_lines(process) for process in processes]
    assert [len(line) for line in lines] == [1, 1]
    assert all("lost contact with another worker" in line for (line,) in lines)
    before = load_state(tmp_path / "run-0" / "last.pt")["progress"]
    assert before["step"] > 0


def test_hosts_with_other_data_or_settings_are_refused(
    hosts: tuple[str, str], tmp_path: Path
) -> None:
    write_config(tmp_path)
    first = start(hosts, 0, tmp_path)
    second = start(hosts, 1, tmp_path, "--set", "train.learning_rate=0.1")
    for process in (first, second):
        (line,) = own_lines(process)
        assert line.endswith("worker 1 has other settings than the first one: train.learning_rate")
    config = load_config(tmp_path / "config.toml")
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    (manifest,) = config.data.train
    (fewer / "manifest.jsonl").write_text("".join(
        line.replace('"audio/', f'"{tmp_path}/corpus/audio/')
        for line in Path(manifest).read_text().splitlines(keepends=True)[:5]
    ))  # fmt: skip
    named = dataclasses.replace(config.data, train={"manifest.jsonl": 1.0}, dev=())
    (tmp_path / "config.toml").write_text(dump_config(dataclasses.replace(config, data=named)))
    first = start(hosts, 0, tmp_path, "--set", "data.root=corpus")
    second = start(hosts, 1, tmp_path, "--set", "data.root=fewer")
    for process in (first, second):
        (line,) = own_lines(process)
        assert "worker 1 has other training data than the first one (5 utterances" in line
