"""Read a file of bars of any known form: Databento or a plain table, as parquet, Arrow, text or DBN."""

from __future__ import annotations

import csv
import hashlib
import lzma
import urllib.parse
import zipfile
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moola_mlflow.bars.column_names import ALIASES, PRICES, UTC_NAMES, Roles, cleaned, find_columns
from moola_mlflow.bars.dbn import read_dbn
from moola_mlflow.bars.epochs import ReadTimes
from moola_mlflow.bars.number_text import numbers_of
from moola_mlflow.bars.paths import ARROW, DBN, EXCEL, KNOWN, PARQUET, TEXT, instrument_of, is_any
from moola_mlflow.bars.raw import RawBars
from moola_mlflow.bars.size_limits import check_dictionaries, check_parquet
from moola_mlflow.bars.tables import read_arrow, read_excel
from moola_mlflow.bars.text_file import read_text_file
from moola_mlflow.bars.times import localise, read_times
from moola_mlflow.core import BarsConfig, UserError

FIXED_POINT = 1e9  # Databento writes integer prices in units of 1e-9
UNDEFINED_PRICE = 2**63 - 1
DAMAGES = (pa.ArrowException, OSError, EOFError, csv.Error, lzma.LZMAError, zlib.error, zipfile.BadZipFile)


@dataclass
class _Source:
    """What the reader of a form gives: the columns, and what it knows of the file."""

    path: Path
    table: pa.Table
    columns: Roles
    shown: dict[str, str] = field(default_factory=dict)
    head_lines: int | None = None
    ragged: list[tuple[int, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    decimal_comma: bool = False


def file_sha256(path: Path) -> str:
    """Return the hash of a file."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def read_file(path: Path, config: BarsConfig) -> RawBars:
    """Read one file of any known form.

    Raises: UserError if the form is unknown, if the file is damaged or empty, or if it lacks a column. AmbiguousDates
    if its dates read both ways.
    """
    if not is_any(path, (*PARQUET, *TEXT, *DBN, *ARROW, *EXCEL)):
        raise UserError(f"{path}: unknown suffix '{path.suffix}'; {KNOWN}")
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty")
        return _normalise(_with_name(_read(path, config), config.instrument_from), config)
    except UnicodeDecodeError as e:
        raise UserError(f"{path}: is not UTF-8 text (byte {e.object[e.start]:#04x}); save it as UTF-8 CSV") from None
    except PermissionError:
        raise UserError(f"{path}: may not be read; give yourself permission, for example chmod u+r") from None
    except DAMAGES as e:
        kinds = {"parquet": PARQUET, "DBN": DBN, "Arrow": ARROW, "a workbook": EXCEL}
        kind = next((name for name, suffixes in kinds.items() if is_any(path, suffixes)), "text with columns")
        first = " ".join(str(e).split())[:300]
        raise UserError(f"{path}: cannot be read as {kind} ({first}); the file is damaged, export it again") from None


def from_frame(frame: pd.DataFrame, name: str) -> RawBars:
    """Return the bars of a table in memory that has the columns of Databento."""
    # pyarrow 25.0.1's own conversion causes a deprecation warning in pandas 3.1.1.
    times = pa.array(pd.DatetimeIndex(frame.index).as_unit("ns").asi8, pa.timestamp("ns", "UTC"))
    table = pa.table({"ts_event": times, **{str(name): pa.array(frame[name]) for name in frame.columns}})
    return from_table(table, find_columns(table.column_names, name), name)


def from_table(table: pa.Table, columns: Roles, name: str, config: BarsConfig | None = None) -> RawBars:
    """Return the bars of an Arrow table in memory, with the rules of a file."""
    return _normalise(_Source(Path(name), table, columns), config or BarsConfig())


def _read(path: Path, config: BarsConfig) -> _Source:
    if is_any(path, DBN):
        table = read_dbn(path)
        return _Source(path, table, find_columns(table.column_names, str(path)))
    if is_any(path, PARQUET):
        return _read_parquet(path, config)
    if is_any(path, (*ARROW, *EXCEL)):
        return _from_columns(path, read_arrow(path) if is_any(path, ARROW) else read_excel(path), config)
    text = read_text_file(path, config.columns, config.resample is not None)
    return _Source(
        path, text.table, text.columns, text.shown, text.head_lines, text.ragged, text.notes, text.decimal_comma
    )


def _read_parquet(path: Path, config: BarsConfig) -> _Source:
    with path.open("rb") as f:
        if f.read(4) != b"PAR1":
            raise UserError(f"{path}: is not parquet in spite of its name; if it is text, name it .csv")
    schema = pq.read_schema(path)

    def sample(name: str) -> list[str]:
        check_parquet(path)
        try:
            return [str(cell) for cell in pq.read_table(path, columns=[name])[name].slice(0, 20).to_pylist()]
        except (OverflowError, ValueError):  # a time that Python cannot write
            return []

    columns = find_columns(schema.names, str(path), sample, config.columns, config.resample is not None)
    used = list(dict.fromkeys(name for names in columns.values() for name in names))
    for name in used:
        _check_flat(path, name, schema.field(name).type)
    check_parquet(path)
    # Every row repeats its symbol: a dictionary is read many times faster than text.
    with pq.ParquetFile(path, read_dictionary=columns.get("symbol")) as file:
        table = file.read(columns=used)
    check_dictionaries(table)
    shown = {role: "+".join(map(repr, names)) for role, names in columns.items()}
    return _Source(path, *_with_partition(path, table, columns), shown)


def _from_columns(path: Path, table: pa.Table, config: BarsConfig) -> _Source:
    """Return the columns that have a role of a table that was read whole."""

    def sample(name: str) -> list[str]:
        return [str(cell) for cell in table[name].slice(0, 20).to_pylist()]

    columns = find_columns(table.column_names, str(path), sample, config.columns, config.resample is not None)
    used = list(dict.fromkeys(name for names in columns.values() for name in names))
    for name in used:
        _check_flat(path, name, table.schema.field(name).type)
    shown = {role: "+".join(map(repr, names)) for role, names in columns.items()}
    return _Source(path, *_with_partition(path, table.select(used), columns), shown)


def _check_flat(path: Path, name: str, kind: pa.DataType) -> None:
    if pa.types.is_nested(kind):
        raise UserError(f"{path}: column '{name}' holds {kind}; a bar has one number, text or time there")


def _with_name(source: _Source, place: str) -> _Source:
    """Take the instrument from the name of the file or of its folder, if the user asks for that."""
    if place == "column":
        return source
    name = instrument_of(source.path) if place == "file" else source.path.resolve().parent.name
    codes = pa.array(np.zeros(source.table.num_rows, np.int32))
    column = pa.DictionaryArray.from_arrays(codes, pa.array([name]))
    columns = {role: names for role, names in source.columns.items() if role not in ("symbol", "instrument_id")}
    added = f"{place} name"
    table = source.table.append_column(added, column)
    shown = {role: text for role, text in source.shown.items() if role in columns}
    return replace(source, table=table, columns={**columns, "symbol": [added]}, shown={**shown, "symbol": repr(name)})


def _with_partition(path: Path, table: pa.Table, columns: Roles) -> tuple[pa.Table, Roles]:
    """Add the instrument that a folder's name gives (symbol=ES). Tools that partition files leave its column out."""
    for part in path.parts[:-1]:
        name, equals, value = part.partition("=")
        for role in ("instrument_id", "symbol"):
            if equals and cleaned(name) in ALIASES[role] and role not in columns:
                text = pa.array([urllib.parse.unquote(value)]).dictionary_encode()
                index = pa.array(np.zeros(table.num_rows, np.int32))
                column = pa.DictionaryArray.from_arrays(index, text.dictionary)
                table, columns = table.append_column(f"{part}/", column), {**columns, role: [f"{part}/"]}
    return table, columns


def _normalise(source: _Source, config: BarsConfig) -> RawBars:
    path, table, columns = source.path, source.table, source.columns
    if table.num_rows == 0 and not source.ragged:
        raise UserError(f"{path}: holds no rows")
    times = read_times(_time_column(table, columns["time"]), str(path), config.dates, config.epoch)
    if newest_first := _is_newest_first(times, table, columns):
        table = table.take(pa.array(np.arange(table.num_rows)[::-1]))
        times = times._replace(ns=times.ns[::-1].copy(), bad=times.bad[::-1].copy())
    unused = ("time", "symbol", "publisher_id")
    one = {role: _decoded(table[names[0]]) for role, names in columns.items() if role not in unused}
    if config.resample is None:
        _check_one_minute(one.get("rtype"), path)
    ids, symbols, names, nameless = _instruments(path, table, columns, one)

    prices = np.empty((4, table.num_rows))
    for k, role in enumerate(PRICES):
        prices[k] = numbers_of(one[role], decimal_comma=source.decimal_comma)[0]
    if "rtype" in one and all(pa.types.is_integer(one[role].type) for role in PRICES):
        prices[prices >= float(UNDEFINED_PRICE)] = np.nan
        # Prices that are true integers stay as they are: in fixed point an index at 38000 would be 0.000038.
        if np.nanmax(np.abs(prices), initial=0) >= 1e6:
            prices /= FIXED_POINT
    notes = [*source.notes, *times.notes]
    volume = _volume(source, table, notes)
    no = np.zeros(table.num_rows, bool)
    zone, notes = _clock(source, times, config, notes)
    if newest_first:
        notes.append(f"{path}: the newest row comes first; the rows were put in order of time")
    raw = RawBars(
        path, table, columns, times, times.ns, no, no, prices, volume, ids, symbols, names, nameless, zone,
        newest_first, _typed(table, columns), source.head_lines, source.ragged, source.shown, notes,
    )  # fmt: skip
    if not times.aware and zone != "UTC":
        utc, ambiguous, skipped = localise(times.ns, raw.instrument_codes(), zone)
        raw = replace(raw, time_ns=utc, ambiguous_time=ambiguous & ~times.bad, skipped_time=skipped & ~times.bad)
    return raw


def _typed(table: pa.Table, columns: Roles) -> bool:
    """Return whether the file's own type of the time column says what it holds."""
    return len(columns["time"]) == 1 and pa.types.is_timestamp(table[columns["time"][0]].type)


def _is_newest_first(times: ReadTimes, table: pa.Table, columns: Roles) -> bool:
    """Return whether times fall from row to row, with all instruments together or one after another."""
    ns = times.ns[~times.bad] if times.bad.any() else times.ns
    step = np.diff(ns)
    falls = int((step < 0).sum())
    rises = int((step > 0).sum())
    return falls > 1 and falls > 9 * rises and table.num_rows > 2


def _clock(source: _Source, times: ReadTimes, config: BarsConfig, notes: list[str]) -> tuple[str, list[str]]:
    """Return the clock of the times: their own, that of the header, or bars.timezone. Say so if it is the default."""
    if times.aware:
        return times.zone or "UTC", notes
    if times.zone:
        return times.zone, notes
    header = source.shown.get("time", "").strip("'\"")
    if cleaned(header) in UTC_NAMES:
        return "UTC", notes
    if "timezone" not in config.model_fields_set:
        note = f"{source.path}: times name no zone and were read as UTC; --bars.timezone names another clock"
        notes = [*notes, note]
    return config.timezone, notes


def _volume(source: _Source, table: pa.Table, notes: list[str]) -> np.ndarray:
    """Return the volumes: 0 where the cell is empty, NaN where it cannot be read. Shapes: float64 [N]."""
    names = source.columns.get("volume") or []
    ticks = source.columns.get("tick_volume") or []
    total = np.zeros(table.num_rows)
    num_empty = 0
    for name in names:
        values, empty = numbers_of(_decoded(table[name]), False, source.decimal_comma)
        num_empty = max(num_empty, int(empty.sum()))
        total = total + np.where(empty, 0.0, values)
    if ticks and (not names or not total.any()):
        values, empty = numbers_of(_decoded(table[ticks[0]]), False, source.decimal_comma)
        notes.append(
            f"{source.path}: the volume is the number of price changes ({source.shown.get('tick_volume', ticks[0])})"
        )
        return np.where(empty, 0.0, values)
    if not names:
        notes.append(f"{source.path}: no column of volumes; volumes are 0")
    elif num_empty:
        shown = source.shown.get("volume", names[0])
        notes.append(f"{source.path}: {num_empty:,} of {table.num_rows:,} volumes ({shown}) are empty and count as 0")
    return total


def _instruments(
    path: Path, table: pa.Table, columns: Roles, one: dict[str, pa.ChunkedArray]
) -> tuple[np.ndarray | None, np.ndarray | None, list[str], np.ndarray]:
    """Return ids, symbols, the names of symbols, and which rows have no readable instrument. Shapes: [N] each."""
    nameless = np.zeros(table.num_rows, bool)
    ids = symbols = None
    names: list[str] = []
    if "instrument_id" in one:
        keys = numbers_of(one["instrument_id"])[0]
        nameless = ~((keys == np.floor(keys)) & (np.abs(keys) < 2**53))
        ids = np.where(nameless, 0, keys).astype(np.int64)
    if "symbol" in columns:
        column = table[columns["symbol"][0]]
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if pa.types.is_temporal(kind) or pa.types.is_binary(kind) or pa.types.is_boolean(kind):
            raise UserError(f"{path}: column '{columns['symbol'][0]}' holds {kind}; a symbol is text or a number")
        symbols, names = _symbols(column)
        nameless = nameless | ((symbols < 0) if ids is None else False)
    return ids, symbols, names, nameless


def _time_column(table: pa.Table, names: list[str]) -> pa.ChunkedArray:
    if len(names) == 1:
        return _decoded(table[names[0]])
    date, time = (_decoded(table[name]) for name in names)
    if pa.types.is_timestamp(date.type):
        date = date.cast(pa.date32())
    date, time = (pc.utf8_trim_whitespace(column.cast(pa.string())) for column in (date, time))
    date, time = (pc.replace_substring_regex(column, r"^(\d+)\.0*$", r"\1") for column in (date, time))
    # A column of integers has lost its leading zeros: 93000 is 09:30:00, and 930 is 09:30.
    longest = pc.max(pc.utf8_length(time)).as_py() or 0
    width = 4 if longest <= 4 else 6 if longest <= 6 else 9
    is_digits = pc.match_substring_regex(time, r"^\d+$").fill_null(False)
    if pc.any(is_digits).as_py():
        padded = pc.if_else(is_digits, pc.utf8_lpad(time, width, "0"), time)
        colons = {4: (r"^(\d\d)(\d\d)$", r"\1:\2"), 6: (r"^(\d\d)(\d\d)(\d\d)$", r"\1:\2:\3")}
        colons[9] = (r"^(\d\d)(\d\d)(\d\d)(\d{3})$", r"\1:\2:\3.\4")
        time = pc.replace_substring_regex(padded, *colons[width])
    return pc.binary_join_element_wise(date, time, " ")


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _symbols(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """Return a code for each row, -1 if it is empty, and the names that the codes index. Shapes: int64 [N]."""
    encoded = (column if pa.types.is_dictionary(column.type) else column.dictionary_encode()).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    names = [str(name) for name in encoded.dictionary.to_pylist()]
    codes = encoded.indices.cast(pa.int64()).fill_null(-1).to_numpy()
    empty = np.array([name in ("", "None", "nan") for name in names] + [True])
    return np.where(empty[codes], -1, codes), names


def _check_one_minute(rtype: pa.ChunkedArray | None, path: Path) -> None:
    """Refuse bars of another length. Databento writes it to rtype: 32 second, 33 minute, 34 hour, 35 day."""
    if rtype is None or not pa.types.is_integer(rtype.type):
        return
    if others := sorted({value for value in rtype.unique().to_pylist() if value not in (33, None)}):
        raise UserError(f"{path}: rtype {others[0]} is not one-minute bars (33); ask Databento for ohlcv-1m")
