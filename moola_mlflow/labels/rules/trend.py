"""Selector: the span whose closes lie best on a straight line."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moola_mlflow.labels.rules.parameters import choice, real, whole
from moola_mlflow.labels.rules.rule import Best, Selector, Spans
from moola_mlflow.labels.rules.windows import RuleWindows


@dataclass(frozen=True)
class Trend(Selector):
    """A line fitted to the closes by least squares, over ``shortest`` to ``shortest + more`` bars.

    slope b = Sxy / Sxx, R2 = b^2 Sxx / Syy. Allowed: R2 >= ``fit`` and |b| n >= ``minimum`` units. Score: |t| =
    sqrt(R2 (n - 2) / (1 - R2)), or R2 n^0.3.
    """

    shortest: int = whole(5, 14)
    more: int = whole(3, 14)
    step: int = choice(1, 2)
    minimum: float = real(1.5, 4.0)
    fit: float = real(0.3, 0.7)
    score: str = choice("t", "r2")

    def find(self, w: RuleWindows, salt: int) -> Spans:
        best, unit = Best(w.num), w.unit(self.unit)
        for n in range(self.shortest, self.shortest + self.more + 1, self.step):
            start = self.positions(w, n)
            sum_y, sum_yy, sum_ty = (
                total[:, start + n] - total[:, start] for total in (w.level_sum, w.square_sum, w.moment_sum)
            )
            centre, s_xx = start + (n - 1) / 2, n * (n * n - 1) / 12
            slope = (sum_ty - centre * sum_y) / s_xx
            s_yy = sum_yy - sum_y**2 / n
            explained = slope * slope * s_xx
            r2 = np.clip(np.divide(explained, s_yy, out=np.zeros_like(s_yy), where=s_yy > 0), 0, 0.999)
            score = np.sqrt(r2 / (1 - r2) * (n - 2)) if self.score == "t" else r2 * n**0.3
            allowed = (np.abs(slope) * n >= self.minimum * unit) & (r2 >= self.fit)
            score = np.where(allowed, score * w.noise(salt, self.noise, len(start), n), -np.inf)
            at = score.argmax(axis=1)
            best.offer(score[w.rows, at], start[at], start[at] + n - 1, np.sign(slope[w.rows, at]))
        return best.spans()


SELECTOR = Trend
