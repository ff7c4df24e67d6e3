"""Learning rate by step, as a share of its peak."""

from __future__ import annotations

import math

from moola_mlflow.core import ScheduleConfig


def one_cycle_factor(step: int, total: int) -> float:
    """Return the share of the peak learning rate at a step: by cosines from 1/25 up to 1, then down to nearly 0."""
    top = max(1, round(0.3 * total))
    if step < top:
        return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * step / top))
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - top) / max(1, total - 1 - top)))) + 4e-6


def lr_factor(step: int, total: int, warmup: int, final: float) -> float:
    """Return the share of the peak learning rate at a step: linear warm-up, then cosine to ``final``."""
    if step < warmup:
        return (step + 1) / warmup
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def scheduled(config: ScheduleConfig, step: int, total: int, epoch: int) -> float:
    """Return the share of the peak learning rate at a step of ``total`` ones, ``epoch`` of them a pass."""
    if config.shape == "one_cycle":
        return one_cycle_factor(step, total)
    return lr_factor(step, total, min(round(config.warmup_epochs * epoch), total // 2), config.final_fraction)
