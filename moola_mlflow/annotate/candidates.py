"""The windows that may be shown: where each begins, its bars as the page reads them, and the bars around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from moola_mlflow.bars import Bars, segments, take_runs
from moola_mlflow.labels import instrument_of_rows, window_ids
from moola_mlflow.windows import make_windows


@dataclass(frozen=True)
class Candidates:
    """All windows of the bars that may be shown. A window is known by the row of its first bar.

    Bars of a store stay mapped: only those that are shown are read.

    Shapes: starts int64 [N], rows in order of time.
    """

    bars: Bars
    length: int
    starts: np.ndarray
    zone: str
    max_gap_minutes: int = 5

    @classmethod
    def of(cls, bars: Bars, length: int, stride: int, max_gap_minutes: int, zone: str) -> Candidates:
        """Cut bars into windows. Raises: UserError if no segment is long enough for one."""
        return cls(bars, length, make_windows(bars, length, stride, max_gap_minutes).starts, zone, max_gap_minutes)

    def __len__(self) -> int:
        return len(self.starts)

    def names(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """Return the window_id of windows that begin at these rows."""
        rows = np.asarray(rows, np.int64)
        return window_ids(self.instruments(rows), np.asarray(self.bars.time_ns[rows]))

    def instruments(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the instrument of windows that begin at these rows. Shapes: int64 [N] -> text [N]."""
        return instrument_of_rows(self.bars, np.asarray(rows, np.int64))

    def prices(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the prices of windows. Shapes: int64 [N] -> float64 [N, T, 4]."""
        return take_runs(self.bars.ohlc, np.asarray(rows, np.int64), self.length)

    def times(self, rows: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return when the first and the last bar of windows start. Shapes: int64 [N] each. Units: ns since 1970 UTC."""
        rows = np.asarray(rows, np.int64)
        return np.asarray(self.bars.time_ns[rows]), np.asarray(self.bars.time_ns[rows + self.length - 1])

    def find(self, instruments: Sequence[str], start_ns: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the row at which each window begins, -1 if no whole window of the bars begins there.

        Shapes: text [N], int64 [N] -> int64 [N].
        """
        rows = np.full(len(start_ns), -1, np.int64)
        for i, (name, time_ns) in enumerate(zip(instruments, np.asarray(start_ns).tolist(), strict=True)):
            for lo, hi in self._blocks.get(str(name), ()):
                row = lo + int(np.searchsorted(self.bars.time_ns[lo:hi], time_ns))
                if row < hi and self.bars.time_ns[row] == time_ns and self.fits(row):
                    rows[i] = row
        return rows

    def fits(self, row: int) -> bool:
        """Return whether a whole window of one segment begins at a row."""
        lo, hi = self._segment(row)
        return lo <= row and row + self.length <= hi

    def shown(self, row: int) -> dict[str, Any]:
        """Return the bars of a window as the page reads them."""
        return self._shown(row, row + self.length)

    def context(self, row: int, before: int, after: int) -> dict[str, Any]:
        """Return bars of the same instrument before and after a window, across breaks."""
        lo, hi = self._block(row)
        end = row + self.length
        return {"before": self._shown(max(lo, row - before), row), "after": self._shown(end, min(hi, end + after))}

    def _shown(self, lo: int, hi: int) -> dict[str, Any]:
        part = slice(lo, hi)
        times = pd.DatetimeIndex(np.asarray(self.bars.time_ns[part]).view("datetime64[ns]"), tz="UTC")
        local = times.tz_convert(self.zone).tz_localize(None).strftime("%Y-%m-%dT%H:%M:%S")
        columns = np.asarray(self.bars.ohlc[part]).T.tolist()
        volume = np.asarray(self.bars.volume[part]).tolist() if self._has_volume else None
        return {"time": local.tolist(), **dict(zip(("open", "high", "low", "close"), columns, strict=True)),
                "volume": volume}  # fmt: skip

    @cached_property
    def _has_volume(self) -> bool:
        step = max(1, len(self.bars) // 10_000)
        return bool((self.bars.volume[::step] > 0).any())

    @cached_property
    def _segments(self) -> np.ndarray:
        return segments(self.bars, self.max_gap_minutes)

    @cached_property
    def _edges(self) -> np.ndarray:
        """First row of each run of bars of one instrument, and one past the last row of all."""
        changes = np.flatnonzero(np.diff(self.bars.instrument)) + 1
        return np.concatenate([[0], changes, [len(self.bars)]]).astype(np.int64)

    @cached_property
    def _blocks(self) -> dict[str, list[tuple[int, int]]]:
        found: dict[str, list[tuple[int, int]]] = {}
        names = self.instruments(self._edges[:-1]).tolist()
        for name, lo, hi in zip(names, self._edges[:-1].tolist(), self._edges[1:].tolist(), strict=True):
            found.setdefault(name, []).append((lo, hi))
        return found

    def _block(self, row: int) -> tuple[int, int]:
        k = int(np.searchsorted(self._edges, row, "right")) - 1
        return int(self._edges[k]), int(self._edges[k + 1])

    def _segment(self, row: int) -> tuple[int, int]:
        k = max(int(np.searchsorted(self._segments[:, 0], row, "right")) - 1, 0)
        return int(self._segments[k, 0]), int(self._segments[k, 1])

    def around(self, instrument: str, start_ns: int, end_ns: int) -> int:
        """Return the row of a window that holds a span near its middle, -1 if no window of the bars holds it."""
        for lo, hi in self._blocks.get(instrument, ()):
            first = lo + int(np.searchsorted(self.bars.time_ns[lo:hi], start_ns - self.bars.length_ns + 1))
            last = lo + int(np.searchsorted(self.bars.time_ns[lo:hi], end_ns, "right")) - 1
            if not lo <= first <= last < hi:
                continue
            low, high = self._segment(first)
            row = (first + last) // 2 - self.length // 2
            row = max(low, min(row, high - self.length))
            if self.fits(row) and row <= first and last < row + self.length:
                return row
        return -1
