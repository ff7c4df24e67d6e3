"""Find the bad rows of a file of bars. Refuse the file for them, or leave them out if the user asks for that."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import pandas as pd

from moola_mlflow.bars.formats import PRICES, RawBars
from moola_mlflow.bars.times import MINUTE_NS
from moola_mlflow.core import UserError

SECOND_NS = 1_000_000_000
MIN_STEPS = 30  # fewer steps do not tell the length of a bar: a far expiry trades only now and then
REPAIR = "Correct the file, or leave bad rows out with --bars.repair drop"


class RowFault(IntEnum):
    """Kind of a bad row. A row with several faults counts under the first one in this list."""

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
    """Return the good rows of one file, and how many rows of each kind are bad.

    With ``drop`` bad rows are left out. Without it the file is refused.

    Shapes: int64 [M] good rows, in the file's order.
    Raises: UserError that names the first bad row, its value and the cure. Bars that are not of one minute are refused
    with ``drop`` too, because no single row is to blame.
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
    # From the last kind to the first: of several faults, the first in the list is written last and stays.
    fault[~(np.isfinite(raw.volume) & (raw.volume >= 0))] = RowFault.BAD_VOLUME
    fault[(h < np.maximum(o, c)) | (low > np.minimum(o, c))] = RowFault.HIGH_OR_LOW_OUT_OF_ORDER
    fault[~(np.isfinite(o) & np.isfinite(h) & np.isfinite(low) & np.isfinite(c))] = RowFault.UNREADABLE_PRICE
    fault[raw.nameless] = RowFault.UNREADABLE_INSTRUMENT
    fault[raw.ambiguous_time] = RowFault.AMBIGUOUS_TIME
    fault[raw.skipped_time] = RowFault.NONEXISTENT_TIME
    fault[raw.unreadable_time] = RowFault.UNREADABLE_TIME
    return fault


def _by_instrument(rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return rows sorted by instrument, and by the file's order within each."""
    return rows[np.argsort(codes[rows], kind="stable")] if codes.max(initial=0) > 0 else rows


def _order_faults(time_ns: np.ndarray, codes: np.ndarray, fault: np.ndarray, drop: bool) -> None:
    """Mark each row that is not later than the row before it of the same instrument."""
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
    # If one row is far ahead of its neighbours, it is the bad one. Otherwise all rows after it would be.
    ahead = np.append(same & (step < 0), False)
    is_first = np.concatenate([[True], ~same])
    # Are the times in order without this row? Of a first row: does it come after the next two?
    fits_without = np.zeros(len(t), bool)
    fits_without[1:-1] = ~is_first[1:-1] & (t[2:] > t[:-2])
    fits_without[:-2] |= is_first[:-2] & same[1:] & (t[:-2] > t[2:])
    ahead &= fits_without
    rank = np.unique(t, return_inverse=True)[1] + g * len(t)  # grows with time, and from one instrument to the next
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
    # Minutes without a trade have no row, so long steps are normal. Steps that are all multiples of more than a
    # minute are not.
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
