"""A fifth weak labeller, written when the averaged reader was fixed: it labels runs that turn.

A run: of six close-to-close changes five or more rise, and their sum is 1.5 units or more (mirrored for falls). A unit
is the median range of the window's bars. It turns at the first close, 1 to 4 bars later, that gives back 0.4 of the sum
or more. The span goes from the first bar of the run to this close; it lies 20 bars or more after the window's start and
15 or more before its end. The turn with the largest sum x exp(0.15 N) is chosen.

The class: the mean close of the 15 bars after the turn, minus the close of the turn, in units. Down by 0.5 or more:
retracement; up by 1.5 or more: no label; between: consolidation. One class in twenty is wrong, and both pointers are
off by up to two bars.
"""

from __future__ import annotations

import numpy as np

from benchmarks.science.fuzzy_labeller import OFF, OFF_SHARES
from benchmarks.science.ruled_labels import ruled_labels
from benchmarks.science.trap_labeller import upright
from moola_mlflow.bars import Bars
from moola_mlflow.labels.labelled_set import LabelledSet
from moola_mlflow.labels.surge_rule import CLASSES, CONSOLIDATION, NO_LABEL, NO_SURGE, RETRACEMENT

RULE = "turn-1"
RUN, RISES, LEAD, WAIT, TURNS = 6, 5, 20, 15, range(1, 5)
LEAST, BACK, HOLDS, FAILS = 1.5, 0.4, 0.5, 1.5


def apply_turn_rule(ohlc: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return outcome, start and end. Shapes: float64 [N, T, 4] -> int64 [N] each."""
    num, length = ohlc.shape[:2]
    rows, best = np.arange(num), np.full(num, -np.inf)
    start, end, way = (np.zeros(num, np.int64) for _ in range(3))
    for direction in (1, -1):
        high, low, close = upright(ohlc, np.full(num, direction))
        unit = np.median(high - low, axis=1, keepdims=True)
        rises = np.pad(np.cumsum(np.diff(close, axis=1) > 0, axis=1), ((0, 0), (1, 0)))
        # Column j is the run from bar j + 1 to bar j + RUN.
        total = close[:, RUN:] - close[:, :-RUN]
        is_run = (rises[:, RUN:] - rises[:, :-RUN] >= RISES) & (total >= LEAST * unit) & (unit > 0)
        size = total / np.where(unit > 0, unit, 1.0)
        turned = np.zeros(is_run.shape, bool)
        for k in TURNS:
            late = is_run.shape[1] - k
            back = np.zeros(is_run.shape, bool)
            back[:, :late] = close[:, RUN + k :] <= (close[:, RUN:] - BACK * total)[:, :late]
            allowed = is_run & back & ~turned
            turned |= is_run & back
            allowed[:, : LEAD - 1], allowed[:, length - WAIT - RUN - k :] = False, False
            noisy = size * np.exp(0.15 * rng.standard_normal(size.shape))
            score = np.where(allowed, noisy, -np.inf)
            at = score.argmax(axis=1)
            better = score[rows, at] > best
            best = np.where(better, score[rows, at], best)
            start, end = np.where(better, at + 1, start), np.where(better, at + RUN + k, end)
            way = np.where(better, direction, way)
    outcome = _outcome(ohlc, end, way)
    wrong = (rng.random(num) < 0.05) & (outcome < len(CLASSES))
    outcome = np.where(wrong, 1 - outcome, outcome)
    start = np.clip(start + rng.choice(OFF, num, p=OFF_SHARES), 1, length - 3)
    end = np.clip(end + rng.choice(OFF, num, p=OFF_SHARES), start + 2, length - 1)
    return np.where(np.isfinite(best), outcome, NO_SURGE), start, end


def _outcome(ohlc: np.ndarray, end: np.ndarray, way: np.ndarray) -> np.ndarray:
    high, low, close = upright(ohlc, way)
    unit = np.median(high - low, axis=1)
    total = np.pad(np.cumsum(close, axis=1), ((0, 0), (1, 0)))
    rows, last = np.arange(len(ohlc)), np.minimum(end + WAIT, ohlc.shape[1] - 1)
    mean = (total[rows, last + 1] - total[rows, end + 1]) / np.maximum(last - end, 1)
    moved = (mean - close[rows, end]) / np.where(unit > 0, unit, 1.0)
    return np.where(moved <= -HOLDS, RETRACEMENT, np.where(moved >= FAILS, NO_LABEL, CONSOLIDATION))


def turn_labels(bars: Bars, n: int, seed: int) -> LabelledSet:
    """Label n windows of some bars by the turn rule, chosen as ``labels.weak_labels`` chooses its own."""
    rng = np.random.default_rng([seed, 79])
    return ruled_labels(bars, n, seed, RULE, lambda ohlc: apply_turn_rule(ohlc, rng))
