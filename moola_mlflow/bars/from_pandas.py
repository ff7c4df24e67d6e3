"""Make bars of a table in memory, as the library and the server do, with the checks that a file must pass."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from moola_mlflow.bars.checks import check_rows
from moola_mlflow.bars.formats import PRICES, find_columns, from_frame
from moola_mlflow.bars.instruments import choose, merge
from moola_mlflow.bars.reader import Bars, SourceFile
from moola_mlflow.bars.times import parse_times
from moola_mlflow.core import UserError


def bars_from_table(frame: pd.DataFrame, min_bars: int = 105, name: str = "table") -> Bars:
    """Check a table of one-minute bars and return its bars, one instrument behind another.

    The columns have the names that they have in a file: time (or timestamp, datetime, ts_event, date and time), open,
    high, low, close. Two are optional: volume, and instrument (or symbol, instrument_id). The time may be the index. A
    time without an offset is UTC, and the start of its bar.

    Raises: UserError with the row (from 1), the value and the cure.
    """
    table = _with_time_column(frame)
    columns = find_columns([str(column) for column in table.columns], name)
    if len(table) == 0:
        raise UserError(f"{name}: holds no rows")
    position = {str(column): i for i, column in enumerate(table.columns)}
    cells = {role: [table.iloc[:, position[c]] for c in named] for role, named in columns.items()}
    index = pd.DatetimeIndex(_times(cells.pop("time"), name).view("datetime64[ns]"), tz="UTC", name="ts_event")
    raw = from_frame(pd.DataFrame({role: _plain(given[0]) for role, given in cells.items()}).set_index(index), name)
    rows, _ = check_rows(raw, False, "UTC")
    merged, _ = merge([raw], [rows], False)
    chosen = choose(merged, "all", name)
    if len(chosen) < min_bars:
        raise UserError(f"{name}: {len(chosen):,} bars, fewer than the {min_bars} of a window; give more bars")
    ohlc = np.empty((len(chosen), len(PRICES)))
    np.add(chosen.prices.T, 0.0, out=ohlc)
    bars = Bars(
        chosen.time_ns, ohlc, chosen.volume, chosen.instrument, chosen.last_symbols(),
        (SourceFile(raw.path, "", len(raw)),), "", {},
    )  # fmt: skip
    return bars.head(len(bars))  # hashes the bars that it keeps


def _with_time_column(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with an index of times as its first column."""
    if isinstance(frame.index, pd.DatetimeIndex):
        return frame.reset_index(names=str(frame.index.name or "ts_event"))
    return frame.reset_index(drop=True)


def _times(given: list[pd.Series], name: str) -> np.ndarray:
    """Return the times. Shapes: int64 [N]. Units: ns since 1970 UTC."""
    column = _plain(given[0])
    if len(given) == 2:
        column = _plain(given[0]).astype(str) + " " + _plain(given[1]).astype(str)
    if isinstance(column.dtype, pd.DatetimeTZDtype):  # pyarrow's own conversion causes a warning in pandas
        index = pd.DatetimeIndex(column).tz_convert("UTC").as_unit("ns")
        cells = pa.array(index.asi8, pa.timestamp("ns", "UTC"), mask=np.asarray(index.isna()))
    else:
        cells = pa.array(column)
    ns, bad, _ = parse_times(pa.chunked_array([cells]), name)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise UserError(
            f"{name}: row {row + 1}: time '{str(column.iloc[row])[:80]}' does not parse; write yyyy-mm-ddThh:mm, with "
            "or without an offset throughout, or an epoch"
        )
    return ns


def _plain(column: pd.Series) -> pd.Series:
    """Return a column of one type. Mixed cells become text, so that the error can quote a bad one."""
    if column.dtype != object:
        return column
    try:
        pa.array(column)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return column.map(lambda cell: None if cell is None else str(cell)).astype("str")
    return column
