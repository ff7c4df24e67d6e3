"""Join the rows of all files, and choose one instrument, the front month, or all instruments."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from moola_mlflow.bars.checks import REPAIR, RowFault
from moola_mlflow.bars.raw import RawBars
from moola_mlflow.bars.times import trade_date
from moola_mlflow.core import UserError, nearest_name

UNNAMED = "unnamed"  # the instrument of files that name none
# NQH1-NQM1 and NQ:BF H1-M1-U1 are spreads. In the week of a roll they trade more than the contracts themselves.
SPREAD = re.compile(r"[-:]")


@dataclass(frozen=True, eq=False)
class InstrumentRows:
    """Sound rows of all files, ordered by instrument and then by time. ``symbol`` is an index into ``names``.

    Shapes: prices [4, N]; the others [N].
    """

    time_ns: np.ndarray
    prices: np.ndarray
    volume: np.ndarray
    instrument: np.ndarray
    symbol: np.ndarray
    names: list[str]

    def __len__(self) -> int:
        return len(self.time_ns)

    def take(self, rows: np.ndarray) -> InstrumentRows:
        """Return some rows, in that order."""
        if len(rows) == len(self) and (np.diff(rows) == 1).all():
            return self
        parts = (self.time_ns[rows], self.prices[:, rows], self.volume[rows], self.instrument[rows], self.symbol[rows])
        return InstrumentRows(*parts, self.names)

    def last_symbols(self) -> dict[int, str]:
        """Return the latest symbol of each instrument key."""
        last = pd.Series(self.symbol).groupby(self.instrument).last()
        return {int(key): self.names[code] for key, code in last.items()}  # type: ignore[call-overload]


def merge(raws: list[RawBars], sound: list[np.ndarray], drop: bool) -> tuple[InstrumentRows, dict[str, int]]:
    """Join the sound rows of all files. With ``drop``, leave out times that a later file repeats, and count them.

    Raises: UserError if two files cover the same stretch of an instrument, or name instruments differently.
    """
    instrument, symbol, names = _instruments(raws, sound)
    time_ns = _gather([raw.time_ns for raw in raws], sound)
    order = None
    counts: dict[str, int] = {}
    if len(raws) > 1:
        if not drop:
            _refuse_overlap(raws, sound, time_ns, instrument)
        order = np.lexsort((time_ns, instrument))  # stable: of two equal times the earlier file's row comes first
        same = (np.diff(instrument[order]) == 0) & (np.diff(time_ns[order]) == 0)
        if same.any():
            counts = {RowFault.REPEATED_TIME.label: int(same.sum())}
            order = order[np.concatenate([[True], ~same])]
    elif (np.diff(instrument) != 0).any():
        codes = pd.factorize(instrument, sort=True)[0]
        # numpy sorts 16-bit integers by counting. Within a file each instrument is in order of time already.
        order = np.argsort(codes.astype(np.uint16) if codes.max() < 2**16 else codes, kind="stable")
    prices, volume = _gather([raw.prices for raw in raws], sound), _gather([raw.volume for raw in raws], sound)
    rows = InstrumentRows(time_ns, prices, volume, instrument, symbol, names)
    return rows if order is None else rows.take(order), counts


def choose(rows: InstrumentRows, instrument: str | None, where: str) -> InstrumentRows:
    """Return the rows of one instrument (symbol or id), of the ``front`` month, or of ``all`` instruments.

    Raises: UserError that lists the instruments, if there are several and none is named, or if the named one is not
    among them.
    """
    if instrument == "all":
        return rows
    if instrument == "front":
        return _front(rows, where)
    num_symbols = int((np.bincount(rows.symbol, minlength=1) > 0).sum())
    if instrument is None:
        if num_symbols > 1:
            raise UserError(
                f"{where}: holds {num_symbols} instruments ({_listed(rows)}) and bars.instrument is unset. Choose one: "
                "--bars.instrument SYMBOL (or its id), front (the highest volume of each trade date), or all "
                "(each keeps its own segments)"
            )
        return _in_time_order(rows, where)
    if instrument in rows.names and (mine := rows.symbol == rows.names.index(instrument)).any():
        return _in_time_order(rows.take(np.flatnonzero(mine)), where)
    if re.fullmatch(r"-?\d{1,18}", instrument) and (mine := rows.instrument == int(instrument)).any():
        return _in_time_order(rows.take(np.flatnonzero(mine)), where)
    raise UserError(
        f"{where}: no instrument '{instrument}'{nearest_name(instrument, rows.names)} There are: {_listed(rows)}; "
        "bars.instrument may also be front or all"
    )


def _listed(rows: InstrumentRows, most: int = 12) -> str:
    counts = Counter({rows.names[k]: int(n) for k, n in enumerate(np.bincount(rows.symbol)) if n})
    text = ", ".join(f"{name} {n:,} bars" for name, n in counts.most_common(most))
    return text + (f", and {len(counts) - most} more" if len(counts) > most else "")


def _in_time_order(rows: InstrumentRows, where: str) -> InstrumentRows:
    """Order the ids of one symbol by time.

    Raises: UserError if two ids have a bar at the same time: then they are not rolls of one series.
    """
    if not (np.diff(rows.instrument) != 0).any():
        return rows
    rows = rows.take(np.argsort(rows.time_ns, kind="stable"))
    if len(repeated := np.flatnonzero(np.diff(rows.time_ns) == 0)):
        at = pd.Timestamp(rows.time_ns[repeated[0]], tz="UTC")
        raise UserError(
            f"{where}: symbol {rows.names[rows.symbol[0]]} has the instrument ids "
            f"{np.unique(rows.instrument).tolist()}, and {len(repeated):,} times repeat among them (first {at}). Set "
            "bars.instrument to one id, front or all"
        )
    return rows


def _front(rows: InstrumentRows, where: str) -> InstrumentRows:
    """Keep the instrument with the highest volume of each trade date. Of equal volumes the lower id counts."""
    is_spread = np.array([bool(SPREAD.search(name)) for name in rows.names])
    of_spread = is_spread[rows.symbol]
    if of_spread.any() and not of_spread.all():
        rows = rows.take(np.flatnonzero(~of_spread))
    if len(rows) == 0:
        return rows
    date = trade_date(rows.time_ns)
    # Rows are ordered by instrument and time, so one instrument's rows of one trade date are contiguous.
    starts = np.flatnonzero(np.concatenate([[True], (np.diff(date) != 0) | (np.diff(rows.instrument) != 0)]))
    length = np.diff(starts, append=len(rows))
    volume = np.add.reduceat(rows.volume, starts)
    best_first = np.lexsort((rows.instrument[starts], -volume, date[starts]))
    dates = date[starts][best_first]
    first = np.concatenate([[True], np.diff(dates) != 0])
    if not rows.volume.any() and not first.all():
        raise UserError(
            f"{where}: bars.instrument=front needs volumes, and these bars have none; name an instrument: "
            f"{_listed(rows)}"
        )
    wins = np.zeros(len(starts), bool)
    wins[best_first[first]] = True
    kept = np.flatnonzero(np.repeat(wins, length))
    return rows.take(kept[np.argsort(rows.time_ns[kept], kind="stable")])


def _gather(arrays: list[np.ndarray], rows: list[np.ndarray]) -> np.ndarray:
    """Join the chosen rows (last axis) of several arrays. Nothing is copied if all rows of one array are chosen."""
    parts = [a if len(r) == a.shape[-1] else a[..., r] for a, r in zip(arrays, rows, strict=True)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def check_naming(raws: list[RawBars]) -> str:
    """Return which column names the instruments of all files: instrument_id, symbol or no.

    Raises: UserError if the files differ in it.
    """
    naming = ["instrument_id" if r.ids is not None else "symbol" if r.symbols is not None else "no" for r in raws]
    if other := [k for k, kind in enumerate(naming) if kind != naming[0]]:
        k = other[0]
        raise UserError(
            f"{raws[0].path} has {naming[0]} column and {raws[k].path} has {naming[k]} column: instruments of the two "
            "cannot be matched; give both files the same columns, or read them apart"
        )
    return naming[0]


def _instruments(raws: list[RawBars], sound: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the instrument key and the symbol code of each row of all files, and the names of the codes."""
    naming = check_naming(raws)
    code_of: dict[str, int] = {}
    symbols = []
    for raw, rows in zip(raws, sound, strict=True):
        codes = np.array([code_of.setdefault(name, len(code_of)) for name in raw.names] + [-1])
        symbols.append(np.full(len(rows), -1) if raw.symbols is None else codes[raw.symbols[rows]])
    symbol = symbols[0] if len(symbols) == 1 else np.concatenate(symbols)
    if naming == "no":
        return np.zeros(len(symbol), np.int64), np.zeros(len(symbol), np.int64), [UNNAMED]
    if naming == "symbol":
        # The key depends on the symbol alone, so other instruments in the files do not change it.
        key_of = np.array([zlib.crc32(name.encode()) for name in code_of] + [0], np.int64)
        if len(set(key_of.tolist())) < len(key_of):
            raise UserError(f"{raws[0].path}: two symbols share a key; add an instrument_id column")
        return key_of[symbol], symbol, list(code_of)
    ids = _gather([raw.ids for raw in raws if raw.ids is not None], sound)
    if (unnamed := symbol < 0).any():
        known = pd.Series(symbol[~unnamed]).groupby(ids[~unnamed]).last().to_dict()
        codes, keys = pd.factorize(ids[unnamed])
        named = [known[key] if key in known else code_of.setdefault(str(key), len(code_of)) for key in keys.tolist()]
        symbol[unnamed] = np.array(named)[codes]
    return ids, symbol, list(code_of)


def _refuse_overlap(raws: list[RawBars], sound: list[np.ndarray], time_ns: np.ndarray, instrument: np.ndarray) -> None:
    """Refuse two files that cover the same time span of one instrument."""
    sizes = [len(rows) for rows in sound]
    source = np.repeat(np.arange(len(raws)), sizes)
    frame = pd.DataFrame({"instrument": instrument, "file": source, "time": time_ns, "at": np.arange(len(time_ns))})
    spans = frame.groupby(["instrument", "file"]).agg(start=("time", "first"), end=("time", "last"), at=("at", "first"))
    spans = spans.reset_index().sort_values(["instrument", "start"], kind="stable")
    ends = spans.groupby("instrument")["end"].cummax().shift()
    late = spans[(spans["start"] <= ends) & (spans["instrument"] == spans["instrument"].shift())]
    if late.empty:
        return
    span = late.iloc[0]
    others = spans[(spans["instrument"] == span["instrument"]) & (spans["start"] <= span["start"])]
    other = others[(others["end"] >= span["start"]) & (others["file"] != span["file"])].iloc[0]
    file = int(span["file"])
    row = int(sound[file][int(span["at"]) - sum(sizes[:file])])
    end = pd.Timestamp(int(other["end"]), tz="UTC")
    cure = "remove one of the files"
    if raws[file].ids is None and raws[file].symbols is None:
        cure += ", or add a symbol column if they hold different instruments"
    raise UserError(
        f"{raws[file].where(row)}: time {pd.Timestamp(int(span['start']), tz='UTC')} lies inside "
        f"{raws[int(other['file'])].path}, which holds the same instrument until {end}; {cure}. {REPAIR}"
    )
