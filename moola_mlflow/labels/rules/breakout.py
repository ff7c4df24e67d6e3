"""Selector: a close beyond the range of the bars before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moola_mlflow.labels.rules.parameters import choice, real, whole
from moola_mlflow.labels.rules.rule import Selector, Spans
from moola_mlflow.labels.rules.windows import RuleWindows, running_max, take


@dataclass(frozen=True)
class Breakout(Selector):
    """A close that lies ``minimum`` units or more beyond the highest or lowest of the ``bars`` bars before it.

    Score: its distance beyond them, in units. With ``narrow`` it is divided by sqrt(1 + range of those bars). Of the
    ``back`` bars before the close, the span begins at the one that lies farthest on the other side, the last of equals.
    It ends ``after`` bars after the close.
    """

    bars: int = whole(8, 30)
    source: str = choice("high_low", "close")
    narrow: bool = choice(False, True)
    minimum: float = real(0.1, 1.0)
    back: int = whole(4, 14)
    after: int = choice(0, 0, 1, 2)

    def find(self, w: RuleWindows, salt: int) -> Spans:
        end = np.arange(max(self.bars, self.lead, self.back), w.length - self.wait)
        high, low = w.ends(self.source)
        top, bottom = (
            running_max(high, self.bars)[:, end - self.bars],
            -running_max(-low, self.bars)[:, end - self.bars],
        )
        unit = w.unit(self.unit)
        above, below = (w.close[:, end] - top) / unit, (bottom - w.close[:, end]) / unit
        beyond = np.maximum(above, below)
        score = beyond / np.sqrt((top - bottom) / unit + 1) if self.narrow else beyond
        at, found = self.chosen(w, score, score >= self.minimum, salt)
        rises = above[w.rows, at] >= below[w.rows, at]
        before = end[at][:, None] - np.arange(
            1, self.back + 1
        )  # the latest first, because argmin takes the first of equals
        depth = np.where(rises[:, None], take(w.low, before), -take(w.high, before))
        start = before[w.rows, depth.argmin(axis=1)]
        return Spans(found, start, end[at] + self.after, np.where(rises, 1, -1))


SELECTOR = Breakout
