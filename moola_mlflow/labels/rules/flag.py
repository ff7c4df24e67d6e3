"""Selector: a fast move and a pause after it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moola_mlflow.labels.rules.parameters import choice, real, whole
from moola_mlflow.labels.rules.rule import Selector, Spans
from moola_mlflow.labels.rules.windows import RuleWindows, running_max


@dataclass(frozen=True)
class Flag(Selector):
    """A pole of ``pole`` bars that moves ``minimum`` units or more, then ``bars`` bars of pause: the flag.

    The total range of the flag is at most ``tight`` times the pole's move. With ``against``, the flag's last close
    must not lie beyond the pole's last close. Score: move / range, where a range below 0.3 units counts as 0.3. The
    span is the flag, or pole and flag (``with_pole``). Its direction is that of the pole.
    """

    pole: int = whole(3, 9)
    bars: int = whole(5, 16)
    minimum: float = real(2.0, 3.5)
    tight: float = real(0.5, 1.1)
    against: bool = choice(False, True)
    with_pole: bool = choice(False, True)

    def find(self, w: RuleWindows, salt: int) -> Spans:
        unit, last = w.unit(self.unit), self.positions(w, self.pole + self.bars) + self.pole - 1
        move = w.close[:, last] - w.close[:, last - self.pole]
        size = np.abs(move)
        height = (running_max(w.high, self.bars) + running_max(-w.low, self.bars))[:, last + 1]
        drift = (w.close[:, last + self.bars] - w.close[:, last]) * np.sign(move)
        allowed = (size >= self.minimum * unit) & (height <= self.tight * size)
        if self.against:
            allowed &= drift <= 0
        at, found = self.chosen(w, size / np.maximum(height, 0.3 * unit), allowed, salt)
        end = last[at] + self.bars
        start = last[at] + 1 - (self.pole if self.with_pole else 0)
        return Spans(found, start, end, np.sign(move[w.rows, at]))


SELECTOR = Flag
