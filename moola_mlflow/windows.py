"""Windows over bars: segments, starts, and gathering by index. No copy of all windows is ever made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moola_mlflow.bars import Bars
from moola_mlflow.errors import UserError

MINUTE_NS = 60_000_000_000


def segments(bars: Bars, max_gap_minutes: int = 5) -> np.ndarray:
    """Return the maximal runs of one instrument's bars whose neighbours start at most a gap apart.

    Shapes: int64 [S, 2], first row and one past the last row of each segment.
    """
    if len(bars) == 0:
        return np.zeros((0, 2), np.int64)
    gap = np.diff(bars.time_ns) > max_gap_minutes * MINUTE_NS
    # `all` puts one instrument behind another, so time may also run backwards: that is an instrument change.
    cuts = np.flatnonzero(gap | (np.diff(bars.instrument) != 0)) + 1
    bounds = np.concatenate([[0], cuts, [len(bars)]])
    return np.stack([bounds[:-1], bounds[1:]], axis=1).astype(np.int64)


@dataclass(frozen=True)
class Windows:
    """Windows of one length over a bars table, in order of their start times.

    Shapes: starts int64 [N], the row of each window's first bar.
    """

    bars: Bars
    length: int
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def start_ns(self) -> np.ndarray:
        """Start time of each window's first bar. Shapes: int64 [N]. Units: ns since 1970 UTC."""
        return self.bars.time_ns[self.starts]

    @property
    def end_ns(self) -> np.ndarray:
        """Start time of each window's last bar. Shapes: int64 [N]. Units: ns since 1970 UTC."""
        return self.bars.time_ns[self.starts + self.length - 1]

    def gather(self, index: np.ndarray) -> np.ndarray:
        """Return the prices of some windows. Shapes: index int [B] -> float64 [B, T, 4], order o h l c."""
        return self.bars.ohlc[self.starts[index][:, None] + np.arange(self.length)]

    def select(self, index: np.ndarray) -> Windows:
        """Return the windows at some positions, in that order."""
        return Windows(self.bars, self.length, self.starts[index])


def make_windows(bars: Bars, length: int = 105, stride: int = 52, max_gap_minutes: int = 5) -> Windows:
    """Cut windows from each segment's first bar on, every ``stride`` bars, none over a segment's end.

    Raises: UserError with the arithmetic where no segment is long enough.
    """
    runs = segments(bars, max_gap_minutes)
    starts = [np.arange(first, last - length + 1, stride) for first, last in runs]
    flat = np.concatenate([*starts, np.zeros(0, np.int64)]).astype(np.int64)
    if len(flat) == 0:
        longest = int((runs[:, 1] - runs[:, 0]).max(initial=0))
        raise UserError(
            f"no windows: {len(bars):,} bars in {len(runs)} segments, the longest of {longest} bars, and a window "
            f"needs {length} contiguous bars; lower windows.length, raise bars.max_gap_minutes "
            f"(now {max_gap_minutes}) or give more bars"
        )
    return Windows(bars, length, flat[np.argsort(bars.time_ns[flat], kind="stable")])


def utc(time_ns: int) -> str:
    """Return a time as ISO 8601 to the minute. Units: ns since 1970 UTC."""
    return f"{np.datetime64(time_ns, 'ns').astype('datetime64[m]')}Z"
