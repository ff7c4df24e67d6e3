"""Bars of one length: the `Bars` table, how it is read from files or a store, and how it is written."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from moola_mlflow.bars.checks import drops_bad_rows
from moola_mlflow.bars.column_names import PRICES
from moola_mlflow.bars.columns import COLUMNS, content_sha256
from moola_mlflow.bars.folder import read_together
from moola_mlflow.bars.formats import file_sha256, from_frame
from moola_mlflow.bars.instruments import InstrumentRows, choose, merge
from moola_mlflow.bars.paths import find_files
from moola_mlflow.bars.resampling import check_file
from moola_mlflow.bars.store import StoreWriter, find_segments, is_store, open_store
from moola_mlflow.bars.times import MINUTE_NS, check_zone
from moola_mlflow.bars.understood import MOST_NOTES, shortened, understood
from moola_mlflow.core import BarsConfig, UserError

RTYPE_ONE_MINUTE = 33
CHOICE = b"moola.instrument"


@dataclass(frozen=True)
class SourceFile:
    """A file that bars came from. ``rows`` counts all of its rows, chosen or not."""

    path: Path
    sha256: str
    rows: int


@dataclass(frozen=True, eq=False)
class Bars:
    """Checked bars of one length, ordered by time within each instrument.

    One instrument or a front-month series is ordered by time. Several instruments lie one behind another.

    Attributes
    ----------
    time_ns
        Start of each bar in ns since 1970 UTC, int64 [N].
    ohlc
        Open, high, low and close of each bar, as in the file, float64 [N, 4].
    volume
        Volume of each bar, 0 if the file has none, float64 [N].
    instrument
        Instrument key of each bar, int64 [N].
    symbols
        Symbol of each instrument key.
    files
        The files that the bars came from.
    sha256
        Hash of arrays and symbols. It does not depend on the file that the bars came from.
    dropped
        Number of bad rows of each kind that ``bars.repair=drop`` left out.
    index
        Segments that a store has found already: the largest gap in minutes, and int64 [S, 2].
    notes
        What to tell the user about the files, such as how many volumes are empty.
    understood
        How each file was read: columns, clock, order of dates, unit of the times, first and last row.
    minutes
        Length of a bar in minutes.

    Examples
    --------
    >>> from moola_mlflow import BarsConfig, read_bars
    >>> bars = read_bars(BarsConfig(path="sample", sample_bars=2000))
    >>> len(bars), bars.ohlc.shape, bars.head(105).time_ns.shape
    (2000, (2000, 4), (105,))
    """

    time_ns: np.ndarray
    ohlc: np.ndarray
    volume: np.ndarray
    instrument: np.ndarray
    symbols: dict[int, str]
    files: tuple[SourceFile, ...]
    sha256: str
    dropped: dict[str, int]
    index: tuple[int, np.ndarray] | None = None
    notes: tuple[str, ...] = ()
    understood: tuple[str, ...] = ()
    minutes: int = 1

    @property
    def length_ns(self) -> int:
        """Length of a bar in ns."""
        return self.minutes * MINUTE_NS

    def __len__(self) -> int:
        return len(self.time_ns)

    def head(self, num_bars: int) -> Bars:
        """Return the earliest bars, in the same order."""
        return self.rows(np.sort(np.argsort(self.time_ns, kind="stable")[:num_bars]))

    def rows(self, rows: np.ndarray | slice) -> Bars:
        """Return some bars, in that order. A slice of a store's bars stays mapped."""
        time_ns, ohlc, volume, instrument = (
            array[rows] for array in (self.time_ns, self.ohlc, self.volume, self.instrument)
        )
        symbols = {key: self.symbols[key] for key in np.unique(instrument).tolist()}
        sha256 = _content_sha256(time_ns, ohlc, volume, instrument, symbols)
        bars = Bars(time_ns, ohlc, volume, instrument, symbols, self.files, sha256, self.dropped)
        return replace(bars, notes=self.notes, understood=self.understood, minutes=self.minutes)


def segments(bars: Bars, max_gap_minutes: int = 5) -> np.ndarray:
    """Return the longest runs of one instrument's bars whose neighbours start at most ``max_gap_minutes`` apart.

    A gap that is shorter than a bar counts as one bar.

    Shapes: int64 [S, 2], first row and one past the last row of each segment.
    """
    max_gap_minutes = max(max_gap_minutes, bars.minutes)
    if bars.index and bars.index[0] == max_gap_minutes:
        return bars.index[1]
    return find_segments(bars.time_ns, bars.instrument, max_gap_minutes)


def read_bars(config: BarsConfig, min_bars: int = 105) -> Bars:
    """Read and check bars from a file, a folder, a glob, a bar store, or the embedded sample.

    Bars of a store stay on disk: the columns are mapped, not read.

    Parameters
    ----------
    config
        Section ``bars`` of the configuration: path, instrument, timezone, stamp and repair.
    min_bars
        Fewer bars than this are refused; by default the length of a window.

    Returns
    -------
    Bars
        The checked bars.

    Raises
    ------
    UserError
        If anything about the bars is wrong. The message names the file, the row, the value and what to do.

    Examples
    --------
    >>> from moola_mlflow import BarsConfig
    >>> bars = read_bars(BarsConfig(path="sample", sample_bars=2000))
    >>> bars.ohlc[0].tolist()
    [4000.0, 4000.0, 3999.75, 4000.0]
    """
    check_zone(config.timezone)
    if is_store(config.path):
        return _read_store(config, min_bars)
    is_sample = config.path == "sample"
    if is_sample:
        from moola_mlflow.bars.sample import generate_bars  # only runs on the sample need it

        raws = [from_frame(generate_bars(config.sample_bars, config.sample_seed), "sample")]
    else:
        raws = list(read_together(find_files(config.path), config))
    dropped: Counter[str] = Counter()
    made, sound, said = [], [], []
    for raw in raws:
        bars_of_file, checked = check_file(raw, config)
        made.append(bars_of_file)
        sound.append(checked.rows)
        dropped.update(checked.dropped)
        said += [*bars_of_file.notes, *checked.notes]
    merged, repeated = merge(made, sound, drops_bad_rows(config))
    dropped.update(repeated)
    instrument = config.instrument or ("front" if is_sample else _earlier_choice(config.path))
    chosen = choose(merged, instrument, config.path)
    bars = _from_rows(chosen, dropped, config.path, min_bars)
    files = tuple(
        SourceFile(raw.path, bars.sha256 if is_sample else file_sha256(raw.path), len(raw) + len(raw.ragged))
        for raw in raws
    )
    bars = replace(bars, files=files, minutes=config.minutes)
    if is_sample:
        return bars
    read = [understood(raw, rows) for raw, rows in zip(made, sound, strict=True)]
    return replace(bars, notes=shortened(said, MOST_NOTES), understood=shortened(read))


def _from_rows(chosen: InstrumentRows, dropped: Counter[str], path: str, min_bars: int) -> Bars:
    num_bars = len(chosen)
    if num_bars < min_bars:
        left_out = f" ({sum(dropped.values()):,} bad rows were dropped)" if dropped else ""
        raise UserError(
            f"{path}: {num_bars:,} bars{left_out}, fewer than the {min_bars} of a window; give more bars, "
            "or set bars.instrument to an instrument that has them"
        )
    symbols = chosen.last_symbols()
    ohlc = np.empty((num_bars, len(PRICES)))
    np.add(chosen.prices.T, 0.0, out=ohlc)  # adding 0.0 makes -0.0 and 0.0 one price with one hash
    sha256 = _content_sha256(chosen.time_ns, ohlc, chosen.volume, chosen.instrument, symbols)
    return Bars(chosen.time_ns, ohlc, chosen.volume, chosen.instrument, symbols, (), sha256, dict(dropped))


def _read_store(config: BarsConfig, min_bars: int) -> Bars:
    """Return the bars of a store, or of one of its instruments. They stay mapped."""
    if config.stamp == "end":
        raise UserError(f"{config.path}: a bar store is start-stamped already; leave bars.stamp at start")
    stored = open_store(config.path)
    minutes = int(stored.card.get("minutes", 1))
    if minutes != config.minutes:
        raise UserError(f"{config.path}: this store holds bars of {minutes} minutes; set bars.minutes={minutes}")
    columns, dropped = stored.columns, Counter({str(k): int(n) for k, n in stored.card.get("dropped", {}).items()})
    time_ns, ohlc, volume, instrument = columns.values()
    files = (SourceFile(stored.path, stored.sha256, len(time_ns)),)
    index = (stored.max_gap_minutes, stored.segments)
    whole = Bars(time_ns, ohlc, volume, instrument, stored.symbols, files, stored.sha256, dict(dropped), index)
    whole = replace(whole, minutes=minutes)
    wanted = config.instrument
    if wanted in (None, stored.choice) and (stored.choice or len(stored.symbols) == 1):
        if len(whole) < min_bars:
            raise UserError(f"{config.path}: {len(whole):,} bars, fewer than the {min_bars} of a window")
        return whole
    keys = sorted(stored.symbols)
    mine = [key for key in keys if wanted in (stored.symbols[key], str(key))]
    if stored.choice == "all" and len(mine) == 1:  # it lies in one piece
        lo, hi = np.searchsorted(instrument, [mine[0], mine[0] + 1]).tolist()
        bars = whole.rows(slice(lo, hi))
    else:
        codes = np.searchsorted(np.array(keys), instrument)
        rows = InstrumentRows(time_ns, ohlc.T, volume, instrument, codes, [stored.symbols[key] for key in keys])
        bars = _from_rows(choose(rows, wanted, config.path), dropped, config.path, 0)
        bars = replace(bars, files=files, minutes=minutes)
    if len(bars) < min_bars:
        raise UserError(f"{config.path}: {len(bars):,} bars of {wanted}, fewer than the {min_bars} of a window")
    return bars


def write_store(bars: Bars, out: str | Path, max_gap_minutes: int, choice: str | None = None) -> None:
    """Write bars as a store. Read back with the same choice, they have the same hash.

    Raises: UserError if it cannot be written.
    """
    sources = [{"path": str(f.path), "sha256": f.sha256, "rows": f.rows} for f in bars.files]
    with StoreWriter(out) as writer:
        columns = {name: getattr(bars, name) for name in COLUMNS}
        about = {"choice": choice, "max_gap_minutes": max_gap_minutes, "minutes": bars.minutes}
        card = {**about, "dropped": bars.dropped, "sources": sources}
        writer.finish(columns, bars.symbols, card)


def _earlier_choice(path: str) -> str | None:
    """Return the choice of instrument that this project noted in a file when it wrote it."""
    if not path.endswith(".parquet") or not Path(path).is_file():
        return None
    choice = (pq.read_schema(path).metadata or {}).get(CHOICE)
    return choice.decode() if choice in (b"front", b"all") else None


def write_parquet(bars: Bars, path: Path, choice: str | None = None) -> None:
    """Write bars as parquet in the layout of ``databento.DBNStore.to_df()``. Read back, they have the same hash.

    A ``choice`` of ``front`` or ``all`` is noted in the file, so that reading needs no choice.
    """
    keys, codes = np.unique(bars.instrument, return_inverse=True)
    whole = (bars.volume == np.floor(bars.volume)).all() and bars.volume.max(initial=0) < 2**53
    fits = len(keys) == 0 or (keys[0] >= 0 and keys[-1] < 2**32)
    symbols = pa.array([bars.symbols[int(key)] for key in keys], pa.string())
    columns = {
        "rtype": np.full(len(bars), RTYPE_ONE_MINUTE, np.uint8),
        "publisher_id": np.zeros(len(bars), np.uint16),
        "instrument_id": bars.instrument.astype(np.uint32 if fits else np.int64),
        **{name: bars.ohlc[:, k] for k, name in enumerate(PRICES)},
        "volume": bars.volume.astype(np.uint64) if whole else bars.volume,
        "symbol": pa.DictionaryArray.from_arrays(codes.astype(np.int32), symbols).cast(pa.string()),
        "ts_event": pa.array(bars.time_ns, pa.timestamp("ns", "UTC")),
    }
    # pandas takes ts_event as the index when the file says so.
    zone = {"pandas_type": "datetimetz", "numpy_type": "datetime64[ns]", "metadata": {"timezone": "UTC"}}
    index = {"name": "ts_event", "field_name": "ts_event", **zone}
    layout = {"index_columns": ["ts_event"], "columns": [index], "column_indexes": []}
    notes = {b"pandas": json.dumps(layout).encode()}
    if choice in ("front", "all"):
        notes[CHOICE] = choice.encode()
    table = pa.table(columns).replace_schema_metadata(notes)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    # Takes half the time and size of pyarrow's defaults: times differ by a minute, prices repeat.
    repeating = [name for name in columns if name != "ts_event"]
    pq.write_table(table, path, use_dictionary=repeating, column_encoding={"ts_event": "DELTA_BINARY_PACKED"})


def _content_sha256(
    time_ns: np.ndarray, ohlc: np.ndarray, volume: np.ndarray, instrument: np.ndarray, symbols: dict[int, str]
) -> str:
    columns = {"time_ns": time_ns, "ohlc": ohlc, "volume": volume, "instrument": instrument}
    return content_sha256(columns, symbols)
