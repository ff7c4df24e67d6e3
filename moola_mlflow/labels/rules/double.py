"""Selector: two tops (or bottoms) at nearly the same height."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moola_mlflow.labels.rules.parameters import choice, real, whole
from moola_mlflow.labels.rules.rule import Best, Selector, Spans
from moola_mlflow.labels.rules.windows import RuleWindows, running_max


@dataclass(frozen=True)
class Double(Selector):
    """Two highs whose prices differ by at most ``near`` units, ``shortest`` to ``shortest + more`` bars apart.

    Each is the highest of the ``side`` bars before and after it, and no high between them is above both. Depth: the
    lower of the two minus the lowest low between them, ``minimum`` units or more. Score: depth / bars^``power``. The
    span runs from one top to the other. Its direction is up, as before the first top. Two bottoms are two tops
    in mirrored prices.
    """

    shortest: int = whole(5, 9)
    more: int = whole(6, 18)
    step: int = choice(2, 3)
    side: int = whole(2, 4)
    near: float = real(0.3, 1.2)
    minimum: float = real(1.2, 3.0)
    power: float = choice(0.0, 0.25)

    def find(self, w: RuleWindows, salt: int) -> Spans:
        best, unit = Best(w.num), w.unit(self.unit)
        tops, bottoms = _Tops(w.high, w.low, self.side), _Tops(-w.low, -w.high, self.side)
        for n in range(2, self.shortest + self.more + 1):
            tops.widen(n)
            bottoms.widen(n)
            if n < self.shortest or (n - self.shortest) % self.step:
                continue
            start = self.positions(w, n + 1)
            up, down = (one.depth(start[0], start[-1] + 1, n, self.near * unit) for one in (tops, bottoms))
            depth = np.maximum(up, down)
            allowed = (depth >= self.minimum * unit) & (up != down)
            score = np.where(allowed, depth * w.noise(salt, self.noise, len(start), n), -np.inf)
            at = score.argmax(axis=1)
            rises = up[w.rows, at] > down[w.rows, at]
            best.offer(score[w.rows, at] / n**self.power, start[at], start[at] + n, np.where(rises, 1, -1))
        return best.spans()


class _Tops:
    """Highs that are the highest of the bars around them, and the extremes between two bars. Shapes: [N, T]."""

    def __init__(self, high_NT: np.ndarray, low_NT: np.ndarray, side: int) -> None:
        self.high, self.low = high_NT, low_NT
        padded = np.pad(high_NT, ((0, 0), (side, side)), mode="edge")
        self.top = high_NT >= running_max(padded, 2 * side + 1)
        self.highest_between, self.lowest_between = high_NT[:, 1:], low_NT[:, 1:]

    def widen(self, n: int) -> None:
        """Let the extremes be those of the n - 1 bars after each bar. Call it for n = 2, 3 and so on."""
        if n > 2:
            self.highest_between = np.maximum(self.highest_between[:, :-1], self.high[:, n - 1 :])
            self.lowest_between = np.minimum(self.lowest_between[:, :-1], self.low[:, n - 1 :])

    def depth(self, lo: int, hi: int, n: int, near_N1: np.ndarray) -> np.ndarray:
        """Return the depth between two tops, n bars apart; -inf: none. The first is at ``lo`` to ``hi`` - 1.

        Shapes: [N, hi - lo].
        """
        first, second = self.high[:, lo:hi], self.high[:, lo + n : hi + n]
        there = self.top[:, lo:hi] & self.top[:, lo + n : hi + n]
        there &= np.abs(first - second) <= near_N1
        there &= self.highest_between[:, lo:hi] <= np.maximum(first, second)
        return np.where(there, np.minimum(first, second) - self.lowest_between[:, lo:hi], -np.inf)


SELECTOR = Double
