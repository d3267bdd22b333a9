"""The command line as programs that call it rely on it: streams, exit statuses, forms, keys."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import Result, Run, write_tiny_corpus
from tiny import SAMPLE_RATE, save_tiny_model, tiny_config

import speech
from speech.config import dump_config
from speech.decoder import GREEDY
from speech.manifest import read_manifest
from speech.tokenizer import NORMALISER
from speech.transcribe import Recogniser

REPOSITORY = Path(speech.__file__).parent.parent
PATIENT_SECONDS = 300  # for a process that computes for seconds, on a busy machine


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_corpus(tmp_path_factory.mktemp("corpus"), 4, sample_rate=SAMPLE_RATE)


@pytest.fixture(scope="module")
def audio(manifest: Path) -> list[Path]:
    return [utterance.audio_path for utterance in read_manifest(manifest)]


@pytest.fixture(scope="module")
def texts(audio: list[Path], model: Path) -> list[str]:
    recogniser = Recogniser.load(model, threads=1, options=GREEDY)
    return [recogniser.transcribe(path).text for path in audio]


# --- transcribe -----------------------------------------------------------------------------------


def test_one_file_gives_its_transcript_alone(
    run: Run, model: Path, audio: list[Path], texts: list[str]
) -> None:
    result = run("transcribe", audio[0], "--model", model)
    assert result == Result(0, texts[0] + "\n", "")


def test_several_files_give_path_and_transcript_in_the_order_given(
    run: Run, model: Path, audio: list[Path], texts: list[str]
) -> None:
    order = [2, 0, 3, 1]
    result = run("transcribe", *(audio[i] for i in order), "--model", model, "--threads", 2)
    assert result.status == 0
    assert result.lines == [f"{audio[i]}\t{texts[i]}" for i in order]


def test_json_is_an_object_a_line_with_the_keys_of_the_contract(
    run: Run, model: Path, audio: list[Path], texts: list[str]
) -> None:
    result = run("transcribe", *audio, "--model", model, "--format", "json")
    rows = [json.loads(line) for line in result.lines]
    assert [row["text"] for row in rows] == texts
    for row, path in zip(rows, audio, strict=True):
        assert list(row) == ["audio", "duration", "text", "confidence", "words"]
        assert row["audio"] == str(path)
        assert row["duration"] == pytest.approx(soundfile.info(path).duration, abs=1e-3)
        for word in row["words"]:
            assert list(word) == ["word", "start", "end", "confidence"]
            assert 0 <= word["start"] <= word["end"] <= row["duration"]


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("srt", r"1\n00:00:0\d,\d{3} --> 00:00:0\d,\d{3}\n\S.*"),
        ("vtt", r"WEBVTT\n\n00:00:0\d\.\d{3} --> 00:00:0\d\.\d{3}\n\S.*"),
        ("tsv", r"start\tend\ttext\n\d+\t\d+\t\S.*"),
    ],
)
def test_subtitles_on_stdout_and_in_files(
    run: Run, model: Path, audio: list[Path], tmp_path: Path, form: str, pattern: str
) -> None:
    result = run("transcribe", audio[0], "--model", model, "--format", form)
    assert re.fullmatch(pattern, result.stdout.rstrip("\n"), re.DOTALL)
    quiet = run("transcribe", *audio[:2], "--model", model, "--format", form,
                "--output-dir", tmp_path / "new" / "place")  # fmt: skip
    assert (quiet.status, quiet.stdout) == (0, "")
    written = sorted((tmp_path / "new" / "place").iterdir())
    assert [path.name for path in written] == [f"{path.stem}.{form}" for path in audio[:2]]
    assert written[0].read_text() == result.stdout


def test_text_files_hold_a_line_each(
    run: Run, model: Path, audio: list[Path], texts: list[str], tmp_path: Path
) -> None:
    run("transcribe", *audio, "--model", model, "--output-dir", tmp_path)
    for path, text in zip(audio, texts, strict=True):
        assert (tmp_path / f"{path.stem}.txt").read_text() == f"{text}\n"


def test_two_recordings_of_one_name_do_not_overwrite_each_other(
    run: Run, model: Path, audio: list[Path], tmp_path: Path
) -> None:
    result = run("transcribe", audio[0], audio[0], "--model", model, "--output-dir", tmp_path)
    assert result.status == 1
    assert "two recordings would be written to" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_others_go_on_past_a_bad_file(
    run: Run, model: Path, audio: list[Path], texts: list[str], tmp_path: Path
) -> None:
    (tmp_path / "bad.wav").write_text("not audio" * 99)
    missing = tmp_path / "missing.wav"
    files = [tmp_path / "bad.wav", audio[0], missing, audio[1]]
    result = run("transcribe", *files, "--model", model)
    assert result.status == 1
    assert result.lines == [f"{audio[0]}\t{texts[0]}", f"{audio[1]}\t{texts[1]}"]
    told = result.stderr.splitlines()
    assert len(told) == 3
    assert "bad.wav" in told[0]
    assert "missing.wav" in told[1]
    assert told[2] == "speech: error: 2 of 4 files could not be transcribed"


def test_an_unknown_model_lists_the_names(run: Run, audio: list[Path]) -> None:
    result = run("transcribe", audio[0], "--model", "nonesuch")
    assert (result.status, result.stdout) == (1, "")
    assert re.fullmatch(r"speech: error: no model 'nonesuch'.*shipped names: .+\n", result.stderr)


def test_a_place_that_cannot_be_written_is_one_line(
    run: Run, model: Path, audio: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    result = run("transcribe", audio[0], "--model", model, "--output-dir", tmp_path / "file")
    assert result.status == 1
    assert re.fullmatch(r"speech: error: .*file: File exists\n", result.stderr)


# --- Usage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("transcribe",),
        ("transcribe", "a.wav", "--format", "docx"),
        ("transcribe", "a.wav", "--n-best", "2"),
        ("transcribe", "a.wav", "--beam-size", "0"),
        ("transcribe", "a.wav", "--threads", "0"),
        ("transcribe", "a.wav", "--engine", "ray"),
        ("transcribe", "a.wav", "--engine", "ray", "--output-dir", "x", "--format", "srt"),
        ("transcribe", "a.wav", "--engine", "ray", "--output-dir", "x", "--jobs", "2"),
        ("transcribe", "a.wav", "--engine", "ray", "--stream"),
        ("transcribe", "a.wav", "--shard-size", "5"),
        ("evaluate",),
        ("evaluate", "dev.jsonl", "--limit", "0"),
        ("score", "one.txt"),
        ("compare", "one.json"),
        ("compare", "one.json", "two.json", "--resamples", "7"),
        ("train", "config.toml"),
        ("prepare", "fsdd"),
        ("check",),
    ],
    ids=" ".join,
)
def test_bad_usage_exits_2_and_prints_nothing_on_stdout(
    run: Run, arguments: tuple[str, ...]
) -> None:
    result = run(*arguments)
    assert (result.status, result.stdout) == (2, "")
    assert result.stderr


@pytest.mark.parametrize(("command", "extra"), [
    ("serve", "lstm-speech[serve]"), ("export", "lstm-speech[onnx]"), ("listen", "[microphone]"),
])  # fmt: skip
def test_help_names_the_extra_that_a_command_needs(run: Run, command: str, extra: str) -> None:
    assert extra in run(command, "--help").stdout  # brackets are markup for what draws the help


@pytest.mark.parametrize("arguments", [
    ("evaluate", "M", "--output", "DIR"), ("evaluate", "M", "--report", "FILE"),
    ("calibrate", "M", "--plot", "DIR"), ("classify", "evaluate", "M", "--figure", "DIR"),
    ("export", "--output", "FILE"),
    ("train", "FILE", "--output", "FILE"), ("pretrain", "FILE", "--output", "FILE"),
    ("prepare", "fsdd", "DIR", "--output", "FILE"), ("lm", "train", "FILE", "-o", "DIR"),
    ("lm", "tune", "english", "M", "--log-probs", "DIR"),
    ("lm", "tune", "english", "M", "--log-probs", "FILE"),
    ("study", "gradients", "M", "--output", "FILE"), ("study", "cells", "FILE", "--output", "FILE"),
])  # fmt: skip
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    run: Run, manifest: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("a text\n")
    places = {"M": manifest, "DIR": tmp_path, "FILE": tmp_path / "file"}
    result = run(*(places.get(one, one) for one in arguments))
    assert (result.status, result.stdout) == (2, "")


@pytest.mark.parametrize("option", ["--chunk", "--lookahead"])
@pytest.mark.parametrize("seconds", ["-1", "nan"])
def test_measure_stream_refuses_times_that_are_none(
    run: Run, manifest: Path, option: str, seconds: str
) -> None:
    result = run("measure-stream", manifest, option, seconds)
    assert (result.status, result.stdout) == (2, "")


def test_samples_on_stdin_are_for_streams(run: Run) -> None:
    result = run("transcribe", "-")
    assert result.status == 2
    assert "needs --stream" in result.stderr


def test_figures_without_reference_words_are_still_json(run: Run, tmp_path: Path) -> None:
    (tmp_path / "reference.txt").write_text("\n")
    (tmp_path / "hypothesis.txt").write_text("a\n")
    result = run("score", tmp_path / "reference.txt", tmp_path / "hypothesis.txt", "--json")
    figures = json.loads(result.stdout, parse_constant=pytest.fail)  # Infinity is no JSON
    assert (figures["wer"], figures["insertions"]) == (None, 1)


def test_version_and_help_go_to_stdout(run: Run) -> None:
    assert run("--version") == Result(0, f"speech {speech.__version__}\n", "")
    shown = run("--help")
    assert (shown.status, shown.stderr) == (0, "")
    for command in (
        "transcribe",
        "evaluate",
        "score",
        "compare",
        "train",
        "prepare",
        "check",
        "doctor",
    ):
        assert re.search(rf"\b{command}\b", shown.stdout)
        assert run(command, "--help").status == 0


def test_python_m_speech_is_the_same() -> None:
    command = [sys.executable, "-m", "speech", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout == f"speech {speech.__version__}\n"


def test_a_directory_keeps_its_places_and_what_is_written_is_skipped(
    run: Run, model: Path, audio: list[Path], texts: list[str], tmp_path: Path
) -> None:
    sound, out = tmp_path / "sound", tmp_path / "out"
    (sound / "deep").mkdir(parents=True)
    for place, source in (("a.wav", audio[0]), ("deep/a.wav", audio[1])):
        (sound / place).write_bytes(source.read_bytes())
    options = ("--model", model, "--output-dir", out, "--skip-existing")
    assert run("transcribe", sound, *options) == Result(0, "", "")
    assert (out / "a.txt").read_text() == texts[0] + "\n"
    assert (out / "deep" / "a.txt").read_text() == texts[1] + "\n"
    (out / "a.txt").write_text("mine\n")
    (out / "deep" / "a.txt").unlink()
    again = run("transcribe", sound, *options)
    assert (again.status, again.stderr) == (0, "speech: 1 of 2 are transcribed already\n")
    assert (out / "a.txt").read_text() == "mine\n"
    assert sorted(path.name for path in out.rglob("*")) == ["a.txt", "a.txt", "deep"]


# --- evaluate, score ------------------------------------------------------------------------------

EVALUATE_KEYS = [
    "wer", "cer", "words", "substitutions", "deletions", "insertions", "wer_interval", "utterances",
    "audio_seconds", "wall_seconds", "real_time_factor", "model", "lm", "manifest_sha256",
    "normaliser",
]  # fmt: skip


def test_evaluate_prints_the_figures_of_the_contract_as_json(
    run: Run, model: Path, manifest: Path
) -> None:
    result = run("evaluate", manifest, "--model", model, "--json")
    assert (result.status, result.stderr) == (0, "")
    figures = json.loads(result.stdout)
    assert list(figures) == EVALUATE_KEYS
    assert figures["words"] == 8  # four utterances of two words
    errors = figures["substitutions"] + figures["deletions"] + figures["insertions"]
    assert figures["wer"] == errors / 8
    low, high = figures["wer_interval"]
    assert low <= figures["wer"] <= high
    assert (figures["utterances"], figures["model"], figures["lm"]) == (4, str(model), "none")
    assert run("evaluate", manifest, "--model", model, "--json", "--limit", 1).status == 0


def test_evaluate_shows_the_worst_the_rates_and_the_speed(
    run: Run, model: Path, manifest: Path, texts: list[str]
) -> None:
    result = run("evaluate", manifest, "--model", model, "--worst", 2, "--transcripts")
    assert result.stdout.count(" errors in 2 words") == 2
    assert all(f"heard: {text}" in result.stdout for text in texts)
    assert re.search(r"WER \d+\.\d\d% \(95 % interval .*: 8 words in 4 utterances", result.stdout)
    assert re.search(rf"real-time factor .*, lm none, normaliser {NORMALISER}$", result.lines[-1])


def test_evaluate_ends_at_unreadable_audio_with_its_line(
    run: Run, model: Path, tmp_path: Path
) -> None:
    row = {"audio_filepath": "gone.wav", "duration": 1.0, "text": "a"}
    (tmp_path / "dev.jsonl").write_text(json.dumps(row))
    result = run("evaluate", tmp_path / "dev.jsonl", "--model", model, "--json")
    assert (result.status, result.stdout) == (1, "")
    assert re.fullmatch(r"speech: error: .*dev\.jsonl:1: .*gone\.wav.*\n", result.stderr)


def test_score_counts_text_against_text(run: Run, tmp_path: Path) -> None:
    (tmp_path / "said.txt").write_text("The cat sat.\n\nIt is 5 o'clock\n")
    (tmp_path / "heard.txt").write_text("the bat sat\n\nit is five o'clock\n")
    result = run("score", tmp_path / "said.txt", tmp_path / "heard.txt", "--json")
    figures = json.loads(result.stdout)
    assert figures["wer"] == pytest.approx(1 / 7)
    assert (figures["words"], figures["utterances"]) == (7, 3)
    shown = run("score", tmp_path / "said.txt", tmp_path / "heard.txt")
    assert "WER 14.29%" in shown.stdout
    assert "1: 1 errors in 3 words" in shown.stdout


def test_score_reads_manifests_and_json_transcripts(
    run: Run, model: Path, manifest: Path, audio: list[Path], tmp_path: Path
) -> None:
    transcripts = run("transcribe", *audio, "--model", model, "--format", "json").stdout
    (tmp_path / "heard.jsonl").write_text(transcripts)
    scored = json.loads(run("score", manifest, tmp_path / "heard.jsonl", "--json").stdout)
    evaluated = json.loads(run("evaluate", manifest, "--model", model, "--json").stdout)
    scored.pop("wer_interval")  # of speakers there, of lines here
    assert {key: evaluated[key] for key in scored} == scored


@pytest.mark.parametrize(
    ("said", "heard", "message"),
    [
        ("a\nb\n", "a\n", "2 references but 1 hypotheses"),
        ("", "", "no lines to score"),
    ],
)
def test_score_refuses_what_does_not_pair_up(
    run: Run, tmp_path: Path, said: str, heard: str, message: str
) -> None:
    (tmp_path / "said.txt").write_text(said)
    (tmp_path / "heard.txt").write_text(heard)
    result = run("score", tmp_path / "said.txt", tmp_path / "heard.txt")
    assert (result.status, result.stdout) == (1, "")
    assert message in result.stderr


def test_score_names_a_file_that_it_cannot_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("no json\n")
    (tmp_path / "good.txt").write_text("a\n")
    for path in (tmp_path / "missing.txt", tmp_path / "bad.jsonl"):
        result = run("score", path, tmp_path / "good.txt")
        assert result.status == 1
        assert str(path) in result.stderr


def test_a_line_separator_within_a_text_is_no_new_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "said.txt").write_text("one\u2028two\nthree\n", encoding="utf-8")
    (tmp_path / "heard.txt").write_text("one two\r\nthree\r\n", encoding="utf-8")
    result = run("score", tmp_path / "said.txt", tmp_path / "heard.txt", "--json")
    assert json.loads(result.stdout)["wer"] == 0


def test_stored_results_are_compared(run: Run, model: Path, manifest: Path, tmp_path: Path) -> None:
    stored = tmp_path / "a.json"
    evaluated = run("evaluate", manifest, "--model", model, "--json", "--output", stored)
    assert json.loads(stored.read_text())["figures"] == json.loads(evaluated.stdout)
    perfect = json.loads(stored.read_text())
    for row in perfect["utterances"]:
        row["hypothesis"] = row["reference"]
        for unit in ("word_errors", "character_errors"):
            row[unit] |= {"substitutions": 0, "deletions": 0, "insertions": 0}
    (tmp_path / "b.json").write_text(json.dumps(perfect))
    figures = json.loads(run("compare", stored, tmp_path / "b.json", "--json").stdout)
    assert figures["relative_reduction"] == 1
    assert figures["probability_of_improvement"] == 1
    assert figures["significant"]
    assert (figures["resampled"], figures["drawn"]) == ("speakers", 2)
    shown = run("compare", tmp_path / "b.json", stored)
    assert shown.status == 0  # worse is no failure
    assert "more errors in B" in shown.stdout
    assert "difference is significant at the 5 % level" in shown.stdout
    assert "A makes no error" in shown.stdout


def test_evaluate_writes_a_report_that_compares(
    run: Run, model: Path, manifest: Path, tmp_path: Path
) -> None:
    arguments = ("evaluate", manifest, "--model", model, "--limit", 2)
    result = run(*arguments, "--report", tmp_path / "report", "--json")
    assert result.status == 0
    assert json.loads(result.stdout)["utterances"] == 2  # nothing else on stdout
    assert re.search(r"report in .*index\.html", result.stderr)
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert summary["run"]["command"].startswith(f"speech evaluate {manifest}")
    assert set(summary["run"]["sha256"]) == {"model", str(manifest)}
    compared = run("compare", tmp_path / "report", tmp_path / "report", "--json")
    assert json.loads(compared.stdout)["wer_difference"] == 0


def test_results_of_other_utterances_are_not_compared(
    run: Run, model: Path, manifest: Path, tmp_path: Path
) -> None:
    for limit in (2, 3):
        run("evaluate", manifest, "--model", model, "--limit", limit,
            "--output", tmp_path / f"{limit}.json")  # fmt: skip
    result = run("compare", tmp_path / "2.json", tmp_path / "3.json")
    assert (result.status, result.stdout) == (1, "")
    assert re.search("'audio/002' is in B but not in A", result.stderr)
    assert run("compare", tmp_path / "2.json", manifest).status == 1


# --- train, prepare, check, doctor ----------------------------------------------------------------


def test_train_makes_a_model_that_transcribes(
    run: Run, manifest: Path, audio: list[Path], tmp_path: Path
) -> None:
    config = tiny_config(manifest, epochs=2)
    (tmp_path / "config.toml").write_text(dump_config(config))
    arguments = ("train", tmp_path / "config.toml", "--output", tmp_path / "run")
    result = run(*arguments, "--set", "train.epochs=1", "--set", "model.hidden=8")
    assert (result.status, result.stdout) == (0, "")
    assert "4 utterances" in result.stderr
    assert "epoch 1: train loss" in result.stderr
    assert run("transcribe", *audio, "--model", tmp_path / "run" / "best").status == 0
    again = run(*arguments)
    assert again.status == 1
    assert "holds a run" in again.stderr
    refused = run(*arguments, "--resume")
    assert refused.status == 1
    assert "other settings of model.hidden" in refused.stderr
    more = run(*arguments, "--resume", "--set", "model.hidden=8")
    assert more.status == 0
    assert "epoch 2: train loss" in more.stderr


def test_train_names_a_wrong_key_and_the_nearest_right_one(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[train]\nlearnin_rate = 1.0\n")
    result = run("train", tmp_path / "config.toml", "--output", tmp_path / "run")
    assert result.status == 1
    assert "did you mean 'learning_rate'?" in result.stderr
    assert not (tmp_path / "run").exists()


def test_prepare_lists_what_it_knows(run: Run) -> None:
    result = run("prepare", "list")
    assert result.status == 0
    names = {line.split()[0] for line in result.lines}
    assert names >= {"librispeech", "fsdd", "speech_commands", "kaldi", "nemo"}


def test_check_finds_what_is_wrong_and_says_where(run: Run, manifest: Path, tmp_path: Path) -> None:
    assert run("check", manifest).status == 0
    soundfile.write(tmp_path / "a.wav", np.full(SAMPLE_RATE, 0.1), SAMPLE_RATE)
    rows = [{"audio_filepath": "a.wav", "duration": 1.0, "text": "привет"},
            {"audio_filepath": "gone.wav", "duration": 1.0, "text": "a"}]  # fmt: skip
    lines = [*map(json.dumps, rows), "{", "3"]
    (tmp_path / "bad.jsonl").write_bytes("\n".join(lines).encode() + b"\n\xff\n")
    result = run("check", tmp_path / "bad.jsonl")
    assert result.status == 1
    assert [line.split(":")[1:3] for line in result.lines[2:]] == [
        [str(number), " line"] for number in (3, 4, 5)
    ]
    assert re.search(r"bad\.jsonl:1: alphabet: ", result.stdout)
    assert re.search(r"bad\.jsonl:2: audio: ", result.stdout)
    assert "2 utterances" in result.stderr


def test_names_that_are_no_text_are_printed_all_the_same(
    run: Run, model: Path, audio: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"audio_filepath": "\\ud800.wav", "duration": 1, "text": "a"}\n'
    )
    result = run("check", tmp_path / "a.jsonl")
    assert result.status == 1
    assert "a.jsonl:1: audio: " in result.stdout
    assert r"\ud800.wav" in result.stdout
    names = [Path(os.fsdecode(os.fsencode(tmp_path) + b"/%d\xe9.wav" % n)) for n in range(2)]
    for name in names:
        name.write_bytes(audio[0].read_bytes())
    result = run("transcribe", *names, "--model", model)
    assert result.status == 0
    assert r"0\udce9.wav" in result.lines[0]


def test_doctor_names_versions_devices_and_models(run: Run) -> None:
    result = run("doctor")
    assert result.status == 0
    facts = {line.split("  ")[0].strip(): line for line in result.lines}
    for name in ("speech", "python", "torch", "torchaudio", "soundfile", "av", "GPU"):
        assert name in facts
    assert "MISSING" not in result.stdout
    assert "default model" in result.stdout


# --- As a process ---------------------------------------------------------------------------------


def environment(**variables: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"} | variables


def test_a_reader_that_has_seen_enough_causes_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "said.txt").write_text("a b c\n" * 9)
    (tmp_path / "heard.txt").write_text("a x c\n" * 9)
    command = [sys.executable, "-m", "speech", "score", "said.txt", "heard.txt", "--worst", "9"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), stdout=writer, stderr=subprocess.PIPE, text=True,
        timeout=PATIENT_SECONDS, check=False,
    )  # fmt: skip
    os.close(writer)
    assert done.stderr == ""


def test_results_go_to_a_redirected_stdout_while_the_bar_is_on_a_terminal(
    model: Path, audio: list[Path], texts: list[str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "speech", "transcribe", *map(str, audio[:2]),
               "--model", str(model), "--lm", "none"]  # fmt: skip
    main_end, terminal = pty.openpty()
    with open(tmp_path / "out.txt", "w") as out:
        done = subprocess.run(
            command, env=environment(TERM="xterm"), stdout=out, stderr=terminal,
            timeout=PATIENT_SECONDS, check=False,
        )  # fmt: skip
    os.close(terminal)
    shown = os.read(main_end, 1 << 16).decode()
    os.close(main_end)
    assert done.returncode == 0
    assert "transcribing" in shown
    expected = [f"{path}\t{text}" for path, text in zip(audio[:2], texts, strict=False)]
    assert (tmp_path / "out.txt").read_text().splitlines() == expected


def test_ctrl_c_exits_130_without_a_traceback(model: Path, tmp_path: Path) -> None:
    hour = np.zeros(3600 * SAMPLE_RATE, np.int16)
    hour[::7] = 1000
    soundfile.write(tmp_path / "hour.wav", hour, SAMPLE_RATE)
    command = [sys.executable, "-m", "speech", "transcribe", str(tmp_path / "hour.wav"),
               str(tmp_path / "hour.wav"), "--model", str(model), "--threads", "1",
               "--lm", "none"]  # fmt: skip
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        _wait_until_reading(process.pid, "hour.wav")
        process.send_signal(signal.SIGINT)
        out, told = process.communicate(timeout=PATIENT_SECONDS)
    assert process.returncode == 130
    assert (out, told.strip()) == ("", "")


def _wait_until_reading(pid: int, name: str) -> None:
    """Wait until a process has opened a file of that name."""
    deadline = time.monotonic() + PATIENT_SECONDS
    while time.monotonic() < deadline:
        links = Path(f"/proc/{pid}/fd").iterdir()
        with contextlib.suppress(FileNotFoundError):  # one was closed while we looked
            if any(os.path.realpath(link).endswith(name) for link in links):
                return
        time.sleep(0.01)
    raise TimeoutError(name)
