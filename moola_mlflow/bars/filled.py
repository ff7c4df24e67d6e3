"""Find minutes that a vendor filled in: rows that repeat the last price, without volume."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

MIN_RUN = 5
"""Shorter runs may be real: a bar of one trade whose volume is missing."""
MIN_RUN_WITHOUT_VOLUME = 30
"""In a file without any volume, a price that does not change is a sign only after half an hour."""


class Filled(NamedTuple):
    """Rows that were filled in, and the first and last row of their longest run. Shapes: rows int64 [F]."""

    rows: np.ndarray
    longest: tuple[int, int]


def find_filled(prices: np.ndarray, volume: np.ndarray, codes: np.ndarray) -> Filled | None:
    """Return the rows of long runs in which the price does not change and nothing is traded. None if there are none.

    Shapes: prices [4, N], volume, codes [N], ordered by instrument and then by time.
    """
    rests = (prices[1] == prices[2]) & (volume == 0)
    if not rests.any():
        return None
    rests[1:] &= prices[3, 1:] == prices[3, :-1]
    rests[0] = False
    if codes.max(initial=0) > 0:
        rests[1:] &= codes[1:] == codes[:-1]
    bounds = np.flatnonzero(np.diff(np.concatenate([[False], rests, [False]])))
    starts, ends = bounds[::2], bounds[1::2]
    least = MIN_RUN if volume.any() else MIN_RUN_WITHOUT_VOLUME
    long = ends - starts >= least
    if not long.any():
        return None
    starts, ends = starts[long], ends[long]
    size = ends - starts
    k = int(np.argmax(size))
    rows = np.repeat(starts - (np.cumsum(size) - size), size) + np.arange(size.sum())
    return Filled(rows, (int(starts[k]), int(ends[k]) - 1))
