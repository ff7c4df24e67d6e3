"""Find the bad rows of a file of bars. Refuse the file for them, or leave them out if the user asks for that."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import pandas as pd

from moola_mlflow.bars.cadence import check_cadence
from moola_mlflow.bars.column_names import PRICES
from moola_mlflow.bars.epochs import FIRST_BARS_NS, latest_now
from moola_mlflow.bars.filled import find_filled
from moola_mlflow.bars.raw import RawBars
from moola_mlflow.bars.spikes import find_spikes
from moola_mlflow.bars.times import utc
from moola_mlflow.core import BarsConfig, UserError

FILLED = "filled minute"
ROUNDING = 8 * np.finfo(np.float64).eps
"""A few last digits of a price: sums and averages of prices differ by so much."""
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
    IMPOSSIBLE_TIME = 11
    FAR_PRICE = 12

    @property
    def label(self) -> str:
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True)
class CheckedRows:
    """The good rows of a file in its order, how many of each kind were left out, and what to tell the user.

    Shapes: rows int64 [M].
    """

    rows: np.ndarray
    dropped: dict[str, int]
    notes: tuple[str, ...]


def check_rows(raw: RawBars, config: BarsConfig) -> CheckedRows:
    """Check every row of one file.

    With ``repair=drop`` bad rows are left out. Otherwise the file is refused. Minutes that a vendor filled in are
    counted, and left out with ``repair=drop_filled``; ``drop_all`` does both.

    Raises: UserError that names the first bad row, its value and the cure. Bars that are not of one length are refused
    with ``drop`` too, because no single row is to blame.
    """
    drop = drops_bad_rows(config)
    fault = _cell_faults(raw)
    notes = _round_to_range(raw, fault)
    codes = raw.instrument_codes()
    _order_faults(raw.time_ns, codes, fault, drop, repeats=config.resample is not None)
    rows = _by_instrument(np.flatnonzero(fault == RowFault.NONE), codes)
    rows = _value_faults(raw, rows, codes, fault)
    sound = np.flatnonzero(fault == RowFault.NONE)
    counts = {
        kind.label: int(n)
        for kind, n in zip(RowFault, np.bincount(fault, minlength=len(RowFault)), strict=True)
        if n and kind
    }
    if raw.ragged:
        counts = {RowFault.WRONG_NUMBER_OF_FIELDS.label: len(raw.ragged), **counts}
    if counts and not drop:
        _refuse(raw, fault, counts, config.timezone)
    whole = _are_all(rows, len(raw))  # a copy of all prices would cost as much as the checks
    time_ns, codes = (raw.time_ns, codes) if whole else (raw.time_ns[rows], codes[rows])
    if config.resample is not None:
        return CheckedRows(sound, counts, tuple(notes))
    check_cadence(time_ns, codes, str(raw.path), config.minutes)
    prices, volume = (raw.prices, raw.volume) if whole else (raw.prices[:, rows], raw.volume[rows])
    if found := find_filled(prices, volume, codes):
        first, last = (rows[k] for k in found.longest)
        notes.append(
            f"{raw.path}: {len(found.rows):,} of {len(raw):,} rows repeat the last price without volume, as if "
            f"filled in (the longest run has {int(last - first) + 1:,} rows from {utc(int(raw.time_ns[first]))})"
        )
        if config.repair in ("drop_filled", "drop_all"):
            counts[FILLED] = len(found.rows)
            sound = np.setdiff1d(sound, rows[found.rows], assume_unique=True)
        else:
            notes[-1] = f"{notes[-1]}; nothing traded then, so leave them out with --bars.repair drop_filled"
    return CheckedRows(sound, counts, tuple(notes))


def _round_to_range(raw: RawBars, fault: np.ndarray) -> list[str]:
    """Widen the range of bars that leave it by a rounding of their last digits, and say how many there are."""
    rows = np.flatnonzero(fault == RowFault.HIGH_OR_LOW_OUT_OF_ORDER)
    if not len(rows):
        return []
    o, h, low, c = raw.prices[:, rows]
    over = np.maximum(np.maximum(o, c) - h, low - np.minimum(o, c))
    tiny = rows[over <= ROUNDING * np.abs(raw.prices[:, rows]).max(0)]
    if not len(tiny):
        return []
    fault[tiny] = RowFault.NONE
    raw.prices[1, tiny] = raw.prices[:, tiny].max(0)
    raw.prices[2, tiny] = raw.prices[:, tiny].min(0)
    found = f"in {len(tiny):,} rows open or close was outside high and low by a rounding error"
    return [f"{raw.path}: {found}; high or low was widened"]


def _value_faults(raw: RawBars, rows: np.ndarray, codes: np.ndarray, fault: np.ndarray) -> np.ndarray:
    """Mark times where no bar can be and prices that cannot be. Return the rows that are left.

    Shapes: rows int64 [M], ordered by instrument and then by time.
    """
    if not len(rows):
        return rows
    t = raw.time_ns if _are_all(rows, len(raw)) else raw.time_ns[rows]
    latest = np.iinfo(np.int64).max if raw.exact_times else latest_now()
    if t.min() < FIRST_BARS_NS or t.max() > latest:
        fault[rows[(t < FIRST_BARS_NS) | (t > latest)]] = RowFault.IMPOSSIBLE_TIME
        rows = rows[fault[rows] == RowFault.NONE]
    whole = _are_all(rows, len(raw))
    far = find_spikes(raw.prices if whole else raw.prices[:, rows], codes if whole else codes[rows])
    if far.any():
        fault[rows[far]] = RowFault.FAR_PRICE
        rows = rows[~far]
    return rows


def drops_bad_rows(config: BarsConfig) -> bool:
    """Return whether bad rows are left out, and not refused."""
    return config.repair in ("drop", "drop_all")


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


def _are_all(rows: np.ndarray, num_rows: int) -> bool:
    """Return whether rows are all rows in their order."""
    return len(rows) == num_rows and bool((rows[1:] > rows[:-1]).all())


def _order_faults(time_ns: np.ndarray, codes: np.ndarray, fault: np.ndarray, drop: bool, repeats: bool) -> None:
    """Mark each row that is not later than the row before it of the same instrument. Ticks may repeat a time."""
    rows = _by_instrument(np.flatnonzero(fault == RowFault.NONE), codes)
    t, g = time_ns[rows], codes[rows]
    same = g[1:] == g[:-1]
    step = np.diff(t)
    wrong = np.flatnonzero(same & (step < 0 if repeats else step <= 0))
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
    if not repeats:
        fault[rows[~ahead & (rank == before)]] = RowFault.REPEATED_TIME


def _refuse(raw: RawBars, fault: np.ndarray, counts: dict[str, int], zone: str) -> None:
    total = sum(counts.values())
    others = (
        f" (the first of {total:,} bad rows: {', '.join(f'{n:,} {kind}' for kind, n in counts.items())})"
        if total > 1
        else ""
    )
    cure = REPAIR
    if 2 * total > len(raw) + len(raw.ragged):  # a file that is mostly bad was not understood
        cure = f"Most rows are bad, so the file was probably misread: it was read as {raw.described()}"
    if raw.ragged:
        row, reason = raw.ragged[0]
        raise UserError(f"{raw.where(row)}: {reason}{others}. Numbers need a decimal point, not a comma. {cure}")
    row = int(np.flatnonzero(fault)[0])
    raise UserError(f"{raw.where(row)}: {_reason(raw, row, RowFault(fault[row]), zone)}{others}. {cure}")


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
    if fault == RowFault.IMPOSSIBLE_TIME:
        read = utc(int(raw.time_ns[row]))
        return f"time '{time}', read as {raw.times.form}, is {read}: bars lie between 1971 and today"
    codes = raw.instrument_codes()
    if fault == RowFault.FAR_PRICE:
        shown = ", ".join(f"{name} {value:.12g}" for name, value in zip(PRICES, raw.prices[:, row], strict=True))
        near = raw.prices[3, (codes == codes[row]) & np.isfinite(raw.prices[3]) & ~np.isin(raw.prices[3], (0, -1))]
        place = int((codes[:row] == codes[row]).sum())
        close = float(np.median(near[max(0, place - 20) : place + 20] if len(near) > place else near[-20:]))
        return f"{shown} is far from the prices around it, such as {close:.12g}"
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
