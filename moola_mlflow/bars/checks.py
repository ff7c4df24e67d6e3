"""What makes a row of bars bad, how it is reported, and which rows a repair leaves out."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import pandas as pd

from moola_mlflow.bars.formats import PRICES, RawBars
from moola_mlflow.bars.times import MINUTE_NS
from moola_mlflow.core import UserError

SECOND_NS = 1_000_000_000
MIN_STEPS = 30  # fewer steps between bars say nothing about their length: far expiries trade now and then
REPAIR = "Correct the file, or leave bad rows out with --bars.repair drop"


class RowFault(IntEnum):
    """Kinds of bad rows; a row is counted under the first that applies."""

    NONE = 0
    WRONG_NUMBER_OF_FIELDS = 1
    UNREADABLE_TIME = 2
    NONEXISTENT_TIME = 3
    AMBIGUOUS_TIME = 4
    UNREADABLE_INSTRUMENT = 5
    UNREADABLE_PRICE = 6
    HIGH_OR_LOW_OUT_OF_ORDER = 7
    BAD_VOLUME = 8
    BACKWARD_TIME = 9
    REPEATED_TIME = 10

    @property
    def label(self) -> str:
        return self.name.lower().replace("_", " ")


def check_rows(raw: RawBars, drop: bool, zone: str) -> tuple[np.ndarray, dict[str, int]]:
    """Find the bad rows of one file: refuse the file for them, or leave them out and count them.

    Shapes: int64 [M] sound rows in the file's order, count of each kind of bad row.
    Raises: UserError naming the first bad row, its value and the cure; in either mode where the bars are plainly
    not of one minute, because no single row is to blame.
    """
    fault = _cell_faults(raw)
    codes = raw.instrument_codes()
    _order_faults(raw.time_ns, codes, fault, drop)
    sound = np.flatnonzero(fault == RowFault.NONE)
    counts = {
        kind.label: int(n)
        for kind, n in zip(RowFault, np.bincount(fault, minlength=len(RowFault)), strict=True)
        if n and kind
    }
    if raw.ragged:
        counts = {RowFault.WRONG_NUMBER_OF_FIELDS.label: len(raw.ragged), **counts}
    if counts and not drop:
        _refuse(raw, fault, counts, zone)
    _check_cadence(raw, sound, codes)
    return sound, counts


def price_fault(ohlc: np.ndarray) -> str:
    """Return what is wrong with one bar's four prices. Shapes: [4]."""
    for name, value in zip(PRICES, ohlc, strict=True):
        if not np.isfinite(value):
            return f"{name} is not a finite number"
    o, h, low, c = ohlc
    if h < max(o, c):
        return f"high {h:.12g} is below max(open, close) {max(o, c):.12g}"
    return f"low {low:.12g} is above min(open, close) {min(o, c):.12g}"


def _cell_faults(raw: RawBars) -> np.ndarray:
    o, h, low, c = raw.prices
    fault = np.zeros(len(raw), np.int8)
    # From the last kind to the first, so that the first that applies stays.
    fault[~(np.isfinite(raw.volume) & (raw.volume >= 0))] = RowFault.BAD_VOLUME
    fault[(h < np.maximum(o, c)) | (low > np.minimum(o, c))] = RowFault.HIGH_OR_LOW_OUT_OF_ORDER
    fault[~(np.isfinite(o) & np.isfinite(h) & np.isfinite(low) & np.isfinite(c))] = RowFault.UNREADABLE_PRICE
    fault[raw.nameless] = RowFault.UNREADABLE_INSTRUMENT
    fault[raw.ambiguous_time] = RowFault.AMBIGUOUS_TIME
    fault[raw.skipped_time] = RowFault.NONEXISTENT_TIME
    fault[raw.unreadable_time] = RowFault.UNREADABLE_TIME
    return fault


def _by_instrument(rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Put rows instrument by instrument, each in the file's order."""
    return rows[np.argsort(codes[rows], kind="stable")] if codes.max(initial=0) > 0 else rows


def _order_faults(time_ns: np.ndarray, codes: np.ndarray, fault: np.ndarray, drop: bool) -> None:
    """Mark rows whose time does not come after the row before of the same instrument."""
    rows = _by_instrument(np.flatnonzero(fault == RowFault.NONE), codes)
    t, g = time_ns[rows], codes[rows]
    same = g[1:] == g[:-1]
    step = np.diff(t)
    wrong = np.flatnonzero(same & (step <= 0))
    if not len(wrong):
        return
    if not drop:
        fault[rows[wrong + 1]] = np.where(step[wrong] < 0, RowFault.BACKWARD_TIME, RowFault.REPEATED_TIME)
        return
    # One row far ahead of its neighbours is itself the bad one: else every row behind it would count as backward.
    ahead = np.append(same & (step < 0), False)
    is_first = np.concatenate([[True], ~same])
    fits_without = np.zeros(len(t), bool)  # does the row behind fit to the one in front (or the next but one)?
    fits_without[1:-1] = ~is_first[1:-1] & (t[2:] > t[:-2])
    fits_without[:-2] |= is_first[:-2] & same[1:] & (t[:-2] > t[2:])
    ahead &= fits_without
    rank = np.unique(t, return_inverse=True)[1] + g * len(t)  # grows over time, and from instrument to instrument
    latest = np.maximum.accumulate(np.where(ahead, -1, rank))
    before = np.concatenate([[-1], latest[:-1]])
    fault[rows[ahead | (rank < before)]] = RowFault.BACKWARD_TIME
    fault[rows[~ahead & (rank == before)]] = RowFault.REPEATED_TIME


def _check_cadence(raw: RawBars, sound: np.ndarray, codes: np.ndarray) -> None:
    rows = _by_instrument(sound, codes)
    step = np.diff(raw.time_ns[rows])
    step = step[(codes[rows][1:] == codes[rows][:-1]) & (step > 0)]
    if len(step) < MIN_STEPS or step.min() == MINUTE_NS:
        return
    # Minutes without a trade have no row, so long steps are normal; a grid coarser than a minute is not.
    grid = int(np.gcd.reduce(step))
    usual = float(np.median(step))
    if usual < 55 * SECOND_NS or grid > MINUTE_NS:
        found = (
            f"every step is a multiple of {grid / SECOND_NS:g} s"
            if grid > MINUTE_NS
            else f"the usual step is {usual / SECOND_NS:g} s"
        )
        raise UserError(f"{raw.path}: these are not one-minute bars ({found}); give bars of one minute")


def _refuse(raw: RawBars, fault: np.ndarray, counts: dict[str, int], zone: str) -> None:
    total = sum(counts.values())
    others = (
        f" (the first of {total:,} bad rows: {', '.join(f'{n:,} {kind}' for kind, n in counts.items())})"
        if total > 1
        else ""
    )
    if raw.ragged:
        row, reason = raw.ragged[0]
        raise UserError(f"{raw.where(row)}: {reason}{others}. Numbers need a decimal point, not a comma. {REPAIR}")
    row = int(np.flatnonzero(fault)[0])
    raise UserError(f"{raw.where(row)}: {_reason(raw, row, RowFault(fault[row]), zone)}{others}. {REPAIR}")


def _reason(raw: RawBars, row: int, fault: RowFault, zone: str) -> str:
    time = raw.cell("time", row)
    if fault == RowFault.UNREADABLE_TIME:
        return (
            f"time '{time}' does not parse; write yyyy-mm-dd hh:mm, with or without an offset throughout, or an epoch"
        )
    if fault == RowFault.NONEXISTENT_TIME:
        return f"time '{time}' does not exist in {zone} (clocks go forward); set bars.timezone to the zone of the file"
    if fault == RowFault.AMBIGUOUS_TIME:
        return (
            f"time '{time}' comes twice in {zone} (clocks go back) and the order of rows does not tell which it is; "
            "set bars.timezone to the zone of the file, or write times in UTC"
        )
    if fault == RowFault.UNREADABLE_INSTRUMENT:
        cells = [f"{role} {raw.cell(role, row)!r}" for role in ("instrument_id", "symbol") if role in raw.columns]
        return f"no instrument can be read from {' and '.join(cells)}"
    if fault == RowFault.UNREADABLE_PRICE:
        cells = [f"{name} {raw.cell(name, row)!r}" for name in PRICES]
        return f"{price_fault(raw.prices[:, row])} ({', '.join(cells)})"
    if fault == RowFault.HIGH_OR_LOW_OUT_OF_ORDER:
        return price_fault(raw.prices[:, row])
    if fault == RowFault.BAD_VOLUME:
        return f"volume {raw.cell('volume', row)!r} is not a number of 0 or more; a file may also have no volume column"
    codes = raw.instrument_codes()
    before = np.flatnonzero(codes[:row] == codes[row])[-1]
    what = "repeats that of" if fault == RowFault.REPEATED_TIME else "comes after the later time of"
    cure = "sort the file by time"
    if raw.ids is None and raw.symbols is None:
        cure += ", add a symbol column if it holds several instruments, set bars.timezone if a clock went back"
    if fault == RowFault.REPEATED_TIME and "publisher_id" in raw.columns:
        one, other = raw.cell("publisher_id", row), raw.cell("publisher_id", int(before))
        if one != other:
            cure = f"the two come from publishers {other} and {one}: ask Databento for one publisher"
    at = pd.Timestamp(raw.time_ns[before], tz="UTC")
    return f"time '{time}' {what} row {before + 1} of the same instrument ({at}); {cure}"
