"""Selector: closes that move one way, with a few exceptions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moola_mlflow.labels.rules.parameters import choice, real, whole
from moola_mlflow.labels.rules.rule import Best, Selector, Spans
from moola_mlflow.labels.rules.windows import RuleWindows


@dataclass(frozen=True)
class BarRun(Selector):
    """A run of closes that rise (or fall), with at most ``against`` closes in the other direction between them.

    It has ``shortest`` to ``longest`` bars and gains ``minimum`` units or more. Score: the number of bars in its
    direction minus half the number against it, or gain / n^``power``.
    """

    against: int = whole(0, 3)
    score: str = choice("bars", "gain", "gain")
    power: float = choice(0.0, 0.25, 0.75)
    shortest: int = whole(3, 6)
    longest: int = whole(9, 25)
    minimum: float = real(1.0, 3.0)

    def find(self, w: RuleWindows, salt: int) -> Spans:
        # Rising runs in the first row. Falling runs in the second: they rise in mirrored prices.
        move = np.ascontiguousarray(np.stack([w.change.T, -w.change.T], axis=1))
        unit = w.unit(self.unit)[:, 0]
        noise = np.broadcast_to(w.noise(salt, self.noise, w.length), (w.num, w.length))
        best = Best(w.num)
        start, last, count, misses = (np.zeros((2, w.num), np.int64) for _ in range(4))
        gain = np.zeros((2, w.num))
        for t in range(self.lead, w.length - self.wait):
            good, bad = move[t] > 0, move[t] < 0
            new = good & (count == 0)
            start, gain, misses = np.where(new, t, start), np.where(new, 0.0, gain), np.where(new, 0, misses)
            count = count + good
            running = count > 0
            gain = gain + np.where(running, move[t], 0.0)
            last = np.where(good, t, last)
            misses = misses + (bad & running)
            bars = last - start + 1
            allowed = good & (bars >= self.shortest) & (bars <= self.longest) & (gain >= self.minimum * unit)
            score = np.where(allowed, self._score(gain / unit, bars, count, misses) * noise[:, t], -np.inf)
            for row, direction in enumerate((1, -1)):  # a close cannot rise and fall: a window offers one at most
                best.offer(score[row], start[row], t, direction)
            ended = misses > self.against
            count, misses = np.where(ended, 0, count), np.where(ended, 0, misses)
        return best.spans()

    def _score(self, gain: np.ndarray, bars: np.ndarray, count: np.ndarray, misses: np.ndarray) -> np.ndarray:
        if self.score == "bars":
            return count - 0.5 * misses
        return np.maximum(gain, 0) / np.maximum(bars, 1) ** self.power


SELECTOR = BarRun
