"""Splits by time: a window of an earlier split never reaches into a later one."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np

from moola_mlflow.core import SplitConfig, UserError
from moola_mlflow.windows.windows import Windows

NAMES = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Positions of the windows of each split.

    ``dropped`` counts the windows that overlap the next split and belong to none.

    Shapes: train, val, test int64 [N_split].
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    dropped: int


def split_by_time(windows: Windows, config: SplitConfig) -> Split:
    """Split windows into train, val and test: by dates if they are given, else by shares of the windows in time order.

    A boundary is the first start of the later split. An earlier window that ends at or after the boundary is dropped.

    Raises: UserError that shows the arithmetic if a split is empty.
    """
    part = _by_date(windows, config) if config.train_end else _by_share(len(windows), config)
    parts = [np.flatnonzero(part == i) for i in range(3)]
    before = [len(p) for p in parts]
    for i in (0, 1):
        later = np.concatenate(parts[i + 1 :])
        if len(later):
            boundary = windows.start_ns[later].min()
            parts[i] = parts[i][windows.end_ns[parts[i]] < boundary]
    for name, taken, kept in zip(NAMES, before, parts, strict=True):
        if len(kept) == 0:
            raise UserError(_empty(name, taken, windows, config))
    train, val, test = parts
    return Split(train, val, test, dropped=sum(before) - sum(map(len, parts)))


def _by_share(n: int, config: SplitConfig) -> np.ndarray:
    """Return the number of the split of each window in time order; 3 means none. Shapes: int [n]."""
    # In floats 0.8 + 0.1 of 10 windows is 8.999...; the tolerance makes it 9.
    ends = np.floor(np.cumsum([config.train, config.val, config.test]) * n + 1e-9)
    return np.searchsorted(ends, np.arange(n), side="right")


def _by_date(windows: Windows, config: SplitConfig) -> np.ndarray:
    ends = [_end_of_day_ns(date) for date in (config.train_end, config.val_end, config.test_end) if date]
    return np.searchsorted(ends, windows.start_ns, side="right")


def _end_of_day_ns(date: dt.date) -> int:
    """Return the first instant after a UTC date, because the date itself belongs to the split."""
    return int(np.datetime64(date + dt.timedelta(days=1), "ns").astype(np.int64))


def _empty(name: str, taken: int, windows: Windows, config: SplitConfig) -> str:
    first, last = (str(np.datetime64(int(t), "ns"))[:16] for t in (windows.start_ns.min(), windows.end_ns.max()))
    rule = (
        f"dates train_end={config.train_end}, val_end={config.val_end}, test_end={config.test_end}"
        if config.train_end
        else f"shares {config.train:g}/{config.val:g}/{config.test:g}"
    )
    lost = f" ({taken} start in it, and all of them overlap the later split)" if taken else ""
    return (
        f"{name} split holds 0 windows{lost}: {len(windows.bars):,} bars from {first} to {last} UTC give "
        f"{len(windows)} windows of {windows.length} bars, split by {rule}. Give more bars, widen split.{name}, "
        "lower windows.stride or move the dates"
    )
