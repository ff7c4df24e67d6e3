"""Selector: the largest displacement of price over a span. The strict family does not have it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moola_mlflow.labels.rules.parameters import EXCLUDED, choice, real, whole
from moola_mlflow.labels.rules.rule import Best, Selector, Spans
from moola_mlflow.labels.rules.windows import RuleWindows


@dataclass(frozen=True)
class Displacement(Selector):
    """The span of ``shortest`` to ``shortest + more`` bars with the largest |net| / n^``power``, in units.

    net is c_e - o_s (``open_close``), c_e - c_(s-1) (``close_close``), or the larger of h_e - l_s and h_s - l_e
    (``high_low``). Allowed: |net| >= ``efficiency`` times the sum of true ranges, or of absolute changes, of the span,
    and |net| >= ``minimum`` sqrt(n) units. The rule surge-1 searches in this way with the power 0.5, so powers near 0.5
    are left out.
    """

    shortest: int = whole(3, 12)
    more: int = whole(2, 12)
    source: str = choice("open_close", "close_close", "high_low")
    walked: str = choice("true_range", "change")
    power: float = real(0.0, 1.0, EXCLUDED)
    efficiency: float = real(0.0, 0.55)
    minimum: float = real(0.8, 2.0)

    def find(self, w: RuleWindows, salt: int) -> Spans:
        best, unit = Best(w.num), w.unit(self.unit)
        total = w.range_sum if self.walked == "true_range" else w.change_sum
        for n in range(self.shortest, self.shortest + self.more + 1):
            start = self.positions(w, n)
            net = self._net(w, start, start + n - 1)
            size = np.abs(net)
            allowed = (size >= self.efficiency * (total[:, start + n] - total[:, start])) & (
                size >= self.minimum * unit * n**0.5
            )
            score = size / unit / n**self.power * w.noise(salt, self.noise, len(start), n)
            score = np.where(allowed, score, -np.inf)
            at = score.argmax(axis=1)
            best.offer(score[w.rows, at], start[at], start[at] + n - 1, np.sign(net[w.rows, at]))
        return best.spans()

    def _net(self, w: RuleWindows, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        if self.source == "open_close":
            return w.close[:, end] - w.open[:, start]
        if self.source == "close_close":
            return w.close[:, end] - w.close[:, start - 1]
        up, down = w.high[:, end] - w.low[:, start], w.high[:, start] - w.low[:, end]
        return np.where(up > down, up, np.where(down > up, -down, 0.0))


SELECTOR = Displacement
