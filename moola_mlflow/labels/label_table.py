"""Open the parquet file of a labels table and write one: columns, metadata, and what makes a file unreadable."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moola_mlflow.bars import check_dictionaries, check_parquet
from moola_mlflow.core import UserError, keep_backup, nearest_name, replacing
from moola_mlflow.labels.columns import TIMES, LabelRows, read_texts

COLUMNS = ("window_id", "label", "expansion_start", "expansion_end", "features")
KNOWN = (*COLUMNS, *TIMES, "instrument", "drawn", "weak")
NOTES = b"moola.labels"


@dataclass(frozen=True)
class LabelTable:
    """The columns of a labels file and its metadata."""

    path: Path
    table: pa.Table
    notes: dict[str, Any]
    extra: tuple[str, ...]
    """Columns that no training reads."""

    @property
    def weak(self) -> bool:
        """Whether a rule made any of the labels: the set then counts as weak."""
        known = "weak" in self.table.column_names and pa.types.is_boolean(self.table["weak"].type)
        return bool(self.notes.get("weak")) or bool(known and pc.any(self.table["weak"]).as_py())

    def note(self, name: str) -> str:
        return str(self.notes.get(name, ""))


@contextlib.contextmanager
def readable(path: str | Path) -> Iterator[None]:
    """Turn errors of a column that no check expects into a UserError with the file's name."""
    try:
        yield
    except UnicodeDecodeError as e:
        raise UserError(
            f"labels: '{path}' holds text that is not UTF-8 (byte {e.object[e.start]:#04x}); write it as UTF-8"
        ) from None
    except pa.ArrowException as e:
        first = " ".join(str(e).split())[:200]
        raise UserError(
            f"labels: '{path}' cannot be read ({first}); docs/reference/labels.md lists its columns"
        ) from None


def check_table(path: Path) -> None:
    """Refuse a file that is not there, or no parquet. Its rows are not read. Raises: UserError."""
    _check_file(path)
    try:
        check_parquet(path)
        pq.read_schema(path)
    except (pa.ArrowException, OSError) as e:
        raise UserError(f"labels: '{path}' cannot be read as parquet: {e}; labels come as a parquet file") from None


def _check_file(path: Path) -> None:
    if not path.is_file():
        there = sorted(str(p) for p in path.parent.glob("*.parquet")) if path.parent.is_dir() else []
        raise UserError(f"labels: no file '{path}'{nearest_name(str(path), there)} 'moola label' makes one from bars")


def open_table(path: Path, with_extra: bool = False) -> LabelTable:
    """Read the known columns of a labels file, and the other plain ones if asked for.

    Raises: UserError if there is no such file, if it is no parquet, or if a column is missing or there twice.
    """
    _check_file(path)
    try:
        check_parquet(path)
        schema = pq.read_schema(path)
        names = schema.names
        known = [name for name in KNOWN if name in names]
        extra = _plain(schema) if with_extra else ()
        _refuse_doubled(path, names, known)
        # A file with none of the columns is read as a whole: if it is damaged, the message then says so.
        table = pq.read_table(path, columns=[*known, *extra] if known else None, partitioning=None)
        check_dictionaries(table)
    except (pa.ArrowException, OSError) as e:
        if "Expected all lists to be of size" in str(e) and {"window_id", "features"} <= set(known):
            _refuse_unfilled(path)
        raise UserError(f"labels: '{path}' cannot be read as parquet: {e}; labels come as a parquet file") from None
    for name in COLUMNS:
        if name not in names:
            raise UserError(
                f"labels: '{path}' has no column '{name}'{nearest_name(name, names)} "
                f"Needed: {', '.join(COLUMNS)}; there are: {', '.join(names)}"
            )
    if table.num_rows == 0:
        raise UserError(f"labels: '{path}' holds no rows; label some windows, or make labels with 'moola label'")
    try:
        notes = json.loads((table.schema.metadata or {}).get(NOTES, b"{}"))
    except ValueError:
        notes = {}
    return LabelTable(path, table, notes if isinstance(notes, dict) else {}, extra)


def features_of(ohlc_RT4: np.ndarray) -> pa.ListArray:
    """Return windows as the column ``features``: a list of bars, each a list of four prices. Shapes: [R, T, 4]."""
    num, length, _ = ohlc_RT4.shape
    bars = pa.ListArray.from_arrays(np.arange(0, num * length * 4 + 1, 4, dtype=np.int32), ohlc_RT4.reshape(-1))
    return pa.ListArray.from_arrays(np.arange(0, num * length + 1, length, dtype=np.int32), bars)


def write_tables(tables: Iterator[pa.Table], notes: dict[str, Any], path: Path, backup: bool = True) -> None:
    """Write tables as one parquet file, the whole file or nothing. A file that it replaces is kept once, as NAME.bak.

    Raises: UserError if the folder cannot be written to.
    """
    table = next(tables).replace_schema_metadata({NOTES: json.dumps(notes).encode()})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if backup:
            keep_backup(path)
        with replacing(path) as temporary, pq.ParquetWriter(temporary, table.schema) as writer:
            writer.write_table(table)
            for more in tables:
                writer.write_table(more.cast(table.schema))
    except OSError as e:
        raise UserError(f"out='{path}' cannot be written: {e}; give a folder you may write to") from e


def _plain(schema: pa.Schema) -> tuple[str, ...]:
    """Return the columns of text, numbers, flags and times that are not known and there once."""
    kinds = pa.types

    def plain(kind: pa.DataType) -> bool:
        if kinds.is_dictionary(kind):
            kind = kind.value_type
        text = kinds.is_string(kind) or kinds.is_large_string(kind)
        number = kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_boolean(kind)
        return text or number or kinds.is_timestamp(kind) or kinds.is_date(kind)

    return tuple(
        field.name
        for field in schema
        if field.name not in KNOWN
        and schema.names.count(field.name) == 1
        and not field.name.startswith("__index_level_")
        and plain(field.type)
    )


def _refuse_doubled(path: Path, names: list[str], known: list[str]) -> None:
    for name in known:
        if names.count(name) > 1:
            raise UserError(
                f"labels: '{path}' has {names.count(name)} columns '{name}'; allowed: one; keep the right one and "
                "remove or rename the others"
            )


def _refuse_unfilled(path: Path) -> None:
    """Refuse the first row with an empty list of a fixed size. pyarrow cannot read one, and does not name its row."""
    ids = read_texts(pq.read_table(path, columns=["window_id"], partitioning=None), "window_id")
    num_sound = 0
    with contextlib.suppress(pa.ArrowInvalid), pq.ParquetFile(path) as file:
        for _ in file.iter_batches(batch_size=1, columns=["features"]):
            num_sound += 1
    LabelRows(path, ids).refuse(
        np.arange(len(ids)) == num_sound,
        "features is empty, or one of its bars is; give all bars of the window with their four prices, or remove the "
        "row",
    )
