"""Write many files of bars into one store, one file at a time. Memory holds the largest file, not all of them."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moola_mlflow.bars.checks import REPAIR, RowFault, drops_bad_rows
from moola_mlflow.bars.column_names import PRICES
from moola_mlflow.bars.columns import BLOCK_ROWS, release_pages
from moola_mlflow.bars.folder import read_together
from moola_mlflow.bars.formats import file_sha256
from moola_mlflow.bars.instruments import InstrumentRows, check_naming, merge
from moola_mlflow.bars.paths import find_files
from moola_mlflow.bars.raw import RawBars
from moola_mlflow.bars.resampling import check_file
from moola_mlflow.bars.store import StoreWriter
from moola_mlflow.bars.store_files import Spool
from moola_mlflow.bars.times import check_zone
from moola_mlflow.bars.understood import MOST_NOTES, shortened, understood
from moola_mlflow.core import BarsConfig, UserError


@dataclass(frozen=True)
class Stretch:
    """One instrument's rows of one file. ``at`` is their first row in the spool. Units: ns since 1970 UTC."""

    key: int
    file: int
    first_ns: int
    last_ns: int
    at: int
    size: int
    name: str | None
    """Symbol of the last row, None if the file has no symbols."""


def ingest_bars(config: BarsConfig, out: str | Path, min_bars: int = 105) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write all instruments of all files that a path names into a store. The bars are those of ``read_bars``.

    Return the notes on the files, and how each was read.

    Raises: UserError if anything about the bars is wrong, with the file, the row, the value and what to do.
    """
    check_zone(config.timezone)
    paths = find_files(config.path)
    drop = drops_bad_rows(config)
    notes, read = [], []
    dropped: Counter[str] = Counter()
    sources: list[dict[str, Any]] = []
    stretches: list[Stretch] = []
    first: RawBars | None = None
    with StoreWriter(out) as writer:
        spool = writer.spool()
        for file, raw in enumerate(read_together(paths, config)):
            path = raw.path
            first = first or dataclasses.replace(raw, table=raw.table.slice(0, 0))  # keep its columns, not its rows
            check_naming([first, raw])
            num_rows = len(raw) + len(raw.ragged)
            raw, checked = check_file(raw, config)
            dropped.update(checked.dropped)
            notes += [*raw.notes, *checked.notes]
            read.append(understood(raw, checked.rows))
            merged, _ = merge([raw], [checked.rows], drop)
            stretches += _stretches(merged, file, spool.num_rows)
            spool.append(_columns(merged))
            sources.append({"path": str(path), "sha256": file_sha256(path), "rows": num_rows})
        order = sorted(stretches, key=lambda s: (s.key, s.first_ns, s.file))
        if not drop:
            _refuse_overlap(order, paths)
        if order != stretches or _overlaps(order):
            arranged = writer.spool()
            if repeated := _arrange(order, spool, arranged):
                dropped.update({RowFault.REPEATED_TIME.label: repeated})
            spool = arranged
        if (num_bars := spool.num_rows) < min_bars:
            raise UserError(f"{config.path}: {num_bars:,} bars, fewer than the {min_bars} of a window; give more bars")
        by_symbol = first is not None and first.ids is None and first.symbols is not None
        about = {"choice": "all", "max_gap_minutes": config.max_gap_minutes, "minutes": config.minutes}
        card = {**about, "dropped": dict(dropped), "sources": sources}
        writer.finish(spool, _symbols(stretches, order, by_symbol), card)
    return shortened(notes, MOST_NOTES), shortened(read)


def _columns(rows: InstrumentRows) -> dict[str, np.ndarray]:
    """Return rows by the fields of the store's Arrow file. Adding 0.0 makes -0.0 and 0.0 one price with one hash."""
    prices = dict(zip(PRICES, rows.prices + 0.0, strict=True))
    return {"ts_event": rows.time_ns, **prices, "volume": rows.volume, "instrument_id": rows.instrument}


def _stretches(rows: InstrumentRows, file: int, at: int) -> list[Stretch]:
    """Return the stretch of each instrument in the rows of one file, which are ordered by instrument and time."""
    if len(rows) == 0:
        return []
    starts = np.flatnonzero(np.concatenate([[True], np.diff(rows.instrument) != 0]))
    ends = np.append(starts[1:], len(rows))
    found = []
    for lo, hi in zip(starts.tolist(), ends.tolist(), strict=True):
        key, name = int(rows.instrument[lo]), rows.names[rows.symbol[hi - 1]]
        times = int(rows.time_ns[lo]), int(rows.time_ns[hi - 1])
        found.append(Stretch(key, file, *times, at + lo, hi - lo, None if name == str(key) else name))
    return found


def _overlaps(order: list[Stretch]) -> bool:
    return any(b.key == a.key and b.first_ns <= a.last_ns for a, b in itertools.pairwise(order))


def _refuse_overlap(order: list[Stretch], paths: list[Path]) -> None:
    for one, other in itertools.pairwise(order):
        if one.key == other.key and other.first_ns <= one.last_ns:
            begins, until = (pd.Timestamp(ns, tz="UTC") for ns in (other.first_ns, one.last_ns))
            raise UserError(
                f"{paths[other.file]}: time {begins} lies inside {paths[one.file]}, which holds the same instrument "
                f"until {until}; remove one of the files. {REPAIR}"
            )


def _arrange(order: list[Stretch], spool: Spool, to: Spool) -> int:
    """Copy spooled rows in order of instrument and time. Return the number of repeated times that were left out."""
    columns = spool.finish()
    repeated, position = 0, 0
    while position < len(order):
        group, until = [order[position]], order[position].last_ns
        while (position := position + 1) < len(order) and order[position].key == group[0].key:
            if order[position].first_ns > until:
                break
            group.append(order[position])
            until = max(until, order[position].last_ns)
        if len(group) == 1:
            _copy(columns, group[0], to)
            continue
        # In order of files: of two equal times the row of the earlier file stays.
        group.sort(key=lambda s: s.file)
        parts = {
            name: np.concatenate([column[s.at : s.at + s.size] for s in group]) for name, column in columns.items()
        }
        by_time = np.argsort(parts["ts_event"], kind="stable")
        kept = by_time[np.concatenate([[True], np.diff(parts["ts_event"][by_time]) != 0])]
        repeated += len(by_time) - len(kept)
        to.append({name: part[kept] for name, part in parts.items()})
    return repeated


def _copy(columns: dict[str, np.ndarray], stretch: Stretch, to: Spool) -> None:
    for lo in range(stretch.at, stretch.at + stretch.size, BLOCK_ROWS):
        part = slice(lo, min(lo + BLOCK_ROWS, stretch.at + stretch.size))
        to.append({name: column[part] for name, column in columns.items()})
        for array in columns.values():
            release_pages(array)


def _symbols(stretches: list[Stretch], order: list[Stretch], by_symbol: bool) -> dict[int, str]:
    """Return the latest symbol of each instrument. If the latest file has none, an earlier file's symbol counts."""
    known = {s.key: s.name for s in stretches if s.name is not None}
    latest = {s.key: s.name for s in order}
    if by_symbol and len({(s.key, s.name) for s in stretches}) > len(latest):
        raise UserError("two symbols share a key; add an instrument_id column")
    return {key: name if name is not None else known.get(key, str(key)) for key, name in latest.items()}
