"""Selector: a move and one back, around a turning point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moola_mlflow.labels.rules.parameters import real, whole
from moola_mlflow.labels.rules.rule import Selector, Spans
from moola_mlflow.labels.rules.windows import RuleWindows


@dataclass(frozen=True)
class Vee(Selector):
    """Closes move one way over ``into`` bars and the other way over ``out`` bars, each ``minimum`` units or more.

    Score: the smaller of the two moves. The span runs from ``before`` bars before the turn to ``after`` bars after it.
    Its direction is that of the first move.
    """

    into: int = whole(4, 14)
    out: int = whole(4, 14)
    minimum: float = real(1.2, 2.5)
    before: int = whole(1, 8)
    after: int = whole(0, 5)

    def find(self, w: RuleWindows, salt: int) -> Spans:
        t = np.arange(max(self.into, self.lead), w.length - max(self.out, self.wait))
        first = w.close[:, t] - w.close[:, t - self.into]
        second = w.close[:, t + self.out] - w.close[:, t]
        score = np.minimum(np.abs(first), np.abs(second)) / w.unit(self.unit)
        at, found = self.chosen(w, score, (first * second < 0) & (score >= self.minimum), salt)
        return Spans(found, t[at] - self.before, t[at] + self.after, np.sign(first[w.rows, at]))


SELECTOR = Vee
