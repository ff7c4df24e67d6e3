"""Whether bars are stamped with their start, as they are read, or look as if stamped otherwise."""

from __future__ import annotations

import numpy as np

from moola_mlflow.bars.columns import take_rows
from moola_mlflow.bars.store import find_segments
from moola_mlflow.bars.times import MINUTE_NS

PAUSE_MINUTES = 60
"""After a longer pause a session begins; markets open and close on quarters of an hour."""
MIN_EDGES = 8
MIN_SHARE = 0.4
"""Of the edges; by chance a fifteenth would do."""


def stamp_warning(time_ns: np.ndarray, instrument: np.ndarray, stamp: str) -> str | None:
    """Return what to say of bars whose sessions begin and end one minute off the quarters of an hour, or None.

    A start-stamped session begins at :00 and its last bar is :14, :29, :44 or :59. Where most begin at :01 and end at
    :00, the stamps are the bars' ends.

    Shapes: time_ns, instrument [N]. ``stamp`` is how they were read.
    """
    runs = find_segments(time_ns, instrument, PAUSE_MINUTES)
    first, last = (take_rows(time_ns, rows) // MINUTE_NS % 15 for rows in (runs[:, 0], runs[:, 1] - 1))

    def edges(shift: int) -> int:
        return int((first == shift % 15).sum() + (last == (14 + shift) % 15).sum())

    right, enough = edges(0), max(MIN_EDGES, MIN_SHARE * 2 * len(runs))
    if stamp == "start" and edges(1) >= enough and edges(1) >= 3 * right:
        return (
            "the bars look stamped with their end, and were read as stamped with their start: of "
            f"{len(runs):,} sessions {int((first == 1).sum()):,} begin a minute after a quarter of an hour and "
            f"{int((last == 0).sum()):,} end on one; if so, every time is a minute late: set --bars.stamp end"
        )
    if stamp == "end" and edges(-1) >= enough and edges(-1) >= 3 * right:
        return (
            "the bars were read as stamped with their end, and look stamped with their start: of "
            f"{len(runs):,} sessions {int((first == 14).sum()):,} would begin a minute before a quarter of an hour; if "
            "so, every time is a minute early: set --bars.stamp start"
        )
    return None
