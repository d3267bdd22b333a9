"""Files to transcripts: order, errors in place, long files, constant memory, times of words."""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import spell
from numpy.typing import NDArray
from processes import run_child
from tiny import FEATURES, MODEL, SAMPLE_RATE, save_tiny_model

from speech import transcribe
from speech.audio import load_audio
from speech.calibration import Calibration, LeastEvidence, WordTimes
from speech.checkpoint import load_model
from speech.confidence import ConfidenceMap
from speech.decode import Hypothesis
from speech.decoder import GREEDY
from speech.errors import AudioError, ModelError
from speech.segment import voice_segments
from speech.transcribe import Recogniser, pack_utterances
from speech.transcript import Transcript, Word
from speech.voice_config import VoiceConfig
from speech.voice_network import VoiceModel

Samples = NDArray[np.float32]


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def recogniser(model_directory: Path) -> Recogniser:
    return Recogniser.load(model_directory, threads=2, options=GREEDY)


def babble(seconds: float, seed: int = 0) -> Samples:
    """Noise in bursts, with pauses to cut in."""
    random = np.random.default_rng(seed)
    count = round(seconds * SAMPLE_RATE)
    loudness = np.repeat(random.choice([0.0, 0.1, 0.5], count // 1000 + 1), 1000)[:count]
    return (random.standard_normal(count) * loudness).astype(np.float32)


def paused(seconds: float, seed: int = 0) -> Samples:
    """The same with half a second of silence every ten seconds."""
    samples = babble(seconds, seed)
    samples[np.arange(len(samples)) % (10 * SAMPLE_RATE) >= 9.5 * SAMPLE_RATE] = 0
    return samples


def write(path: Path, samples: Samples) -> Path:
    """Write samples so that they are read back bit for bit."""
    soundfile.write(path, samples, SAMPLE_RATE, subtype="FLOAT")
    return path


def transcript_of(result: Transcript | AudioError) -> Transcript:
    assert isinstance(result, Transcript), result
    return result


def rounded(transcript: Transcript) -> list[tuple[str, float, float]]:
    return [(word.word, round(word.start, 6), round(word.end, 6)) for word in transcript.words]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Ten recordings of 0.3 to 40 s: more than one batch, and some are cut."""
    directory = tmp_path_factory.mktemp("audio")
    lengths = (3.0, 0.3, 12.0, 40.0, 1.0, 7.5, 29.9, 30.1, 2.0, 5.0)
    return [write(directory / f"{n}.wav", babble(s, n)) for n, s in enumerate(lengths)]


# --- One and many ---------------------------------------------------------------------------------


def test_many_files_come_in_order_each_as_it_comes_alone(
    recogniser: Recogniser, files: list[Path]
) -> None:
    together = [transcript_of(result) for result in recogniser.transcribe_many(files)]
    assert [transcript.audio for transcript in together] == [str(path) for path in files]
    assert len({transcript.text for transcript in together}) == len(files)
    for transcript, path in zip(together, files, strict=True):
        alone = recogniser.transcribe(path)
        assert rounded(transcript) == rounded(alone)
        assert transcript.confidence == pytest.approx(alone.confidence, abs=1e-5)
        assert transcript.duration == pytest.approx(soundfile.info(path).duration)


def test_any_number_of_threads_gives_the_same(model_directory: Path, files: list[Path]) -> None:
    results = [
        list(
            map(
                transcript_of,
                Recogniser.load(model_directory, threads=n, options=GREEDY).transcribe_many(files),
            )
        )
        for n in (1, 3)
    ]
    assert [rounded(one) for one in results[0]] == [rounded(one) for one in results[1]]


def test_each_thread_has_a_share_of_what_is_there(
    model_directory: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recogniser = Recogniser.load(model_directory, threads=4, options=GREEDY)
    batches: list[float] = []
    whole = recogniser.log_probs

    def log_probs(samples: Sequence[Samples]) -> list[NDArray[np.float32]]:
        batches.append(len(samples) * max(map(len, samples)) / SAMPLE_RATE)
        return whole(samples)

    monkeypatch.setattr(recogniser, "log_probs", log_probs)
    list(recogniser.transcribe_many(files))
    assert len(batches) >= 4
    seconds = [soundfile.info(file).duration for file in files]
    assert max(batches) <= max(sum(seconds) / 4, *seconds) + 1e-6


def test_an_unreadable_file_is_an_error_in_its_place(
    recogniser: Recogniser, files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "text.wav").write_text("no audio at all\n" * 100)
    (tmp_path / "empty.wav").touch()
    whole = files[3].read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    bad = [tmp_path / "missing.wav", tmp_path / "text.wav", tmp_path / "empty.wav"]
    bad.append(tmp_path / "cut.wav")
    sources = [bad[0], files[0], bad[1], bad[2], files[3], bad[3]]
    results = list(recogniser.transcribe_many(sources))
    for source, result in zip(sources, results, strict=True):
        assert isinstance(result, AudioError) == (source in bad), result
        if isinstance(result, AudioError):
            assert source.name in str(result)
            assert "\n" not in str(result)
    assert rounded(transcript_of(results[4])) == rounded(recogniser.transcribe(files[3]))
    with pytest.raises(AudioError, match=r"missing\.wav"):
        recogniser.transcribe(bad[0])


def test_no_files_give_no_transcripts(recogniser: Recogniser) -> None:
    assert list(recogniser.transcribe_many([])) == []


def test_an_unknown_model_lists_the_names_there_are() -> None:
    with pytest.raises(ModelError, match=r"no model 'nonesuch'.*shipped names: "):
        Recogniser.load("nonesuch")


def test_the_models_calibration_tells_times_and_confidences(
    recogniser: Recogniser, model_directory: Path, files: list[Path]
) -> None:
    raw = recogniser.transcribe(files[2])
    shift, doubled = WordTimes(0.03, 0.03, 0.03), ConfidenceMap(2.0, 0.0)
    calibration = Calibration(shift, {"none": doubled, "another": ConfidenceMap(9.0, 0.0)})
    model = dataclasses.replace(load_model(model_directory), calibration=calibration)
    calibrated = Recogniser(model, threads=1).transcribe(files[2])
    assert calibrated.text == raw.text
    for word, was in zip(calibrated.words[:-1], raw.words[:-1], strict=True):
        assert word.start == pytest.approx(was.start + 0.03)
        assert word.end == pytest.approx(was.end + 0.03)
        assert word.confidence == pytest.approx(doubled(was.confidence), rel=1e-3)


def test_segments_without_evidence_have_no_words(
    recogniser: Recogniser, model_directory: Path, files: list[Path]
) -> None:
    heard = recogniser.transcribe(files[2])
    assert heard.words
    for least, text in ((LeastEvidence(confidence=0.01), heard.text),
                        (LeastEvidence(confidence=1.0), ""),
                        (LeastEvidence(per_second=1000.0, in_all=1000.0), "")):  # fmt: skip
        calibration = Calibration(least_evidence=least)
        model = dataclasses.replace(load_model(model_directory), calibration=calibration)
        assert Recogniser(model, threads=1).transcribe(files[2]).text == text


def test_an_error_of_the_network_reaches_the_caller(
    model_directory: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> list[Hypothesis]:
        raise RuntimeError("out of memory")

    broken = Recogniser.load(model_directory, threads=1, options=GREEDY)
    monkeypatch.setattr(broken, "log_probs", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(broken.transcribe_many(files))


# --- Long files -----------------------------------------------------------------------------------


def test_a_long_file_is_its_segments_joined(recogniser: Recogniser, tmp_path: Path) -> None:
    samples = paused(100.0)
    whole = recogniser.transcribe(write(tmp_path / "whole.wav", samples))
    segments = list(voice_segments([samples], SAMPLE_RATE))
    assert len(segments) >= 4
    assert all(segment.joins_at_seconds is None for segment in segments)  # there are pauses
    joined = []
    for number, segment in enumerate(segments):
        path = write(tmp_path / f"{number}.wav", segment.samples)
        end = segment.start_seconds + len(segment.samples) / SAMPLE_RATE
        joined += [
            (word, round(min(start + segment.start_seconds, end), 6),
             round(min(stop + segment.start_seconds, end), 6))
            for word, start, stop in rounded(recogniser.transcribe(path))
        ]  # fmt: skip
    assert rounded(whole) == joined
    assert whole.duration == pytest.approx(100.0)


def test_speech_without_pause_is_joined_where_segments_overlap(
    recogniser: Recogniser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segments hear a word a second, numbered by the second of the recording."""

    def words(_: Hypothesis, start: float, end: float) -> list[Word]:
        seconds = range(math.ceil(start), math.floor(end))
        return [Word(f"w{n}", n + 0.25, n + 0.75, 0.5) for n in seconds]

    monkeypatch.setattr(recogniser, "words", words)
    loud = np.random.default_rng(0).standard_normal(100 * SAMPLE_RATE).astype(np.float32)
    loud *= np.repeat(np.tile([0.5, 0.01], 1000), SAMPLE_RATE // 20)[: len(loud)]
    transcript = recogniser.transcribe(write(tmp_path / "fluent.wav", loud))
    assert transcript.text.split() == [f"w{n}" for n in range(100)]


def test_a_long_file_is_cut_where_the_network_hears_nobody(
    recogniser: Recogniser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voice = VoiceModel.create(VoiceConfig(FEATURES, MODEL))
    monkeypatch.setattr(transcribe, "shipped_voice", lambda rate: voice)

    def loud(_: VoiceModel, windows: list[Samples]) -> list[Samples]:
        """Hear voice in what is louder than a hiss: random weights would hear anything."""
        width = voice.config.frame_samples
        return [
            np.abs(one[: len(one) // width * width]).reshape(-1, width).max(1).astype(np.float32)
            for one in windows
        ]

    monkeypatch.setattr(VoiceModel, "probabilities", loud)
    samples = babble(50.0)
    samples[20 * SAMPLE_RATE :] *= 0.1  # below the threshold of 0.5, far above a floor
    path = write(tmp_path / "long.wav", samples)
    words = recogniser.transcribe(path).words
    assert words
    assert max(word.end for word in words) < 25
    monkeypatch.setattr(recogniser, "hears_voice", False)
    assert max(word.end for word in recogniser.transcribe(path).words) > 35


def test_silence_has_no_words_and_a_duration(recogniser: Recogniser, tmp_path: Path) -> None:
    for seconds in (3, 100):
        silence = np.zeros(seconds * SAMPLE_RATE, np.float32)
        transcript = recogniser.transcribe(write(tmp_path / "silence.wav", silence))
        assert (transcript.words, transcript.duration) == ((), pytest.approx(seconds))


def test_words_lie_in_order_within_the_recording(recogniser: Recogniser, files: list[Path]) -> None:
    for result in recogniser.transcribe_many(files):
        transcript = transcript_of(result)
        assert transcript.words
        times = [t for word in transcript.words for t in (word.start, word.end)]
        assert times == sorted(times)
        assert times[0] >= 0
        assert times[-1] <= transcript.duration
        assert all(0 < word.confidence <= 1 for word in transcript.words)


def test_a_word_to_the_last_frame_of_a_segment_does_not_reach_into_the_next(
    model_directory: Path, tmp_path: Path
) -> None:
    model = load_model(model_directory)
    with torch.no_grad():  # it hears "a" in every frame, also in the one that is half padding
        model.network.output.bias[1 + model.tokenizer.alphabet.index("a")] = 1000.0
    transcript = Recogniser(model, threads=1).transcribe(write(tmp_path / "a.wav", paused(100.0)))
    assert len(transcript.words) >= 4
    ends = [word.end for word in transcript.words[:-1]]
    starts = [word.start for word in transcript.words[1:]]
    assert all(end <= start + 1e-9 for end, start in zip(ends, starts, strict=True))
    assert any(end == pytest.approx(start) for end, start in zip(ends, starts, strict=True))
    assert transcript.words[0].start == 0
    assert transcript.words[-1].end == pytest.approx(100.0, abs=1.0)  # but for silence


@pytest.fixture
def small_pools(monkeypatch: pytest.MonkeyPatch) -> float:
    """Pools that short recordings fill; their seconds."""
    monkeypatch.setattr(transcribe, "POOL_SECONDS", 160.0)
    monkeypatch.setattr(transcribe, "BATCH_SECONDS", 40.0)
    return 160.0


@pytest.mark.parametrize(
    ("seconds", "threads", "device", "sizes"),
    [
        ([15.0] * 3, 1, "cpu", [1, 1, 1]),  # in a batch, each step would read all weights
        ([13.0] * 12, 1, "cpu", [12]),
        ([13.0] * 12, 2, "cpu", [6, 6]),
        ([15.0] * 3, 1, "cuda", [3]),
    ],
)
def test_few_utterances_are_computed_one_by_one_on_a_cpu(
    seconds: list[float], threads: int, device: str, sizes: list[int]
) -> None:
    batches = pack_utterances(seconds, threads, torch.device(device))
    assert [len(batch) for batch in batches] == sizes


def test_memory_does_not_grow_with_the_recording(
    recogniser: Recogniser, tmp_path: Path, small_pools: float
) -> None:
    def peak_bytes(minutes: int) -> int:
        path = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, subtype="PCM_16") as file:
            for minute in range(minutes):
                file.write(babble(60.0, minute))
        tracemalloc.start()
        recogniser.transcribe(path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    pool_bytes = small_pools * SAMPLE_RATE * 4
    short, long = peak_bytes(8), peak_bytes(20)
    assert long < short * 1.3  # 2.5 if all were kept; how far reading is ahead varies
    assert long < 6 * pool_bytes  # two, and a minute that waits to be cut; 7.5 is all


@pytest.mark.slow
def test_the_process_takes_no_more_memory_for_hours_than_for_minutes(
    model_directory: Path, tmp_path: Path
) -> None:
    def peak_bytes(minutes: int) -> int:
        path = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, subtype="PCM_16") as file:
            for minute in range(minutes):
                file.write(paused(60.0, minute) if minute % 2 else babble(60.0, minute))
        command = [sys.executable, "-m", "speech", "transcribe", str(path), "--lm", "none"]
        options = ["--model", str(model_directory), "--threads", "2", "--format", "json"]
        return run_child([*command, *options]).peak_bytes

    assert peak_bytes(150) < 1.1 * peak_bytes(30)


@pytest.mark.usefixtures("small_pools")
def test_endless_sources_are_transcribed_as_they_come_and_can_be_left(
    recogniser: Recogniser, files: list[Path]
) -> None:
    taken = []

    def sources() -> Iterator[Path]:
        for path in itertools.cycle(files):
            taken.append(path)
            yield path

    results = recogniser.transcribe_many(sources())
    first = [transcript_of(result) for result in itertools.islice(results, 12)]
    results.close()  # type: ignore[attr-defined]
    assert rounded(first[0]) == rounded(first[10])
    assert len(taken) < 60  # two poolfuls and what was asked for
    assert rounded(recogniser.transcribe(files[0])) == rounded(first[0])


# --- Features and arithmetic ----------------------------------------------------------------------


def test_log_probs_of_a_batch_are_those_of_each_alone(
    recogniser: Recogniser, files: list[Path]
) -> None:
    samples = [load_audio(path, SAMPLE_RATE).samples for path in files[:4]]
    for one, batched in zip(samples, recogniser.log_probs(samples), strict=True):
        (alone,) = recogniser.log_probs([one])
        np.testing.assert_allclose(batched, alone, rtol=0, atol=1e-5)
        assert alone.dtype == np.float32


def test_bfloat16_is_close_to_float32(model_directory: Path, files: list[Path]) -> None:
    samples = [load_audio(path, SAMPLE_RATE).samples for path in files[:3]]
    exact, near = (
        Recogniser.load(model_directory, precision=name, options=GREEDY).log_probs(samples)
        for name in ("float32", "bfloat16")
    )
    for one, other in zip(exact, near, strict=True):
        assert 0 < np.abs(one - other).max() < 0.1
    assert transcript_of(
        next(
            iter(
                Recogniser.load(
                    model_directory, precision="bfloat16", options=GREEDY
                ).transcribe_many(files)
            )
        )
    ).words


def test_another_sample_rate_is_resampled_to_the_models(
    recogniser: Recogniser, tmp_path: Path
) -> None:
    tones = spell("abba cab dea", 44_100, np.random.default_rng(0))
    soundfile.write(tmp_path / "high.flac", np.stack([tones, tones], 1), 44_100)
    transcript = recogniser.transcribe(tmp_path / "high.flac")
    assert transcript.duration == pytest.approx(1.2)
