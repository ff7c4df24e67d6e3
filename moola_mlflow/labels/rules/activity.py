"""Selector: bars that move more than the bars before them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moola_mlflow.labels.rules.parameters import choice, real, whole
from moola_mlflow.labels.rules.rule import Selector, Spans
from moola_mlflow.labels.rules.windows import RuleWindows


@dataclass(frozen=True)
class Activity(Selector):
    """A span of ``bars`` bars that move ``minimum`` times as much as usual, or more.

    A bar's move is its true range or its absolute change. The usual move is the mean over the ``before`` bars before
    the span (at most ``lead``), or over the whole window.
    """

    bars: int = whole(3, 16)
    quantity: str = choice("true_range", "change")
    before: int = whole(8, 24)
    against: str = choice("before", "window")
    minimum: float = real(1.1, 1.6)

    def find(self, w: RuleWindows, salt: int) -> Spans:
        total = w.range_sum if self.quantity == "true_range" else w.change_sum
        start, n = self.positions(w, self.bars), self.bars
        within = total[:, start + n] - total[:, start]
        m = min(self.before, self.lead)
        usual = (total[:, start] - total[:, start - m]) / m * n
        if self.against == "window":
            usual = np.broadcast_to(total[:, -1:] / w.length * n, within.shape)
        ratio = np.divide(within, usual, out=np.zeros_like(within), where=usual > 0)
        at, found = self.chosen(w, ratio, ratio >= self.minimum, salt)
        first, last = start[at], start[at] + n - 1
        return Spans(found, first, last, np.sign(w.close[w.rows, last] - w.open[w.rows, first]))


SELECTOR = Activity
