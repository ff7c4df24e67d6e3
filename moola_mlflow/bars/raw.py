"""The bars of one file as they were read, before they are checked: `RawBars`."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from moola_mlflow.bars.column_names import Roles
from moola_mlflow.bars.epochs import ReadTimes
from moola_mlflow.bars.size_limits import Unpacked


@dataclass(frozen=True, eq=False)
class RawBars:
    """The bars of one file, not sorted and not checked, with their unreadable cells marked.

    ``ids`` and ``symbols`` are None if the file has no such column. A symbol is an index into ``names``, or -1.

    Shapes: prices [4, N] (open, high, low, close; NaN if unreadable); the others [N].
    Units: time_ns in ns since 1970 UTC.
    """

    path: Path
    table: pa.Table
    columns: Roles
    times: ReadTimes
    time_ns: np.ndarray
    ambiguous_time: np.ndarray
    skipped_time: np.ndarray
    prices: np.ndarray
    volume: np.ndarray
    ids: np.ndarray | None
    symbols: np.ndarray | None
    names: list[str]
    nameless: np.ndarray
    zone: str = "UTC"
    newest_first: bool = False
    exact_times: bool = False
    """Whether the file's own types say what its times are, so that none was guessed."""
    head_lines: int | None = None  # lines above the first row of a text file
    ragged: list[tuple[int, str]] = field(default_factory=list)  # rows with a wrong number of fields, and why
    shown: dict[str, str] = field(default_factory=dict)  # the columns of each role by the names that the file has
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.time_ns)

    @property
    def unreadable_time(self) -> np.ndarray:
        return self.times.bad

    def instrument_codes(self) -> np.ndarray:
        """Return for each row a small integer that stands for its instrument. Shapes: int64 [N]."""
        if self.ids is not None:
            return np.asarray(pd.factorize(self.ids)[0])
        return np.zeros(len(self), np.int64) if self.symbols is None else self.symbols

    def cell(self, role: str, row: int) -> str:
        """Return a row's value as it is written in the file."""
        return " ".join(_shown(self.table[name][row]) for name in self.columns[role])

    def described(self) -> str:
        """Return in one line how the file was read: columns, form of the times, clock, order of dates."""
        columns = ", ".join(f"{role} = {name}" for role, name in self.shown.items())
        dates = f", dates {self.times.order.replace('_', ' ')}" if self.times.order else ""
        return f"{columns or 'bars'}; {self.times.form}, clock {self.zone}{dates}"

    def where(self, row: int) -> str:
        """Return 'file: row 5 (line 6)' for a row counted from 0."""
        row = len(self) - 1 - row if self.newest_first else row
        text = f"{self.path}: row {row + 1}"
        if self.head_lines is None:
            return text
        with io.BufferedReader(Unpacked(self.path)) as stream:
            for line, content in enumerate(stream, 1):
                row -= line > self.head_lines and content.strip(b"\r\n") != b""  # arrow skips blank lines
                if row < 0:
                    return f"{text} (line {line})"
        return text


def _shown(cell: pa.Scalar) -> str:
    try:
        return str(cell.as_py())[:80]
    except (OverflowError, ValueError):  # a timestamp beyond Python's years
        return str(cell.cast(pa.int64()))
