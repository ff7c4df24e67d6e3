"""Outcomes: what follows a span, in the span's direction.

Every outcome reads the ``wait`` bars after the span. A falling span is mirrored, so that it rises. g is the size of the
span: the range of its bars (``leg``) or |c_e - o_s| (``net``), at least one median range, or ``multiple`` median ranges
(``unit``). The reference is the span's highest high (``top``) or its last close (``close``). No fraction lies between
0.4 and 0.6.

Shape legend: N windows, W bars after the span.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from moola_mlflow.labels.rules.parameters import EXCLUDED, choice, real
from moola_mlflow.labels.rules.rule import Spans
from moola_mlflow.labels.rules.windows import RuleWindows, take

NEVER = 10_000


class After:
    """The bars after each span, mirrored if it falls. Shapes: high, low, close float64 [N, W]; there bool [N, W]."""

    def __init__(self, w: RuleWindows, spans: Spans, wait: int) -> None:
        self.w, self.spans, self.wait = w, spans, wait
        self.sign = np.where(spans.direction >= 0, 1.0, -1.0)
        index = spans.end[:, None] + np.arange(1, wait + 1)
        self.there = index < w.length
        index = np.minimum(index, w.length - 1)
        rises, sign = (self.sign > 0)[:, None], self.sign[:, None]
        high, low = take(w.high, index), take(w.low, index)
        self.high, self.low = np.where(rises, high, -low), np.where(rises, low, -high)
        self.close = sign * take(w.close, index)
        self.last_close = self.sign * w.close[w.rows, spans.end]
        bar = np.arange(w.length)
        within = (bar >= spans.start[:, None]) & (bar <= spans.end[:, None])
        top, bottom = np.where(within, w.high, -np.inf).max(axis=1), np.where(within, w.low, np.inf).min(axis=1)
        self.top = np.where(self.sign > 0, top, -bottom)
        self.leg = top - bottom

    def size(self, kind: str, multiple: float) -> np.ndarray:
        """Return the size g that fractions refer to. Shapes: [N]."""
        w, unit = self.w, self.w.unit("range")[:, 0]
        if kind == "unit":
            return multiple * unit
        net = np.abs(w.close[w.rows, self.spans.end] - w.open[w.rows, self.spans.start])
        return np.maximum(self.leg if kind == "leg" else net, unit)

    def reference(self, kind: str) -> np.ndarray:
        """Return the price that moves are counted from. Shapes: [N]."""
        return self.top if kind == "top" else self.last_close

    def highest(self) -> np.ndarray:
        return np.where(self.there, self.high, -np.inf).max(axis=1)

    def lowest(self) -> np.ndarray:
        return np.where(self.there, self.low, np.inf).min(axis=1)

    def final_close(self) -> np.ndarray:
        return self.close[self.w.rows, self.there.sum(axis=1) - 1]


@dataclass(frozen=True)
class Sized:
    """Base of outcomes: the bars that they read, and the size that fractions refer to."""

    wait: int
    size: str = choice("leg", "leg", "net", "unit")
    multiple: float = real(2.0, 5.0)
    reference: str = choice("top", "close")

    classes: ClassVar[tuple[str, ...]]

    def apply(self, w: RuleWindows, spans: Spans) -> np.ndarray:
        """Return the class of each window's span. Shapes: int64 [N]."""
        after = After(w, spans, self.wait)
        return self.decide(after, after.size(self.size, self.multiple)).astype(np.int64)

    def decide(self, after: After, g: np.ndarray) -> np.ndarray:
        """Return the class of each span, from the bars after it and its size. Shapes: [N]."""
        raise NotImplementedError


@dataclass(frozen=True)
class FirstTouch(Sized):
    """Which is touched first: reference - ``back`` g, or reference + ``on`` g. In one bar, back counts as first."""

    source: str = choice("high_low", "close")
    back: float = real(0.25, 1.1, EXCLUDED)
    on: float = real(0.2, 1.1, EXCLUDED)
    classes: ClassVar[tuple[str, ...]] = ("neither", "back", "on")

    def decide(self, after: After, g: np.ndarray) -> np.ndarray:
        low, high = (after.low, after.high) if self.source == "high_low" else (after.close, after.close)
        reference = after.reference(self.reference)
        back = _first(after.there & (low <= (reference - self.back * g)[:, None]))
        on = _first(after.there & (high >= (reference + self.on * g)[:, None]))
        return np.where(np.minimum(back, on) == NEVER, 0, np.where(back <= on, 1, 2))


@dataclass(frozen=True)
class NetMove(Sized):
    """The sign of the net move over the wait. It is flat within ``band`` median ranges."""

    band: float = real(0.5, 2.0)
    classes: ClassVar[tuple[str, ...]] = ("flat", "back", "on")

    def decide(self, after: After, g: np.ndarray) -> np.ndarray:
        move = (after.final_close() - after.last_close) / after.w.unit("range")[:, 0]
        return np.where(move < -self.band, 1, np.where(move > self.band, 2, 0))


@dataclass(frozen=True)
class Volatility(Sized):
    """Whether the mean true range after the span is more than ``ratio`` times that within it."""

    ratio: float = real(0.5, 1.1)
    classes: ClassVar[tuple[str, ...]] = ("calm", "busy")

    def decide(self, after: After, g: np.ndarray) -> np.ndarray:
        w, start, end = after.w, after.spans.start, after.spans.end
        last = np.minimum(end + self.wait, w.length - 1)
        total = w.range_sum
        following = (total[w.rows, last + 1] - total[w.rows, end + 1]) / (last - end)
        within = (total[w.rows, end + 1] - total[w.rows, start]) / (end - start + 1)
        return following > self.ratio * within


@dataclass(frozen=True)
class RangeAfter(Sized):
    """Whether the range of the bars after the span is more than ``fraction`` of its size."""

    fraction: float = real(0.3, 1.5, EXCLUDED)
    classes: ClassVar[tuple[str, ...]] = ("narrow", "wide")

    def decide(self, after: After, g: np.ndarray) -> np.ndarray:
        return after.highest() - after.lowest() > self.fraction * g


@dataclass(frozen=True)
class AdverseExcursion(Sized):
    """Whether price comes back by more than ``fraction`` of the span's size."""

    fraction: float = real(0.3, 1.5, EXCLUDED)
    classes: ClassVar[tuple[str, ...]] = ("holds", "gives_back")

    def decide(self, after: After, g: np.ndarray) -> np.ndarray:
        return after.reference(self.reference) - after.lowest() > self.fraction * g


@dataclass(frozen=True)
class MeanClose(Sized):
    """Where the mean close lies: more than ``fraction`` of the size back, ``fraction * lean`` of it on, or between."""

    fraction: float = real(0.3, 1.5, EXCLUDED)
    lean: float = real(0.5, 1.5)
    classes: ClassVar[tuple[str, ...]] = ("between", "back", "on")

    def decide(self, after: After, g: np.ndarray) -> np.ndarray:
        # The reference is subtracted from each bar: a sum of prices would lose digits.
        move = np.where(after.there, after.close - after.reference(self.reference)[:, None], 0.0).sum(axis=1)
        share = move / after.there.sum(axis=1) / g
        return np.where(share < -self.fraction, 1, np.where(share > self.fraction * self.lean, 2, 0))


@dataclass(frozen=True)
class FavourableAdverse(Sized):
    """Which excursion exceeds ``ratio`` times the other by more than a fifth of the size, or neither."""

    ratio: float = real(1.0, 2.0)
    classes: ClassVar[tuple[str, ...]] = ("neither", "back", "on")

    def decide(self, after: After, g: np.ndarray) -> np.ndarray:
        reference = after.reference(self.reference)
        adverse, favourable = np.maximum(reference - after.lowest(), 0), np.maximum(after.highest() - reference, 0)
        back = adverse > self.ratio * favourable + 0.2 * g
        return np.where(back, 1, np.where(favourable > self.ratio * adverse + 0.2 * g, 2, 0))


def _first(touched: np.ndarray) -> np.ndarray:
    """Return the position of the first true value of each row, or NEVER."""
    return np.where(touched.any(axis=1), touched.argmax(axis=1), NEVER)


OUTCOMES: dict[str, type[Sized]] = {
    "touch": FirstTouch,
    "net": NetMove,
    "volatility": Volatility,
    "range": RangeAfter,
    "adverse": AdverseExcursion,
    "mean": MeanClose,
    "excursions": FavourableAdverse,
}
"""Outcomes by name."""
