"""What a training tells whoever listens: displays, tracking, a sweep that prunes."""

from __future__ import annotations

from dataclasses import dataclass

from moola_mlflow.training.nan_report import NumbersWrong


@dataclass(frozen=True)
class EpochEnded:
    """What subscribers hear after each epoch; ``metrics`` are named as they are tracked."""

    epoch: int
    epochs: int
    metrics: dict[str, float]
    improved: bool


@dataclass(frozen=True)
class StepEnded:
    """What a progress display hears after each step."""

    epoch: int
    step: int
    steps: int


@dataclass(frozen=True)
class WentBack:
    """Training met numbers that are none, and goes on from its last good epoch at a lower rate."""

    epoch: int
    """The epoch that is trained again."""
    lr_scale: float
    error: NumbersWrong


@dataclass(frozen=True)
class MemoryRanOut:
    """Batches are computed in smaller pieces from now on; the step stays the same."""

    micro_batch: int


TrainingEvent = EpochEnded | StepEnded | WentBack | MemoryRanOut
