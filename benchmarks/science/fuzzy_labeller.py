"""A third weak labeller, fuzzy on purpose: it chooses, points and names as a person might, with noise in all three.

It finds a leg from its own low to its own high (mirrored for falls) of 4 to 16 bars, 15 bars or more after the
window's start and 25 or more before its end. Size: range of the leg over the mean range of the 30 bars before it (at
least half the window's). Allowed: size >= 3 exp(0.1 N) and range >= 0.4 of the sum of true ranges. Score: size times
that share / n^0.35, less up to 15 % away from the window's middle, times exp(0.12 N). The class: 0.45 of the
leg, give or take 0.08, given back first (retracement), added first (no label), or neither in 15 to 25 bars
(consolidation). One class in ten is wrong, and both pointers are off by up to two bars.
"""

from __future__ import annotations

import numpy as np

from benchmarks.science.ruled_labels import ruled_labels
from moola_mlflow.bars import Bars
from moola_mlflow.labels.labelled_set import LabelledSet
from moola_mlflow.labels.rules.windows import running_max
from moola_mlflow.labels.surge_rule import CLASSES, CONSOLIDATION, NO_LABEL, NO_SURGE, RETRACEMENT

RULE = "fuzzy-1"
LEAD, WAIT, BARS = 15, 25, range(4, 17)
OFF, OFF_SHARES = (-2, -1, 0, 1, 2), (0.05, 0.2, 0.5, 0.2, 0.05)
NEVER = 999


def apply_fuzzy_rule(ohlc: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return outcome, start and end. Shapes: float64 [N, T, 4] -> int64 [N] each."""
    o, high, low, c = np.moveaxis(ohlc, 2, 0)
    num, length = c.shape
    before = np.concatenate([o[:, :1], c[:, :-1]], axis=1)
    true_range = np.maximum(high, before) - np.minimum(low, before)
    total = np.pad(np.cumsum(true_range, axis=1), ((0, 0), (1, 0)))
    ranges = np.pad(np.cumsum(high - low, axis=1), ((0, 0), (1, 0)))
    starts = np.arange(LEAD, length - WAIT - BARS[0] + 1)
    first = np.maximum(starts - 30, 0)
    usual = (ranges[:, starts] - ranges[:, first]) / (starts - first)
    usual = np.maximum(usual, 0.5 * (high - low).mean(axis=1, keepdims=True))
    usual = np.where(usual > 0, usual, np.inf)
    liking = 1 - 0.15 * np.abs(starts - 50) / 50
    best, rows = np.full(num, -np.inf), np.arange(num)
    start, end, way = (np.zeros(num, np.int64) for _ in range(3))
    for n in BARS:
        s = starts[: length - WAIT - n + 1 - LEAD]
        e = s + n - 1
        top, bottom = running_max(high, n)[:, s], -running_max(-low, n)[:, s]
        walked = total[:, s + n] - total[:, s]
        share = np.divide(top - bottom, walked, out=np.zeros_like(top), where=walked > 0)
        size = (top - bottom) / usual[:, : len(s)]
        allowed = (size >= 3.0 * np.exp(0.1 * rng.standard_normal(size.shape))) & (share >= 0.4)
        score = size * share / n**0.35 * liking[: len(s)] * np.exp(0.12 * rng.standard_normal(size.shape))
        rises, falls = (low[:, s] <= bottom) & (high[:, e] >= top), (high[:, s] >= top) & (low[:, e] <= bottom)
        for direction, leg in ((1, rises), (-1, falls)):
            mine = np.where(allowed & leg, score, -np.inf)
            at = mine.argmax(axis=1)
            better = mine[rows, at] > best
            best = np.where(better, mine[rows, at], best)
            start, end = np.where(better, s[at], start), np.where(better, e[at], end)
            way = np.where(better, direction, way)
    outcome = _outcome(ohlc, start, end, way, rng)
    wrong = (rng.random(num) < 0.10) & (outcome < len(CLASSES))
    outcome = np.where(wrong, 1 - outcome, outcome)
    start = np.clip(start + rng.choice(OFF, num, p=OFF_SHARES), 1, length - 3)
    end = np.clip(end + rng.choice(OFF, num, p=OFF_SHARES), start + 2, length - 1)
    return np.where(np.isfinite(best), outcome, NO_SURGE), start, end


def _outcome(
    ohlc: np.ndarray, start: np.ndarray, end: np.ndarray, way: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    num, bar = len(ohlc), np.arange(ohlc.shape[1])
    rises = (way > 0)[:, None]
    high, low = np.where(rises, ohlc[..., 1], -ohlc[..., 2]), np.where(rises, ohlc[..., 2], -ohlc[..., 1])
    leg = (bar >= start[:, None]) & (bar <= end[:, None])
    top, bottom = np.where(leg, high, -np.inf).max(axis=1), np.where(leg, low, np.inf).min(axis=1)
    wait = rng.integers(15, 26, num)
    back, on = (0.45 + 0.08 * rng.standard_normal(num) for _ in range(2))
    after = (bar > end[:, None]) & (bar <= (end + wait)[:, None])
    size = top - bottom
    given_back = _first(after & (low <= (top - back * size)[:, None]))
    added = _first(after & (high >= (top + on * size)[:, None]))
    decided = np.where(given_back <= added, RETRACEMENT, NO_LABEL)
    return np.where(np.minimum(given_back, added) == NEVER, CONSOLIDATION, decided)


def _first(touched: np.ndarray) -> np.ndarray:
    return np.where(touched.any(axis=1), touched.argmax(axis=1), NEVER)


def fuzzy_labels(bars: Bars, n: int, seed: int) -> LabelledSet:
    """Label n windows of some bars by the fuzzy rule, chosen as ``labels.weak_labels`` chooses its own."""
    rng = np.random.default_rng([seed, 77])
    return ruled_labels(bars, n, seed, RULE, lambda ohlc: apply_fuzzy_rule(ohlc, rng))
