"""Language models and hot words on the command line, from the option to the transcript."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import Run, write_tiny_corpus
from test_beam_search import ARPA
from tiny import SAMPLE_RATE, save_tiny_model

from speech import beam_search, cli_decoding
from speech.beam_search import BeamDecoder
from speech.char_config import CharConfig, NetworkConfig
from speech.char_language_model import CharLanguageModel
from speech.decoder import GREEDY, UNTUNED, DecoderOptions, load_decoder
from speech.manifest import corpus_name, read_manifest
from speech.rescore import CANDIDATES
from speech.results import read_results
from speech.tokenizer import CharTokenizer
from speech.transcribe import Recogniser
from speech.tuning import Tuning, read_tuning, write_tuning


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_corpus(tmp_path_factory.mktemp("corpus"), 3, sample_rate=SAMPLE_RATE)


@pytest.fixture(scope="module")
def audio(manifest: Path) -> Path:
    return read_manifest(manifest)[0].audio_path


@pytest.fixture
def neural(tmp_path: Path) -> Path:
    """A neural language model that knows nothing."""
    torch.manual_seed(0)
    config = CharConfig(network=NetworkConfig(embedding=4, hidden=6))
    CharLanguageModel.create(config, CharTokenizer()).save(tmp_path / "neural")
    return tmp_path / "neural"


@pytest.fixture
def arpa(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.arpa"
    path.write_text(ARPA)
    return path


def test_a_recogniser_decodes_as_the_command_line_unless_told_otherwise(
    model: Path, arpa: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speech.decoder.default_language_model", lambda tokenizer: str(arpa))
    searching = Recogniser.load(model, threads=1)
    assert searching.lm_name == str(arpa)
    assert searching.decoder_settings()["search"] == "beam"
    hot = Recogniser.load(model, threads=1, options=DecoderOptions(beam_size=7))
    assert hot.lm_name == str(arpa)
    greedy = Recogniser.load(model, threads=1, options=GREEDY)
    assert (greedy.decoder, greedy.lm_name) == (None, "none")
    monkeypatch.setattr("speech.decoder.default_language_model", lambda tokenizer: "none")
    assert Recogniser.load(model, threads=1).decoder is None  # of another alphabet, say


def test_a_language_model_selects_beam_search_with_its_tuning(
    run: Run, model: Path, manifest: Path, arpa: Path, tmp_path: Path
) -> None:
    write_tuning(arpa, Tuning(0.65, 1.25, 30))
    stored = tmp_path / "result.json"
    arguments = ("evaluate", manifest, "--model", model, "--output", stored)
    status, out, _ = run(*arguments, "--lm", arpa, "--lm-weight", "0.4", "--hot-word", "CAB=3")
    assert status == 0
    assert f"lm {arpa}" in out
    result = read_results(stored)
    decoder = result.run["decoder"]
    assert result.lm == str(arpa)
    assert (decoder["search"], decoder["hot_words"]) == ("beam", {"cab": 3.0})
    assert (decoder["lm_weight"], decoder["word_bonus"], decoder["beam_size"]) == (0.4, 1.25, 30)
    assert "language_model" in result.run["sha256"]
    run(*arguments, "--lm", "none")
    assert read_results(stored).run["decoder"] == {"search": "greedy"}


def test_a_neural_language_model_judges_the_best_texts_again(
    run: Run, model: Path, manifest: Path, arpa: Path, neural: Path, tmp_path: Path
) -> None:
    stored = tmp_path / "result.json"
    arguments = ("evaluate", manifest, "--model", model, "--output", stored)
    asked = ("--lm", arpa, "--beam-size", 5, "--rescore", neural)
    status, _, err = run(*arguments, *asked)
    assert (status, err.count("\n")) == (1, 1)
    assert f"{neural} was never tuned: give a rescore_weight, or run speech lm tune" in err

    assert run(*arguments, *asked, "--rescore-weight", 0.25)[0] == 0
    result = read_results(stored)
    assert result.run["decoder"]["rescoring"] == {
        "model": str(neural), "weight": 0.25, "word_bonus": 0.0, "candidates": CANDIDATES,
    }  # fmt: skip
    assert "rescoring_model" in result.run["sha256"]

    status, out, _ = run("lm", "tune", arpa, manifest, "--model", model, "--rescore", neural,
                         "--log-probs", tmp_path / "log-probs.npz")  # fmt: skip
    assert status == 0
    assert out.splitlines()[-1].startswith(f"{neural / 'tuning.json'}: weight ")
    tuning = read_tuning(neural / "lm.safetensors")
    assert tuning is not None
    assert (tuning.lm, tuning.model, tuning.beam_size) == (str(arpa), str(model), CANDIDATES)
    assert read_tuning(arpa) is None  # the n-gram model's weights stay
    write_tuning(neural / "lm.safetensors", replace(tuning, lm_weight=0.5, word_bonus=2.0))
    assert run(*arguments, *asked)[0] == 0
    used = read_results(stored).run["decoder"]["rescoring"]
    assert (used["weight"], used["word_bonus"]) == (0.5, 2.0)


def test_hot_words_are_heard_where_nothing_else_is(
    run: Run, model: Path, audio: Path, tmp_path: Path
) -> None:
    """The network knows nothing: a weight beyond reason decides, in phrases and from a file."""
    arguments = ("transcribe", audio, "--model", model)
    _, plain, _ = run(*arguments, "--lm", "none")
    _, hot, _ = run(*arguments, "--lm", "none", "--hot-word", "OX A=900")
    assert "ox a" not in plain
    assert "ox a" in hot
    (tmp_path / "names.txt").write_text("# of people\nzoe=900\n")
    _, listed, _ = run(*arguments, "--lm", "none", "--hot-words", tmp_path / "names.txt")
    assert "zoe" in listed.split()


def test_the_n_best_stand_in_json_best_first(run: Run, model: Path, audio: Path) -> None:
    arguments = ("transcribe", audio, "--model", model, "--format", "json")
    row = json.loads(run(*arguments, "--n-best", 3)[1])
    texts = [one["text"] for one in row["n_best"]]
    scores = [one["score"] for one in row["n_best"]]
    assert len(set(texts)) == 3
    assert texts[0] == row["text"]
    assert scores == sorted(scores, reverse=True)
    assert all(word["end"] >= word["start"] for word in row["words"])
    assert 0 <= row["confidence"] < 1
    assert "n_best" not in json.loads(run(*arguments)[1])


def test_what_cannot_be_is_one_line(run: Run, model: Path, audio: Path, tmp_path: Path) -> None:
    arguments = ("transcribe", audio, "--model", model)
    for options, message in (
        (("--lm", "latin"), "no language model 'latin'"),
        (("--lm", "none", "--lm-weight", "1"), "lm_weight weighs a language model"),
        (("--rescore", "latin"), "no neural language model 'latin'"),
        (("--rescore-weight", "1"), "rescore_weight weighs a neural language model"),
        (("--hot-word", "=3"), "needs a word"),
        (("--hot-word", "zoe=much"), "the weight must be a number"),
        (("--hot-words", tmp_path / "none.txt"), "cannot read hot words"),
    ):
        status, out, err = run(*arguments, *options)
        assert (status, out) == (1, "")
        assert message in err
        assert err.splitlines()[-1].startswith("speech: error: ")


def test_the_first_search_says_that_it_compiles(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []
    monkeypatch.setattr(BeamDecoder, "must_compile", staticmethod(lambda: not compiled))
    monkeypatch.setattr(BeamDecoder, "compile", lambda self: compiled.append(self))
    options = DecoderOptions("none", beam_size=UNTUNED.beam_size)
    for _ in range(2):
        cli_decoding.ready_decoder(options, CharTokenizer())
        assert cli_decoding.ready_decoder(GREEDY, CharTokenizer()) is None
    assert capsys.readouterr().err.count("compiling the beam search") == len(compiled) == 1


def test_compiled_code_is_found_again() -> None:
    decoder = load_decoder(DecoderOptions("none", n_best=2), CharTokenizer())
    assert decoder is not None
    decoder.compile()
    assert not decoder.must_compile()


@pytest.mark.parametrize("command", ["transcribe", "evaluate", "hallucinations", "serve"])
def test_every_command_that_decodes_takes_the_options(run: Run, command: str) -> None:
    status, out, _ = run(command, "--help")
    assert status == 0
    for option in ("--lm", "--beam-size", "--lm-weight", "--word-bonus", "--hot-word"):
        assert option in out


def test_tune_finds_weights_and_leaves_them_beside_the_language_model(
    run: Run, model: Path, manifest: Path, arpa: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name, few in (("LM_WEIGHTS", (0.2, 0.8)), ("WORD_BONUSES", (0.5,)),
                      ("REFINEMENTS", ((0.1, 0.5),)), ("BEAM_SIZES", (5, 100))):  # fmt: skip
        monkeypatch.setattr(f"speech.tune.{name}", few)
    store = tmp_path / "log-probs.npz"
    arguments = ("lm", "tune", arpa, manifest, "--model", model, "--log-probs", store)
    status, out, _ = run(*arguments, "--without-speaker", "tone-1")
    assert status == 0
    tuning = read_tuning(arpa)
    assert tuning is not None
    assert tuning.without_speakers == ("tone-1",)
    assert tuning.utterances == 2
    assert tuning.manifest == (corpus_name(manifest),)
    assert set(tuning.beam_sizes) == {"5", "100"}
    assert out.splitlines()[-1].startswith(f"{arpa}.tuning.json: lm_weight {tuning.lm_weight}")
    assert store.is_file()
    decoder = load_decoder(DecoderOptions(str(arpa)), CharTokenizer())
    assert decoder is not None
    assert decoder.settings.lm_weight == tuning.lm_weight
    status, _, err = run(*arguments, "--without-speaker", "nobody")
    assert status == 1
    assert "no utterance is by speaker 'nobody'" in err


def test_compiled_code_older_than_a_part_of_it_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, other = (tmp_path / name for name in ("prefix_a.nbi", "prefix_b.nbi", "c.nbi"))
    for path in (old, new, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (0, 0))
    found = SimpleNamespace(stats=SimpleNamespace(cache_path=str(tmp_path)))
    monkeypatch.setattr(beam_search, "search", found)
    beam_search._drop_outdated_code.__wrapped__()
    assert [path.exists() for path in (old, new, other)] == [False, True, True]
