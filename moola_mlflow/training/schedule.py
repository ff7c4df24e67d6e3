"""The learning rate at each step, as a share of its peak."""

from __future__ import annotations

import math

from moola_mlflow.core import ScheduleConfig


def one_cycle_factor(step: int, total: int) -> float:
    """Return the share of the peak learning rate at a step: a cosine from 1/25 up to 1, then one down to 4e-6."""
    top = max(1, round(0.3 * total))
    if step < top:
        return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * step / top))
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - top) / max(1, total - 1 - top)))) + 4e-6


def lr_factor(step: int, total: int, warmup: int, final: float) -> float:
    """Return the share of the peak learning rate at a step: a linear warm-up, then a cosine down to ``final``."""
    if step < warmup:
        return (step + 1) / warmup
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def scheduled(config: ScheduleConfig, step: int, total: int, epoch: int) -> float:
    """Return the share of the peak learning rate at a step. A training has ``total`` steps, an epoch ``epoch``."""
    if config.shape == "one_cycle":
        return one_cycle_factor(step, total)
    return lr_factor(step, total, min(round(config.warmup_epochs * epoch), total // 2), config.final_fraction)
