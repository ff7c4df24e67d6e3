"""Make bars of a table in memory, as the library and the server do, with the checks that a file must pass."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from moola_mlflow.bars.checks import check_rows
from moola_mlflow.bars.column_names import PRICES, find_columns
from moola_mlflow.bars.formats import from_table
from moola_mlflow.bars.instruments import choose, merge
from moola_mlflow.bars.reader import Bars, SourceFile
from moola_mlflow.core import BarsConfig, UserError


def bars_from_table(
    frame: pd.DataFrame, min_bars: int = 105, name: str = "table", config: BarsConfig | None = None
) -> Bars:
    """Check a table of bars and return its bars, one instrument behind another.

    The columns have the names that they have in a file: time (or timestamp, datetime, ts_event, date and time), open,
    high, low, close. Two are optional: volume, and instrument (or symbol, instrument_id). The time may be the index. A
    time without an offset is UTC, and the start of its bar, unless ``config`` says otherwise. Without an instrument in
    ``config`` there are all of them.

    Raises: UserError with the row (from 1), the value and the cure.
    """
    table = _with_time_column(frame)
    position = {str(column): i for i, column in enumerate(table.columns)}

    def sample(column: str) -> list[str]:
        return [str(cell) for cell in table.iloc[:20, position[column]]]

    columns = find_columns([str(column) for column in table.columns], name, sample if len(table) else None)
    if len(table) == 0:
        raise UserError(f"{name}: holds no rows")
    used = dict.fromkeys(column for named in columns.values() for column in named)
    cells = pa.table({column: _cells(table.iloc[:, position[column]]) for column in used})
    config = config or BarsConfig()
    raw = from_table(cells, columns, name, config)
    merged, _ = merge([raw], [check_rows(raw, config).rows], False)
    chosen = choose(merged, config.instrument or "all", name)
    if len(chosen) < min_bars:
        raise UserError(f"{name}: {len(chosen):,} bars, fewer than the {min_bars} of a window; give more bars")
    ohlc = np.empty((len(chosen), len(PRICES)))
    np.add(chosen.prices.T, 0.0, out=ohlc)
    bars = Bars(
        chosen.time_ns, ohlc, chosen.volume, chosen.instrument, chosen.last_symbols(),
        (SourceFile(raw.path, "", len(raw)),), "", {}, minutes=config.minutes,
    )  # fmt: skip
    return bars.head(len(bars))  # hashes the bars that it keeps


def _with_time_column(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with an index of times as its first column."""
    if isinstance(frame.index, pd.DatetimeIndex):
        return frame.reset_index(names=str(frame.index.name or "ts_event"))
    return frame.reset_index(drop=True)


def _cells(given: pd.Series) -> pa.Array:
    """Return the cells of a column as arrow holds them."""
    column = _plain(given)
    if isinstance(column.dtype, pd.DatetimeTZDtype):  # pyarrow's own conversion causes a warning in pandas
        index = pd.DatetimeIndex(column).tz_convert("UTC").as_unit("ns")
        return pa.array(index.asi8, pa.timestamp("ns", "UTC"), mask=np.asarray(index.isna()))
    return pa.array(column)


def _plain(column: pd.Series) -> pd.Series:
    """Return a column of one type. Mixed cells become text, so that the error can quote a bad one."""
    if column.dtype != object:
        return column
    try:
        pa.array(column)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return column.map(lambda cell: None if cell is None else str(cell)).astype("str")
    return column
