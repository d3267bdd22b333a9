"""Weights found on stored log-probs, and the file that carries them to whoever decodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from test_beam_search import ARPA, WORDS, random_log_probs
from tiny import save_tiny_model

import speech.decoder
from speech.beam_search import BeamDecoder, BeamSettings
from speech.decoder import GREEDY, UNTUNED, DecoderOptions, default_language_model, load_decoder
from speech.errors import ConfigError, LanguageModelError, ManifestError
from speech.hot_words import HotWord
from speech.language_model import NgramModel
from speech.manifest import Utterance, read_manifest
from speech.metrics import ErrorCounts
from speech.tokenizer import CharTokenizer
from speech.transcribe import Recogniser
from speech.tune import (
    BEAM_SIZES,
    OTHERS,
    DevelopmentSet,
    Trial,
    _most_balanced,
    count_trials,
    read_development_set,
    select,
    tune,
)
from speech.tuning import Tuning, read_tuning, tuning_path, write_tuning


@pytest.fixture
def arpa(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.arpa"
    path.write_text(ARPA)
    return path


def spoken(text: str) -> NDArray[np.float32]:
    """Log-probs of a text said clearly, but for "ab", which sounds a little more like "bb"."""
    rows = []
    for letter, following in zip(text, text[1:] + " ", strict=True):
        row = np.full(WORDS.size, 0.02)
        row[WORDS.encode(letter)] = 0.94
        if letter == "a" and following == "b":
            row[WORDS.encode("ab")] = 0.45, 0.51
        rows += [row, [0.97, 0.01, 0.01, 0.01]]
    return np.log(np.array(rows, np.float32) / np.sum(rows, axis=1, keepdims=True)).astype(
        np.float32
    )


def test_tuning_gives_the_language_model_the_weight_it_deserves(arpa: Path) -> None:
    decoder = BeamDecoder(WORDS, BeamSettings(), NgramModel.load(arpa))
    texts = ("a ab", "ab", "b a ab a")
    development = DevelopmentSet(texts, tuple([spoken(text)] for text in texts))
    seen: list[object] = []
    best, trials = tune(decoder, development, on_trial=seen.append)
    assert best.errors.errors == 0
    assert best.lm_weight > 0
    assert seen == trials
    assert len(trials) <= count_trials()
    assert best.beam_size == BEAM_SIZES[0]
    assert {trial.beam_size for trial in trials} == set(BEAM_SIZES)
    tried = [(t.lm_weight, t.word_bonus, t.beam_size, *(getattr(t, name) for name in OTHERS))
             for t in trials]  # fmt: skip
    assert len(set(tried)) == len(tried)
    for name, values in OTHERS.items():
        assert {getattr(t, name) for t in trials} == {getattr(decoder.settings, name), *values}


def test_log_probs_are_computed_once(tmp_path: Path, tiny_corpus: Callable[..., Path]) -> None:
    manifest = tiny_corpus(tmp_path / "dev", utterances=4, sample_rate=8000)
    utterances = read_manifest(manifest)
    recogniser = Recogniser.load(save_tiny_model(tmp_path / "model"), threads=1, options=GREEDY)
    store, heard = tmp_path / "cache" / "log-probs.npz", []
    first = read_development_set(utterances, recogniser, store, {"model": "1"}, heard.append)
    again = read_development_set(utterances, recogniser, store, {"model": "1"}, heard.append)
    assert len(heard) == 4
    assert first.references == again.references
    for one, other in zip(first.segments, again.segments, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(
        first.segments[0][0], recogniser.segment_log_probs(utterances[0].audio_path)[0]
    )
    read_development_set(utterances, recogniser, store, {"model": "2"}, heard.append)
    assert len(heard) == 8
    store.write_bytes(store.read_bytes()[:300])
    read_development_set(utterances, recogniser, store, {"model": "2"}, heard.append)
    assert len(heard) == 12


def test_a_speaker_can_be_left_out(tmp_path: Path, tiny_corpus: Callable[..., Path]) -> None:
    utterances: list[Utterance] = read_manifest(tiny_corpus(tmp_path / "dev", utterances=4))
    kept = select(utterances, ["tone-1"])
    assert {one.speaker for one in kept} == {"tone-0"}
    assert select(utterances, []) == utterances
    with pytest.raises(ManifestError, match="no utterance is by speaker '6848'"):
        select(utterances, ["6848"])
    with pytest.raises(ManifestError, match="no utterances are left"):
        select(utterances, ["tone-0", "tone-1"])


# --- The file beside the language model -----------------------------------------------------------


def test_a_tuning_is_read_as_it_was_written_and_used(arpa: Path) -> None:
    assert read_tuning(arpa) is None
    tuning = Tuning(0.65, 1.25, 30, 0.1, "base", ("dev.jsonl",), "0f", ("6848",), 5, {"30": 0.1},
                    letter_price=4.5, prior_weight=0.7, blank_price=-0.4)  # fmt: skip
    assert write_tuning(arpa, tuning) == arpa.with_name("tiny.arpa.tuning.json")
    assert read_tuning(arpa) == tuning
    assert tuning_path(Path("models/english/lm.bin")) == Path("models/english/tuning.json")
    decoder = load_decoder(DecoderOptions(lm=str(arpa), lm_weight=0.0), WORDS)
    assert decoder is not None
    used = decoder.settings
    assert (used.lm_weight, used.word_bonus, used.beam_size) == (0.0, 1.25, 30)
    assert (used.letter_price, used.prior_weight, used.blank_price) == (4.5, 0.7, -0.4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot read the tuning"),
        ("[]", "not a tuning"),
        ('{"lm_weight": 1}', "not a tuning"),
        ('{"lm_weight": NaN, "word_bonus": 0, "beam_size": 9}', "finite weights"),
        ('{"lm_weight": "1", "word_bonus": 0, "beam_size": 9}', "not a tuning"),
    ],
)
def test_a_damaged_tuning_is_refused(arpa: Path, content: str, message: str) -> None:
    tuning_path(arpa).write_text(content)
    with pytest.raises(LanguageModelError, match=message):
        read_tuning(arpa)


def test_options_choose_the_decoder(arpa: Path) -> None:
    assert load_decoder(GREEDY, WORDS) is None
    untuned = load_decoder(DecoderOptions(lm=str(arpa)), WORDS)
    assert untuned is not None
    assert untuned.settings.lm_weight == UNTUNED.lm_weight
    hot = load_decoder(DecoderOptions(hot_words=(HotWord("ab", 9.0),), beam_size=7), WORDS)
    assert hot is not None
    assert hot.settings.beam_size == 7
    text = hot.tokenizer.decode(hot.search(random_log_probs(1, 8, WORDS.size, 0.5))[0].tokens)
    assert "ab" in text.split()
    with pytest.raises(ConfigError, match="none is given"):
        load_decoder(DecoderOptions("none", lm_weight=1.0), CharTokenizer())


def test_the_shipped_language_model_is_the_default_where_it_suits(
    arpa: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech.decoder, "SHIPPED_LANGUAGE_MODEL", "english")
    monkeypatch.setattr(speech.decoder, "model_directories", lambda: [arpa.parent / "models"])
    assert default_language_model(CharTokenizer()) == "none"  # it does not ship yet
    directory = arpa.parent / "models" / "english"
    directory.mkdir(parents=True)
    (directory / "lm.bin").touch()
    assert default_language_model(CharTokenizer()) == "english"
    assert default_language_model(WORDS) == "none"
    assert DecoderOptions("default").resolved(CharTokenizer()) == DecoderOptions("english")
    assert DecoderOptions(str(arpa)).resolved(CharTokenizer()).lm == str(arpa)
    assert load_decoder(DecoderOptions("default"), WORDS) is None


def test_of_weights_as_good_the_balanced_ones_are_taken() -> None:
    def trial(substituted: int, deleted: int, inserted: int) -> Trial:
        errors = ErrorCounts(substituted, deleted, inserted, 1000)
        return Trial(0.5, 0.0, 100, 3.0, 0.0, 0.0, errors, 0.0)

    least, balanced, worse = trial(100, 90, 10), trial(100, 51, 50), trial(106, 50, 50)
    assert _most_balanced([least, balanced, worse]) == balanced
    assert _most_balanced([least, worse]) == least
