"""Labelled windows and their parquet file: read, refuse bad rows, write, hash."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moola_mlflow.bars import check_dictionaries, check_parquet
from moola_mlflow.core import UserError, nearest_name
from moola_mlflow.labels.columns import (
    TIMES,
    LabelRows,
    read_classes,
    read_instruments,
    read_pointers,
    read_prices,
    read_texts,
    read_times,
    refuse_broken_windows,
    refuse_conflicts,
)

LENGTH = 105
COLUMNS = ("window_id", "label", "expansion_start", "expansion_end", "features")
KNOWN = (*COLUMNS, *TIMES, "instrument", "weak")
NOTES = b"moola.labels"


@dataclass(frozen=True, eq=False)
class LabelledSet:
    """Windows with their class and the span of their expansion, in the order of their file.

    Shapes: window_id text [N], ohlc float64 [N, T, 4] (open, high, low, close), label int64 [N] (index into
    ``classes``), start and end int64 [N] (both inclusive, 0 <= start < end < T), start_ns and end_ns int64 [N] or None,
    instrument text [N] or None.
    Units: raw prices. start_ns and end_ns are the starts of the window's first and last bar, in ns since 1970 UTC.
    """

    window_id: np.ndarray
    ohlc: np.ndarray
    label: np.ndarray
    classes: tuple[str, ...]
    """Sorted."""
    start: np.ndarray
    end: np.ndarray
    start_ns: np.ndarray | None = None
    end_ns: np.ndarray | None = None
    instrument: np.ndarray | None = None
    weak: bool = False
    """Whether a rule made these labels, not a person."""
    sha256: str = ""
    """Hash of the content. It does not depend on the file."""
    path: Path | str = ""
    rule: str = ""
    """Version of the rule that made weak labels."""
    bars_sha256: str = ""
    """Content hash of the bars that weak labels were made from."""
    warnings: tuple[str, ...] = ()
    """What a user of this set should know."""

    def __len__(self) -> int:
        return len(self.window_id)

    def counts(self) -> dict[str, int]:
        """Return the number of windows of each class."""
        return dict(zip(self.classes, np.bincount(self.label, minlength=len(self.classes)).tolist(), strict=True))


def read_labels(path: str | Path, length: int = LENGTH) -> LabelledSet:
    """Read labelled windows from a parquet file. Their classes are the labels that occur in it.

    Raises: UserError with the first bad row (from 1), its window_id, the value and the cure.
    """
    try:
        return _read(path, length)
    except UnicodeDecodeError as e:
        raise UserError(
            f"labels: '{path}' holds text that is not UTF-8 (byte {e.object[e.start]:#04x}); write it as UTF-8"
        ) from None
    except pa.ArrowException as e:  # a column of a type that no check expects
        first = " ".join(str(e).split())[:200]
        raise UserError(
            f"labels: '{path}' cannot be read ({first}); docs/reference/labels.md lists its columns"
        ) from None


def _read(path: str | Path, length: int) -> LabelledSet:
    table, notes = _table(Path(path))
    if table.num_rows == 0:
        raise UserError(f"labels: '{path}' holds no rows; label some windows, or make labels with 'moola label'")
    ids = read_texts(table, "window_id")
    check = LabelRows(path, ids)
    check.refuse(np.array([name == "" for name in ids]), "window_id is empty; give each window a name")
    first = dict(reversed([(name, i) for i, name in enumerate(ids)]))
    check.refuse(
        np.array([first[name] != i for i, name in enumerate(ids)]),
        lambda i: f"window_id repeats that of row {first[ids[i]] + 1}; remove one of the two, or rename it",
    )
    label, classes = read_classes(read_texts(table, "label"), check)
    ohlc = read_prices(table, length, check)
    start, end = (read_pointers(table, name, length, check) for name in ("expansion_start", "expansion_end"))
    check.refuse(
        start >= end,
        lambda i: (
            f"expansion_start {start[i]} is not before expansion_end {end[i]}; both count bars from 0 and are inclusive"
        ),
    )
    refuse_broken_windows(ohlc, check)
    refuse_conflicts(ohlc, [classes[k] for k in label.tolist()], check)
    start_ns, end_ns = read_times(table, length, check)
    instrument = read_instruments(table, check)
    weak = bool(notes.get("weak")) or _is_weak(table)
    labels = LabelledSet(
        np.array(ids), ohlc, label, classes, start, end, start_ns, end_ns, instrument, weak,
        path=Path(path), rule=str(notes.get("rule", "")), bars_sha256=str(notes.get("bars_sha256", "")),
    )  # fmt: skip
    return replace(labels, sha256=content_sha256(labels))


def write_labels(labels: LabelledSet, path: str | Path) -> None:
    """Write labelled windows as parquet, the whole file or nothing. The file says whether a rule made them, and which.

    Raises: UserError if the path cannot be that of a parquet file, or if the folder cannot be written to.
    """
    path = labels_target(path)
    num, length, _ = labels.ohlc.shape
    bars = pa.ListArray.from_arrays(np.arange(0, num * length * 4 + 1, 4, dtype=np.int32), labels.ohlc.reshape(-1))
    features = pa.ListArray.from_arrays(np.arange(0, num * length + 1, length, dtype=np.int32), bars)
    columns: dict[str, Any] = {
        "window_id": pa.array(labels.window_id.tolist(), pa.string()),
        "label": pa.array([labels.classes[k] for k in labels.label.tolist()], pa.string()),
        "expansion_start": labels.start,
        "expansion_end": labels.end,
    }
    if labels.instrument is not None:
        columns["instrument"] = pa.array(labels.instrument.tolist(), pa.string())
    if labels.start_ns is not None and labels.end_ns is not None:
        for name, time_ns in zip(TIMES, (labels.start_ns, labels.end_ns), strict=True):
            columns[name] = pa.array(time_ns, pa.timestamp("ns", "UTC"))
    # Also as a column: pandas drops the metadata when it writes the file again.
    columns |= {"weak": np.full(num, labels.weak), "features": features}
    notes = {"weak": labels.weak, "rule": labels.rule, "bars_sha256": labels.bars_sha256}
    table = pa.table(columns).replace_schema_metadata({NOTES: json.dumps(notes).encode()})
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, temporary)
        os.replace(temporary, path)
    except OSError as e:
        raise UserError(f"out='{path}' cannot be written: {e}; give a folder you may write to") from e


def labels_target(out: str | Path) -> Path:
    """Return the path to write labels to. Raises: UserError if it cannot be that of a parquet file."""
    path = Path(out).expanduser()
    if path.suffix not in (".parquet", ".pq") or path.is_dir():
        raise UserError(f"out='{out}'; allowed: a file that ends in .parquet or .pq, for example out/labels.parquet")
    return path


def content_sha256(labels: LabelledSet) -> str:
    """Return the hash of a set: its windows, its labels, and whether a rule made them."""
    names = {"id": labels.window_id.tolist(), "label": [labels.classes[k] for k in labels.label.tolist()]}
    if labels.instrument is not None:
        names["instrument"] = labels.instrument.tolist()
    digest = hashlib.sha256(json.dumps([names, labels.weak, list(labels.ohlc.shape)]).encode())
    digest.update(np.ascontiguousarray(labels.ohlc + 0.0, "<f8").data)  # -0.0 and 0.0 are one price
    for array in (labels.start, labels.end, labels.start_ns, labels.end_ns):
        digest.update(b"-" if array is None else np.ascontiguousarray(array, "<i8").data)
    return digest.hexdigest()


def _table(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    if not path.is_file():
        there = sorted(str(p) for p in path.parent.glob("*.parquet")) if path.parent.is_dir() else []
        raise UserError(f"labels: no file '{path}'{nearest_name(str(path), there)} 'moola label' makes one from bars")
    try:
        check_parquet(path)
        names = pq.read_schema(path).names
        known = [name for name in KNOWN if name in names]
        _refuse_doubled(path, names, known)
        # A file with none of the columns is read as a whole: if it is damaged, the message then says so.
        table = pq.read_table(path, columns=known or None, partitioning=None)
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
    try:
        notes = json.loads((table.schema.metadata or {}).get(NOTES, b"{}"))
    except ValueError:
        notes = {}
    return table, notes if isinstance(notes, dict) else {}


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


def _is_weak(table: pa.Table) -> bool:
    """Return whether any row is weak: the set then is."""
    known = "weak" in table.column_names and pa.types.is_boolean(table["weak"].type)
    return bool(known and pc.any(table["weak"]).as_py())
