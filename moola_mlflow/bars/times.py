"""Read the times of bars in any common form into UTC nanoseconds, and find their futures trade date."""

from __future__ import annotations

import zoneinfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from moola_mlflow.core import UserError, nearest_name

MINUTE_NS = 60_000_000_000
DAY_NS = 86_400_000_000_000
EARLIEST_NS = pd.Timestamp("1900-01-01").value
LATEST_NS = pd.Timestamp("2200-01-01").value

ISO = "ISO8601"  # pandas' lenient one: also 20240301 093000, 2024/03/01 09:30 and 2024.03.01 09:30
OTHER_FORMATS = tuple(
    f"{date} {time}"
    for date in ("%m/%d/%Y", "%d/%m/%Y", "%m-%d-%Y", "%d-%m-%Y", "%d.%m.%Y")
    for time in ("%H:%M:%S", "%H:%M", "%I:%M:%S %p", "%I:%M %p", "%H%M%S", "%H%M")
)
# Integers with this many digits that can be dates are dates. As epochs they would lie in 1970-76 or after 2500.
COMPACT_DATES = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
WITH_OFFSET = r"(Z|:\d\d(\.\d*)?\s*[+-]\d\d(:?\d\d)?)$"
# Up to 19 digits, as far as they fit int64.
INTEGER = r"^-?(\d{1,18}|[1-8]\d{18})$"


def check_zone(name: str) -> None:
    """Check that a time zone exists. Raises: UserError with the nearest IANA name."""
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = zoneinfo.available_timezones()
        raise UserError(
            f"bars.timezone='{name}' is not a time zone{nearest_name(name, known)} "
            "Use an IANA name such as UTC, America/New_York or America/Chicago"
        ) from None


def parse_times(column: pa.ChunkedArray, where: str) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return the times of a column, which of them do not parse, and whether they are UTC.

    The column holds timestamps, integers (epochs or yyyymmdd...) or text in one of many formats. Times without an
    offset are clock times of a zone that the column does not name.

    Shapes: int64 [N] times (0 for one that does not parse), bool [N].
    Units: ns since 1970.
    Raises: UserError if as many times can be read month first as day first.
    """
    kind = column.type
    if len(column) == 0:
        return np.zeros(0, np.int64), np.zeros(0, bool), True
    if pa.types.is_timestamp(kind):
        scale = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[kind.unit]
        ns, bad = _scaled(*_int64(column.cast(pa.int64())), scale)
        return ns, bad, kind.tz is not None
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _from_integers(*_int64(column.cast(pa.int64(), safe=False)))  # NaN becomes a time out of range
    text = pc.utf8_trim_whitespace(column.cast(pa.string()))
    is_integer = pc.match_substring_regex(text, INTEGER).fill_null(False)
    if 2 * pc.sum(is_integer).as_py() > len(text):
        return _from_integers(*_int64(pc.if_else(is_integer, text, None).cast(pa.int64())))
    return _from_text(text, where)


def localise(ns: np.ndarray, group: np.ndarray, zone: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turn clock times of a zone into UTC, and mark the times that are ambiguous or do not exist.

    In autumn one hour comes twice. Within one instrument the clock then jumps back once: rows before the jump are in
    daylight saving time, rows after it in standard time. Without a jump, the rows of that hour are ambiguous.

    Shapes: int64 [N] clock times, int64 [N] instrument of each row -> int64 [N] UTC, bool [N] ambiguous, bool [N] in
    the hour that spring skips.
    Units: ns since 1970.
    """
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


def _scaled(values: np.ndarray, bad: np.ndarray, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the values in ns, and mark those outside 1900 to 2200, which are no times of bars."""
    bad = bad | (values < EARLIEST_NS // scale) | (values > LATEST_NS // scale)
    return np.where(bad, 0, values) * scale, bad


def _from_integers(values: np.ndarray, bad: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    typical = float(np.median(values[~bad])) if not bad.all() else 0.0
    for digits, form in COMPACT_DATES.items():
        unit = 10 ** (digits - 8)
        if 19000101 * unit <= typical < 22000101 * unit:
            stamps = pd.to_datetime(pd.Series(values).astype(str), format=form, errors="coerce")
            return *_from_stamps(stamps), False
    size = abs(typical)
    scale = 10**9 if size < 1e11 else 10**6 if size < 1e14 else 10**3 if size < 1e17 else 1
    ns, bad = _scaled(values, bad, scale)
    return ns, bad, True  # an epoch counts from 1970 UTC


def _from_stamps(stamps: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    index = pd.DatetimeIndex(stamps)
    scale = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[index.unit]
    return _scaled(index.asi8, np.asarray(index.isna()), scale)


def _from_text(text: pa.ChunkedArray, where: str) -> tuple[np.ndarray, np.ndarray, bool]:
    stamps = text.to_pandas()
    sample = stamps.iloc[:: max(1, len(stamps) // 200)]

    def num_read(form: str, values: pd.Series) -> int:
        return int(pd.to_datetime(values, format=form, errors="coerce", utc=True).notna().sum())

    form = max((ISO, *OTHER_FORMATS), key=lambda form: num_read(form, sample))
    if form[:5] in ("%m/%d", "%m-%d"):  # 02/03 can be February or March: count over the whole column
        day_first = form.replace("%m", "%_").replace("%d", "%m").replace("%_", "%d")
        num_month_first, num_day_first = num_read(form, stamps), num_read(day_first, stamps)
        if num_month_first == num_day_first:
            raise UserError(
                f"{where}: the times, such as '{stamps.iloc[0]}', read equally well month first and day first; "
                "write them as yyyy-mm-dd hh:mm"
            )
        form = day_first if num_day_first > num_month_first else form
    parsed = pd.to_datetime(stamps, format=form, errors="coerce", utc=True)
    ns, bad = _from_stamps(parsed)
    # If most times have an offset, one without it is bad, and the reverse: its zone would be a guess.
    offset = pc.match_substring_regex(text, WITH_OFFSET).fill_null(False).to_numpy()
    aware = bool(2 * offset[~bad].sum() > (~bad).sum())
    bad = bad | (offset != aware)
    return np.where(bad, 0, ns), bad, aware


def utc(time_ns: int) -> str:
    """Return a time as ISO 8601 to the minute. Units: ns since 1970 UTC."""
    return f"{np.datetime64(time_ns, 'ns').astype('datetime64[m]')}Z"
