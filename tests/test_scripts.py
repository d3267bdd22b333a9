"""The scripts for developers: what their user can mend is one line, and never a traceback."""

from __future__ import annotations

import importlib.util
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import read_json, run_command

from speech.errors import SpeechError

SCRIPTS = Path(__file__).parent.parent / "scripts"
# Arguments that name something that is not there; {out} is a folder of the test's own.
BAD_INPUT = {
    "benchmark": "--manifest gone.jsonl --only transcription",
    "benchmark_decoders": "gone.jsonl --lm gone.arpa --output {out}",
    "benchmark_speed": "gone.jsonl",
    "compare_recognisers": "gone.jsonl --recogniser base --output {out}",
    "cut_words": "gone.jsonl --words one --output {out}",
    "hold_out_sentences": "gone.jsonl --output {out}",
    "load_test": "http://127.0.0.1:9 gone.wav",
    "make_digit_strings": "gone --output {out}",
    "make_language_model": "gone {out} --dev gone.jsonl",
    "make_sample": "--exclude gone.txt --output {out}",
    "measure_cluster": "--files 1 --model gone --work {out}",
    "measure_evidence": "gone.jsonl",
    "measure_long_audio": "gone.jsonl",
    "measure_word_times": "base --texts gone.txt",
    "package_classifier": "gone gone --root gone",
    "package_language_model": "gone gone",
    "package_model": "gone gone --root gone gone.jsonl",
    "pocketsphinx_transcribe": "gone.wav",
    "recipe_results": "a --config gone.toml --change b --run gone --command c --on d",
    "synthesise": "gone.txt --output {out}",
    "synthesise_words": "one --output /dev/null/out",
    "take_pictures": "--manifest gone.jsonl --output {out}",
}
NOT_INSTALLED = {"pocketsphinx_transcribe": "pocketsphinx", "take_pictures": "selenium"}
ANSWERS_ITS_PARENT = {"decoder_worker"}  # and no user


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """Scripts set variables for torch and for their children."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_every_script_has_its_bad_input() -> None:
    commands = {path.stem for path in SCRIPTS.glob("*.py") if '"__main__"' in path.read_text()}
    assert commands == BAD_INPUT.keys() | ANSWERS_ITS_PARENT


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = NOT_INSTALLED.get(name, "numpy")
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed}")
    path = SCRIPTS / f"{name}.py"
    monkeypatch.chdir(tmp_path)
    arguments = BAD_INPUT[name].format(out=tmp_path / "out").split()
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    with pytest.raises(SystemExit) as ended:  # Python prints a text and exits with 1
        runpy.run_path(str(path), run_name="__main__")
    line = str(ended.value.code)
    assert line.startswith(f"{name}: ")
    assert "\n" not in line
    assert "gone" in line or "not installed" in line or "/dev/null" in line


def test_as_a_process(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPTS / "hold_out_sentences.py", "gone.jsonl", "--output", "out"]
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS.parent)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    expected = "hold_out_sentences: gone.jsonl: cannot be read: no such file or directory\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", expected)


def test_what_becomes_a_line_and_what_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["scripts/any.py"])
    (tmp_path / "a.json").write_text("{")

    def fail() -> None:
        subprocess.run([sys.executable, "-c", "raise SystemExit(3)"], check=True)

    for main, line in (
        (lambda: tmp_path.read_bytes(), f"any: {tmp_path}: Is a directory"),
        (lambda: read_json(tmp_path / "a.json"), f"any: {tmp_path}/a.json: cannot be read as"),
        (fail, f"any: {sys.executable} -c raise SystemExit(3): ended with 3"),
    ):
        with pytest.raises(SystemExit) as ended:
            run_command(main)
        assert str(ended.value.code).startswith(line)
    with pytest.raises(ZeroDivisionError):  # our own mistakes are not hidden
        run_command(lambda: 1 // 0)
    with pytest.raises(SpeechError, match=r"gone\.json: cannot be read as JSON: no such file"):
        read_json(tmp_path / "gone.json")
