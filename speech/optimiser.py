"""What moves the weights: AdamW, and its learning rate over the run."""

from __future__ import annotations

import math

import torch
from torch import nn

from speech.config import LoopConfig

_BETAS = (0.9, 0.98)  # of the moments' moving averages, as Vaswani et al., 2017, section 5.3


def create_optimiser(network: nn.Module, config: LoopConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter, 2019); no decay on biases and normalisation gains."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=_BETAS, fused=True)


def learning_rate(config: LoopConfig, step: int, done: float) -> float:
    """Return the rate of step `step` (from 0) with a share `done` in [0, 1] of the run behind it.

    Linear warm-up multiplied with the configured decay from the peak to the floor.
    """
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    shape = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    floor = min(config.learning_rate_floor, config.learning_rate)
    return warmup * (floor + (config.learning_rate - floor) * shape[config.schedule])
