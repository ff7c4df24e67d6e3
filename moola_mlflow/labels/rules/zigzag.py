"""Selector: a leg of the zigzag, from one swing to the next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moola_mlflow.labels.rules.parameters import choice, real, whole
from moola_mlflow.labels.rules.rule import Best, Selector, Spans
from moola_mlflow.labels.rules.windows import RuleWindows


@dataclass(frozen=True)
class Zigzag(Selector):
    """A leg ends where price turns back by ``threshold`` units. The window's last leg ends at its extreme so far.

    Legs of ``shortest`` to ``longest`` bars and of ``minimum * threshold`` units or more are candidates. The score
    chooses one: size |v_e - v_s| (largest), size / n (fastest), n (longest), size / n^0.25 (middle), the first or the
    last. With ``skip`` 1 the span begins one bar after the swing that starts the leg.
    """

    source: str = choice("high_low", "close")
    threshold: float = real(1.5, 5.0)
    leg: str = choice("largest", "largest", "fastest", "longest", "middle", "first", "last")
    shortest: int = whole(3, 6)
    longest: int = whole(10, 35)
    minimum: float = real(1.0, 1.8)
    skip: int = choice(0, 1, 1)

    def find(self, w: RuleWindows, salt: int) -> Spans:
        # The loop is over bars, so the prices of one bar in all windows must be contiguous.
        high, low = (np.ascontiguousarray(x.T) for x in w.ends(self.source))
        turn = self.threshold * w.unit(self.unit)[:, 0]
        noise = np.broadcast_to(w.noise(salt, self.noise, w.length), (w.num, w.length))
        best, zero = Best(w.num), np.zeros(w.num, np.int64)
        way, pivot, pivot_value = zero, zero, w.close[:, 0]
        top, top_at, bottom, bottom_at = high[0], zero, low[0], zero

        def close_leg(ends: np.ndarray, t: int) -> None:
            end, value = np.where(way > 0, top_at, bottom_at), np.where(way > 0, top, bottom)
            bars, size = end - pivot + 1, np.abs(value - pivot_value)
            allowed = ends & (bars >= self.shortest) & (bars <= self.longest) & (pivot >= self.lead)
            allowed &= (end <= w.length - 1 - self.wait) & (size >= self.minimum * turn)
            score = np.where(allowed, self._score(size, bars, end) * noise[:, t], -np.inf)
            best.offer(score, np.minimum(pivot + self.skip, end - 1), end, way)

        for t in range(1, w.length):
            high_N, low_N = high[t], low[t]
            rises, falls = high_N > top, low_N < bottom
            top, top_at = np.where(rises, high_N, top), np.where(rises, t, top_at)
            bottom, bottom_at = np.where(falls, low_N, bottom), np.where(falls, t, bottom_at)
            down = (way >= 0) & (top - low_N >= turn) & (top_at < t)
            up = (way <= 0) & (high_N - bottom >= turn) & (bottom_at < t)
            if not (down | up).any():
                continue
            down, up = down & ~up, up & ~down  # before the first leg one bar may do both: it then starts no leg
            close_leg((down | up) & (way != 0), t)
            pivot = np.where(down, top_at, np.where(up, bottom_at, pivot))
            pivot_value = np.where(down, top, np.where(up, bottom, pivot_value))
            way = np.where(down, -1, np.where(up, 1, way))
            bottom, bottom_at = np.where(down, low_N, bottom), np.where(down, t, bottom_at)
            top, top_at = np.where(up, high_N, top), np.where(up, t, top_at)
        close_leg(way != 0, 0)
        return best.spans()

    def _score(self, size: np.ndarray, bars: np.ndarray, end: np.ndarray) -> np.ndarray:
        bars = np.maximum(bars - 1, 1)
        scores = {
            "largest": size,
            "fastest": size / bars,
            "longest": bars.astype(np.float64),
            "middle": size / bars**0.25,
            "first": 1.0 - 1e-6 * end,
            "last": 1.0 + 1e-6 * end,
        }
        return scores[self.leg]


SELECTOR = Zigzag
