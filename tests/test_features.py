"""Log-mel frames against librosa's, their count, their normalisation, and the stream of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from speech.config import FeatureConfig
from speech.errors import AudioError
from speech.features import FeatureExtractor, FeatureStream, num_frames, pad_features

CONFIG = FeatureConfig()
GOLDEN = Path(__file__).parent / "golden" / "log_mel.npy"

DECIBEL = math.log(10) / 10  # in the natural log of power
# Our filters and transforms are float32, the golden ones float64: a thousandth of a decibel, and
# a little more in bands that are silent beside a loud one (a pure tone's).
TOLERANCE = 0.001 * DECIBEL
FAR_BELOW = 60 * DECIBEL
TOLERANCE_FAR_BELOW = 0.02 * DECIBEL


@cache
def extractor() -> FeatureExtractor:
    """An extractor whose statistics are those of no special signal."""
    fitted = FeatureExtractor(CONFIG)
    fitted.fit([noise(16000, 1), 0.1 * noise(8000, 2)])
    return fitted


def noise(samples: int, seed: int = 0) -> Tensor:
    random = np.random.default_rng(seed)
    return torch.from_numpy(0.1 * random.standard_normal(samples).astype(np.float32))


def signals() -> dict[str, NDArray[np.float32]]:
    times = np.arange(8000) / CONFIG.sample_rate
    tone = np.sin(2 * np.pi * 440 * times)
    chirp = np.sin(2 * np.pi * (50 * times + 7000 * times**2))  # 50 Hz to 7050 Hz
    impulse = np.zeros(8000)
    impulse[3000] = 1.0
    made = {
        "noise": noise(8000).numpy(),
        "quiet noise": 1e-3 * noise(8000).numpy(),
        "tone": 0.5 * tone,
        "chirp": 0.5 * chirp,
        "chirp in noise": 0.2 * chirp + 0.02 * noise(8000).numpy(),
        "clipped": np.sign(tone),
        "impulse": impulse,
        "constant": np.full(8000, 0.5),
        "silence": np.zeros(8000),
        "shorter than a frame": noise(100).numpy(),
        "odd length": noise(6543).numpy(),
    }
    return {name: signal.astype(np.float32) for name, signal in made.items()}


def librosa_log_mel(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """The golden values: librosa in float64, the end of the signal padded as ours is."""
    import librosa

    frames = num_frames(len(samples), CONFIG)
    whole = CONFIG.n_fft + (frames - 1) * CONFIG.hop_samples
    power = librosa.feature.melspectrogram(
        y=np.pad(samples.astype(np.float64), (0, whole - len(samples))),
        sr=CONFIG.sample_rate,
        n_fft=CONFIG.n_fft,
        hop_length=CONFIG.hop_samples,
        win_length=CONFIG.window_samples,
        window="hann",
        center=False,
        power=2.0,
        n_mels=CONFIG.mel_bands,
        fmin=CONFIG.min_hz,
        fmax=CONFIG.max_hz,
        htk=False,
        norm="slaney",
    )
    return np.log(np.maximum(power, CONFIG.log_floor)).T


def check_close(log_mel: NDArray[np.float32], golden: NDArray[np.float64]) -> None:
    assert log_mel.shape == golden.shape
    near = golden > golden.max(axis=1, keepdims=True) - FAR_BELOW
    difference = np.abs(log_mel - golden)
    assert difference[near].max() <= TOLERANCE
    assert difference.max() <= TOLERANCE_FAR_BELOW


# --- Values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", signals())
def test_log_mel_equals_librosa(name: str) -> None:
    samples = signals()[name]
    log_mel = extractor().log_mel(torch.from_numpy(samples)).numpy()
    assert log_mel.dtype == np.float32
    check_close(log_mel, librosa_log_mel(samples))


def test_log_mel_equals_the_stored_values() -> None:
    """What the shipped weights were trained on, should librosa and torchaudio both change.

    Made by librosa 0.11: np.save(GOLDEN, librosa_log_mel(signals()["chirp in noise"])[::4])
    """
    log_mel = extractor().log_mel(torch.from_numpy(signals()["chirp in noise"]))
    check_close(log_mel[::4].numpy(), np.load(GOLDEN, allow_pickle=False))


def test_silence_is_the_floor() -> None:
    log_mel = extractor().log_mel(torch.zeros(1000))
    assert torch.equal(log_mel, torch.full_like(log_mel, math.log(CONFIG.log_floor)))


@pytest.mark.parametrize("shape", [(0,), (1, 100), ()])
def test_other_shapes_are_refused(shape: Sequence[int]) -> None:
    with pytest.raises(AudioError, match=r"need samples of shape \(S,\), S > 0, got"):
        extractor().extract(torch.zeros(shape))


def test_autocast_changes_nothing() -> None:
    plain = extractor().extract(noise(5000))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(extractor().extract(noise(5000)), plain)


def test_only_the_statistics_are_stored() -> None:
    assert set(extractor().state_dict()) == {"mean", "deviation"}


# --- Length ---------------------------------------------------------------------------------------


def check_frames(config: FeatureConfig, lengths: Sequence[int]) -> None:
    """Count by slicing: frames until every sample has been seen, and the extractor's own."""
    made = FeatureExtractor(config)
    for samples in lengths:
        starts = range(0, samples, config.hop_samples)
        seen = next(i for i, start in enumerate(starts) if start + config.n_fft >= samples)
        frames = num_frames(samples, config)
        assert frames == seen + 1, samples
        assert made.log_mel(torch.zeros(samples)).shape == (frames, config.mel_bands), samples


def test_num_frames_is_the_real_number() -> None:
    check_frames(CONFIG, [*range(1, 2001), *range(15995, 16006)])


def test_num_frames_is_the_real_number_of_other_frames() -> None:
    odd = FeatureConfig(n_fft=63, window_samples=50, hop_samples=17, mel_bands=4, max_hz=4000)
    check_frames(odd, range(1, 300))
    side_by_side = FeatureConfig(n_fft=64, window_samples=64, hop_samples=64, mel_bands=4)
    check_frames(side_by_side, range(1, 300))


# --- Batches --------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=5))
@settings(deadline=None, max_examples=20)
def test_batch_equals_single_bit_for_bit(lengths: list[int]) -> None:
    utterances = [noise(length, seed) for seed, length in enumerate(lengths)]
    batch = torch.full((len(lengths), max(lengths) + 7), math.nan)
    for row, samples in zip(batch, utterances, strict=True):
        row[: len(samples)] = samples
    log_mel, frames = extractor()(batch, torch.tensor(lengths))
    assert frames.dtype == torch.int64
    assert frames.tolist() == [num_frames(length, CONFIG) for length in lengths]
    assert log_mel.shape == (len(lengths), max(frames.tolist()), CONFIG.mel_bands)
    for row, count, samples in zip(log_mel, frames.tolist(), utterances, strict=True):
        assert torch.equal(row[:count], extractor().extract(samples))
        assert not row[count:].any()


def test_pad_features() -> None:
    padded, lengths = pad_features([torch.ones(1, 2), 2 * torch.ones(3, 2)])
    assert padded[:, :, 0].tolist() == [[1, 0, 0], [2, 2, 2]]
    assert lengths.tolist() == [1, 3]


# --- Normalisation, by pencil ---------------------------------------------------------------------


def pencil_extractor(**changes: int) -> FeatureExtractor:
    """An extractor whose "samples" are taken as log-mel frames of one band."""
    made = FeatureExtractor(FeatureConfig(mel_bands=1, **changes))
    made.log_mel = lambda samples: samples[:, None]  # type: ignore[method-assign]
    return made


def test_moving_mean_by_pencil() -> None:
    made = pencil_extractor(mean_window_frames=3, mean_prior_frames=1)
    made.mean.fill_(6.0)
    made.deviation.fill_(2.0)
    frames = torch.tensor([3.0, 0.0, 6.0, 3.0, 9.0])
    # Three seen at most; while fewer are, the training mean counts as one more:
    # (3 + 6) / 2, (3 + 0 + 6) / 3, (3 + 0 + 6) / 3, (0 + 6 + 3) / 3, (6 + 3 + 9) / 3
    means = torch.tensor([4.5, 3.0, 3.0, 3.0, 6.0])
    assert torch.equal(made.extract(frames)[:, 0], (frames - means) / 2)


@pytest.mark.parametrize("window", [1, 7, 24, 37, 64])  # 37 has no divisor to make blocks of
def test_moving_mean_is_that_of_its_definition(window: int) -> None:
    made = FeatureExtractor(FeatureConfig(mean_window_frames=window, mean_prior_frames=window // 2))
    made.mean.normal_()
    for frames in (1, window, window + 1, 150):
        log_mel = torch.randn(frames, CONFIG.mel_bands)
        for frame, found in enumerate(log_mel - made.normalise(log_mel)):
            seen = log_mel[max(0, frame + 1 - window) : frame + 1].double()
            prior = min(window - len(seen), window // 2)
            mean = (seen.sum(0) + prior * made.mean.double()) / (len(seen) + prior)
            torch.testing.assert_close(found.double(), mean, rtol=0, atol=2e-6)


def test_fit_by_pencil() -> None:
    made = pencil_extractor(mean_window_frames=2, mean_prior_frames=1)
    made.fit([torch.tensor([0.0, 2.0, 4.0]), torch.tensor([6.0])])
    assert made.mean.item() == 3.0  # 12 / 4
    # Moving means 1.5, 1, 3 and 4.5 leave -1.5, 1, 1 and 1.5, whose mean is 0.5 and whose squared
    # distances from it are 4, 1/4, 1/4 and 1.
    assert made.deviation.item() == pytest.approx(math.sqrt(5.5 / 4))


def test_fit_gives_a_band_that_never_changes_a_small_deviation() -> None:
    made = pencil_extractor()
    made.fit([torch.full((4,), 7.0)])
    assert made.mean.item() == 7.0
    assert made.deviation.item() == pytest.approx(1e-3)


def test_moving_mean_stays_exact_over_an_hour() -> None:
    window = 600
    frames = 360_000  # one hour at 10 ms
    log_mel = torch.linspace(-18, 3, frames)[:, None]
    made = pencil_extractor(mean_window_frames=window)
    last = made.normalise(log_mel)[-1]
    expected = log_mel[-1].double() - log_mel[-window:].double().mean()
    torch.testing.assert_close(last.double(), expected, rtol=0, atol=2e-6)


# --- Streaming ------------------------------------------------------------------------------------

# Frames are the same to the last bit but for two orders of addition: that of the mel bands, which
# a matrix product picks by its size, and that of the moving mean.
STREAM_TOLERANCE = 1e-5


def streamed(made: FeatureExtractor, samples: Tensor, blocks: Sequence[int]) -> Tensor:
    stream = FeatureStream(made)
    frames = [stream.push(block) for block in samples.split(list(blocks))]
    return torch.cat([*frames, stream.finish()])


@st.composite
def cuts(draw: st.DrawFn, longest: int) -> list[int]:
    """The sizes of blocks, some empty, that make up a signal."""
    samples = draw(st.integers(1, longest))
    places = sorted(draw(st.lists(st.integers(0, samples), max_size=8)))
    return [end - start for start, end in zip([0, *places], [*places, samples], strict=True)]


@given(cuts(9000))
@settings(deadline=None, max_examples=40)
def test_stream_equals_whole(blocks: list[int]) -> None:
    samples = noise(sum(blocks), 5)
    whole = extractor().extract(samples)
    pieces = streamed(extractor(), samples, blocks)
    torch.testing.assert_close(pieces, whole, rtol=0, atol=STREAM_TOLERANCE)


@given(cuts(3000))
@settings(deadline=None, max_examples=40)
def test_stream_equals_whole_when_the_mean_forgets(blocks: list[int]) -> None:
    small = FeatureConfig(n_fft=64, window_samples=64, hop_samples=16, mel_bands=4,
                          mean_window_frames=11, mean_prior_frames=5)  # fmt: skip
    made = FeatureExtractor(small)
    made.mean.fill_(-3.0)
    samples = noise(sum(blocks), 5)
    pieces = streamed(made, samples, blocks)
    torch.testing.assert_close(pieces, made.extract(samples), rtol=0, atol=STREAM_TOLERANCE)


def test_stream_gives_frames_as_soon_as_they_are_complete() -> None:
    stream = FeatureStream(extractor())
    assert len(stream.push(noise(CONFIG.n_fft - 1))) == 0
    assert len(stream.push(noise(1))) == 1
    assert len(stream.push(noise(CONFIG.hop_samples - 1))) == 0
    assert len(stream.push(noise(2 * CONFIG.hop_samples + 1))) == 3
    assert len(stream.finish()) == 0  # the last frame ended with the last sample


def test_stream_of_nothing_is_nothing() -> None:
    stream = FeatureStream(extractor())
    assert stream.push(torch.zeros(0)).shape == (0, CONFIG.mel_bands)
    assert stream.finish().shape == (0, CONFIG.mel_bands)


def test_stream_holds_little() -> None:
    stream = FeatureStream(extractor())
    for _ in range(20):
        stream.push(noise(16000))
    held = sum(value.numel() for value in vars(stream).values() if isinstance(value, Tensor))
    assert held <= CONFIG.n_fft + CONFIG.mean_window_frames * CONFIG.mel_bands


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_equals_cpu() -> None:
    samples = noise(16000)
    on_cpu = extractor().extract(samples)
    on_gpu = FeatureExtractor(CONFIG).to("cuda")
    on_gpu.load_state_dict(extractor().state_dict())
    torch.testing.assert_close(on_gpu.extract(samples.cuda()).cpu(), on_cpu, rtol=0, atol=1e-4)
    pieces = streamed(on_gpu, samples.cuda(), [1000, 15000]).cpu()
    torch.testing.assert_close(pieces, on_cpu, rtol=0, atol=1e-4)
