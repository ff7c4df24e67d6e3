"""The hand-written rule: the strongest surge of a window, and a logistic regression on what follows it.

Weak labels come from the same surge and the same touch, so on those this baseline scores 1: it shows the best score
that can be reached.

Shape legend: N training windows, M test windows, T bars, 4 = open, high, low, close, C classes, S statistics.
"""

from __future__ import annotations

import numpy as np

from moola_mlflow.evaluation.baselines.statistics import in_ranges, ratio
from moola_mlflow.evaluation.baselines.task import BaselineTask, Prediction, logistic_regression, typical_span
from moola_mlflow.labels import SURGE_BARS, TOLERANCE, WAIT, strongest_surge

TITLE = "hand-written rule + logistic regression"


def fit_predict(task: BaselineTask) -> Prediction:
    """Return fitted probabilities and the strongest surges, or the typical span for a window without a surge."""
    train_NS = _surge_statistics(task.train)[0]
    test_MS, span_M2, found_M = _surge_statistics(task.test)
    probability_MC = logistic_regression(task, train_NS, task.label, test_MS)
    return probability_MC, np.where(found_M[:, None], span_M2, typical_span(task))


def _surge_statistics(ohlc_NT4: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return statistics of what follows each window's strongest surge, the surge, and whether there is one.

    If no surge is as strong and efficient as the weak labels' rule asks, the strongest one counts: people may label
    weaker ones. Falling surges are measured in mirrored prices.

    Shapes: [N, T, 4] -> float64 [N, S], int64 [N, 2], bool [N].
    """
    start_N, length_N = strongest_surge(ohlc_NT4)
    weaker_start_N, weaker_length_N = strongest_surge(ohlc_NT4, 0.0, 0.0)
    start_N = np.where(length_N > 0, start_N, weaker_start_N)
    length_N = np.where(length_N > 0, length_N, weaker_length_N)
    found_N, length_N = length_N > 0, np.maximum(length_N, 1)
    end_N = start_N + length_N - 1

    at = np.arange(len(ohlc_NT4))[:, None]
    open_NT, high_NT, low_NT, close_NT = np.moveaxis(in_ranges(ohlc_NT4), -1, 0)
    net_N = (close_NT[at, end_N[:, None]] - open_NT[at, start_N[:, None]])[:, 0]
    rises = (net_N > 0)[:, None]
    range_NT = high_NT - low_NT
    high_NT, low_NT = np.where(rises, high_NT, -low_NT), np.where(rises, low_NT, -high_NT)
    close_NT = np.where(rises, close_NT, -close_NT)

    leg = start_N[:, None] + np.minimum(np.arange(max(SURGE_BARS)), length_N[:, None] - 1)
    after, before = end_N[:, None] + np.arange(1, WAIT + 1), start_N[:, None] - np.arange(1, WAIT + 1)
    top_N = high_NT[at, leg].max(1)
    size_N = top_N - low_NT[at, leg].min(1)
    # How far prices came back from the top and went beyond it, in sizes of the leg.
    back_NW = ratio(top_N[:, None] - low_NT[at, after], size_N[:, None])
    back_close_NW = ratio(top_N[:, None] - close_NT[at, after], size_N[:, None])
    beyond_NW = ratio(high_NT[at, after] - top_N[:, None], size_N[:, None])
    columns = [back_NW.max(1), back_close_NW.max(1), back_close_NW[:, -1], beyond_NW.max(1)]
    for moved_NW in (back_NW, beyond_NW):
        half_NW = moved_NW >= 0.5 - TOLERANCE
        columns += [half_NW.any(1), np.where(half_NW.any(1), half_NW.argmax(1) / WAIT, 1.0)]
    for around in (before, after):
        columns += [ratio(high_NT[at, around].max(1) - low_NT[at, around].min(1), size_N)]
    columns += [ratio(range_NT[at, after].mean(1), range_NT[at, leg].mean(1))]
    columns += [np.abs(net_N) / np.sqrt(length_N), ratio(np.abs(net_N), size_N), length_N / max(SURGE_BARS)]
    statistics_NS = np.stack([np.asarray(column, np.float64) for column in columns], 1)
    return statistics_NS, np.stack([start_N, end_N], 1), found_N
