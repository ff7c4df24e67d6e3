"""The events of a training: for displays, for tracking, and for a sweep that stops bad trials early."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moola_mlflow.training.nan_report import NumbersWrong


@dataclass(frozen=True)
class EpochEnded:
    """An epoch is trained and validated; ``metrics`` have the names under which they are tracked."""

    epoch: int
    epochs: int
    metrics: dict[str, float]
    improved: bool


@dataclass(frozen=True)
class StepEnded:
    """A step is done."""

    epoch: int
    step: int
    steps: int


@dataclass(frozen=True)
class WentBack:
    """A loss or gradient was not finite: training goes on from its last good epoch at a lower learning rate."""

    epoch: int
    """Epoch that is trained again."""
    lr_scale: float
    error: NumbersWrong


@dataclass(frozen=True)
class MemoryRanOut:
    """Memory ran out: batches are computed in smaller pieces from now on. The step stays the same."""

    micro_batch: int
    """Windows in a piece."""


TrainingEvent = EpochEnded | StepEnded | WentBack | MemoryRanOut
