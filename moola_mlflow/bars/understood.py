"""Describe how a file was read, so that the user can see a misreading."""

from __future__ import annotations

import numpy as np

from moola_mlflow.bars.column_names import PRICES
from moola_mlflow.bars.raw import RawBars
from moola_mlflow.bars.times import utc

MOST_NOTES = 12
MOST_FILES = 3
"""Files that are described one by one; most folders hold many files of one form."""


def understood(raw: RawBars, rows: np.ndarray) -> str:
    """Return how a file was read: columns, clock, order of dates, unit of the times, first and last row.

    Shapes: rows int64 [M], the good rows.
    """
    ends = (
        [f"{name} row {_row(raw, int(row))}" for name, row in zip(("first", "last"), rows[[0, -1]], strict=True)]
        if len(rows)
        else []
    )
    return f"{raw.path}: {raw.described()}; {'; '.join(ends) or 'no rows are left'}"


def _row(raw: RawBars, row: int) -> str:
    cells = " ".join(f"{name[0]} {value:.10g}" for name, value in zip(PRICES, raw.prices[:, row], strict=True))
    return f"{utc(int(raw.time_ns[row]))} {cells} v {raw.volume[row]:.10g}"


def shortened(lines: list[str], most: int = MOST_FILES) -> tuple[str, ...]:
    """Return the first lines, and how many more there are."""
    left = len(lines) - most
    return (*lines[:most], *([f"and {left:,} more files"] if left > 0 else []))
