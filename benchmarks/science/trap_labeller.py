"""A fourth weak labeller, written when the rules and the preset were fixed: it labels failed breakouts (traps).

A bar rises beyond the highest high of the 20 bars before it by 0.1 units or more, and the bar before did not (mirrored
for falls). A unit is the median range of the window's bars. The breakout has failed at the first close, 2 to 8 bars
later, that lies 0.5 units or more below the level that was broken. The span goes from the bar that broke out to this
close; it lies 25 bars or more after the window's start and 20 or more before its end. Size: the span's extreme minus
the close. The trap of the largest size / bars^0.3 x exp(0.15 N) is chosen.

The class: what is first within 20 bars. Price goes on by 0.7 exp(0.1 N) sizes (retracement), or trades beyond the
span's extreme again (no label), or neither (consolidation). One class in twenty is wrong, and both pointers are off by
up to two bars.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from benchmarks.science.fuzzy_labeller import OFF, OFF_SHARES
from benchmarks.science.ruled_labels import ruled_labels
from moola_mlflow.bars import Bars
from moola_mlflow.labels.labelled_set import LabelledSet
from moola_mlflow.labels.surge_rule import CLASSES, CONSOLIDATION, NO_LABEL, NO_SURGE, RETRACEMENT

RULE = "trap-1"
BACK, LEAD, WAIT, BARS = 20, 25, 20, range(2, 9)
BEYOND, INSIDE, ON = 0.1, 0.5, 0.7


def apply_trap_rule(ohlc: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return outcome, start and end. Shapes: float64 [N, T, 4] -> int64 [N] each."""
    num, length = ohlc.shape[:2]
    rows, best = np.arange(num), np.full(num, -np.inf)
    start, end, way = (np.zeros(num, np.int64) for _ in range(3))
    for direction in (1, -1):
        high, low, close = upright(ohlc, np.full(num, direction))
        unit = np.median(high - low, axis=1, keepdims=True)
        level = np.full(high.shape, np.inf)
        level[:, BACK:] = sliding_window_view(high, BACK, axis=1).max(axis=2)[:, :-1]
        beyond = high > level + BEYOND * unit
        fresh = beyond & ~np.pad(beyond, ((0, 0), (1, 0)))[:, :-1]
        failed = np.zeros(fresh.shape, bool)
        top = np.maximum(high, np.pad(high, ((0, 0), (0, 1)), mode="edge")[:, 1:])
        for n in BARS:
            top[:, : length - n] = np.maximum(top[:, : length - n], high[:, n:])
            inside = np.zeros(fresh.shape, bool)
            inside[:, : length - n] = close[:, n:] < (level - INSIDE * unit)[:, : length - n]
            allowed = fresh & inside & ~failed
            failed |= fresh & inside
            allowed[:, :LEAD], allowed[:, length - WAIT - n :] = False, False
            score = np.full(fresh.shape, -np.inf)
            score[:, : length - n] = (top[:, : length - n] - close[:, n:]) / np.where(unit > 0, unit, np.inf)
            noise = np.exp(0.15 * rng.standard_normal(score.shape))
            score = np.where(allowed, score * noise / (n + 1) ** 0.3, -np.inf)
            at = score.argmax(axis=1)
            better = score[rows, at] > best
            best = np.where(better, score[rows, at], best)
            start, end = np.where(better, at, start), np.where(better, at + n, end)
            way = np.where(better, direction, way)
    outcome = _outcome(ohlc, start, end, way, rng)
    wrong = (rng.random(num) < 0.05) & (outcome < len(CLASSES))
    outcome = np.where(wrong, 1 - outcome, outcome)
    start = np.clip(start + rng.choice(OFF, num, p=OFF_SHARES), 1, length - 3)
    end = np.clip(end + rng.choice(OFF, num, p=OFF_SHARES), start + 2, length - 1)
    return np.where(np.isfinite(best), outcome, NO_SURGE), start, end


def upright(ohlc: np.ndarray, way: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return high, low and close, upside down where a breakout fell. Shapes: [N, T, 4], [N] -> [N, T] each."""
    rises = (way > 0)[:, None]
    _, high, low, close = np.moveaxis(ohlc, 2, 0)
    return np.where(rises, high, -low), np.where(rises, low, -high), np.where(rises, close, -close)


def _outcome(
    ohlc: np.ndarray, start: np.ndarray, end: np.ndarray, way: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    rows, bar = np.arange(len(ohlc)), np.arange(ohlc.shape[1])
    high, low, close = upright(ohlc, way)
    span = (bar >= start[:, None]) & (bar <= end[:, None])
    top, last = np.where(span, high, -np.inf).max(axis=1), close[rows, end]
    on = ON * np.exp(0.1 * rng.standard_normal(len(ohlc)))
    after = (bar > end[:, None]) & (bar <= end[:, None] + WAIT)
    went_on = _first(after & (low <= (last - on * (top - last))[:, None]))
    again = _first(after & (high > top[:, None]))
    decided = np.where(went_on < again, RETRACEMENT, NO_LABEL)
    return np.where(np.minimum(went_on, again) == ohlc.shape[1], CONSOLIDATION, decided)


def _first(touched: np.ndarray) -> np.ndarray:
    return np.where(touched.any(axis=1), touched.argmax(axis=1), touched.shape[1])


def trap_labels(bars: Bars, n: int, seed: int) -> LabelledSet:
    """Label n windows of some bars by the trap rule, chosen as ``labels.weak_labels`` chooses its own."""
    rng = np.random.default_rng([seed, 78])
    return ruled_labels(bars, n, seed, RULE, lambda ohlc: apply_trap_rule(ohlc, rng))
