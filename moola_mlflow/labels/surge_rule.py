"""The rule behind weak labels: the strongest surge of a window, and what happens first after it."""

from __future__ import annotations

import numpy as np

RULE = "surge-1"
CLASSES = ("consolidation", "retracement")
CONSOLIDATION, RETRACEMENT, NO_LABEL, NO_SURGE = 0, 1, 2, 3

SURGE_BARS = range(5, 13)
LEAD, WAIT = 20, 20  # bars that a window has before the surge and after it
MIN_STRENGTH, MIN_EFFICIENCY = 1.8, 0.35
# Prices lie on ticks, so ties are common. "At least" and "touches" allow this relative error, at every price scale.
TOLERANCE = 1e-6
SHORTEST = LEAD + max(SURGE_BARS) + WAIT


def apply_rule(ohlc: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the outcome of each window's strongest surge, and where the surge starts and ends.

    An outcome is a position in CLASSES, NO_LABEL if price went on half a surge before it came back half, or NO_SURGE.
    Without a surge, start and end mean nothing.

    Shapes: float64 [N, T, 4] -> outcome, start and end int64 [N], both ends inclusive.
    Source: docs/reference/labels.md.
    """
    start, length = strongest_surge(ohlc)
    end = start + length - 1
    at = np.arange(len(ohlc))
    net = ohlc[at, end, 3] - ohlc[at, start, 0]
    # A falling surge is a rising one in mirrored prices: minus the price, highs and lows swapped.
    rises = (net > 0)[:, None]
    high = np.where(rises, ohlc[:, :, 1], -ohlc[:, :, 2])
    low = np.where(rises, ohlc[:, :, 2], -ohlc[:, :, 1])

    leg = start[:, None] + np.minimum(np.arange(max(SURGE_BARS)), length[:, None] - 1)
    top = high[at[:, None], leg].max(axis=1, keepdims=True)
    size = top - low[at[:, None], leg].min(axis=1, keepdims=True)
    after = end[:, None] + np.arange(1, WAIT + 1)
    back = _first(low[at[:, None], after] <= top - (0.5 - TOLERANCE) * size)
    on = _first(high[at[:, None], after] >= top + (0.5 - TOLERANCE) * size)
    outcome = np.where(np.minimum(back, on) == WAIT, CONSOLIDATION, np.where(back <= on, RETRACEMENT, NO_LABEL))
    return np.where(length > 0, outcome, NO_SURGE), start, end


def strongest_surge(
    ohlc: np.ndarray, min_strength: float = MIN_STRENGTH, min_efficiency: float = MIN_EFFICIENCY
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first bar of each window's strongest surge, and its number of bars: 0 if there is none.

    Of equally strong ones the shortest counts, then the earliest.

    Shapes: float64 [N, T, 4], T at least SHORTEST -> int64 [N], int64 [N].
    """
    o, high, low, c = np.moveaxis(ohlc, 2, 0)
    previous = np.concatenate([o[:, :1], c[:, :-1]], axis=1)
    true_range = np.maximum(high, previous) - np.minimum(low, previous)
    true_range[:, 0] = high[:, 0] - low[:, 0]
    median = np.median(true_range, axis=1)[:, None]
    total = np.pad(np.cumsum(true_range, axis=1), ((0, 0), (1, 0)))

    num, num_bars = o.shape
    starts = np.arange(LEAD, num_bars - WAIT - SURGE_BARS[0] + 1)
    strength = np.zeros((num, len(SURGE_BARS), len(starts)))
    for k, n in enumerate(SURGE_BARS):
        s = starts[: num_bars - WAIT - n + 1 - LEAD]
        net = np.abs(c[:, s + n - 1] - o[:, s])
        unit = median * np.sqrt(n)
        within = total[:, s + n] - total[:, s]
        counts = (median > 0) & (net >= (1 - TOLERANCE) * np.maximum(min_strength * unit, min_efficiency * within))
        np.divide(net, unit, out=strength[:, k, : len(s)], where=counts)
    flat = strength.reshape(num, -1)
    best = flat.max(axis=1, keepdims=True)
    n, s = np.unravel_index((flat >= (1 - TOLERANCE) * best).argmax(axis=1), strength.shape[1:])
    return starts[s], np.where(best[:, 0] > 0, SURGE_BARS[0] + n, 0)


def _first(touched: np.ndarray) -> np.ndarray:
    """Return the position of the first true value of each row, or WAIT."""
    return np.where(touched.any(axis=1), touched.argmax(axis=1), WAIT)
