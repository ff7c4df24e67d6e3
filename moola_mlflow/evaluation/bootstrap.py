"""Intervals of scores and of paired differences: whole groups of windows are resampled, never window x repeat rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from moola_mlflow.evaluation.metrics import Predictions, Statistic

RESAMPLES = 2000
FEW_GROUPS = 20
"""With fewer groups of windows, intervals are widened; their ends may then lie outside the range of the score."""
# Weights in memory at a time: 16 MB.
CHUNK_CELLS = 2_000_000


class Interval(NamedTuple):
    """A figure and the ends of its interval; NaN if undefined."""

    mean: float
    lo: float
    hi: float

    def text(self, sign: str = "") -> str:
        """Return the figure with its interval in brackets; with ``sign="+"`` every number has its sign."""
        return f"{self.mean:{sign}.3f} [{self.lo:{sign}.3f}, {self.hi:{sign}.3f}]"

    def named(self, name: str) -> dict[str, float]:
        """Return the figure as ``name``, its ends as ``name_lo`` and ``name_hi``."""
        return {name: self.mean, f"{name}_lo": self.lo, f"{name}_hi": self.hi}


def bootstrap_interval(
    statistic: Statistic, groups: np.ndarray, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> Interval:
    """Return a statistic of all windows and its percentile interval over resamples of whole groups.

    Groups are drawn with replacement, and a drawn group brings all its windows: overlapping windows are not independent
    evidence and must not narrow the interval. ``statistic`` takes weights [R, N], one column a window, and returns [R].
    Resamples in which it is undefined (NaN) are left out. A score that is bounded and biased in small samples, such as
    ece, may lie outside its own interval.

    Shapes: groups int [N].
    Source: B. Efron, R. Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13.
    """
    return _intervals({"": statistic}, groups, resamples, seed, level)[""]


def bootstrap_many(
    statistics: Callable[[np.ndarray], np.ndarray],
    num_groups: int,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> np.ndarray:
    """Return many statistics at once, each with its interval, as :func:`bootstrap_interval` does.

    ``statistics`` takes weights [R, G], one column a group, and returns [R, K]: NaN where one is not defined.

    Shapes: float64 [3, K]: the statistics, and the lower and the upper ends.
    """
    drawn = np.concatenate([statistics(w_RG) for w_RG in _resampled(np.arange(num_groups), resamples, seed)])
    mean_K = statistics(np.ones((1, num_groups)))[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy warns of statistics that no resample defines
        ends_2K = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.stack([mean_K, *(mean_K + _widening(num_groups, level) * (ends_2K - mean_K))])


def intervals(
    predictions: Predictions, groups: np.ndarray | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """Return every score, averaged over the repeats, with its 95 % interval over resamples of the groups.

    Shapes: groups int [N]; without it each window is a group.
    """
    return _intervals(predictions.statistics(), _groups(predictions, groups), resamples, seed)


def paired_difference(
    a: Predictions,
    b: Predictions,
    metric: str = "joint_success_at_3",
    groups: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return how much better ``a`` scores than ``b`` on the same windows, with a 95 % interval.

    Both are scored on the same resamples, and repeats are averaged within each resample; the two may differ in their
    number of repeats. If the interval covers 0 there is no gain.

    Shapes: groups int [N], overlap groups; without it each window is a group.
    Raises: ValueError if the two do not predict the same windows, or for an unknown metric.
    """
    if not (np.array_equal(a.label, b.label) and np.array_equal(a.span, b.span)):
        raise ValueError("a paired difference needs predictions of the same windows in the same order")
    first, second = a.statistics(), b.statistics()
    if metric not in first or metric not in second:
        raise ValueError(f"metric={metric!r}; allowed: {', '.join(first)}")
    one, other = first[metric], second[metric]
    return bootstrap_interval(lambda w: one(w) - other(w), _groups(a, groups), resamples, seed)


def _groups(predictions: Predictions, groups: np.ndarray | None) -> np.ndarray:
    return np.arange(len(predictions.label)) if groups is None else groups


def _intervals(
    stats: Mapping[str, Statistic], groups: np.ndarray, resamples: int, seed: int, level: float = 0.95
) -> dict[str, Interval]:
    factor, drawn = _widening(len(np.unique(groups)), level), {name: list[np.ndarray]() for name in stats}
    for weights in _resampled(groups, resamples, seed):
        for name, statistic in stats.items():
            drawn[name].append(statistic(weights))
    out, ones = {}, np.ones((1, len(groups)))
    for name, parts in drawn.items():
        values = np.concatenate(parts)
        values = values[~np.isnan(values)]
        mean = float(stats[name](ones)[0])
        ends = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]) if len(values) else np.full(2, np.nan)
        if factor != 1:
            ends = mean + factor * (ends - mean)
        out[name] = Interval(mean, float(ends[0]), float(ends[1]))
    return out


def _widening(num_groups: int, level: float) -> float:
    """Return the factor that widens both sides of a percentile interval; NaN for one group, which has no spread.

    Resamples of few groups vary too little, by sqrt((n - 1) / n), and take the spread as known. More extreme
    percentiles do not help: with 3 groups no resample lies beyond the largest value.

    Source: T. Hesterberg, What Teachers Should Know About the Bootstrap, 2015, section 5.
    """
    if num_groups >= FEW_GROUPS:
        return 1.0
    if num_groups < 2:
        return np.nan
    from scipy.stats import norm, t

    tail = (1 + level) / 2
    return float(np.sqrt(num_groups / (num_groups - 1)) * t.ppf(tail, num_groups - 1) / norm.ppf(tail))


def _resampled(groups: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield how often each window is drawn, a chunk of resamples at a time. Shapes: float64 [R, N]."""
    _, group_N = np.unique(groups, return_inverse=True)
    num_groups, rng = int(group_N.max()) + 1, np.random.default_rng(seed)
    step = max(CHUNK_CELLS // len(group_N), 1)
    for first in range(0, resamples, step):
        size = min(step, resamples - first)
        yield rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size)[:, group_N].astype(np.float64)
