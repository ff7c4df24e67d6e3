"""Selector: a fast moving average far from a slow one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moola_mlflow.labels.rules.parameters import choice, real, whole
from moola_mlflow.labels.rules.rule import Selector, Spans
from moola_mlflow.labels.rules.windows import RuleWindows, take


@dataclass(frozen=True)
class EmaGap(Selector):
    """The gap between exponential averages of ``fast`` and ``fast * ratio + 2`` bars is ``minimum`` units or more.

    The span ends where the gap is largest. It begins at the last of the ``back`` bars before with a gap of at most
    ``share`` of the largest.
    """

    fast: int = whole(2, 8)
    ratio: float = real(2.0, 5.0)
    minimum: float = real(0.4, 1.0)
    back: int = whole(8, 24)
    share: float = choice(0.0, 0.2, 0.4)
    pick: str = choice("best")

    def find(self, w: RuleWindows, salt: int) -> Spans:
        gap = w.average(self.fast) - w.average(int(self.fast * self.ratio) + 2)
        end = np.arange(self.lead + 5, w.length - self.wait)
        score = np.abs(gap[:, end]) / w.unit(self.unit)
        at, found = self.chosen(w, score, score >= self.minimum, salt)
        last = end[at]
        widest = gap[w.rows, last]
        before = np.maximum(last[:, None] - np.arange(1, self.back + 1), 0)  # the latest first
        small = take(gap, before) * np.sign(widest)[:, None] <= self.share * np.abs(widest)[:, None]
        reached = np.where(small.any(axis=1), small.argmax(axis=1), self.back - 1)
        return Spans(found, before[w.rows, reached], last, np.sign(widest))


SELECTOR = EmaGap
