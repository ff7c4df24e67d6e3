"""Windows for rules: prices, moves, ranges and units, computed once and shared by all rules.

Shape legend: N windows, T bars, P candidate positions.
"""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np

from moola_mlflow.core import UserError

UNITS = ("range", "change", "deviation")
TABLE_SIZE = 2**18


class RuleWindows:
    """Raw OHLC windows with the quantities that several rules need.

    ``key`` has a number for each window. A rule with noise draws the same noise for the same number, in any batch. A
    window with a unit of 0 has no spans (``moves`` is False). Its units are set to 1.

    Shapes: ohlc float64 [N, T, 4], key int64 [N]; every price array float64 [N, T].
    Raises: UserError for windows of another shape.
    """

    def __init__(self, ohlc_NT4: np.ndarray, key_N: np.ndarray | None = None) -> None:
        ohlc_NT4 = np.asarray(ohlc_NT4, np.float64)
        if ohlc_NT4.ndim != 3 or ohlc_NT4.shape[2] != 4:
            raise UserError(f"rules read windows of shape [N, T, 4] (open, high, low, close), got {ohlc_NT4.shape}")
        self.open, self.high, self.low, self.close = (np.ascontiguousarray(x) for x in np.moveaxis(ohlc_NT4, 2, 0))
        self.num, self.length = self.close.shape
        self.rows = np.arange(self.num)
        self.key = self.rows if key_N is None else np.asarray(key_N, np.int64)
        before = np.concatenate([self.open[:, :1], self.close[:, :-1]], axis=1)
        self.true_range = np.maximum(self.high, before) - np.minimum(self.low, before)
        self.change = self.close - before
        self.range_sum = _summed(self.true_range)
        self.change_sum = _summed(np.abs(self.change))
        units = np.stack(self._units())
        self.moves = (units > 0).all(axis=0)
        self._unit = dict(zip(UNITS, np.where(self.moves, units, 1.0), strict=True))

    def _units(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        height = self.high - self.low
        median = np.median(height, axis=1)
        median = np.where(median > 0, median, height.mean(axis=1))
        return median, 1.7 * np.abs(self.change).mean(axis=1), 1.2 * self.change.std(axis=1)

    def unit(self, name: str) -> np.ndarray:
        """Return the unit of each window that thresholds are multiples of.

        ``range`` is the median range of its bars. ``change`` is 1.7 times the mean absolute change of its closes, and
        ``deviation`` 1.2 times their standard deviation: on average these are as large.

        Shapes: [N, 1].
        """
        return self._unit[name][:, None]

    def ends(self, source: str) -> tuple[np.ndarray, np.ndarray]:
        """Return highs and lows (``high_low``), or the closes for both (``close``)."""
        return (self.high, self.low) if source == "high_low" else (self.close, self.close)

    @cached_property
    def level(self) -> np.ndarray:
        """Closes minus the window's first close. Their sums lose no digits to the price level."""
        return self.close - self.close[:, :1]

    @cached_property
    def level_sum(self) -> np.ndarray:
        """Sum of the levels before each bar. Shapes: [N, T + 1]."""
        return _summed(self.level)

    @cached_property
    def square_sum(self) -> np.ndarray:
        """Sum of the squared levels before each bar. Shapes: [N, T + 1]."""
        return _summed(self.level**2)

    @cached_property
    def moment_sum(self) -> np.ndarray:
        """Sum of level times position before each bar. Shapes: [N, T + 1]."""
        return _summed(self.level * np.arange(self.length))

    def average(self, bars: int) -> np.ndarray:
        """Return the exponential moving average of the levels over ``bars`` bars."""
        share, level = 2 / (bars + 1), np.ascontiguousarray(self.level.T)
        out = np.empty_like(level)
        out[0] = level[0]
        for t in range(1, self.length):
            out[t] = share * level[t] + (1 - share) * out[t - 1]
        return np.ascontiguousarray(out.T)

    def noise(self, salt: int, sigma: float, size: int, stream: int = 0) -> np.ndarray | float:
        """Return exp(sigma * N) for each window and position, N standard normal; 1 if sigma is 0.

        The window's key, the rule's ``salt`` and ``stream`` alone decide it.

        Shapes: float32 [N, size].
        """
        if sigma == 0:
            return 1.0
        first = _mixed(self.key.astype(np.uint64) ^ np.uint64(salt * 1_000_003 + stream))
        place = (first % np.uint64(TABLE_SIZE)).astype(np.int64)[:, None] + np.arange(size)
        return np.exp(np.float32(sigma) * _table()[place % TABLE_SIZE])


@lru_cache(maxsize=1)
def _table() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(TABLE_SIZE, dtype=np.float32)


def _mixed(x: np.ndarray) -> np.ndarray:
    """Return numbers whose bits depend on all bits of the given numbers (the finaliser of splitmix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _summed(x_NT: np.ndarray) -> np.ndarray:
    return np.pad(np.cumsum(x_NT, axis=1), ((0, 0), (1, 0)))


def running_max(x_NT: np.ndarray, k: int) -> np.ndarray:
    """Return the maximum of the ``k`` bars that begin at each position. Shapes: [N, T] -> [N, T - k + 1]."""
    width = 1
    while width < k:
        step = min(width, k - width)
        x_NT = np.maximum(x_NT[:, :-step], x_NT[:, step:])
        width += step
    return x_NT


def take(x_NT: np.ndarray, index_NP: np.ndarray) -> np.ndarray:
    """Return the values of x at given positions of each window. Shapes: [N, T], int [N, P] -> [N, P]."""
    return np.take_along_axis(x_NT, index_NP, axis=1)
