"""Windows over bars: segments, starts, and gathering by index. No copy of all windows is ever made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from moola_mlflow.bars import MINUTE_NS, Bars, segments, take_rows, take_runs
from moola_mlflow.core import UserError, nearest_name

__all__ = ["MINUTE_NS", "Windows", "check_drawn", "make_windows", "with_weights"]


@dataclass(frozen=True)
class Windows:
    """Windows of one length over a bars table, in order of their start times.

    Shapes: starts int64 [N], the row of each window's first bar.
    """

    bars: Bars
    length: int
    starts: np.ndarray
    weights: np.ndarray | None = None
    """How often each window is drawn for training, against the others; None: equally. Shapes: float64 [N]."""

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
        """Return as many positions in random order, drawn by weight where windows have weights.

        Each comes as often as its weight says, rounded up or down at random: a window of mean weight comes about once.

        Shapes: index int [N] -> int [N].
        """
        order = rng.permutation(index)
        if self.weights is None:
            return order
        until = np.cumsum(self.weights[order])
        until *= len(order) / until[-1]
        drawn = np.searchsorted(until, rng.random() + np.arange(len(order)), side="right")
        return rng.permutation(order[np.minimum(drawn, len(order) - 1)])


def make_windows(bars: Bars, length: int = 105, stride: int = 52, max_gap_minutes: int = 5) -> Windows:
    """Cut windows from each segment's first bar on, every ``stride`` bars, none over a segment's end.

    Raises: UserError with the arithmetic where no segment is long enough.
    """
    runs = segments(bars, max_gap_minutes)
    count = np.maximum(0, (runs[:, 1] - runs[:, 0] - length) // stride + 1)  # windows of each segment
    nth = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    flat = np.repeat(runs[:, 0], count) + stride * nth
    if len(flat) == 0:
        longest = int((runs[:, 1] - runs[:, 0]).max(initial=0))
        raise UserError(
            f"no windows: {len(bars):,} bars in {len(runs)} segments, the longest of {longest} bars, and a window "
            f"needs {length} contiguous bars; lower windows.length, raise bars.max_gap_minutes "
            f"(now {max_gap_minutes}) or give more bars"
        )
    return Windows(bars, length, flat[np.argsort(take_rows(bars.time_ns, flat), kind="stable")])


def with_weights(windows: Windows, weights: Mapping[str, float]) -> Windows:
    """Return the windows with a weight for each instrument that is named by symbol or id; the others weigh 1.

    Raises: UserError for an unknown instrument, or where every window weighs 0.
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
        raise UserError(f"windows.weights={dict(weights)} leave no window; give one instrument a weight above 0")
    return replace(windows, weights=weight)


def check_drawn(windows: Windows, train: np.ndarray, weights: Mapping[str, float]) -> None:
    """Refuse weights that leave nothing to train on: those of validation and test windows draw nothing.

    Shapes: train int [N], positions of the training windows.

    Raises: UserError where every training window weighs 0.
    """
    if windows.weights is not None and not windows.weights[train].any():
        raise UserError(
            f"windows.weights={dict(weights)} leave no training window: all {len(train):,} of the train split weigh 0, "
            "at least one must weigh more; give an instrument that the train split holds a weight above 0, or widen "
            "split.train"
        )
