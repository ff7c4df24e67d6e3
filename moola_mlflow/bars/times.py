"""Read the times of bars in any common form into UTC nanoseconds, and find their futures trade date."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from moola_mlflow.bars.epochs import DAY_NS, UNITS, ReadTimes, read_numbers, scaled
from moola_mlflow.bars.time_text import SAMPLE, read_text
from moola_mlflow.bars.zones import MINUTE_NS, check_zone, read_zone

__all__ = ["DAY_NS", "MINUTE_NS", "check_zone", "localise", "parse_times", "read_times", "trade_date", "utc"]

# Up to 19 digits, as far as they fit int64; .0 is left by a program that held them as decimal numbers.
INTEGER = r"^-?(\d{1,18}|[1-8]\d{18})(\.0*)?$"
DECIMAL = r"^-?\d{1,18}\.\d+([eE][+-]?\d+)?$"


def parse_times(column: pa.ChunkedArray, where: str) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return the times of a column, which of them do not parse, and whether they are UTC.

    The column holds timestamps, integers (epochs or yyyymmdd...) or text in one of many formats. Times without an
    offset are clock times of a zone that the column does not name.

    Shapes: int64 [N] times (0 for one that does not parse), bool [N].
    Units: ns since 1970.
    Raises: UserError if as many times can be read month first as day first.
    """
    read = read_times(column, where, epoch="unix")
    return read.ns, read.bad, read.aware


def read_times(column: pa.ChunkedArray, where: str, dates: str = "auto", epoch: str = "auto") -> ReadTimes:
    """Return the times of a column, and how they were read. ``dates`` and ``epoch`` are those of section ``bars``.

    Raises: AmbiguousDates if dates read both ways; UserError if numbers are epochs of an origin that is not named.
    """
    kind = column.type
    if len(column) == 0:
        return ReadTimes(np.zeros(0, np.int64), np.zeros(0, bool), True, "no times")
    if pa.types.is_timestamp(kind):
        read = scaled(*_int64(column.cast(pa.int64())), UNITS[kind.unit])
        return ReadTimes(*read, kind.tz is not None, f"timestamps in {kind.unit}")
    if pa.types.is_date(kind):
        return ReadTimes(*scaled(*_int64(column.cast(pa.timestamp("s")).cast(pa.int64())), UNITS["s"]), False, "dates")
    if pa.types.is_integer(kind):
        return read_numbers(*_int64(column.cast(pa.int64(), safe=False)), epoch, where)
    if pa.types.is_floating(kind):
        return read_numbers(*_float64(column), epoch, where)
    text = pc.utf8_trim_whitespace(column.cast(pa.string()))
    some = text.take(pa.array(np.linspace(0, len(text) - 1, min(len(text), SAMPLE)).astype(np.int64)))
    if not pc.any(pc.match_substring_regex(some, rf"{INTEGER}|{DECIMAL}").fill_null(False)).as_py():
        return read_text(text, dates, where)
    is_integer = pc.match_substring_regex(text, INTEGER).fill_null(False)
    if 2 * pc.sum(is_integer).as_py() > len(text):
        digits = pc.replace_substring_regex(pc.if_else(is_integer, text, None), r"\..*$", "")
        return read_numbers(*_int64(digits.cast(pa.int64())), epoch, where)
    is_decimal = pc.or_(is_integer, pc.match_substring_regex(text, DECIMAL).fill_null(False))
    if 2 * pc.sum(is_decimal).as_py() > len(text):
        return read_numbers(*_float64(pc.if_else(is_decimal, text, None).cast(pa.float64())), epoch, where)
    return read_text(text, dates, where)


def localise(ns: np.ndarray, group: np.ndarray, zone: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turn clock times of a zone into UTC, and mark the times that are ambiguous or do not exist.

    In autumn one hour comes twice. Within one instrument the clock then jumps back once: rows before the jump are in
    daylight saving time, rows after it in standard time. Without a jump, the rows of that hour are ambiguous.

    Shapes: int64 [N] clock times, int64 [N] instrument of each row -> int64 [N] UTC, bool [N] ambiguous, bool [N] in
    the hour that spring skips.
    Units: ns since 1970.
    """
    zone, shift_ns = read_zone(zone)
    if shift_ns:
        ns = ns - shift_ns
    if zone == "UTC":
        return ns, np.zeros(len(ns), bool), np.zeros(len(ns), bool)
    clock = pd.DatetimeIndex(ns.view("datetime64[ns]"))
    first_pass = clock.tz_localize(zone, ambiguous=np.ones(len(ns), bool), nonexistent="NaT")
    second_pass = clock.tz_localize(zone, ambiguous=np.zeros(len(ns), bool), nonexistent="NaT")
    skipped = np.asarray(first_pass.isna())
    utc = np.where(skipped, 0, first_pass.as_unit("ns").asi8)
    late = np.where(skipped, 0, second_pass.as_unit("ns").asi8)
    ambiguous = utc != late
    rows = np.flatnonzero(ambiguous)
    if len(rows):
        hours = pd.DataFrame({"instrument": group[rows], "date": ns[rows] // DAY_NS, "row": rows})
        for _, hour in hours.groupby(["instrument", "date"], sort=False):  # at most one a year and instrument
            at = hour["row"].to_numpy()
            jumps = np.flatnonzero(np.diff(ns[at]) <= 0)
            if len(jumps) == 1:
                utc[at[jumps[0] + 1 :]] = late[at[jumps[0] + 1 :]]
                ambiguous[at] = False
    return utc, ambiguous, skipped


def trade_date(time_ns: np.ndarray) -> np.ndarray:
    """Return the futures trade date. It begins at 18:00 New York time on the evening before.

    Shapes: int64 [N] UTC ns -> int64 [N] days since 1970.
    """
    utc = pd.DatetimeIndex(time_ns.view("datetime64[ns]"), tz="UTC")
    clock_ns = utc.tz_convert("America/New_York").tz_localize(None).as_unit("ns").asi8
    return (clock_ns + 6 * 60 * MINUTE_NS) // DAY_NS


def _int64(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    bad = column.is_null().to_numpy() if column.null_count else np.zeros(len(column), bool)
    return np.array(column.fill_null(0).to_numpy(), np.int64), np.array(bad, bool)


def _float64(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of a column as whole numbers if all of them are, and which are missing. Shapes: [N]."""
    values = np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)
    bad = ~(np.abs(values) < 2.0**63)
    values = np.where(bad, 0.0, values)
    whole = values.astype(np.int64)
    return (whole, bad) if (whole == values).all() else (values, bad)


def utc(time_ns: int) -> str:
    """Return a time as ISO 8601 to the minute. Units: ns since 1970 UTC."""
    return f"{np.datetime64(time_ns, 'ns').astype('datetime64[m]')}Z"
