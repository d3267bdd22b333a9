"""Networks on audio in pieces: one direction exactly as the whole, two within bounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import SAMPLE_RATE, save_tiny_model

from speech.checkpoint import load_model
from speech.errors import ConfigError
from speech.network_stream import NetworkStream
from speech.transcribe import Recogniser

Samples = NDArray[np.float32]


def babble(samples: int) -> Samples:
    random = np.random.default_rng(samples)
    return np.asarray(0.1 * random.standard_normal(samples), np.float32)


def streamed(stream: NetworkStream, samples: Samples, chunk: int) -> NDArray[np.float32]:
    pieces = [samples[start : start + chunk] for start in range(0, len(samples), chunk)]
    return np.concatenate([*(stream.push(piece) for piece in pieces), stream.finish()])


@pytest.mark.parametrize("subsampling", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_one_direction_in_chunks_equals_the_whole(
    tmp_path: Path, subsampling: int, cell: str
) -> None:
    model = load_model(
        save_tiny_model(tmp_path, bidirectional=False, subsampling=subsampling, cell=cell)
    )
    recogniser = Recogniser(model, threads=1)
    for length, chunk in ((9000, 700), (9000, 5000), (8001, 80), (300, 100), (1, 1)):
        samples = babble(length)
        (whole,) = recogniser.log_probs([samples])
        found = streamed(NetworkStream(model), samples, chunk)
        np.testing.assert_allclose(found, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("lookahead", [1, 5, 40])
def test_a_lookahead_in_chunks_equals_the_whole(tmp_path: Path, lookahead: int) -> None:
    model = load_model(save_tiny_model(tmp_path, bidirectional=False, lookahead_frames=lookahead))
    weight = model.network.get_parameter("lookahead.weight")
    torch.nn.init.normal_(weight)
    for length, chunk in ((9000, 700), (9000, 9000), (300, 100)):
        (whole,) = Recogniser(model, threads=1).log_probs([babble(length)])
        found = streamed(NetworkStream(model), babble(length), chunk)
        np.testing.assert_allclose(found, whole, rtol=0, atol=1e-5)


def test_two_directions_that_see_everything_equal_the_whole(tmp_path: Path) -> None:
    model = load_model(save_tiny_model(tmp_path, bidirectional=True))
    samples = babble(9000)
    (whole,) = Recogniser(model, threads=1).log_probs([samples])
    found = streamed(NetworkStream(model, 0.2, 10.0), samples, 800)
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-5)


def test_two_directions_do_not_depend_on_the_pieces(tmp_path: Path) -> None:
    model = load_model(save_tiny_model(tmp_path, bidirectional=True))
    samples = babble(20_000)
    (whole,) = Recogniser(model, threads=1).log_probs([samples])
    one, other = (streamed(NetworkStream(model, 0.2, 0.4), samples, n) for n in (333, 20_000))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
    assert one.shape == whole.shape
    np.testing.assert_allclose(np.exp(one).sum(1), 1, atol=1e-4)
    assert 0 < np.abs(one - whole).max() < 1


def test_what_is_kept_does_not_grow(tmp_path: Path) -> None:
    model = load_model(save_tiny_model(tmp_path, bidirectional=True))
    stream = NetworkStream(model, 0.2, 0.4)
    for _ in range(20):
        stream.push(babble(SAMPLE_RATE))
        assert len(stream._waiting) <= stream.latency_frames
        assert len(stream._subsampling._frames) < 40


def test_feed_forward_layers_do_not_stream(tmp_path: Path) -> None:
    model = load_model(save_tiny_model(tmp_path, cell="feedforward", bidirectional=False))
    with pytest.raises(ConfigError, match="only recurrent networks stream"):
        NetworkStream(model)
