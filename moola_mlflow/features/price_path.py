"""Price-path features: 56 fixed numbers a step that describe the price path before and after it.

Nothing in them is learned. They are the baseline that pre-training must beat, and a detector may read them beside the
encoding. They look ahead inside the window, as a bidirectional encoder does, so do not forecast with them.

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
"""Number of windows computed together, so that temporary arrays stay in cache."""

Floats = NDArray[np.float64]


def price_path_features(ohlc_NT4: Floats) -> NDArray[np.float32]:
    """Return the price-path features of each window. They depend on that window's own bars alone.

    The last k bars are t-k+1..t, the next k bars are t+1..t+k.

    - A net move is c_t - c_{t-k} (past) or c_{t+k} - c_t (next).
    - An extreme is the highest high or lowest low of k bars, minus c_t.
    - A breakout is how far the extreme of the next k bars lies beyond the extreme of the last k bars. It is positive
      outwards, for the low too.
    - A place says where in the k bars the extreme lies: 0 is the first bar, 1 the last. The first of equal extremes
      counts.

    A feature is 0 if its k bars reach out of the window.

    Shapes: [N, T, 4] -> [N, T, 56], in the order of ``PRICE_PATH_FEATURE_NAMES``.
    Units: the window's median bar range, or its mean range where the median is 0. If both are 0, all features of the
    window are 0. Places lie in 0..1.
    Raises: UserError for any other shape.
    """
    ohlc_NT4 = np.asarray(ohlc_NT4, np.float64)
    if ohlc_NT4.ndim != 3 or ohlc_NT4.shape[2] != 4 or ohlc_NT4.shape[1] == 0:
        raise UserError(
            "price-path features need windows of open, high, low, close with shape [N, T, 4] and T >= 1; "
            f"got shape {ohlc_NT4.shape}"
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
    """Yield each feature's name, its values [N, T], and whether the values are in price units."""
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
    """Return the steps that have ``k`` bars up to and including their own. Shapes: bool [T]."""
    return np.arange(num_steps) >= k - 1


def _where_next(num_steps: int, k: int) -> NDArray[np.bool_]:
    """Return the steps that have ``k`` bars after them. Shapes: bool [T]."""
    return np.arange(num_steps) < num_steps - k


def _past_move(x_NT: Floats, k: int) -> Floats:
    """Return x_t - x_{t-k}, or 0 at the first k steps. Shapes: [N, T]."""
    out_NT = np.zeros_like(x_NT)
    out_NT[:, k:] = x_NT[:, k:] - x_NT[:, :-k]
    return out_NT


def _ahead(x_NT: Floats, k: int) -> Floats:
    """Return the value ``k`` steps later, or 0 at the last k steps. Shapes: [N, T]."""
    out_NT = np.zeros_like(x_NT)
    out_NT[:, :-k] = x_NT[:, k:]
    return out_NT


def _running_max(x_NT: Floats, k: int) -> Floats:
    """Return the maximum of the last ``k`` steps, or 0 if there are fewer. Shapes: [N, T].

    The width doubles at each pass, so it takes log2(k) passes over the array.
    """
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
    """Return where in the last ``k`` steps the first maximum lies, from 0 to 1. Shapes: [N, T].

    Steps with fewer than ``k`` steps before them get 0.
    """
    out_NT = np.zeros_like(x_NT)
    if k <= x_NT.shape[1]:
        out_NT[:, k - 1 :] = sliding_window_view(x_NT, k, axis=1).argmax(axis=-1) / (k - 1)
    return out_NT


PRICE_PATH_FEATURE_NAMES = tuple(name for name, _, _ in _columns(np.zeros((1, 1, 4))))
