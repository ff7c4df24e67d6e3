"""What a sceptic would run instead of a network: class shares, statistics of the window, and a rule written by hand.

Each is fitted on training windows and says of test windows what a detector says: a probability of each class and a
span. A new one is one function and one row in ``BASELINES``.

Shape legend: N training windows, M test windows, T bars, 4 = open, high, low, close, C classes, S statistics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from moola_mlflow.core import UserError, nearest_name
from moola_mlflow.labels import SURGE_BARS, TOLERANCE, WAIT, strongest_surge

LAGS = (1, 2, 5)
MOVES = (5, 10, 20)
# Prices are rounded to this share of a window's median range. Prices lie on ticks, so ties are common, and in rescaled
# prices the last bit would decide which bar is the highest. A power of two, so that differences stay exact.
GRAIN = 2.0**-30
# Few leaves and large ones: there are a hundred-odd windows. A fit takes 0.05 s.
BOOSTING: dict[str, Any] = {
    "max_iter": 60, "learning_rate": 0.1, "max_leaf_nodes": 4, "min_samples_leaf": 10, "early_stopping": False,
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """All that a baseline is given: training windows with their labels, and the prices of test windows.

    Shapes: train float64 [N, T, 4], test [M, T, 4]; label, start, end int64 [N].
    """

    train: np.ndarray
    label: np.ndarray
    start: np.ndarray
    end: np.ndarray
    test: np.ndarray
    num_classes: int
    seed: int


# Probability float64 [M, C] and span int64 [M, 2]: start and end, both inclusive.
Prediction = tuple[np.ndarray, np.ndarray]


def fit_predict(
    name: str,
    ohlc_NT4: np.ndarray,
    label_N: np.ndarray,
    start_N: np.ndarray,
    end_N: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    num_classes: int,
    seed: int,
) -> Prediction:
    """Fit a baseline on the windows at ``train`` and return what it says of those at ``test``.

    A class that no training window has gets probability 0. The same seed gives the same answer.

    Shapes: prices [N, T, 4]; label, start, end int [N]; train, test positions -> probability float64 [M, C], span
    int64 [M, 2] (start and end, both inclusive).
    Raises: UserError for an unknown name.
    """
    if name not in BASELINES:
        raise UserError(f"baseline '{name}' is unknown{nearest_name(name, BASELINES)} Allowed: {', '.join(BASELINES)}")
    ohlc_NT4 = np.asarray(ohlc_NT4, np.float64)
    label, start, end = (np.asarray(x, np.int64)[train] for x in (label_N, start_N, end_N))
    return BASELINES[name](Task(ohlc_NT4[train], label, start, end, ohlc_NT4[test], num_classes, seed))


def window_statistics(ohlc_NT4: np.ndarray) -> np.ndarray:
    """Return 31 numbers about each whole window: where it went, how far, how roughly, and when.

    Moves, ranges and extremes of the window and of its thirds; autocorrelations, skewness and kurtosis of close-to-
    close moves; the largest rise and fall within 5, 10 and 20 bars and from any low to any later high.

    Shapes: [N, T, 4], T at least 21 -> float64 [N, S]. Units: the window's median bar range (its mean range where that
    is 0); places in 0..1. Where the mean range is 0 too, every number is 0.
    """
    open_NT, high_NT, low_NT, close_NT = np.moveaxis(_in_ranges(np.asarray(ohlc_NT4, np.float64)), -1, 0)
    last = close_NT.shape[1] - 1
    range_NT, step_NT = high_NT - low_NT, np.diff(close_NT, axis=1)
    net_N, high_N, low_N = close_NT[:, -1] - open_NT[:, 0], high_NT.max(1), low_NT.min(1)
    columns = [net_N, high_N - low_N, step_NT.std(1), range_NT.std(1), np.abs(close_NT - open_NT).mean(1)]
    columns += [_ratio(np.abs(net_N), np.abs(step_NT).sum(1)), _ratio(close_NT[:, -1] - low_N, high_N - low_N)]
    columns += [(step_NT > 0).mean(1)]
    columns += [high_NT.argmax(1) / last, low_NT.argmin(1) / last, range_NT.argmax(1) / last]
    for third in np.array_split(np.arange(last + 1), 3):
        columns += [close_NT[:, third[-1]] - open_NT[:, third[0]], range_NT[:, third].mean(1)]

    columns += [_autocorrelation(step_NT, lag) for lag in LAGS] + [_autocorrelation(range_NT, 1)]
    centred_NT = step_NT - step_NT.mean(1, keepdims=True)
    variance_N = np.square(centred_NT).mean(1)
    columns += [_ratio((centred_NT**3).mean(1), variance_N**1.5), _ratio((centred_NT**4).mean(1), variance_N**2)]

    lowest_NT, highest_NT = np.minimum.accumulate(low_NT, 1), np.maximum.accumulate(high_NT, 1)
    columns += [(high_NT - lowest_NT).max(1), (highest_NT - low_NT).max(1)]
    for bars in MOVES:
        move_NT = close_NT[:, bars:] - close_NT[:, :-bars]
        columns += [move_NT.max(1), -move_NT.min(1)]
    return np.stack(columns, 1)


def _majority(task: Task) -> Prediction:
    """The training classes' shares and the typical span: a constant."""
    return _shares(task), _typical_span(task)


def _logistic(task: Task) -> Prediction:
    """A logistic regression on window statistics with the typical span: it cannot point."""
    train_NS, label_N, test_MS = _statistics_and_mirrored(task)
    return _logistic_regression(task, train_NS, label_N, test_MS), _typical_span(task)


def _boosting(task: Task) -> Prediction:
    """Boosted trees on window statistics, for the class and for the span's centre; lengths are the median one.

    The centre is worth its fit: hit@3 of 0.15 where the typical span has 0.07, mean of four weakly labelled series.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    train_NS, label_N, test_MS = _statistics_and_mirrored(task)
    probability_MC = _shares(task)
    # More threads only wait for each other on so few windows.
    with threadpool_limits(1, user_api="openmp"):
        if len(np.unique(label_N)) > 1:
            classifier = HistGradientBoostingClassifier(random_state=task.seed, **BOOSTING).fit(train_NS, label_N)
            probability_MC = _all_classes(task, classifier.predict_proba(test_MS), classifier.classes_)
        regressor = HistGradientBoostingRegressor(loss="absolute_error", random_state=task.seed, **BOOSTING)
        centre_M = regressor.fit(train_NS, np.tile((task.start + task.end) / 2, 2)).predict(test_MS)
    length = int(np.median(task.end - task.start))
    start_M = np.clip(np.rint(centre_M - length / 2), 0, task.test.shape[1] - 1 - length).astype(np.int64)
    return probability_MC, np.stack([start_M, start_M + length], 1)


def _rule(task: Task) -> Prediction:
    """The strongest surge, and a logistic regression on what followed it: it knows the first labeller.

    Weak labels come from the same surge and the same touch, so there it scores 1 and only shows what can be reached.
    """
    train_NS = _surge_statistics(task.train)[0]
    test_MS, span_M2, found_M = _surge_statistics(task.test)
    probability_MC = _logistic_regression(task, train_NS, task.label, test_MS)
    return probability_MC, np.where(found_M[:, None], span_M2, _typical_span(task))


BASELINES: dict[str, Callable[[Task], Prediction]] = {
    "majority": _majority,
    "logistic": _logistic,
    "boosting": _boosting,
    "rule": _rule,
}


def _shares(task: Task) -> np.ndarray:
    """Return the training classes' shares for every test window. Shapes: float64 [M, C]."""
    count_C = np.bincount(task.label, minlength=task.num_classes)
    return np.tile(count_C / count_C.sum(), (len(task.test), 1))


def _typical_span(task: Task) -> np.ndarray:
    """Return the training medians of start and end for every test window. Shapes: int64 [M, 2]."""
    return np.tile(np.array([np.median(task.start), np.median(task.end)]).astype(np.int64), (len(task.test), 1))


def _statistics_and_mirrored(task: Task) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return training statistics of the windows and of the same upside down, their labels, and test statistics.

    A pattern that rises and one that falls have one label, which twice the windows teach.
    """
    upside_down = -task.train[..., [0, 2, 1, 3]]
    train_NS = np.concatenate([window_statistics(task.train), window_statistics(upside_down)])
    return train_NS, np.tile(task.label, 2), window_statistics(task.test)


def _logistic_regression(task: Task, train_NS: np.ndarray, label_N: np.ndarray, test_MS: np.ndarray) -> np.ndarray:
    """Return class probabilities from statistics standardised by the training part. Shapes: float64 [M, C]."""
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(label_N)) == 1:
        return _shares(task)
    mean_S, std_S = train_NS.mean(0), train_NS.std(0)
    std_S = np.where(std_S > GRAIN, std_S, 1.0)
    model = LogisticRegression(max_iter=1000).fit((train_NS - mean_S) / std_S, label_N)
    return _all_classes(task, model.predict_proba((test_MS - mean_S) / std_S), model.classes_)


def _all_classes(task: Task, probability: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return a column for every class, also for those that the training part lacks. Shapes: float64 [M, C]."""
    out_MC = np.zeros((len(probability), task.num_classes))
    out_MC[:, classes] = probability
    return out_MC


def _surge_statistics(ohlc_NT4: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what followed each window's strongest surge, the surge, and whether there is one.

    Where no surge is as strong and efficient as the labels' rule asks, the strongest counts: others may label weaker
    ones. Falling surges are measured in mirrored prices.

    Shapes: [N, T, 4] -> float64 [N, S], int64 [N, 2], bool [N].
    """
    start_N, length_N = strongest_surge(ohlc_NT4)
    weaker_start_N, weaker_length_N = strongest_surge(ohlc_NT4, 0.0, 0.0)
    start_N = np.where(length_N > 0, start_N, weaker_start_N)
    length_N = np.where(length_N > 0, length_N, weaker_length_N)
    found_N, length_N = length_N > 0, np.maximum(length_N, 1)
    end_N = start_N + length_N - 1

    at = np.arange(len(ohlc_NT4))[:, None]
    open_NT, high_NT, low_NT, close_NT = np.moveaxis(_in_ranges(ohlc_NT4), -1, 0)
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
    back_NW = _ratio(top_N[:, None] - low_NT[at, after], size_N[:, None])
    back_close_NW = _ratio(top_N[:, None] - close_NT[at, after], size_N[:, None])
    beyond_NW = _ratio(high_NT[at, after] - top_N[:, None], size_N[:, None])
    columns = [back_NW.max(1), back_close_NW.max(1), back_close_NW[:, -1], beyond_NW.max(1)]
    for moved_NW in (back_NW, beyond_NW):
        half_NW = moved_NW >= 0.5 - TOLERANCE
        columns += [half_NW.any(1), np.where(half_NW.any(1), half_NW.argmax(1) / WAIT, 1.0)]
    for around in (before, after):
        columns += [_ratio(high_NT[at, around].max(1) - low_NT[at, around].min(1), size_N)]
    columns += [_ratio(range_NT[at, after].mean(1), range_NT[at, leg].mean(1))]
    columns += [np.abs(net_N) / np.sqrt(length_N), _ratio(np.abs(net_N), size_N), length_N / max(SURGE_BARS)]
    statistics_NS = np.stack([np.asarray(column, np.float64) for column in columns], 1)
    return statistics_NS, np.stack([start_N, end_N], 1), found_N


def _in_ranges(ohlc_NT4: np.ndarray) -> np.ndarray:
    """Return prices from the first open on, in median bar ranges of the window; 0 where no bar has a range."""
    range_NT = ohlc_NT4[..., 1] - ohlc_NT4[..., 2]
    median_N, mean_N = np.median(range_NT, 1), range_NT.mean(1)
    unit_N = np.where(median_N > 0, median_N, np.where(mean_N > 0, mean_N, np.inf))
    return np.rint((ohlc_NT4 - ohlc_NT4[:, :1, :1]) / unit_N[:, None, None] / GRAIN) * GRAIN


def _autocorrelation(x_NT: np.ndarray, lag: int) -> np.ndarray:
    centred_NT = x_NT - x_NT.mean(1, keepdims=True)
    return _ratio((centred_NT[:, lag:] * centred_NT[:, :-lag]).mean(1), np.square(centred_NT).mean(1))


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Return top / bottom, 0 where bottom is 0 or only rounding."""
    bottom = np.broadcast_to(bottom, top.shape)
    return np.divide(top, bottom, out=np.zeros(top.shape), where=bottom > GRAIN)
