"""A second weak labeller, which shares only the question with the package's: what a finding must survive.

It reads closes alone. Its surges last 8 to 20 bars (the first one's 5 to 12), their strength is counted in mean
absolute close-to-close changes (median true ranges), and closes decide within 30 bars (highs and lows within 20).
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from benchmarks.science.ruled_labels import ruled_labels
from moola_mlflow.bars.reader import Bars
from moola_mlflow.labels.labelled_set import LabelledSet
from moola_mlflow.labels.surge_rule import CONSOLIDATION, NO_LABEL, NO_SURGE, RETRACEMENT, TOLERANCE

RULE = "surge-2"
SURGE_BARS = range(8, 21)
LEAD, WAIT = 15, 30
MIN_STRENGTH, MIN_EFFICIENCY = 2.0, 0.5


def apply_second_rule(ohlc: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the strongest surge of each window and what became of it, as ``labelrule.apply_rule`` does.

    Bars s..e of n = 8 to 20: |c_e - c_{s-1}| at least 2 sqrt(n) times the window's mean absolute close-to-close change,
    and at least half of the sum of those of s..e; of all that qualify the one with the most changes per sqrt(n), then
    the shortest, then the earliest. The first of the next 30 closes that gives back half of the move decides for a
    retracement, one that adds half to it for no label; neither is a consolidation.

    Shapes: float64 [N, T, 4] -> outcome, start, end int64 [N].
    """
    close = ohlc[:, :, 3]
    num, num_bars = close.shape
    change = np.abs(np.diff(close, axis=1, prepend=close[:, :1]))
    unit = change.sum(axis=1, keepdims=True) / (num_bars - 1)
    total = np.pad(np.cumsum(change, axis=1), ((0, 0), (1, 0)))
    starts = np.arange(LEAD, num_bars - WAIT - SURGE_BARS[0] + 1)
    strength = np.zeros((num, len(SURGE_BARS), len(starts)))
    for k, n in enumerate(SURGE_BARS):
        s = starts[: num_bars - WAIT - n + 1 - LEAD]
        net = np.abs(close[:, s + n - 1] - close[:, s - 1])
        least = np.maximum(MIN_STRENGTH * unit * np.sqrt(n), MIN_EFFICIENCY * (total[:, s + n] - total[:, s]))
        counts = (unit > 0) & (net >= (1 - TOLERANCE) * least)
        np.divide(net, unit * np.sqrt(n), out=strength[:, k, : len(s)], where=counts)
    flat = strength.reshape(num, -1)
    best = flat.max(axis=1, keepdims=True)
    k, s = np.unravel_index((flat >= (1 - TOLERANCE) * best).argmax(axis=1), strength.shape[1:])
    start, end = starts[s], starts[s] + SURGE_BARS[0] + k - 1
    return np.where(best[:, 0] > 0, _outcome(close, start, end), NO_SURGE), start, end


def _outcome(close: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    at = np.arange(len(close))
    move = close[at, end] - close[at, start - 1]
    after = sliding_window_view(close, WAIT, axis=1)[at, end + 1] - close[at, end][:, None]
    progress = after * np.sign(move)[:, None] / np.where(move == 0, 1.0, np.abs(move))[:, None]
    back, on = (_first(progress * side >= 0.5 - TOLERANCE) for side in (-1, 1))
    return np.where(np.minimum(back, on) == WAIT, CONSOLIDATION, np.where(back < on, RETRACEMENT, NO_LABEL))


def _first(touched: np.ndarray) -> np.ndarray:
    return np.where(touched.any(axis=1), touched.argmax(axis=1), WAIT)


def second_labels(bars: Bars, n: int, seed: int) -> LabelledSet:
    """Label n windows of some bars by the second rule, chosen as ``labels.weak_labels`` chooses its own."""
    return ruled_labels(bars, n, seed, RULE, apply_second_rule)
