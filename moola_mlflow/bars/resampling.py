"""Put ticks, or shorter bars, together into bars of one, five or fifteen minutes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from moola_mlflow.bars.cadence import check_cadence, length_text
from moola_mlflow.bars.checks import CheckedRows, check_rows
from moola_mlflow.bars.raw import RawBars
from moola_mlflow.bars.zones import MINUTE_NS
from moola_mlflow.core import BarsConfig


def check_file(raw: RawBars, config: BarsConfig) -> tuple[RawBars, CheckedRows]:
    """Return the bars of a file and its good rows; with ``bars.resample`` the bars that its rows make.

    Raises: UserError as ``check_rows`` does.
    """
    checked = check_rows(raw, config)
    if config.resample is None:
        return raw, checked
    bars = resample(raw, checked.rows, config.minutes)
    check_cadence(bars.time_ns, bars.instrument_codes(), str(raw.path), config.minutes)
    return bars, replace(checked, rows=np.arange(len(bars)))


def resample(raw: RawBars, rows: np.ndarray, minutes: int = 1) -> RawBars:
    """Return one bar for each instrument and stretch of ``minutes`` that has rows.

    It has the first open, the highest high, the lowest low, the last close, and all volume. Stretches of 5 and 15
    minutes begin at multiples of them after the hour.

    Shapes: rows int64 [M], the good rows in the file's order.
    """
    codes = raw.instrument_codes()
    rows = rows[np.argsort(codes[rows], kind="stable")] if codes.any() else rows
    length_ns = minutes * MINUTE_NS
    stretch = raw.time_ns[rows] // length_ns
    new = np.ones(len(rows), bool)
    new[1:] = (np.diff(stretch) != 0) | (np.diff(codes[rows]) != 0)
    starts = np.flatnonzero(new)
    first, last = rows[starts], rows[np.append(starts[1:], len(rows)) - 1] if len(rows) else rows
    o, h, low, c = raw.prices
    prices = np.stack([o[first], np.maximum.reduceat(h[rows], starts), np.minimum.reduceat(low[rows], starts), c[last]])
    no = np.zeros(len(first), bool)
    times = raw.times._replace(ns=raw.times.ns[first], bad=no)
    note = f"{raw.path}: {len(rows):,} rows were combined into {len(first):,} bars of {length_text(minutes)}"
    return replace(
        raw, table=raw.table.take(first), times=times, time_ns=stretch[starts] * length_ns, ambiguous_time=no,
        skipped_time=no, prices=prices, volume=np.add.reduceat(raw.volume[rows], starts),
        ids=None if raw.ids is None else raw.ids[first], symbols=None if raw.symbols is None else raw.symbols[first],
        nameless=no, newest_first=False, head_lines=None, ragged=[], notes=[*raw.notes, note],
    )  # fmt: skip
