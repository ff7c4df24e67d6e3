"""Turn lines of CSV or JSON into bars as they come, with the rules of a file for columns, times and clocks."""

from __future__ import annotations

import csv
import json
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from moola_mlflow.bars.cadence import MIN_STEPS, check_cadence
from moola_mlflow.bars.checks import price_fault
from moola_mlflow.bars.column_names import Roles, find_columns
from moola_mlflow.bars.formats import from_table
from moola_mlflow.bars.instruments import UNNAMED
from moola_mlflow.bars.raw import RawBars
from moola_mlflow.bars.times import MINUTE_NS
from moola_mlflow.core import BarsConfig, UserError

CONTEXT = 2 * MIN_STEPS
"""Good lines that are read again with the next ones: one line alone may not show how its time is written."""
MOST_BAD = 20
"""So many bad lines at the start, and no good one: the lines were not understood."""


class LiveBar(NamedTuple):
    """A bar of a line. Shapes: ohlc float64 [4]. Units: time_ns in ns since 1970 UTC, the start of the bar."""

    instrument: str
    time_ns: int
    ohlc: np.ndarray
    volume: float


class BadLine(NamedTuple):
    """A line that holds no bar, and why."""

    number: int
    reason: str


class LineReader:
    """Reads lines of CSV, the first of them a header, or one JSON object a line.

    Parameters
    ----------
    config
        Section ``bars``: columns, timezone, dates, epoch, stamp and instrument.
    name
        Name of the source for messages.

    Raises
    ------
    UserError
        For keys that need the whole file: ``bars.instrument=front``, ``bars.resample``, ``bars.instrument_from``.
    """

    def __init__(self, config: BarsConfig, name: str) -> None:
        for key, usual in (("resample", None), ("instrument_from", "column")):
            if (value := getattr(config, key)) != usual:
                raise UserError(f"bars.{key}={value} cannot follow bars that come one by one; leave it unset")
        if config.instrument == "front":
            raise UserError(
                "bars.instrument=front needs the volume of whole days, and bars that come one by one have none yet; "
                "name the instrument, or give all"
            )
        self.config, self.name, self.number = config, name, 0
        self._header: list[str] | None = None
        self._columns: Roles = {}
        self._delimiter = ""
        self._context: deque[list[str]] = deque(maxlen=CONTEXT)
        self._seen: str | None = None
        self._num_good = self._num_bad = 0
        self._cadence_known = False

    def read(self, lines: Sequence[str]) -> list[LiveBar | BadLine]:
        """Return the bars of some lines in their order, and the lines that hold none. The header gives nothing.

        Raises: UserError if the columns are not those of bars, if dates read both ways, if the bars have another
        length, or if nothing at all can be understood.
        """
        rows, numbers, out = list[list[str]](), list[int](), list[LiveBar | BadLine]()
        for line in lines:
            self.number += 1
            cells = self._cells(line)
            if isinstance(cells, str):
                out.append(BadLine(self.number, cells))
            elif cells:
                rows.append(cells)
                numbers.append(self.number)
        if rows:
            out += self._bars(rows, numbers)
        self._num_bad += sum(isinstance(one, BadLine) for one in out)
        if not self._num_good and self._num_bad >= MOST_BAD:
            first = next(one for one in out if isinstance(one, BadLine))
            raise UserError(f"{self.name}: line {first.number}: {first.reason}; no line before it holds a bar either")
        return out

    def _cells(self, line: str) -> list[str] | str:
        """Return the cells of a line by the names of the header, nothing for the header itself, or what is wrong."""
        if line.startswith("{"):
            return self._object(line)
        if self._header is None:
            self._delimiter = max(",;\t|", key=line.count)
            self._header = next(csv.reader([line], delimiter=self._delimiter))
            return []
        if not self._delimiter:
            return "is not a JSON object, as the lines before it are"
        cells = next(csv.reader([line], delimiter=self._delimiter), [])
        if len(cells) != len(self._header):
            return f"has {len(cells)} fields, the header has {len(self._header)}"
        return cells

    def _object(self, line: str) -> list[str] | str:
        try:
            found: Any = json.loads(line)
        except ValueError as e:
            return f"is not JSON ({e})"
        if self._header is None:
            self._header = [str(name) for name in found]
        if missing := [name for name in self._header if name not in found]:
            return f"lacks {', '.join(missing)}, which the first line has"
        return ["" if found[name] is None else str(found[name]) for name in self._header]

    def _bars(self, rows: list[list[str]], numbers: list[int]) -> list[LiveBar | BadLine]:
        assert self._header is not None
        header, together = self._header, [*self._context, *rows]
        if not self._columns:
            at = {name: i for i, name in enumerate(header)}
            self._columns = find_columns(
                header, self.name, lambda name: [row[at[name]] for row in together[:20]], self.config.columns
            )
        used = dict.fromkeys(name for names in self._columns.values() for name in names)
        table = pa.table({name: [row[header.index(name)] for row in together] for name in used})
        raw = from_table(table, self._columns, self.name, self.config)
        if raw.newest_first:
            raise UserError(f"{self.name}: the newest line comes first; give bars in order of time")
        out, first = list[LiveBar | BadLine](), len(self._context)
        for k, number in enumerate(numbers):
            found = self._bar(raw, first + k)
            if isinstance(found, str):
                out.append(BadLine(number, found))
                continue
            self._num_good += 1
            self._context.append(rows[k])
            if self._is_wanted(found.instrument, raw, first + k):
                out.append(found)
        self._check_cadence(raw)
        return out

    def _bar(self, raw: RawBars, row: int) -> LiveBar | str:
        """Return the bar of a row, or what is wrong with it."""
        if raw.unreadable_time[row] or raw.ambiguous_time[row] or raw.skipped_time[row]:
            return f"time '{raw.cell('time', row)}' does not parse, or is not one moment on the clock {raw.zone}"
        o, h, low, c = ohlc = raw.prices[:, row].copy() + 0.0
        if not np.isfinite(ohlc).all() or h < max(o, c) or low > min(o, c):
            return price_fault(ohlc)
        if raw.nameless[row]:
            return "no instrument can be read from it"
        late_ns = self.config.minutes * MINUTE_NS if self.config.stamp == "end" else 0
        return LiveBar(_name(raw, row), int(raw.time_ns[row]) - late_ns, ohlc, float(np.nan_to_num(raw.volume[row])))

    def _is_wanted(self, name: str, raw: RawBars, row: int) -> bool:
        """Return whether a bar is of the instrument that was asked for. Raises: UserError for a second one if unset."""
        wanted = self.config.instrument
        if wanted == "all":
            return True
        if wanted is not None:
            return wanted == name or (raw.ids is not None and wanted == str(raw.ids[row]))
        if self._seen not in (None, name):
            raise UserError(
                f"{self.name}: holds the instruments {self._seen} and {name}, and bars.instrument is unset; name one, "
                "or give all"
            )
        self._seen = name
        return True

    def _check_cadence(self, raw: RawBars) -> None:
        """Look once, at the first lines, whether bars have the length that they should have."""
        if self._cadence_known or len(raw) < CONTEXT:
            return
        self._cadence_known = True
        codes = raw.instrument_codes()
        rows = np.flatnonzero(~raw.unreadable_time)
        rows = rows[np.lexsort((raw.time_ns[rows], codes[rows]))]
        check_cadence(raw.time_ns[rows], codes[rows], self.name, self.config.minutes)


def _name(raw: RawBars, row: int) -> str:
    if raw.symbols is not None and raw.symbols[row] >= 0:
        return raw.names[raw.symbols[row]]
    return UNNAMED if raw.ids is None else str(raw.ids[row])
