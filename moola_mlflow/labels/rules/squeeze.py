"""Selector: the bars with the narrowest range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moola_mlflow.labels.rules.parameters import choice, whole
from moola_mlflow.labels.rules.rule import Selector, Spans
from moola_mlflow.labels.rules.windows import RuleWindows, running_max


@dataclass(frozen=True)
class Squeeze(Selector):
    """The ``bars`` bars with the smallest range, compared with the ``lead`` bars before them or with a random walk.

    Score: range before / range within (``relative``), or unit sqrt(n) / range within. A range below 0.2 units counts as
    0.2. Direction: from the close ``lead`` bars earlier to the close at the span's start.
    """

    bars: int = whole(8, 25)
    relative: bool = choice(False, True)
    pick: str = choice("best")

    def find(self, w: RuleWindows, salt: int) -> Spans:
        start, n, unit = self.positions(w, self.bars), self.bars, w.unit("range")
        within = (running_max(w.high, n) + running_max(-w.low, n))[:, start]
        before = (running_max(w.high, self.lead) + running_max(-w.low, self.lead))[:, start - self.lead]
        score = (before if self.relative else unit * n**0.5) / np.maximum(within, 0.2 * unit)
        at, found = self.chosen(w, score, np.ones(score.shape, bool), salt)
        first = start[at]
        direction = np.sign(w.close[w.rows, first] - w.close[w.rows, first - self.lead])
        return Spans(found, first, first + n - 1, direction)


SELECTOR = Squeeze
