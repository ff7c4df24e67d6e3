"""Read a file of bars of any known form: Databento or a plain table, as parquet, text or DBN."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import urllib.parse
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from moola_mlflow.bars.dbn import read_dbn
from moola_mlflow.bars.paths import DBN, KNOWN, PARQUET, TEXT, is_any
from moola_mlflow.bars.size_limits import Unpacked, check_dictionaries, check_parquet
from moola_mlflow.bars.times import localise, parse_times
from moola_mlflow.core import UserError, nearest_name

PRICES = ("open", "high", "low", "close")
# pandas writes an index without a name as '' to CSV, and as __index_level_0__ to parquet.
TIME_NAMES = ("ts_event", "timestamp", "datetime", "date+time", "time", "ts", "date", "__index_level_0__", "")
ALIASES = {
    **{name: (name, name[0]) for name in PRICES},
    "volume": ("volume", "vol", "v"),
    "instrument_id": ("instrument_id",),
    "symbol": ("symbol", "ticker", "instrument"),
    "rtype": ("rtype",),
    "publisher_id": ("publisher_id",),
}
HEAD_BYTES = 65_536
Roles = dict[str, list[str]]
"""Names of the columns that hold a role: time, open, symbol ..."""
FIXED_POINT = 1e9  # Databento writes integer prices in units of 1e-9
UNDEFINED_PRICE = 2**63 - 1
DATE_ONLY = re.compile(r"\d{8}|\d{4}[-./]\d\d?[-./]\d\d?|\d\d?[-./]\d\d?[-./]\d{4}")
TIME_ONLY = re.compile(r"\d\d?:\d\d.*|\d{3,6}")


@dataclass(frozen=True, eq=False)
class RawBars:
    """The bars of one file, not sorted and not checked, with their unreadable cells marked.

    ``ids`` and ``symbols`` are None if the file has no such column. A symbol is an index into ``names``, or -1.

    Shapes: prices [4, N] (open, high, low, close; NaN if unreadable); the others [N].
    Units: time_ns in ns since 1970 UTC.
    """

    path: Path
    table: pa.Table
    columns: dict[str, list[str]]
    time_ns: np.ndarray
    unreadable_time: np.ndarray
    ambiguous_time: np.ndarray
    skipped_time: np.ndarray
    prices: np.ndarray
    volume: np.ndarray
    ids: np.ndarray | None
    symbols: np.ndarray | None
    names: list[str]
    nameless: np.ndarray
    head_lines: int | None = None  # lines above the first row of a text file
    ragged: list[tuple[int, str]] = field(default_factory=list)  # rows with a wrong number of fields, and why

    def __len__(self) -> int:
        return len(self.time_ns)

    def instrument_codes(self) -> np.ndarray:
        """Return for each row a small integer that stands for its instrument. Shapes: int64 [N]."""
        if self.ids is not None:
            return np.asarray(pd.factorize(self.ids)[0])
        return np.zeros(len(self), np.int64) if self.symbols is None else self.symbols

    def cell(self, role: str, row: int) -> str:
        """Return a row's value as it is written in the file."""
        return " ".join(_shown(self.table[name][row]) for name in self.columns[role])

    def where(self, row: int) -> str:
        """Return 'file: row 5 (line 6)' for a row counted from 0."""
        text = f"{self.path}: row {row + 1}"
        if self.head_lines is None:
            return text
        with pa.input_stream(str(self.path)) as stream:
            for line, content in enumerate(io.BufferedReader(stream), 1):
                row -= line > self.head_lines and content.strip(b"\r\n") != b""  # arrow skips blank lines
                if row < 0:
                    return f"{text} (line {line})"
        return text


def file_sha256(path: Path) -> str:
    """Return the hash of a file."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def read_file(path: Path, zone: str) -> RawBars:
    """Read one file of any known form.

    Raises: UserError if the form is unknown, if the file is damaged or empty, or if it lacks a column.
    """
    if not is_any(path, (*PARQUET, *TEXT, *DBN)):
        raise UserError(f"{path}: unknown suffix '{path.suffix}'; {KNOWN}")
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty")
        if is_any(path, DBN):
            table = read_dbn(path)
            return _normalise(path, table, find_columns(table.column_names, str(path)), zone)
        return _read_parquet(path, zone) if is_any(path, PARQUET) else _read_text(path, zone)
    except UnicodeDecodeError as e:
        raise UserError(f"{path}: is not UTF-8 text (byte {e.object[e.start]:#04x}); save it as UTF-8 CSV") from None
    except PermissionError:
        raise UserError(f"{path}: may not be read; give yourself permission, for example chmod u+r") from None
    except (pa.ArrowException, OSError, csv.Error) as e:
        kind = "parquet" if is_any(path, PARQUET) else "DBN" if is_any(path, DBN) else "text with columns"
        first = " ".join(str(e).split())[:300]
        raise UserError(f"{path}: cannot be read as {kind} ({first}); the file is damaged, export it again") from None


def from_frame(frame: pd.DataFrame, name: str) -> RawBars:
    """Return the bars of a table in memory that has the columns of Databento."""
    # pyarrow 25.0.1's own conversion causes a deprecation warning in pandas 3.1.1.
    times = pa.array(pd.DatetimeIndex(frame.index).as_unit("ns").asi8, pa.timestamp("ns", "UTC"))
    table = pa.table({"ts_event": times, **{str(name): pa.array(frame[name]) for name in frame.columns}})
    return _normalise(Path(name), table, find_columns(table.column_names, name), "UTC")


def find_columns(names: list[str], where: str) -> dict[str, list[str]]:
    """Return the columns that hold time, prices, volume and instrument. The time may be in two, date and time.

    Raises: UserError with the missing columns and the columns that were found.
    """
    by_clean: dict[str, list[str]] = {}
    for name in names:
        by_clean.setdefault(name.strip(' <>"\ufeff').lower().replace(" ", "_"), []).append(name)
    found = {role: next((by_clean[a] for a in options if a in by_clean), []) for role, options in ALIASES.items()}
    if "date" in by_clean and "time" in by_clean:
        by_clean["date+time"] = by_clean["date"] + by_clean["time"]
    found["time"] = next((by_clean[name] for name in TIME_NAMES if name in by_clean), [])
    shown = ", ".join(map(repr, names))[:300]
    if not found["time"]:
        options = ", ".join(TIME_NAMES[:-2])
        raise UserError(f"{where}: no time column; looked for {options} in any letter case; found: {shown}")
    if missing := [role for role in PRICES if not found[role]]:
        hint = nearest_name(missing[0], by_clean)
        raise UserError(f"{where}: no column {', '.join(missing)}{hint} Found: {shown}. Rename the columns in the file")
    for role, columns in found.items():
        if len(columns) > (2 if columns == by_clean.get("date+time") else 1):
            raise UserError(f"{where}: {len(columns)} columns could be the {role}: {columns}; keep one of them")
    return {role: columns for role, columns in found.items() if columns}


def _read_parquet(path: Path, zone: str) -> RawBars:
    with path.open("rb") as f:
        if f.read(4) != b"PAR1":
            raise UserError(f"{path}: is not parquet in spite of its name; if it is text, name it .csv")
    schema = pq.read_schema(path)
    columns = find_columns(schema.names, str(path))
    used = [name for names in columns.values() for name in names]
    for name in used:
        if pa.types.is_nested(kind := schema.field(name).type):
            raise UserError(f"{path}: column '{name}' holds {kind}; a bar has one number, text or time there")
    check_parquet(path)
    # Every row repeats its symbol: a dictionary is read many times faster than text.
    with pq.ParquetFile(path, read_dictionary=columns.get("symbol")) as file:
        table = file.read(columns=used)
    check_dictionaries(table)
    return _normalise(path, *_with_partition(path, table, columns), zone)


def _with_partition(path: Path, table: pa.Table, columns: Roles) -> tuple[pa.Table, Roles]:
    """Add the instrument that a folder's name gives (symbol=ES). Tools that partition files leave its column out."""
    for part in path.parts[:-1]:
        name, equals, value = part.partition("=")
        for role in ("instrument_id", "symbol"):
            if equals and name.lower() in ALIASES[role] and role not in columns:
                text = pa.array([urllib.parse.unquote(value)]).dictionary_encode()
                index = pa.array(np.zeros(table.num_rows, np.int32))
                column = pa.DictionaryArray.from_arrays(index, text.dictionary)
                table, columns = table.append_column(f"{part}/", column), {**columns, role: [f"{part}/"]}
    return table, columns


def _read_text(path: Path, zone: str) -> RawBars:
    with io.BufferedReader(Unpacked(path)) as stream:
        head = stream.read(HEAD_BYTES)
    if b"\0" in head:
        raise UserError(f"{path}: is not plain text (it holds zero bytes); save it as UTF-8 CSV")
    blank = len(head) - len(head.lstrip(b"\r\n"))
    first, *rest = head[blank:].split(b"\n", 1)
    if not rest and len(head) == HEAD_BYTES:
        raise UserError(f"{path}: the first line is longer than {HEAD_BYTES:,} bytes; bars have one row a line")
    line = first.decode("utf-8-sig").strip("\r")
    delimiter = max(",;\t", key=line.count)
    fields = next(csv.reader([line], delimiter=delimiter), [])
    head_lines = head[:blank].count(b"\n")
    if _has_header(fields):
        if len(head) < HEAD_BYTES and not (rest and rest[0].strip()):
            raise UserError(f"{path}: holds no rows below the header {line[:200]!r}")
        head_lines += 1
        names = find_columns(fields, str(path))
        # By position: arrow cannot choose between two columns of one name.
        columns = {role: [str(fields.index(name)) for name in named] for role, named in names.items()}
    else:
        columns = _headerless(fields, path)
    texts = {name: pa.string() for role in ("time", "symbol") for name in columns.get(role, [])}
    ragged: list[tuple[int, str]] = []

    def skip_ragged(row: pa.csv.InvalidRow) -> str:
        ragged.append(
            (row.number - 1 - head_lines, f"{row.actual_columns} fields, not {row.expected_columns}: {row.text[:80]!r}")
        )
        return "skip"

    options = (
        # One thread: with more, arrow does not know the row numbers. It refuses a line longer than its block of 1 MiB.
        # utf-8-sig: arrow then checks the whole text, and a bad byte is an error. With utf-8 it becomes a null.
        pa.csv.ReadOptions(
            use_threads=False,
            skip_rows=head_lines,
            column_names=[*map(str, range(len(fields)))],
            encoding="utf-8-sig",
        ),
        pa.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=skip_ragged),
        pa.csv.ConvertOptions(column_types=texts, include_columns=[c for named in columns.values() for c in named]),
    )
    with io.BufferedReader(Unpacked(path)) as stream:
        table = pa.csv.read_csv(stream, *options)
    return _normalise(path, table, columns, zone, head_lines, ragged)


def _has_header(fields: list[str]) -> bool:
    return sum(re.fullmatch(r"\s*[+-]?[\d.]+([eE][+-]?\d+)?\s*", f) is not None for f in fields) < len(PRICES)


def _headerless(fields: list[str], path: Path) -> dict[str, list[str]]:
    two = len(fields) > 5 and DATE_ONLY.fullmatch(fields[0].strip()) and TIME_ONLY.fullmatch(fields[1].strip())
    order = ["time", *(["time"] if two else []), *PRICES, "volume"]
    if len(fields) < order.index("volume"):
        raise UserError(
            f"{path}: {len(fields)} columns without a header; needed are time (or date and time), open, high, low, "
            "close and perhaps volume, in this order, or a header line that names the columns"
        )
    columns: dict[str, list[str]] = {}
    for position, role in enumerate(order[: len(fields)]):
        columns.setdefault(role, []).append(str(position))
    return columns


def _normalise(
    path: Path,
    table: pa.Table,
    columns: dict[str, list[str]],
    zone: str,
    head_lines: int | None = None,
    ragged: list[tuple[int, str]] | None = None,
) -> RawBars:
    num_rows = table.num_rows
    if num_rows == 0 and not ragged:
        raise UserError(f"{path}: holds no rows")
    unused = ("time", "symbol", "publisher_id")
    one = {role: _decoded(table[names[0]]) for role, names in columns.items() if role not in unused}
    _check_one_minute(one.get("rtype"), path)

    nameless = np.zeros(num_rows, bool)
    ids = symbols = None
    names: list[str] = []
    if "instrument_id" in one:
        keys = _floats(one["instrument_id"])
        nameless = ~((keys == np.floor(keys)) & (np.abs(keys) < 2**53))
        ids = np.where(nameless, 0, keys).astype(np.int64)
    if "symbol" in columns:
        column = table[columns["symbol"][0]]
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if pa.types.is_temporal(kind) or pa.types.is_binary(kind) or pa.types.is_boolean(kind):
            raise UserError(f"{path}: column '{columns['symbol'][0]}' holds {kind}; a symbol is text or a number")
        symbols, names = _symbols(column)
        nameless = nameless | ((symbols < 0) if ids is None else False)

    prices = np.empty((4, num_rows))
    for k, role in enumerate(PRICES):
        prices[k] = _floats(one[role])
    if "rtype" in one and all(pa.types.is_integer(one[role].type) for role in PRICES):
        prices[prices >= float(UNDEFINED_PRICE)] = np.nan
        # Prices that are true integers stay as they are: in fixed point an index at 38000 would be 0.000038.
        if np.nanmax(np.abs(prices), initial=0) >= 1e6:
            prices /= FIXED_POINT
    volume = _floats(one["volume"]) if "volume" in one else np.zeros(num_rows)
    if np.isnan(volume).all():  # an empty column counts as a missing one
        volume = np.zeros(num_rows)

    ns, bad, aware = parse_times(_time_column(table, columns["time"]), str(path))
    raw = RawBars(
        path, table, columns, ns, bad, np.zeros(num_rows, bool), np.zeros(num_rows, bool), prices, volume, ids, symbols,
        names, nameless, head_lines, ragged or [],
    )  # fmt: skip
    if not aware:
        utc, ambiguous, skipped = localise(ns, raw.instrument_codes(), zone)
        raw = replace(raw, time_ns=utc, ambiguous_time=ambiguous & ~bad, skipped_time=skipped & ~bad)
    return raw


def _time_column(table: pa.Table, names: list[str]) -> pa.ChunkedArray:
    if len(names) == 1:
        return _decoded(table[names[0]])
    date, time = (_decoded(table[name]) for name in names)
    if pa.types.is_timestamp(date.type):
        date = date.cast(pa.date32())
    date, time = (pc.utf8_trim_whitespace(column.cast(pa.string())) for column in (date, time))
    # A column of integers has lost its leading zeros: 93000 is 09:30:00, and 930 is 09:30.
    width = 4 if pc.max(pc.utf8_length(time)).as_py() in (None, 1, 2, 3, 4) else 6
    time = pc.if_else(pc.match_substring_regex(time, r"^\d+$"), pc.utf8_lpad(time, width, "0"), time)
    return pc.binary_join_element_wise(date, time, " ")


def _shown(cell: pa.Scalar) -> str:
    try:
        return str(cell.as_py())[:80]
    except (OverflowError, ValueError):  # a timestamp beyond Python's years
        return str(cell.cast(pa.int64()))


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    """Return the numbers, NaN for a cell that is empty or no number. Shapes: float64 [N]."""
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), np.float64)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pd.to_numeric(column.to_pandas(), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    return np.full(len(column), np.nan)


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
