"""Read times that are numbers: epochs of any unit and origin, and dates written as one integer."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import pandas as pd

from moola_mlflow.core import UserError

SECOND_NS = 1_000_000_000
DAY_NS = 86_400 * SECOND_NS
EARLIEST_NS = pd.Timestamp("1900-01-01").value
LATEST_NS = pd.Timestamp("2200-01-01").value
FIRST_BARS_NS = pd.Timestamp("1971-01-01").value
"""No market has older one-minute bars: an earlier time is an epoch of another unit."""
OLD_BARS_NS = pd.Timestamp("1996-01-01").value
"""Files with bars before this year are rare: an earlier time is probably an epoch of another origin."""
UNITS = {"s": SECOND_NS, "ms": 10**6, "us": 10**3, "ns": 1}
# Integers with this many digits that can be dates are dates. As epochs they would lie in 1970-76 or after 2500.
COMPACT_DATES = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}


class Epoch(NamedTuple):
    """How a number becomes a time: the number that stands for 1970, the length of its unit in ns, and its name."""

    at_1970: int
    unit_ns: int
    text: str


EPOCHS = {
    "excel": Epoch(25_569, DAY_NS, "days since 1899-12-30 (Excel)"),
    "sierra": Epoch(25_569 * 86_400_000_000, 1000, "microseconds since 1899-12-30 (Sierra Chart)"),
    "stata": Epoch(315_619_200_000, 10**6, "milliseconds since 1960 (Stata)"),
    "cocoa": Epoch(-978_307_200, SECOND_NS, "seconds since 2001 (Cocoa)"),
    "dotnet": Epoch(621_355_968_000_000_000, 100, "ticks of 100 ns since the year 1 (.NET)"),
    "filetime": Epoch(116_444_736_000_000_000, 100, "ticks of 100 ns since 1601 (Windows)"),
    "matlab": Epoch(719_529, DAY_NS, "days since the year 0 (MATLAB)"),
}
"""Origins other than Unix that files use. They are the values of ``bars.epoch``."""


class ReadTimes(NamedTuple):
    """Times of a column, and how they were read.

    ``aware`` says that they are UTC. ``order`` is the order of month and day if the dates may be read both ways.
    ``zone`` is the clock that the column itself names.

    Shapes: ns int64 [N], 0 where bad; bad bool [N]. Units: ns since 1970.
    """

    ns: np.ndarray
    bad: np.ndarray
    aware: bool
    form: str
    order: str | None = None
    zone: str | None = None
    notes: tuple[str, ...] = ()


def latest_now() -> int:
    """Return the time one day from now in ns since 1970: no bar is later."""
    return time.time_ns() + DAY_NS


def read_numbers(values: np.ndarray, bad: np.ndarray, epoch: str, where: str) -> ReadTimes:
    """Return the times that a column of numbers stands for.

    Shapes: values int64 or float64 [N], bad bool [N].
    Raises: UserError if no epoch is named, and the assumed one gives times at which no bars are expected.
    """
    if epoch not in ("auto", "unix"):
        return _named(values, bad, EPOCHS[epoch])
    typical = float(np.median(values[~bad])) if not bad.all() else 0.0
    if epoch == "auto" and values.dtype == np.float64 and _is_excel(values, bad, typical):
        return _named(values, bad, EPOCHS["excel"])
    whole = values.astype(np.int64) if values.dtype == np.float64 else values
    for digits, form in COMPACT_DATES.items():
        unit = 10 ** (digits - 8)
        if 19000101 * unit <= typical < 22000101 * unit:
            stamps = pd.DatetimeIndex(pd.to_datetime(pd.Series(whole).astype(str), format=form, errors="coerce"))
            ns, wrong = scaled(stamps.asi8, np.asarray(stamps.isna()), UNITS[stamps.unit])
            return ReadTimes(ns, wrong | bad, False, f"dates of {digits} digits")
    read = _unix(values, whole, bad, typical)
    if epoch == "auto":
        _refuse_other_epoch(values, read, where)
    return read


def scaled(values: np.ndarray, bad: np.ndarray, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the values in ns. Mark those outside 1900 to 2200: no bar has such a time."""
    bad = bad | (values < EARLIEST_NS // scale) | (values > LATEST_NS // scale)
    return np.where(bad, 0, values) * scale, bad


def _named(values: np.ndarray, bad: np.ndarray, epoch: Epoch) -> ReadTimes:
    if values.dtype == np.float64:  # fractions of a day are exact to some microseconds, so round to seconds
        seconds = np.where(bad, 0, (values - epoch.at_1970) * (epoch.unit_ns / SECOND_NS))
        bad = bad | ~(np.abs(seconds) < LATEST_NS / SECOND_NS)
        ns, bad = scaled(np.round(np.where(bad, 0, seconds)).astype(np.int64), bad, SECOND_NS)
    else:
        ns, bad = scaled(values - epoch.at_1970, bad, epoch.unit_ns)
    return ReadTimes(ns, bad, epoch.unit_ns != DAY_NS, f"epochs: {epoch.text}")


def _is_excel(values: np.ndarray, bad: np.ndarray, typical: float) -> bool:
    first, last = (EPOCHS["excel"].at_1970 + ns / DAY_NS for ns in (FIRST_BARS_NS, latest_now()))
    return first < typical < last and bool((values[~bad] % 1 > 0).any())


def _unix(values: np.ndarray, whole: np.ndarray, bad: np.ndarray, typical: float) -> ReadTimes:
    size = abs(typical)
    unit = "s" if size < 1e11 else "ms" if size < 1e14 else "us" if size < 1e17 else "ns"
    ns, wrong = scaled(whole, bad, UNITS[unit])
    if unit == "s" and values.dtype == np.float64:
        ns += np.where(wrong, 0, np.round((values - whole) * 1e6)).astype(np.int64) * 1000
    notes = []
    # For the years that have bars, the ranges of the four units do not overlap. So the size of a number shows its unit.
    misfit = ~bad & (wrong | (ns < FIRST_BARS_NS))
    if misfit.any():
        for other, scale in UNITS.items():
            fits = misfit & (whole >= OLD_BARS_NS // scale) & (whole <= latest_now() // scale)
            if other != unit and fits.any():
                ns[fits], wrong[fits] = whole[fits] * scale, False
                row = int(np.flatnonzero(fits)[0])
                notes.append(
                    f"{int(fits.sum()):,} of {len(ns):,} epochs are in {other}, not {unit} (first: row {row + 1})"
                )
    return ReadTimes(ns, wrong, True, f"epochs: {unit} since 1970 (Unix)", notes=tuple(notes))


def _refuse_other_epoch(values: np.ndarray, read: ReadTimes, where: str) -> None:
    """Refuse numbers that would be bars from before 1996 or after tomorrow, and name the epochs that would fit."""
    ns = read.ns[~read.bad]
    if len(ns) == 0:
        return
    typical = int(np.median(ns))
    if OLD_BARS_NS <= typical <= latest_now():
        return
    row = int(np.flatnonzero(~read.bad)[0])
    fits = {}
    for name, epoch in EPOCHS.items():
        other = _named(values[row : row + 1], np.zeros(1, bool), epoch)
        if not other.bad[0] and OLD_BARS_NS <= other.ns[0] <= latest_now():
            fits[name] = f"{name} ({_day(int(other.ns[0]))})"
    if not fits and FIRST_BARS_NS <= typical <= latest_now():
        return
    cure = f"set --bars.epoch to one of: {', '.join(fits.values())}, or unix" if fits else "correct the time column"
    raise UserError(
        f"{where}: time '{values[row]}' of row {row + 1}, read as {read.form.removeprefix('epochs: ')}, is "
        f"{_day(int(read.ns[row]))}, where no bars are expected; {cure}"
    )


def _day(ns: int) -> str:
    return str(np.datetime64(ns, "ns").astype("datetime64[m]")).replace("T", " ")
