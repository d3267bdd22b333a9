"""The learning rate over a run, checked with a pencil, and what weight decay touches."""

from __future__ import annotations

import pytest
import torch

from speech.config import TrainConfig
from speech.optimiser import create_optimiser, learning_rate

# Peak 1, floor 0.2: 0.8 lies between them, half of it is 0.4.
SETTINGS = {"learning_rate": 1.0, "learning_rate_floor": 0.2, "warmup_steps": 4}


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [1.0, 0.8, 0.6, 0.4, 0.2]),
        ("cosine", [1.0, 0.6 + 0.4 * 0.5**0.5, 0.6, 0.6 - 0.4 * 0.5**0.5, 0.2]),
    ],
)
def test_decay_from_the_peak_to_the_floor(schedule: str, expected: list[float]) -> None:
    config = TrainConfig(schedule=schedule, **SETTINGS)
    rates = [learning_rate(config, 100, done) for done in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert rates == pytest.approx(expected)


def test_warm_up_rises_by_equal_steps_to_the_peak() -> None:
    config = TrainConfig(schedule="constant", **SETTINGS)
    rates = [learning_rate(config, step, 0.0) for step in range(6)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])


def test_warm_up_and_decay_multiply() -> None:
    config = TrainConfig(schedule="linear", **SETTINGS)
    assert learning_rate(config, 1, 0.5) == pytest.approx(0.5 * 0.6)


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert learning_rate(TrainConfig(learning_rate=0.5, warmup_steps=0), 0, 0.0) == 0.5


def test_a_floor_above_the_peak_does_not_raise_the_rate() -> None:
    config = TrainConfig(learning_rate=1e-6, learning_rate_floor=1e-5, warmup_steps=0)
    assert [learning_rate(config, 9, done) for done in (0.0, 0.5, 1.0)] == [1e-6] * 3


def test_biases_and_gains_do_not_decay() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    optimiser = create_optimiser(network, TrainConfig(weight_decay=0.3))
    decay = {
        id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]
    }
    assert {name: decay[id(p)] for name, p in network.named_parameters()} == {
        "0.weight": 0.3, "0.bias": 0.0, "1.weight": 0.0, "1.bias": 0.0,
    }  # fmt: skip
