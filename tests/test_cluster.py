"""Shards handed out to a cluster: what dies on the way, and that nobody can tell afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import write_tiny_corpus
from measure_cluster import kill_a_worker, local_cluster
from tiny import SAMPLE_RATE, save_tiny_model

from speech.cluster import Job, _hand_out, _require_room, transcribe_on_cluster
from speech.decoder import GREEDY
from speech.errors import ConfigError, SpeechError
from speech.manifest import read_manifest
from speech.shards import Shard, cut_shards
from speech.transcribe import Recogniser

FILES = 240
SHARD_SIZE = 2
PATIENT_SECONDS = 300


JOB = Job(Path(), Path("out"), "base", "", GREEDY)


class FakeRay:
    """Ray as the driver sees it: shards done one after the other, the last one handed out first."""

    class exceptions:
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            def __init__(self, cause: Exception) -> None:
                self.cause = cause

    def __init__(self, outcomes: dict[int, list[Exception | None]], cores: float = 2.0) -> None:
        self.outcomes = outcomes  # of each attempt at a shard; what is not named succeeds
        self.cores = cores
        self.handed_out: list[int] = []
        self.most_at_once = 0

    def remote(self, **_: object) -> Any:
        return lambda work: SimpleNamespace(remote=self._begin)

    def _begin(self, job: Job, shard: Shard) -> tuple[int, int]:
        self.handed_out.append(shard.number)
        return len(self.handed_out), shard.number

    def wait(self, running: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], None]:
        self.most_at_once = max(self.most_at_once, len(running))
        return [max(running)], None

    def get(self, done: tuple[int, int]) -> int:
        attempts = self.outcomes.get(done[1], [])
        if attempts and (error := attempts.pop(0)) is not None:
            raise error
        return 0

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {"Alive": True, "Resources": {"CPU": self.cores}},
            {"Alive": False, "Resources": {"CPU": 64.0}},
            {"Alive": True, "Resources": {}},
        ]


def hand_out(ray: FakeRay) -> tuple[list[int], list[int], list[str]]:
    """Return the numbers of the shards given up and of those done, and what was told."""
    done: list[int] = []
    told: list[str] = []
    shards = cut_shards([f"{number}.wav" for number in range(9)], 1)
    lost = _hand_out(ray, JOB, shards, lambda shard: done.append(shard.number), told.append)
    return [shard.number for shard in lost], done, told


def test_shards_are_handed_out_once_and_not_all_at_once() -> None:
    ray = FakeRay({})
    lost, done, told = hand_out(ray)
    assert (lost, sorted(done), told) == ([], list(range(9)), [])
    assert sorted(ray.handed_out) == list(range(9))
    assert ray.most_at_once == 4  # two for each of two places


def test_a_shard_whose_worker_died_goes_to_another_one() -> None:
    death = FakeRay.exceptions.RayError()
    ray = FakeRay({2: [death, death, None], 5: [death]})
    lost, done, told = hand_out(ray)
    assert (lost, sorted(done)) == ([], list(range(9)))
    assert [ray.handed_out.count(number) for number in (2, 5, 6)] == [3, 2, 1]
    assert sorted(told) == [f"a worker died with shard {n} (RayError)" for n in (2, 2, 5)]


def test_a_shard_that_kills_its_workers_is_given_up_and_the_others_are_done() -> None:
    lost, done, _ = hand_out(FakeRay({3: [FakeRay.exceptions.RayError()] * 9}))
    assert (lost, sorted(done)) == ([3], [0, 1, 2, 4, 5, 6, 7, 8])


def test_what_no_worker_can_do_ends_the_run() -> None:
    task_error = FakeRay.exceptions.RayTaskError
    with pytest.raises(SpeechError, match="no model here"):
        hand_out(FakeRay({0: [task_error(SpeechError("no model here"))]}))
    with pytest.raises(SpeechError, match="a worker failed: KeyError: 'x'"):
        hand_out(FakeRay({0: [task_error(KeyError("x"))]}))


def test_what_no_cluster_can_do_is_said_at_once() -> None:
    with pytest.raises(ConfigError, match=r"3 threads needs as many cores.* the largest has 2"):
        _require_room(FakeRay({}), 3)
    with pytest.raises(SpeechError, match=r"no Ray cluster at 127\.0\.0\.1:1: .*refused"):
        transcribe_on_cluster(JOB, [], "127.0.0.1:1")


# --- A real one -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray")
    with local_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 names for seven recordings, and one that is no audio."""
    folder = tmp_path_factory.mktemp("corpus") / "few"
    recordings = [one.audio_path for one in read_manifest(
        write_tiny_corpus(folder, 7, sample_rate=SAMPLE_RATE)
    )]  # fmt: skip
    names = [f"{number:03}.wav" for number in range(FILES)]
    for number, name in enumerate(names):
        os.link(recordings[number % 7], folder / name)
    (folder / "bad.wav").write_text("no audio" * 99)
    names.insert(FILES // 2, "bad.wav")
    manifest = folder / "many.jsonl"
    manifest.write_text("".join(f'{{"audio_filepath": "{name}"}}\n' for name in names))
    return manifest


@pytest.fixture(scope="module")
def expected(manifest: Path, model: Path) -> list[str]:
    """What one process hears, in the order of the manifest."""
    recogniser = Recogniser.load(model, threads=1, options=GREEDY)
    paths = [manifest.parent / f"{number:03}.wav" for number in range(FILES)]
    texts = [recogniser.transcribe(path).text for path in paths[:7]]
    return [f"{path}\t{texts[number % 7]}" for number, path in enumerate(paths)]


def start(cluster: Any, manifest: Path, model: Path, output: Path) -> subprocess.Popen[str]:
    command = [
        sys.executable, "-m", "speech", "transcribe", str(manifest), "--model", str(model),
        "--engine", "ray", "--cluster", cluster.address, "--output-dir", str(output),
        "--shard-size", str(SHARD_SIZE), "--lm", "none",
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_shards(process: subprocess.Popen[str], output: Path, count: int) -> list[Path]:
    """Return the shards that are there once there are so many, while the command still runs."""
    deadline = time.monotonic() + PATIENT_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        shards = sorted((output / "shards").glob("[0-9]*.jsonl"))
        if len(shards) >= count:
            return shards
        time.sleep(0.01)
    raise AssertionError("no shards came")


def finish(process: subprocess.Popen[str]) -> str:
    results, told = process.communicate(timeout=PATIENT_SECONDS)
    assert process.returncode == 1  # for the bad one
    assert results == ""
    assert told.endswith(f"speech: error: 1 of {FILES + 1} files could not be transcribed\n")
    assert "Traceback" not in told
    return told


def check(output: Path, expected: list[str]) -> None:
    """Every transcript is there once, in order, and nothing else was left behind."""
    assert (output / "transcripts.txt").read_text().splitlines() == expected
    shards = sorted((output / "shards").iterdir())
    assert len(shards) == -(-(FILES + 1) // SHARD_SIZE)
    rows = [json.loads(line) for shard in shards for line in shard.read_text().splitlines()]
    assert len(rows) == FILES + 1
    assert len({row["audio"] for row in rows}) == FILES + 1


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_costs_nothing(
    cluster: Any, manifest: Path, model: Path, tmp_path: Path, expected: list[str]
) -> None:
    process = start(cluster, manifest, model, tmp_path / "out")
    wait_for_shards(process, tmp_path / "out", 5)
    assert kill_a_worker(process)
    told = finish(process)
    assert "a worker died with shard" in told
    assert "bad.wav" in told
    check(tmp_path / "out", expected)


@pytest.mark.slow
def test_a_command_killed_in_the_middle_goes_on_where_it_was(
    cluster: Any, manifest: Path, model: Path, tmp_path: Path, expected: list[str]
) -> None:
    output = tmp_path / "out"
    process = start(cluster, manifest, model, output)
    wait_for_shards(process, output, 10)
    process.kill()
    process.communicate()
    before = {path: path.stat().st_ino for path in (output / "shards").glob("[0-9]*.jsonl")}
    assert not (output / "transcripts.txt").exists()
    told = finish(start(cluster, manifest, model, output))
    assert f"of {-(-(FILES + 1) // SHARD_SIZE)} shards are done already" in told
    check(output, expected)
    bad = output / "shards" / f"{FILES // 2 // SHARD_SIZE:06}.jsonl"  # which is tried again
    assert all(path.stat().st_ino == inode for path, inode in before.items() if path != bad)


@pytest.mark.slow
def test_a_machine_lost_in_the_middle_costs_nothing(
    cluster: Any, manifest: Path, model: Path, tmp_path: Path, expected: list[str]
) -> None:
    node = cluster.add_node(num_cpus=1)
    process = start(cluster, manifest, model, tmp_path / "out")
    wait_for_shards(process, tmp_path / "out", 5)
    cluster.remove_node(node, allow_graceful=False)
    finish(process)
    check(tmp_path / "out", expected)
