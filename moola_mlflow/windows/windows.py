"""Windows over bars: where each one starts, its prices, and how often it is drawn. All windows are never copied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from moola_mlflow.bars import MINUTE_NS, Bars, segments, take_rows, take_runs
from moola_mlflow.core import UserError, nearest_name

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MINUTE_NS", "Windows", "check_drawn", "make_windows", "mirrored", "with_weights"]

Prices = TypeVar("Prices", np.ndarray, "Tensor")


@dataclass(frozen=True)
class Windows:
    """Windows of one length over a bars table, in order of their start times.

    Attributes
    ----------
    bars
        The table that holds the bars of all windows.
    length
        Number of bars of a window.
    starts
        Row of each window's first bar, int64 [N].
    weights
        How often each window is drawn for training, relative to the others, float64 [N]. None: all equally often.

    Examples
    --------
    >>> from moola_mlflow import BarsConfig, make_windows, read_bars
    >>> windows = make_windows(read_bars(BarsConfig(path="sample", sample_bars=2000)))
    >>> len(windows), windows.gather(np.array([0, 1])).shape
    (35, (2, 105, 4))
    """

    bars: Bars
    length: int
    starts: np.ndarray
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def start_ns(self) -> np.ndarray:
        """Start time of each window's first bar. Shapes: int64 [N]. Units: ns since 1970 UTC."""
        return take_rows(self.bars.time_ns, self.starts)

    @cached_property
    def end_ns(self) -> np.ndarray:
        """Start time of each window's last bar. Shapes: int64 [N]. Units: ns since 1970 UTC."""
        return take_rows(self.bars.time_ns, self.starts + self.length - 1)

    def gather(self, index: np.ndarray) -> np.ndarray:
        """Return the prices of some windows. Shapes: index int [B] -> float64 [B, T, 4], order o h l c."""
        return take_runs(self.bars.ohlc, self.starts[index], self.length)

    def select(self, index: np.ndarray) -> Windows:
        """Return the windows at some positions, in that order."""
        return Windows(
            self.bars, self.length, self.starts[index], self.weights[index] if self.weights is not None else None
        )

    def shuffled(self, index: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return as many positions in random order, drawn by weight if the windows have weights.

        A window comes as often as its weight divided by the mean weight, rounded up or down at random.

        Shapes: index int [N] -> int [N].
        """
        order = rng.permutation(index)
        if self.weights is None:
            return order
        until = np.cumsum(self.weights[order])
        until *= len(order) / until[-1]
        drawn = np.searchsorted(until, rng.random() + np.arange(len(order)), side="right")
        return rng.permutation(order[np.minimum(drawn, len(order) - 1)])


def mirrored(ohlc: Prices) -> Prices:
    """Return the windows upside down: every move changes its sign, highs become lows. Shapes: [..., 4] -> [..., 4]."""
    return -ohlc[..., [0, 2, 1, 3]]


def make_windows(bars: Bars, length: int = 105, stride: int = 52, max_gap_minutes: int = 5) -> Windows:
    """Cut each segment into windows. No window crosses the end of a segment.

    Parameters
    ----------
    bars
        The bars to cut.
    length
        Number of bars of a window.
    stride
        Number of bars from one window's start to the next. The first window starts at the segment's first bar.
    max_gap_minutes
        A longer step between two bars ends a segment.

    Returns
    -------
    Windows
        All windows, in order of their start times.

    Raises
    ------
    UserError
        If no segment is long enough for a window. The message shows the arithmetic.

    Examples
    --------
    >>> from moola_mlflow import BarsConfig, read_bars
    >>> bars = read_bars(BarsConfig(path="sample", sample_bars=2000))
    >>> make_windows(bars, length=50, stride=25).starts[:4].tolist()
    [0, 25, 50, 75]
    """
    runs = segments(bars, max_gap_minutes)
    count = np.maximum(0, (runs[:, 1] - runs[:, 0] - length) // stride + 1)  # windows of each segment
    nth = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    flat = np.repeat(runs[:, 0], count) + stride * nth
    if len(flat) == 0:
        longest = int((runs[:, 1] - runs[:, 0]).max(initial=0))
        raise UserError(
            f"no windows: {len(bars):,} bars in {len(runs)} segments, the longest of {longest} bars, and a window "
            f"needs {length} contiguous bars. Lower windows.length, raise bars.max_gap_minutes "
            f"(now {max_gap_minutes}) or give more bars"
        )
    return Windows(bars, length, flat[np.argsort(take_rows(bars.time_ns, flat), kind="stable")])


def with_weights(windows: Windows, weights: Mapping[str, float]) -> Windows:
    """Return the windows with a weight for each instrument, given by symbol or id. Other instruments weigh 1.

    Raises: UserError for an unknown instrument, or if every window weighs 0.
    """
    if not weights:
        return windows
    symbols = windows.bars.symbols
    keys_of = {name: [key for key, symbol in symbols.items() if name in (symbol, str(key))] for name in weights}
    for name, keys in keys_of.items():
        if not keys:
            raise UserError(
                f"windows.weights: no instrument '{name}'{nearest_name(name, symbols.values())} "
                f"There are: {', '.join(sorted(set(symbols.values()))[:12])}"
            )
    of_key = dict.fromkeys(symbols, 1.0) | {key: weights[name] for name, keys in keys_of.items() for key in keys}
    known = np.array(sorted(of_key))
    position = np.searchsorted(known, take_rows(windows.bars.instrument, windows.starts))
    weight = np.array([of_key[key] for key in known.tolist()])[position]
    if not weight.any():
        raise UserError(f"windows.weights={dict(weights)} leave no window. Give one instrument a weight above 0")
    return replace(windows, weights=weight)


def check_drawn(windows: Windows, train: np.ndarray, weights: Mapping[str, float]) -> None:
    """Refuse weights that leave no training window. Shapes: train int [N], positions of the training windows.

    Raises: UserError if every training window weighs 0.
    """
    if windows.weights is not None and not windows.weights[train].any():
        raise UserError(
            f"windows.weights={dict(weights)} leave no training window: all {len(train):,} of the train split weigh 0. "
            "Give an instrument of the train split a weight above 0, or widen split.train"
        )
