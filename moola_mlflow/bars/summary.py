"""Figures about a bars table: days, gaps, rolls, and one row per instrument."""

from __future__ import annotations

from typing import Any

import numpy as np

from moola_mlflow.bars.columns import column_blocks, take_rows
from moola_mlflow.bars.reader import Bars, segments
from moola_mlflow.bars.times import DAY_NS, MINUTE_NS, utc

MAX_ROWS = 1000
"""Number of instruments in the table; those left out are counted."""


def summarise_bars(bars: Bars, max_gap_minutes: int) -> dict[str, Any]:
    """Return a summary of bars as plain JSON types. ``instruments`` has one row each, most bars first."""
    runs = segments(bars, max_gap_minutes)
    first, last = take_rows(bars.time_ns, runs[:, 0]), take_rows(bars.time_ns, runs[:, 1] - 1)
    key, size = take_rows(bars.instrument, runs[:, 0]), runs[:, 1] - runs[:, 0]
    days, per_day = bars_per_day(bars)
    same = key[1:] == key[:-1]
    gap = np.where(same, first[1:] - last[:-1], 0)
    rows = [_row(bars.symbols[k], k, key == k, first, last, size) for k in np.unique(key).tolist()]
    rows.sort(key=lambda row: -row["bars"])
    return {
        "bars": len(bars),
        "bar_minutes": bars.minutes,
        "instruments": rows[:MAX_ROWS],
        "instruments_left_out": max(0, len(rows) - MAX_ROWS),
        "segments": len(runs),
        "longest_segment": int(size.max(initial=0)),
        "first": utc(int(first.min())),
        "last": utc(int(last.max())),
        "days": len(days),
        "bars_per_day": float(np.median(per_day)),
        "thin_days": int((per_day < 0.5 * np.median(per_day)).sum()),
        "rolls": [{"at": utc(int(t)), "to": symbol} for t, symbol in rolls(bars, runs)],
        "longest_gaps": [
            {"from": utc(int(last[i])), "to": utc(int(first[i + 1])), "minutes": int(gap[i] // MINUTE_NS)}
            for i in np.argsort(-gap, kind="stable")[:10]
            if gap[i] > 0
        ],
        "dropped": dict(bars.dropped),
        "sha256": bars.sha256,
    }


def _row(
    symbol: str, key: int, mine: np.ndarray, first: np.ndarray, last: np.ndarray, size: np.ndarray
) -> dict[str, Any]:
    return {
        "instrument": symbol,
        "id": key,
        "bars": int(size[mine].sum()),
        "first": utc(int(first[mine].min())),
        "last": utc(int(last[mine].max())),
        "segments": int(mine.sum()),
        "longest_segment": int(size[mine].max()),
    }


def bars_per_day(bars: Bars) -> tuple[np.ndarray, np.ndarray]:
    """Return the UTC days that have bars, and how many bars each has. Shapes: int64 [D] days since 1970, int64 [D]."""
    found: dict[int, int] = {}
    for _, (time_ns,) in column_blocks(bars.time_ns):
        days, counts = np.unique(time_ns // DAY_NS, return_counts=True)
        for day, count in zip(days.tolist(), counts.tolist(), strict=True):
            found[day] = found.get(day, 0) + count
    days = np.array(sorted(found), np.int64)
    return days, np.array([found[day] for day in days.tolist()], np.int64)


def rolls(bars: Bars, runs: np.ndarray) -> list[tuple[int, str]]:
    """Return the time and the new symbol of each roll. Instruments that lie side by side have no rolls."""
    at = runs[1:, 0]
    before, after = take_rows(bars.instrument, at - 1), take_rows(bars.instrument, at)
    changed = np.flatnonzero(before != after)
    times, earlier = take_rows(bars.time_ns, at), take_rows(bars.time_ns, at - 1)
    if (times[changed] <= earlier[changed]).any():
        return []
    return [(int(times[i]), bars.symbols[int(after[i])]) for i in changed]
