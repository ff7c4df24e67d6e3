"""Selector: one bar that moves far more than usual."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moola_mlflow.labels.rules.parameters import choice, real, whole
from moola_mlflow.labels.rules.rule import Selector, Spans
from moola_mlflow.labels.rules.windows import RuleWindows


@dataclass(frozen=True)
class Spike(Selector):
    """A bar whose body, true range or absolute change is ``minimum`` times the usual range, or more.

    The usual range is the mean true range of the ``usual`` bars before it, or the window's median range. The span runs
    from ``before`` bars before the bar to ``after`` bars after it. If both are 0, it ends two bars after it.
    """

    quantity: str = choice("body", "true_range", "change")
    usual: int = whole(8, 24)
    local: bool = choice(False, True)
    minimum: float = real(1.3, 2.2)
    before: int = whole(0, 4)
    after: int = whole(0, 5)

    def find(self, w: RuleWindows, salt: int) -> Spans:
        t = np.arange(self.lead, w.length - self.wait)
        moved = {"body": np.abs(w.close - w.open), "true_range": w.true_range, "change": np.abs(w.change)}
        size = moved[self.quantity][:, t]
        m = np.minimum(t, self.usual)
        usual = (w.range_sum[:, t] - w.range_sum[:, t - m]) / m
        if not self.local:
            usual = np.broadcast_to(w.unit("range"), size.shape)
        score = np.divide(size, usual, out=np.zeros_like(size), where=usual > 0)
        at, found = self.chosen(w, score, score >= self.minimum, salt)
        middle = t[at]
        after = self.after or (0 if self.before else 2)
        return Spans(found, middle - self.before, middle + after, np.sign(w.change[w.rows, middle]))


SELECTOR = Spike
