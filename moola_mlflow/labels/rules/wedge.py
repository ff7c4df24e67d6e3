"""Selector: bars whose highs and lows run towards each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moola_mlflow.labels.rules.parameters import choice, real, whole
from moola_mlflow.labels.rules.rule import Best, Selector, Spans
from moola_mlflow.labels.rules.windows import RuleWindows


@dataclass(frozen=True)
class Wedge(Selector):
    """One line fitted to the highs and one to the lows, over ``shortest`` to ``shortest + more`` bars, that converge.

    Width: high line - low line. Allowed: width at the first bar >= ``minimum`` units, and width at the last bar <=
    ``narrow`` times that. Score: the width that is lost / sqrt(variance of the highs and of the lows around their lines
    + (0.2 units)^2). Direction: the sign of the sum of both slopes. If the slopes cancel, there is no span.
    """

    shortest: int = whole(8, 14)
    more: int = whole(4, 16)
    step: int = choice(2, 3)
    minimum: float = real(1.0, 2.5)
    narrow: float = real(0.4, 0.85)

    def find(self, w: RuleWindows, salt: int) -> Spans:
        best, unit = Best(w.num), w.unit(self.unit)
        highs, lows = _Line(w.high - w.close[:, :1]), _Line(w.low - w.close[:, :1])
        for n in range(self.shortest, self.shortest + self.more + 1, self.step):
            start = self.positions(w, n)
            (high, high_slope, high_rest), (low, low_slope, low_rest) = (one.fit(start, n) for one in (highs, lows))
            lost = (low_slope - high_slope) * (n - 1)
            first = (high - low) + lost / 2
            allowed = (first >= self.minimum * unit) & (lost >= (1 - self.narrow) * first)
            score = lost / np.sqrt(high_rest + low_rest + (0.2 * unit) ** 2)
            score = np.where(allowed, score * w.noise(salt, self.noise, len(start), n), -np.inf)
            at = score.argmax(axis=1)
            direction = np.sign((high_slope + low_slope)[w.rows, at])
            best.offer(score[w.rows, at], start[at], start[at] + n - 1, direction)
        return best.spans()


class _Line:
    """Least squares over any bars of each window, from sums that are made once. Shapes: [N, T]."""

    def __init__(self, y_NT: np.ndarray) -> None:
        terms = (y_NT, y_NT * np.arange(y_NT.shape[1]), y_NT * y_NT)
        self.sums = [np.pad(np.cumsum(one, axis=1), ((0, 0), (1, 0))) for one in terms]

    def fit(self, start_P: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the mean of n bars, their slope, and their variance around the line. Shapes: [N, P] each."""
        sum_y, sum_ty, sum_yy = (total[:, start_P + n] - total[:, start_P] for total in self.sums)
        s_xx = n * (n * n - 1) / 12
        slope = (sum_ty - (start_P + (n - 1) / 2) * sum_y) / s_xx
        rest = (sum_yy - sum_y**2 / n - slope * slope * s_xx) / n
        return sum_y / n, slope, np.maximum(rest, 0)


SELECTOR = Wedge
