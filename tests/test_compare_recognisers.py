"""The comparison with other recognisers: its tables, its store of figures, what it asks of whom."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import compare_recognisers as script
import comparison_report as report
import pytest
import recognisers
from hypothesis import given, settings
from hypothesis import strategies as st

from speech.errors import SpeechError
from speech.manifest import Utterance, read_manifest
from speech.metrics import ErrorCounts

needs_pocketsphinx = pytest.mark.skipif(
    importlib.util.find_spec("pocketsphinx") is None, reason="needs pocketsphinx"
)


def utterance(number: int, text: str = "two cats", speaker: str = "ann") -> Utterance:
    return Utterance(f"u{number}", Path(f"{number}.wav"), 2.0, text, speaker)


# --- What is compared -----------------------------------------------------------------------------


def test_names_say_which_model_and_language_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognisers, "find_model", Path)
    monkeypatch.setattr(recognisers, "find_language_model", lambda name: Path(name) / "lm.bin")
    parse = script.parse_recogniser
    assert parse("pocketsphinx") == recognisers.Pocketsphinx()
    assert parse("base") == recognisers.Ours("base", "base", "none")
    assert parse("a+b/base+english") == recognisers.Ours("a+b/base+english", "a+b/base", "english")
    command = parse("base+english").start_command(Path("clip.wav"))
    assert command[1:] == ["-m", "speech", "transcribe", "clip.wav",
                           "--model", "base", "--lm", "english"]  # fmt: skip


def test_unknown_models_are_refused_before_anything_is_measured() -> None:
    with pytest.raises(SpeechError, match="no model 'nonesuch'"):
        script.parse_recogniser("nonesuch")
    with pytest.raises(SpeechError, match="no language model 'nonesuch'"):
        script.parse_recogniser("base+nonesuch")


def test_shares_of_processes_become_one_evaluation_in_the_manifests_order() -> None:
    utterances = [utterance(0, "Two cats!"), utterance(1, "3 dogs"), utterance(2)]
    shares = [
        {"texts": {"2": "two cats", "0": "too cats"}, "seconds": {"2": 3.0, "0": 1.0},
         "wall_seconds": 0.5},
        {"texts": {"1": "three dogs"}, "seconds": {"1": 4.0}, "wall_seconds": 2.0},
    ]  # fmt: skip
    evaluation = recognisers.join_shares(utterances, shares, "peer", "abc")
    assert [score.name for score in evaluation.scores] == ["u0", "u1", "u2"]
    assert evaluation.words == ErrorCounts(substitutions=1, reference_length=6)
    assert evaluation.real_time_factor == 2.0 / 8.0  # the slowest process over all audio


@given(st.integers(1, 50), st.one_of(st.none(), st.integers(1, 60)))
@settings(deadline=None)
def test_a_limit_takes_utterances_at_even_steps(total: int, limit: int | None) -> None:
    chosen = [int(u.id[1:]) for u in script.spread([utterance(n) for n in range(total)], limit)]
    assert len(chosen) == min(limit or total, total)
    steps = {b - a for a, b in itertools.pairwise(chosen)}
    assert min(steps, default=1) >= 1
    assert max(steps, default=1) - min(steps, default=1) <= 1
    assert chosen[0] == 0


def test_a_selection_keeps_all_that_is_known(tmp_path: Path) -> None:
    chosen = [utterance(0, "It’s 3", "bo"), utterance(1)]
    script.write_selection(tmp_path / "deep" / "selection.jsonl", chosen)
    read = read_manifest(tmp_path / "deep" / "selection.jsonl")
    kept = [(u.id, u.duration, u.text, u.speaker) for u in read]
    assert kept == [(u.id, u.duration, u.text, u.speaker) for u in chosen]
    assert all(u.audio_path.is_absolute() for u in read)


def test_arguments_that_would_spoil_the_comparison_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = script.parse_arguments(["a/dev.jsonl", "--output", "x"])
    assert plain.recognisers == ["pocketsphinx", "base"]
    for wrong, message in (
        (["--limit", "0"], "counts start at 1"),
        (["--cores", "4096"], "cores"),
        (["--recogniser", "m/a", "--recogniser", "m-a"], "called alike"),
    ):
        with pytest.raises(SystemExit):
            script.parse_arguments(["a/dev.jsonl", "--output", "x", *wrong])
        assert message in capsys.readouterr().err


def test_all_that_is_needed_is_followed_and_extras_are_not() -> None:
    found = recognisers.distributions(["pytest"])
    assert {"pytest", "pluggy"} <= found
    assert "xmlschema" not in found  # pytest's extra for its own development


# --- The store ------------------------------------------------------------------------------------


def test_figures_are_measured_once_and_anew_when_what_they_depend_on_changes(
    tmp_path: Path,
) -> None:
    calls: list[int] = []

    def measure() -> dict[str, Any]:
        calls.append(1)
        return {"count": len(calls)}

    def get(machine: str, model: str) -> dict[str, Any]:
        measured = script.Measured(tmp_path, {"machine": machine})
        path = measured.path("corpora/dev", "runs/x+lm", "cores-1")
        assert path == tmp_path / "corpora-dev" / "runs-x+lm" / "cores-1.json"
        return measured.get(path, {"model": model}, measure)

    assert [get("m", "a"), get("m", "a")] == [{"count": 1}, {"count": 1}]
    assert get("m", "b") == {"count": 2}
    assert get("another", "b") == {"count": 3}
    assert get("another", "b") == {"count": 3}


def test_an_interrupted_measurement_leaves_no_figures(tmp_path: Path) -> None:
    measured = script.Measured(tmp_path, {})

    def interrupted() -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured.get(measured.path("a", "b"), {}, interrupted)
    assert measured.get(measured.path("a", "b"), {}, lambda: {"done": True}) == {"done": True}


# --- The report -----------------------------------------------------------------------------------


@pytest.fixture
def figures() -> dict[str, Any]:
    """Two recognisers on one manifest, the second of half the errors and four times the speed."""
    run = {"cores": 1, "real_time_factor": 0.2, "wall_seconds": 2.0, "peak_bytes": 150_000_000}
    peer = {"wer": 0.3, "wer_interval": [0.25, 0.36], "transcription": [run]}
    ours = {"wer": 0.15, "wer_interval": [0.1, 0.2],
            "transcription": [run | {"real_time_factor": 0.05}]}  # fmt: skip
    difference = {"wer_difference": -0.15, "wer_difference_interval": [-0.2, -0.1],
                  "relative_reduction": 0.5}  # fmt: skip
    size = {"model_bytes": 37_000_000, "installed_bytes": 4_200_000_000}
    return {
        "machine": {"cores": 2, "processor": "a processor"},
        "normaliser": "english-1",
        "baseline": "pocketsphinx",
        "manifests": {
            "mini/dev": {
                "utterances": 3, "utterances_in_manifest": 9, "audio_seconds": 90.0,
                "recognisers": {"pocketsphinx": peer, "base": ours},
                "against_baseline": {"base": difference},
            }
        },
        "recognisers": {
            "pocketsphinx": {"size": size},
            "base": {"start": {"seconds": 2.0, "peak_bytes": 5e8}, "size": size},
        },
    }  # fmt: skip


def test_the_tables_say_what_was_measured(figures: dict[str, Any]) -> None:
    text = report.markdown(figures)
    assert "### mini/dev: 3 of 9 utterances, 1.5 min" in text
    assert "| pocketsphinx | 30.0 % | 25.0 % to 36.0 % | - | 0.2 | 150 MB (1 core) |" in text
    assert (
        "| base | 15.0 % | 10.0 % to 20.0 % | -50 %; -15.0 points (-20.0 to -10.0) "
        "| 0.05 (4 times as fast) | 150 MB (1 core) |"
    ) in text
    assert "| pocketsphinx | not measured | not measured | 37 MB | 4,200 MB |" in text
    assert "| base | 2.00 s | 500 MB | 37 MB | 4,200 MB |" in text


def test_every_row_of_a_table_has_the_columns_of_its_head(figures: dict[str, Any]) -> None:
    for block in report.markdown(figures).split("\n\n"):
        assert len({line.count("|") for line in block.splitlines() if "|" in line}) <= 1


def test_numbers_that_are_infinite_have_a_word(figures: dict[str, Any], tmp_path: Path) -> None:
    ours = figures["manifests"]["mini/dev"]["recognisers"]["base"]
    ours |= {"wer": None, "wer_interval": [0.1, None]}
    figures["manifests"]["mini/dev"]["against_baseline"]["base"]["wer_difference"] = None
    assert "| base | infinite | 10.0 % to infinite | - |" in report.markdown(figures)
    report.draw(figures, tmp_path / "picture.png")


def test_panels_share_a_scale_that_holds_all_rates(
    figures: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig", lambda self, *_, **__: drawn.append(self)
    )
    worse = copy.deepcopy(figures["manifests"]["mini/dev"])
    worse["recognisers"]["base"] |= {"wer": 0.9, "wer_interval": [0.8, 0.99]}
    figures["manifests"]["worse"] = worse
    report.draw(figures, tmp_path / "picture.png")
    for axes in drawn[0].axes:
        assert axes.get_ylim()[0] == 0
        assert axes.get_ylim()[1] > 99


def test_the_report_is_three_files(figures: dict[str, Any], tmp_path: Path) -> None:
    script.write_report(tmp_path, figures)
    assert {path.name for path in tmp_path.iterdir()} == {
        "comparison.json", "comparison.md", "comparison.png",
    }  # fmt: skip
    assert json.loads((tmp_path / "comparison.json").read_text()) == figures


# --- The peer itself ------------------------------------------------------------------------------


@needs_pocketsphinx
def test_the_peer_is_measured_in_a_process_of_its_own(
    tiny_corpus: Callable[..., Path], tmp_path: Path
) -> None:
    manifest = tiny_corpus(tmp_path / "tones", utterances=2)
    peak, evaluation = recognisers.Pocketsphinx().transcribe(manifest, 1, tmp_path)
    assert [score.reference for score in evaluation.scores] == [
        u.text for u in read_manifest(manifest)
    ]
    assert evaluation.audio_seconds == pytest.approx(
        sum(u.duration for u in read_manifest(manifest))
    )
    assert 5e7 < peak < 1e9
    assert sum(path.stat().st_size for path in recognisers.Pocketsphinx().model_files()) > 3e7
