"""Statistics of whole windows, which classical baselines read.

Shape legend: N windows, T bars, 4 = open, high, low, close, S statistics.
"""

from __future__ import annotations

import numpy as np

LAGS = (1, 2, 5)
MOVES = (5, 10, 20)
# Prices are rounded to this share of a window's median range. Prices lie on ticks, so ties are common, and in rescaled
# prices the last bit would decide which bar is the highest. A power of two, so that differences stay exact.
GRAIN = 2.0**-30


def window_statistics(ohlc_NT4: np.ndarray) -> np.ndarray:
    """Return 31 numbers about each whole window: direction, distance, roughness and timing of its moves.

    Moves, ranges and extremes of the window and of its thirds; autocorrelations, skewness and kurtosis of close-to-
    close moves; the largest rise and fall within 5, 10 and 20 bars and from any low to any later high.

    Shapes: [N, T, 4], T at least 21 -> float64 [N, S]. Units: the window's median bar range (its mean range if that is
    0); places in 0..1. If the mean range is 0 too, every number is 0.
    """
    open_NT, high_NT, low_NT, close_NT = np.moveaxis(in_ranges(np.asarray(ohlc_NT4, np.float64)), -1, 0)
    last = close_NT.shape[1] - 1
    range_NT, step_NT = high_NT - low_NT, np.diff(close_NT, axis=1)
    net_N, high_N, low_N = close_NT[:, -1] - open_NT[:, 0], high_NT.max(1), low_NT.min(1)
    columns = [net_N, high_N - low_N, step_NT.std(1), range_NT.std(1), np.abs(close_NT - open_NT).mean(1)]
    columns += [ratio(np.abs(net_N), np.abs(step_NT).sum(1)), ratio(close_NT[:, -1] - low_N, high_N - low_N)]
    columns += [(step_NT > 0).mean(1)]
    columns += [high_NT.argmax(1) / last, low_NT.argmin(1) / last, range_NT.argmax(1) / last]
    for third in np.array_split(np.arange(last + 1), 3):
        columns += [close_NT[:, third[-1]] - open_NT[:, third[0]], range_NT[:, third].mean(1)]

    columns += [_autocorrelation(step_NT, lag) for lag in LAGS] + [_autocorrelation(range_NT, 1)]
    centred_NT = step_NT - step_NT.mean(1, keepdims=True)
    variance_N = np.square(centred_NT).mean(1)
    columns += [ratio((centred_NT**3).mean(1), variance_N**1.5), ratio((centred_NT**4).mean(1), variance_N**2)]

    lowest_NT, highest_NT = np.minimum.accumulate(low_NT, 1), np.maximum.accumulate(high_NT, 1)
    columns += [(high_NT - lowest_NT).max(1), (highest_NT - low_NT).max(1)]
    for bars in MOVES:
        move_NT = close_NT[:, bars:] - close_NT[:, :-bars]
        columns += [move_NT.max(1), -move_NT.min(1)]
    return np.stack(columns, 1)


def in_ranges(ohlc_NT4: np.ndarray) -> np.ndarray:
    """Return prices relative to the first open, in median bar ranges of the window; 0 if no bar has a range."""
    range_NT = ohlc_NT4[..., 1] - ohlc_NT4[..., 2]
    median_N, mean_N = np.median(range_NT, 1), range_NT.mean(1)
    unit_N = np.where(median_N > 0, median_N, np.where(mean_N > 0, mean_N, np.inf))
    return np.rint((ohlc_NT4 - ohlc_NT4[:, :1, :1]) / unit_N[:, None, None] / GRAIN) * GRAIN


def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Return top / bottom, or 0 if bottom is 0 or a rounding error."""
    bottom = np.broadcast_to(bottom, top.shape)
    return np.divide(top, bottom, out=np.zeros(top.shape), where=bottom > GRAIN)


def _autocorrelation(x_NT: np.ndarray, lag: int) -> np.ndarray:
    centred_NT = x_NT - x_NT.mean(1, keepdims=True)
    return ratio((centred_NT[:, lag:] * centred_NT[:, :-lag]).mean(1), np.square(centred_NT).mean(1))
