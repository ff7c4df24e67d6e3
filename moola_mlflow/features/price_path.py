"""Path features: 56 deterministic numbers a step about the price path around it, past and future. Nothing is learned.

They are the competitor that pre-training must beat, and an input that a detector may read beside the encoding. They
look ahead inside the window, as a bidirectional encoder does, so they are no features to forecast with.

Names end in their shape: N windows, T bars, P features, 4 = open, high, low, close.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from moola_mlflow.core import UserError

NET = (2, 3, 5, 8, 13, 21, 34)
EXTREME = (5, 10, 20, 40)
BREAKOUT = (5, 10, 20)
PLACE = (10, 20)
CHUNK = 256
"""Windows computed together, so that scratch arrays stay in cache."""

Floats = NDArray[np.float64]


def price_path_features(ohlc_NT4: Floats) -> NDArray[np.float32]:
    """Return the path features of each window, a pure function of that window's own bars.

    The last k bars are t-k+1..t, the next k are t+1..t+k. Net moves are c_t - c_{t-k} back and c_{t+k} - c_t forward;
    extremes are taken against c_t; a breakout is how far the next k bars' extreme lies beyond that of the last k
    (positive outwards, for the low too); a place runs from 0 (the horizon's first bar) to 1 (its last), the first of
    equals. A feature whose horizon leaves the window is 0.

    Shapes: [N, T, 4] -> [N, T, 56], in the order of ``PRICE_PATH_FEATURE_NAMES``. Units: the window's median bar range;
    where that is 0 the mean range; where that is 0 too, every feature of the window is 0. Places are in 0..1.
    Raises: UserError for another shape.
    """
    ohlc_NT4 = np.asarray(ohlc_NT4, np.float64)
    if ohlc_NT4.ndim != 3 or ohlc_NT4.shape[2] != 4 or ohlc_NT4.shape[1] == 0:
        raise UserError(
            f"path features need windows of open, high, low, close, shape [N, T, 4] with T >= 1; got {ohlc_NT4.shape}"
        )
    out_NTP = np.empty((*ohlc_NT4.shape[:2], len(PRICE_PATH_FEATURE_NAMES)), np.float32)
    for lo in range(0, len(ohlc_NT4), CHUNK):
        part = slice(lo, lo + CHUNK)
        unit_N = _median_range(ohlc_NT4[part])
        moves = unit_N > 0
        unit_N1 = np.where(moves, unit_N, 1.0)[:, None]
        for p, (_, x_NT, in_ranges) in enumerate(_columns(ohlc_NT4[part])):
            out_NTP[part, :, p] = x_NT / unit_N1 if in_ranges else x_NT
        out_NTP[part][~moves] = 0.0
    return out_NTP


def _median_range(ohlc_NT4: Floats) -> Floats:
    """Return each window's median bar range, or its mean range where that is 0. Shapes: [N]."""
    range_NT = ohlc_NT4[..., 1] - ohlc_NT4[..., 2]
    median_N = np.median(range_NT, axis=1)
    return np.where(median_N > 0, median_N, range_NT.mean(axis=1))


def _columns(ohlc_NT4: Floats) -> Iterator[tuple[str, Floats, bool]]:
    """Yield each feature's name, values [N, T], and whether they are prices (else places)."""
    open_NT, high_NT, low_NT, close_NT = np.moveaxis(ohlc_NT4, -1, 0)
    num_steps = close_NT.shape[1]
    for k in NET:
        yield f"net_past_{k}", _past_move(close_NT, k), True
    for k in NET:
        yield f"net_next_{k}", _ahead(_past_move(close_NT, k), k), True

    highest = {k: _running_max(high_NT, k) for k in EXTREME}
    lowest = {k: -_running_max(-low_NT, k) for k in EXTREME}
    for k in EXTREME:
        past, following = _where_past(num_steps, k), _where_next(num_steps, k)
        for side, extreme_NT in (("high", highest[k]), ("low", lowest[k])):
            yield f"{side}_past_{k}", np.where(past, extreme_NT - close_NT, 0.0), True
            yield f"{side}_next_{k}", np.where(following, _ahead(extreme_NT, k) - close_NT, 0.0), True

    for k in BREAKOUT:
        both = _where_past(num_steps, k) & _where_next(num_steps, k)
        yield f"breakout_up_{k}", np.where(both, _ahead(highest[k], k) - highest[k], 0.0), True
        yield f"breakout_down_{k}", np.where(both, lowest[k] - _ahead(lowest[k], k), 0.0), True
        size_NT = np.abs(_past_move(close_NT, k))
        yield f"size_past_{k}", size_NT, True
        yield f"size_next_{k}", _ahead(size_NT, k), True

    for k in PLACE:
        for side, x_NT in (("high", high_NT), ("low", -low_NT)):
            place_NT = _running_place(x_NT, k)
            yield f"place_{side}_past_{k}", place_NT, False
            yield f"place_{side}_next_{k}", _ahead(place_NT, k), False

    level_N1 = close_NT.mean(axis=1, keepdims=True)
    for name, x_NT in (("high", high_NT), ("low", low_NT), ("close", close_NT)):
        yield f"{name}_level", x_NT - level_N1, True
    gap_NT = np.zeros_like(close_NT)
    gap_NT[:, 1:] = open_NT[:, 1:] - close_NT[:, :-1]
    yield "return", _past_move(close_NT, 1), True
    yield "range", high_NT - low_NT, True
    yield "gap", gap_NT, True


def _where_past(num_steps: int, k: int) -> NDArray[np.bool_]:
    """Return which steps have ``k`` bars up to and with their own. Shapes: [T]."""
    return np.arange(num_steps) >= k - 1


def _where_next(num_steps: int, k: int) -> NDArray[np.bool_]:
    """Return which steps have ``k`` bars after them. Shapes: [T]."""
    return np.arange(num_steps) < num_steps - k


def _past_move(x_NT: Floats, k: int) -> Floats:
    """Return x_t - x_{t-k}, 0 where there is none."""
    out_NT = np.zeros_like(x_NT)
    out_NT[:, k:] = x_NT[:, k:] - x_NT[:, :-k]
    return out_NT


def _ahead(x_NT: Floats, k: int) -> Floats:
    """Return the value ``k`` steps later, 0 where there is none."""
    out_NT = np.zeros_like(x_NT)
    out_NT[:, :-k] = x_NT[:, k:]
    return out_NT


def _running_max(x_NT: Floats, k: int) -> Floats:
    """Return the maximum of the last ``k`` steps, 0 where there are fewer; spans double, so it costs log k passes."""
    out_NT = np.zeros_like(x_NT)
    if k <= x_NT.shape[1]:
        width, max_NT = 1, x_NT
        while width < k:
            step = min(width, k - width)
            max_NT = np.maximum(max_NT[:, :-step], max_NT[:, step:])
            width += step
        out_NT[:, k - 1 :] = max_NT
    return out_NT


def _running_place(x_NT: Floats, k: int) -> Floats:
    """Return the place of the first maximum of the last ``k`` steps, from 0 to 1; 0 where there are fewer."""
    out_NT = np.zeros_like(x_NT)
    if k <= x_NT.shape[1]:
        out_NT[:, k - 1 :] = sliding_window_view(x_NT, k, axis=1).argmax(axis=-1) / (k - 1)
    return out_NT


PRICE_PATH_FEATURE_NAMES = tuple(name for name, _, _ in _columns(np.zeros((1, 1, 4))))
