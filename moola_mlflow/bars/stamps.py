"""Check whether bars are stamped as they were read: with their start, or with their end."""

from __future__ import annotations

import numpy as np

from moola_mlflow.bars.columns import take_rows
from moola_mlflow.bars.store import find_segments
from moola_mlflow.bars.times import MINUTE_NS

PAUSE_MINUTES = 60
"""After a longer pause a new session begins. Markets open and close on quarters of an hour."""
QUARTER = 15
MIN_EDGES = 8
MIN_SHARE = 0.4
"""Share of the session edges that must look shifted. By chance it would be a fifteenth."""


def stamp_warning(time_ns: np.ndarray, instrument: np.ndarray, stamp: str, minutes: int = 1) -> str | None:
    """Return a warning if the sessions begin and end one bar off the quarters of an hour, else None.

    A start-stamped session begins at :00, :15, :30 or :45, and its last bar is at :14, :29, :44 or :59. If most begin
    at :01 and end at :00, the stamps are the ends of the bars. ``stamp`` says how the bars were read, ``minutes`` how
    long a bar is. Bars of a quarter of an hour look alike either way.

    Shapes: time_ns, instrument [N].
    """
    if minutes >= QUARTER:
        return None
    runs = find_segments(time_ns, instrument, PAUSE_MINUTES)
    first, last = (take_rows(time_ns, rows) // MINUTE_NS % QUARTER for rows in (runs[:, 0], runs[:, 1] - 1))
    length = "a minute" if minutes == 1 else f"{minutes} minutes"

    def edges(shift: int) -> int:
        return int((first == shift % QUARTER).sum() + (last == (shift - minutes) % QUARTER).sum())

    right, enough = edges(0), max(MIN_EDGES, MIN_SHARE * 2 * len(runs))
    if stamp == "start" and edges(minutes) >= enough and edges(minutes) >= 3 * right:
        return (
            "the bars were read as stamped with their start, but look stamped with their end: of "
            f"{len(runs):,} sessions {int((first == minutes).sum()):,} begin {length} after a quarter of an hour and "
            f"{int((last == 0).sum()):,} end on one. If so, every time is {length} late: set --bars.stamp end"
        )
    if stamp == "end" and edges(-minutes) >= enough and edges(-minutes) >= 3 * right:
        return (
            "the bars were read as stamped with their end, but look stamped with their start: of "
            f"{len(runs):,} sessions {int((first == QUARTER - minutes).sum()):,} would begin {length} before a quarter "
            f"of an hour. If so, every time is {length} early: set --bars.stamp start"
        )
    return None
