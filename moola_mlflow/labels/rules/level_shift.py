"""Selector: the mean close jumps from one level to another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moola_mlflow.labels.rules.parameters import choice, real, whole
from moola_mlflow.labels.rules.rule import Selector, Spans
from moola_mlflow.labels.rules.windows import RuleWindows


@dataclass(frozen=True)
class LevelShift(Selector):
    """The mean of the next ``bars`` closes is ``minimum`` or more away from the mean of the last ``bars`` closes.

    The distance is in units or, with ``deviations``, in sqrt(var before + var after), at least 0.3 median ranges. The
    span has ``half`` bars on each side of the jump.
    """

    bars: int = whole(4, 16)
    half: int = whole(2, 7)
    deviations: bool = choice(False, True)
    minimum: float = real(1.0, 2.0)

    def find(self, w: RuleWindows, salt: int) -> Spans:
        k = self.bars
        t = np.arange(max(k, self.lead), w.length - max(k, self.wait) - 1)

        def means(total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return (total[:, t + 1] - total[:, t + 1 - k]) / k, (total[:, t + 1 + k] - total[:, t + 1]) / k

        before, after = means(w.level_sum)
        score = np.abs(after - before) / w.unit(self.unit)
        if self.deviations:
            square_before, square_after = means(w.square_sum)
            variance = square_before - before**2 + square_after - after**2
            score = np.abs(after - before) / np.sqrt(np.maximum(variance, (0.3 * w.unit("range")) ** 2))
        at, found = self.chosen(w, score, score >= self.minimum, salt)
        direction = np.sign((after - before)[w.rows, at])
        return Spans(found, t[at] - self.half + 1, t[at] + self.half, direction)


SELECTOR = LevelShift
