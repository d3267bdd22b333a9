"""Which utterances are trained on, in which batches, with which features; and who prepares them."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from speech.audio import load_audio
from speech.checkpoint import create_model
from speech.config import AugmentConfig, Config, DataConfig, FeatureConfig, ModelConfig
from speech.dataset import (
    Draw,
    Example,
    SampleCache,
    Selection,
    TrainingSet,
    batch_by_seconds,
    collate,
    encode_utterance,
    epoch_batches,
    select_examples,
)
from speech.decode import required_frames
from speech.errors import AudioError, ManifestError, TextError
from speech.features import FeatureExtractor, num_frames
from speech.manifest import Utterance, read_manifest
from speech.model import output_length
from speech.tokenizer import CharTokenizer
from speech.transcribe import Recogniser

RATE = 8000  # Hz
FEATURES = FeatureConfig(
    sample_rate=RATE, n_fft=256, window_samples=200, hop_samples=80, mel_bands=8, max_hz=3800.0
)
OFF = AugmentConfig(
    speed_factors=(1.0,), gain_db=0.0, noise_probability=0.0, time_masks=0, frequency_masks=0
)
SUBSAMPLING = 4
TOKENIZER = CharTokenizer()


def extractor() -> FeatureExtractor:
    made = FeatureExtractor(FEATURES)
    made.mean.fill_(-5.0)
    made.deviation.fill_(3.0)
    return made


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(samples).astype(np.float32)


def example(seconds: float, share: float = 1.0, tokens: tuple[int, ...] = (1,)) -> Example:
    return Example(Utterance("u", Path("u.wav"), seconds, "a"), tokens, share)


def recorded(path: Path, seconds: float, seed: int = 0, rate: int = RATE) -> Utterance:
    """An utterance of noise whose audio file exists."""
    soundfile.write(path, noise(round(seconds * rate), seed), rate)
    return Utterance(path.stem, path, seconds, "ab", source=f"manifest:{seed + 1}")


def training_set(
    utterances: Sequence[Utterance], augment: AugmentConfig = OFF, cache: Path | None = None,
    tokens: tuple[int, ...] = (2, 3), seed: int = 1,
) -> TrainingSet:  # fmt: skip
    examples = [Example(utterance, tokens) for utterance in utterances]
    return TrainingSet(
        examples, extractor(), augment, SampleCache(cache, RATE), SUBSAMPLING, seed
    )  # fmt: skip


# --- Training features equal transcription features -----------------------------------------------


def features(data: TrainingSet, index: int, epoch: int, turn: int = 0) -> Tensor:
    """The only view of an example in one of its passes."""
    (view,) = data.features(Draw(index, turn), epoch)
    return view


def transcription_features(path: Path, precision: str) -> Tensor:
    """The features that a recogniser gives to its network."""
    config = Config(FEATURES, ModelConfig(subsampling=4, conv_channels=1, layers=1, hidden=2))
    model = create_model(config, TOKENIZER)
    model.extractor.load_state_dict(extractor().state_dict())
    seen = []
    model.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    Recogniser(model, threads=1, precision=precision).transcribe(path)
    ((features,),) = seen
    return features


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("file", ["a.wav", "b.flac", "c.ogg"])
def test_training_features_equal_transcription_features(
    tmp_path: Path, file: str, precision: str
) -> None:
    rate = {"a.wav": RATE, "b.flac": 16000, "c.ogg": 48000}[file]
    utterance = recorded(tmp_path / file, 1.234, rate=rate)
    expected = transcription_features(utterance.audio_path, precision)
    assert expected.shape == (124 - 2, FEATURES.mel_bands)
    uncached = training_set([utterance])
    cached = training_set([utterance], cache=tmp_path / "cache")
    for data in (uncached, cached, cached):  # the cache writes, then reads
        assert torch.equal(features(data, 0, 0), expected)
    assert torch.equal(cached.batch([Draw(0, 0)], epoch=3).log_mel[0], expected)


def test_batch_holds_each_utterance_as_alone(tmp_path: Path) -> None:
    seconds = (0.5, 0.2, 0.9)
    data = training_set([recorded(tmp_path / f"{s}.wav", s, i) for i, s in enumerate(seconds)])
    batch = data.batch([Draw(index, 0) for index in (2, 0, 1)], epoch=0)
    assert batch.seconds == pytest.approx(1.6)
    assert [utterance.duration for utterance in batch.utterances] == [0.9, 0.5, 0.2]
    for row, length, index in zip(batch.log_mel, batch.log_mel_lengths, (2, 0, 1), strict=True):
        assert torch.equal(row[:length], features(data, index, 0))
        assert not row[length:].any()


def test_two_views_share_the_sound_and_differ_in_their_masks(tmp_path: Path) -> None:
    utterances = [recorded(tmp_path / f"{i}.wav", 0.5, i) for i in range(2)]
    examples = [Example(utterance, (1,)) for utterance in utterances]
    augment = dataclasses.replace(AugmentConfig(), frequency_masks=0, time_masks=1)
    data = TrainingSet(examples, extractor(), augment, SampleCache(None, RATE), SUBSAMPLING, 1, 2)
    batch = data.batch([Draw(0, 0), Draw(1, 0)], epoch=0)
    assert batch.log_mel.shape[0] == len(batch.log_mel_lengths) == 4
    assert len(batch.token_lengths) == len(batch.utterances) == 2
    assert batch.log_mel_lengths[:2].equal(batch.log_mel_lengths[2:])
    one, other = batch.log_mel.chunk(2)
    assert not one.equal(other)
    heard = (one != 0) & (other != 0)  # outside the masks of both
    assert heard.float().mean() > 0.5
    assert one[heard].equal(other[heard])


def test_collate_joins_the_labels() -> None:
    examples = [example(1.0, tokens=(3, 1)), example(2.0, tokens=(2,))]
    batch = collate(torch.zeros(2, 4, 1), torch.tensor([4, 2]), examples)
    assert batch.tokens.tolist() == [3, 1, 2]
    assert batch.token_lengths.tolist() == [2, 1]
    assert batch.tokens.dtype == torch.int64


def test_variation_depends_on_seed_epoch_utterance_and_turn_only(tmp_path: Path) -> None:
    utterances = [recorded(tmp_path / f"{i}.wav", 0.5, 0) for i in range(2)]  # the same samples
    augment = AugmentConfig(noise_probability=0.0)
    data = training_set(utterances, augment)
    first = features(data, 0, 1)
    other_seed = training_set(utterances, augment, seed=2)
    varied = [features(data, 1, 1), features(data, 0, 2), features(data, 0, 1, turn=1),
              features(other_seed, 0, 1)]  # fmt: skip
    assert torch.equal(features(data, 0, 1), first)
    assert torch.equal(features(training_set(utterances, augment), 0, 1), first)
    for other in varied:
        assert other.shape != first.shape or not torch.equal(other, first)


def test_speed_that_leaves_too_few_frames_is_not_taken(tmp_path: Path) -> None:
    utterance = recorded(tmp_path / "a.wav", 1.0)
    frames = num_frames(RATE, FEATURES)
    fast = dataclasses.replace(OFF, speed_factors=(2.0,))
    fitting = tuple(range(1, output_length(frames, SUBSAMPLING) + 1))
    whole = features(training_set([utterance], fast, tokens=fitting), 0, 0)
    halved = features(training_set([utterance], fast, tokens=(1, 2)), 0, 0)
    assert len(whole) == frames
    assert len(halved) == num_frames(RATE // 2, FEATURES)


# --- Batches --------------------------------------------------------------------------------------

durations = st.lists(st.floats(0.1, 30), max_size=60)


def padded_seconds(batch: Sequence[int], seconds: Sequence[float]) -> float:
    return len(batch) * max(seconds[index] for index in batch)


def indices_of(batches: list[list[Draw]]) -> list[list[int]]:
    return [[draw.index for draw in batch] for batch in batches]


def check_budget(batches: list[list[int]], seconds: Sequence[float], budget: float) -> None:
    for batch in batches:
        assert batch
        assert len(batch) == 1 or padded_seconds(batch, seconds) <= budget


@given(durations, st.floats(1, 100), st.integers(0, 9), st.integers(0, 3), st.booleans())
@settings(deadline=None, max_examples=150)
def test_every_example_is_in_one_batch_within_the_budget(
    seconds: list[float], budget: float, seed: int, epoch: int, easy_first: bool
) -> None:
    examples = [example(duration) for duration in seconds]
    drawn = epoch_batches(examples, budget, seed, epoch, easy_first)
    assert drawn == epoch_batches(examples, budget, seed, epoch, easy_first)
    batches = indices_of(drawn)
    assert sorted(index for batch in batches for index in batch) == list(range(len(seconds)))
    check_budget(batches, seconds, budget)
    if epoch == 0 and batches:
        sizes = [padded_seconds(batch, seconds) for batch in batches]
        assert sizes[0] == max(sizes)  # the probe of memory


@given(durations, st.floats(1, 100), st.integers(0, 9), st.integers(0, 3))
@settings(deadline=None, max_examples=100)
def test_easy_first_is_ascending_but_for_the_probe(
    seconds: list[float], budget: float, seed: int, epoch: int
) -> None:
    """Up to the tenth by which lengths are varied before they are sorted."""
    examples = [example(duration) for duration in seconds]
    batches = epoch_batches(examples, budget, seed, epoch, easy_first=True)
    so_far = 0.0
    for batch in batches[1 if epoch == 0 else 0 :]:
        assert min(seconds[draw.index] for draw in batch) * 1.1 >= so_far * 0.9
        so_far = max(so_far, *(seconds[draw.index] for draw in batch))


def test_epochs_and_seeds_differ() -> None:
    seconds = np.random.default_rng(0).uniform(1, 10, 100)
    examples = [example(duration) for duration in seconds]

    def composition(seed: int, epoch: int, easy_first: bool) -> set[frozenset[Draw]]:
        return set(map(frozenset, epoch_batches(examples, 40, seed, epoch, easy_first)))

    for easy_first in (True, False):
        first = composition(1, 1, easy_first)
        assert len(first & composition(1, 2, easy_first)) < len(first) / 2
        assert len(first & composition(2, 1, easy_first)) < len(first) / 2


def test_without_easy_first_long_and_short_batches_are_mixed() -> None:
    seconds = np.random.default_rng(0).uniform(1, 10, 300)
    batches = epoch_batches([example(duration) for duration in seconds], 20, 1, 1, False)
    longest = [max(seconds[draw.index] for draw in batch) for batch in batches]
    half = len(longest) // 2
    assert np.mean(longest[:half]) == pytest.approx(np.mean(longest[half:]), rel=0.15)


def test_batches_hold_utterances_of_like_length() -> None:
    seconds = np.random.default_rng(0).uniform(1, 10, 300)
    batches = indices_of(epoch_batches([example(one) for one in seconds], 60, 1, 1, False))
    padded = sum(padded_seconds(batch, seconds) for batch in batches)
    assert padded < 1.15 * seconds.sum()


@pytest.mark.parametrize(
    ("share", "fewest", "most"), [(0.3, 0, 1), (1.0, 1, 1), (1.5, 1, 2), (2.0, 2, 2)]
)
def test_shares_average_out(share: float, fewest: int, most: int) -> None:
    examples = [example(1.0, share), *(example(2.0) for _ in range(3))]
    epochs = 500
    passes = []
    for epoch in range(epochs):
        draws = [draw for batch in epoch_batches(examples, 5, 1, epoch, False) for draw in batch]
        indices = [draw.index for draw in draws]
        assert len(set(draws)) == len(draws)  # no pass is varied like another
        passes.append(indices.count(0))
        assert [indices.count(i) for i in (1, 2, 3)] == [1, 1, 1]
    assert set(passes) == {fewest, most}
    assert sum(passes) / epochs == pytest.approx(share, abs=0.08)  # four standard errors


@given(durations, st.floats(1, 100))
@settings(deadline=None, max_examples=50)
def test_batch_by_seconds(seconds: list[float], budget: float) -> None:
    batches = batch_by_seconds(seconds, budget)
    joined = [index for batch in batches for index in batch]
    assert sorted(joined) == list(range(len(seconds)))
    assert [seconds[index] for index in joined] == sorted(seconds)
    check_budget(batches, seconds, budget)


def test_batches_by_pencil() -> None:
    # 1, 2, 3: three times 3 s are 9 s; with 4 s they would be 16 s. 20 s stands alone.
    assert batch_by_seconds([4, 20, 1, 3, 2], 10) == [[2, 4, 3], [0], [1]]


# --- Selection ------------------------------------------------------------------------------------


def write_lines(path: Path, lines: Sequence[tuple[float, str]]) -> None:
    """A manifest of (duration, text); the audio is not looked at."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = [
        json.dumps({"audio_filepath": f"{n}.wav", "duration": duration, "text": text})
        for n, (duration, text) in enumerate(lines)
    ]
    path.write_text("\n".join(entries) + "\n", "utf-8")


def select(directory: Path, **changes: object) -> Selection:
    config = DataConfig(**{"train": {"train.jsonl": 1.0}, **changes})  # type: ignore[arg-type]
    return select_examples(config, directory, TOKENIZER, extractor(), SUBSAMPLING)


def test_selection_leaves_out_and_names(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    write_lines(
        path,
        [(1.0, "Fine."), (1.0, "..."), (0.4, "x"), (9.0, "long"), (0.5, "far too much text" * 2),
         (2.0, "Two"), (0.45, "y")],
    )  # fmt: skip
    selection = select(tmp_path, min_seconds=0.5, max_seconds=5.0)
    assert [e.tokens for e in selection.examples] == [
        tuple(TOKENIZER.encode("fine")), tuple(TOKENIZER.encode("two"))
    ]  # fmt: skip
    assert [e.utterance.source for e in selection.examples] == [f"{path}:1", f"{path}:6"]
    assert selection.left_out == {
        "empty text": [f"{path}:2"],
        "shorter than 0.5 s": [f"{path}:3", f"{path}:7"],
        "longer than 5.0 s": [f"{path}:4"],
        "transcript too long for its frames": [f"{path}:5"],
    }


@pytest.mark.parametrize("text", ["abcdefghijklmnopqrstuvwxyz", "aabbccddeeffggh"])
def test_selection_keeps_what_just_fits(tmp_path: Path, text: str) -> None:
    """CTC needs a frame a label, and one between two equal ones."""
    needed = required_frames(TOKENIZER.encode(text))
    log_mel_frames = SUBSAMPLING * (needed - 1) + 1
    samples = FEATURES.n_fft + (log_mel_frames - 1) * FEATURES.hop_samples
    assert output_length(num_frames(samples, FEATURES), SUBSAMPLING) == needed
    fits, too_short = samples / RATE, (samples - FEATURES.hop_samples) / RATE
    write_lines(tmp_path / "train.jsonl", [(fits, text), (too_short, text)])
    selection = select(tmp_path)
    assert [e.utterance.duration for e in selection.examples] == [fits]
    assert list(selection.left_out) == ["transcript too long for its frames"]


def test_selection_follows_root_and_shares(tmp_path: Path) -> None:
    write_lines(tmp_path / "corpora" / "a" / "train.jsonl", [(1.0, "a"), (1.0, "b")])
    write_lines(tmp_path / "corpora" / "b.jsonl", [(1.0, "c")])
    shares = {"a/train.jsonl": 0.5, "b.jsonl": 2.0}
    for root in ("corpora", str(tmp_path / "corpora")):
        selection = select(tmp_path, root=root, train=shares)
        assert [e.share for e in selection.examples] == [0.5, 0.5, 2.0]


def test_selection_of_nothing_is_an_error(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.jsonl", [(1.0, "...")])
    with pytest.raises(ManifestError, match=r"no utterance to train on in train\.jsonl"):
        select(tmp_path)
    with pytest.raises(ManifestError, match=r"no utterance to train on in \[data\.train\]"):
        select(tmp_path, train={})


def test_foreign_character_names_manifest_and_line(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    write_lines(path, [(1.0, "fine"), (1.0, "добрый")])
    with pytest.raises(TextError) as caught:
        select(tmp_path)
    assert str(caught.value).startswith(f"{path}:2: character 'д'")
    with pytest.raises(TextError, match=r"train\.jsonl:2: "):
        encode_utterance(read_manifest(path)[1], TOKENIZER)


# --- The cache of samples -------------------------------------------------------------------------


def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr("speech.dataset.load_audio", refuse)


def cached_files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def test_cache_gives_the_same_bits_and_decodes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recorded(tmp_path / "a.flac", 0.3, rate=11025).audio_path
    expected = torch.from_numpy(load_audio(path, RATE).samples)
    cache = SampleCache(tmp_path / "deep" / "cache", RATE)
    assert torch.equal(SampleCache(None, RATE).load(path), expected)
    assert torch.equal(cache.load(path), expected)
    no_decoding(monkeypatch)
    again = cache.load(path)
    assert torch.equal(again, expected)
    assert again.dtype == torch.float32
    assert len(cached_files(tmp_path / "deep")) == 1


def test_cache_knows_a_changed_file_and_another_rate(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.wav", 0.3, seed=1).audio_path
    cache = SampleCache(tmp_path / "cache", RATE)
    before = cache.load(path)
    changed = path.stat().st_mtime_ns + 1
    recorded(path, 0.3, seed=2)
    os.utime(path, ns=(changed, changed))
    after = cache.load(path)
    assert after.shape == before.shape
    assert not torch.equal(after, before)
    assert torch.equal(after, torch.from_numpy(load_audio(path, RATE).samples))
    assert len(SampleCache(tmp_path / "cache", RATE // 2).load(path)) == len(after) // 2


@pytest.mark.parametrize("cache", ["cache", None])
def test_missing_and_broken_files_are_named(tmp_path: Path, cache: str | None) -> None:
    samples = SampleCache(tmp_path / cache if cache else None, RATE)
    with pytest.raises(AudioError, match=r"nowhere\.wav: cannot open the audio file: no such file"):
        samples.load(tmp_path / "nowhere.wav")
    (tmp_path / "text.wav").write_text("not audio")
    with pytest.raises(AudioError, match=r"text\.wav"):
        samples.load(tmp_path / "text.wav")
    assert cache is None or cached_files(tmp_path / cache) == []


def test_cache_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recorded(tmp_path / "a.wav", 0.3).audio_path
    cache = SampleCache(tmp_path / "cache", RATE)

    def full(self: Path, target: Path) -> None:
        assert len(cached_files(tmp_path / "cache")) == 1
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(AudioError, match=r"cannot write to the audio cache.*No space left"):
            cache.load(path)
    assert cached_files(tmp_path / "cache") == []
    assert len(cache.load(path)) == round(0.3 * RATE)
