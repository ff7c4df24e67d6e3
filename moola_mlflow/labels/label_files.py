"""Labels files: read and write labelled windows as parquet, in both forms (one row a window, one row an event)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

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
from moola_mlflow.labels.event_labels import NONE, EventLabels, events_sha256
from moola_mlflow.labels.joining import find_label_files, join_labels
from moola_mlflow.labels.label_table import LabelTable, features_of, open_table, readable, write_tables
from moola_mlflow.labels.labelled_set import LENGTH, LabelledSet, content_sha256

DRAWN = ("random", "uncertain", "top", "listed")
"""How a window may have been chosen."""
EXPANSION = re.compile(r"(.+)_exp_\d+")
"""The window_id of a published file that names the k-th event of a window."""


def read_span_labels(path: str | Path, length: int = LENGTH, duplicates: str = "refuse") -> LabelledSet:
    """Read the labelled windows that hold one event each, from a parquet file. Classes are the labels in it.

    If the file also holds windows without an event, or with several, those are left out and a warning counts them.
    A folder or a glob is read as ``read_event_labels`` reads it.

    Raises: UserError with the first bad row (from 1), its window_id, the value and the cure.
    """
    files = find_label_files(path)
    if len(files) > 1:
        return read_event_labels(path, length, duplicates).spans()
    with readable(files[0]):
        labels = labels_of_table(open_table(files[0]), length, grouped=False)
    if labels.num_events < len(labels) or len(np.unique(labels.window)) < labels.num_events:
        return labels.spans()
    if len(labels.classes) < 2:
        raise UserError(f"labels: {files[0]}: every row is '{labels.classes[0]}'; a detector needs two classes or more")
    spans = LabelledSet(
        labels.window_id, labels.ohlc, labels.label, labels.classes, labels.start, labels.end, labels.start_ns,
        labels.end_ns, labels.instrument, labels.weak, "", labels.path, labels.rule, labels.bars_sha256,
    )  # fmt: skip
    return replace(spans, sha256=content_sha256(spans))


def read_event_labels(path: str | Path, length: int = LENGTH, duplicates: str = "refuse") -> EventLabels:
    """Read the windows that somebody looked at and the events in each, from a parquet file of either form.

    Parameters
    ----------
    path
        A parquet file, or a folder or glob of such files, which are joined.
    length
        Bars in a window.
    duplicates
        What becomes of a window that two files hold: ``refuse`` (default), or ``newest``: the one labelled last stays.

    Returns
    -------
    EventLabels
        Windows and events. ``counts()`` counts the events of each class, and the windows without one as ``none``.

    Raises
    ------
    UserError
        With the first bad row (from 1), its window_id, the value and the cure.

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> from moola_mlflow import BarsConfig, labels_from_spans, read_bars, read_labels, write_labels
    >>> bars = read_bars(BarsConfig(path="sample", sample_bars=2000))
    >>> spans = {"start": bars.time_ns[[300, 340]], "end": bars.time_ns[[310, 346]], "label": ["surge", "pause"]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_labels(labels_from_spans(bars, pd.DataFrame(spans)), f"{folder}/mine.parquet")
    ...     labels = read_labels(f"{folder}/mine.parquet")
    >>> labels.counts()
    {'pause': 1, 'surge': 1, 'none': 0}
    """
    parts = []
    for file in find_label_files(path):
        with readable(file):
            parts.append(labels_of_table(open_table(file, with_extra=True), length, grouped=True))
    return join_labels(parts, path, duplicates) if len(parts) > 1 else parts[0]


def write_labels(labels: LabelledSet | EventLabels, path: str | Path, *, backup: bool = True) -> None:
    """Write labelled windows as parquet, the whole file or nothing. The file says whether a rule made them, and which.

    Parameters
    ----------
    labels
        Windows with their events, or a labelled set of one event each.
    path
        A file that ends in ``.parquet`` or ``.pq``. One that is there is replaced.
    backup
        Whether a file that is replaced is kept as ``NAME.bak``, unless there is such a file.

    Returns
    -------
    None
        Nothing.

    Raises
    ------
    UserError
        If the path cannot be that of a parquet file, or if the folder cannot be written to.

    Examples
    --------
    >>> import pandas as pd
    >>> from moola_mlflow import BarsConfig, labels_from_spans, read_bars, write_labels
    >>> bars = read_bars(BarsConfig(path="sample", sample_bars=2000))
    >>> spans = pd.DataFrame({"start": bars.time_ns[[300]], "end": bars.time_ns[[310]], "label": ["surge"]})
    >>> write_labels(labels_from_spans(bars, spans), "mine.csv")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    moola_mlflow.core.errors.UserError: out='mine.csv'; allowed: a file that ends in .parquet or .pq, ...
    """
    events = EventLabels.of(labels) if isinstance(labels, LabelledSet) else labels
    write_labels_in_parts([events], path, backup=backup)


def write_labels_in_parts(parts: Iterable[EventLabels], path: str | Path, *, backup: bool = True) -> None:
    """Write windows as one parquet file, part by part: memory holds one part. All parts have the same columns.

    Raises: UserError as ``write_labels`` does; ValueError if there is no part.
    """
    path, rest = labels_target(path), iter(parts)
    first = next(rest, None)
    if first is None:
        raise ValueError("there are no labels to write")
    notes = {"weak": first.weak, "rule": first.rule, "bars_sha256": first.bars_sha256}
    write_tables((_table_of(part) for part in itertools.chain([first], rest)), notes, path, backup)


def _table_of(events: EventLabels) -> pa.Table:
    """Return a row for each event, and one for each window without an event."""
    window_R, event_R = events.row_window(), events.row_event()
    empty_R = event_R < 0
    num = len(window_R)
    names = [NONE if k < 0 else events.classes[events.label[k]] for k in event_R.tolist()]
    columns: dict[str, Any] = {
        "window_id": pa.array(events.window_id[window_R].tolist(), pa.string()),
        "label": pa.array(names, pa.string()),
        "expansion_start": pa.array(_at(events.start, event_R), pa.int64(), mask=empty_R),
        "expansion_end": pa.array(_at(events.end, event_R), pa.int64(), mask=empty_R),
    }
    for name, texts_N in (("instrument", events.instrument), ("drawn", events.drawn)):
        if texts_N is not None:
            columns[name] = pa.array(texts_N[window_R].tolist(), pa.string())
    if events.start_ns is not None and events.end_ns is not None:
        for name, time_ns in zip(TIMES, (events.start_ns, events.end_ns), strict=True):
            columns[name] = pa.array(time_ns[window_R], pa.timestamp("ns", "UTC"))
    if events.extra is not None:
        columns |= {name: events.extra[name] for name in events.extra.column_names}
    # Also as a column: pandas drops the metadata when it writes the file again.
    columns |= {"weak": np.full(num, events.weak), "features": features_of(events.ohlc[window_R])}
    return pa.table(columns)


def labels_target(out: str | Path) -> Path:
    """Return the path to write labels to. Raises: UserError if it cannot be that of a parquet file."""
    path = Path(out).expanduser()
    if path.suffix not in (".parquet", ".pq") or path.is_dir():
        raise UserError(f"out='{out}'; allowed: a file that ends in .parquet or .pq, for example out/labels.parquet")
    return path


@dataclass(frozen=True)
class _Rows:
    """The rows of a file and the window of each. ``first`` is the first row of each window.

    Shapes: window, label (-1 for none), start and end int64 [R], first int64 [N].
    """

    check: LabelRows
    window: np.ndarray
    first: np.ndarray
    label: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def of_window(self) -> np.ndarray:
        """Return the first row of each row's window. Shapes: int64 [R]."""
        return self.first[self.window]


def labels_of_table(file: LabelTable, length: int, grouped: bool) -> EventLabels:
    """Return the content of a table. With ``grouped``, rows n_exp_1 and n_exp_2 with equal bars are one window.

    Raises: UserError with the first bad row (from 1), its window_id, the value and the cure.
    """
    table = file.table
    ids = read_texts(table, "window_id")
    check = LabelRows(file.path, ids)
    check.refuse(np.array([name == "" for name in ids]), "window_id is empty; give each window a name")
    names = read_texts(table, "label")
    label, classes = read_classes(names, check)
    ohlc = read_prices(table, length, check)
    start, end = (read_pointers(table, name, length, check, label < 0) for name in ("expansion_start", "expansion_end"))
    check.refuse(
        (start >= end) & (label >= 0),
        lambda i: (
            f"expansion_start {start[i]} is not before expansion_end {end[i]}; both count bars from 0 and are inclusive"
        ),
    )
    refuse_broken_windows(ohlc, check)
    rows = _Rows(check, *_windows(ids, ohlc, check, grouped), label, start, end)
    _refuse_twice(rows)
    refuse_conflicts(ohlc, _held(rows, classes), check)
    start_ns, end_ns = read_times(table, length, check)
    instrument, drawn = read_instruments(table, check), _read_drawn(table, check)
    for name, values in zip((*TIMES, "instrument", "drawn"), (start_ns, end_ns, instrument, drawn), strict=True):
        _refuse_different(rows, name, values)
    order = np.lexsort((start, rows.window))
    event = order[label[order] >= 0]

    def of_windows(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values[rows.first]

    labels = EventLabels(
        np.array(_window_ids(ids, rows)), ohlc[rows.first], classes, rows.window[event], label[event], start[event],
        end[event], of_windows(start_ns), of_windows(end_ns), of_windows(instrument), of_windows(drawn), file.weak,
        path=file.path, rule=file.note("rule"), bars_sha256=file.note("bars_sha256"),
        extra=table.select(file.extra).take(pa.array(order)).replace_schema_metadata(None) if file.extra else None,
    )  # fmt: skip
    return replace(labels, sha256=events_sha256(labels))


def _windows(ids: list[str], ohlc: np.ndarray, check: LabelRows, grouped: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the window of each row, in the order of the file, and the first row of each window.

    Shapes: float64 [R, T, 4] -> int64 [R], int64 [N].
    """
    window, known = np.zeros(len(ids), np.int64), dict[Any, int]()
    first: list[int] = []
    for i, name in enumerate(ids):
        found = EXPANSION.fullmatch(name) if grouped else None
        key = (found[1], (ohlc[i] + 0.0).tobytes()) if found else name
        if key not in known:
            known[key] = len(first)
            first.append(i)
        window[i] = known[key]
    of_first = np.array(first, np.int64)
    check.refuse(
        (ohlc != ohlc[of_first[window]]).any(axis=(1, 2)),
        lambda i: (
            f"window_id repeats that of row {of_first[window[i]] + 1}, whose bars differ; rows of one window hold the "
            "same bars: remove one of the two, or rename it"
        ),
    )
    return window, of_first


def _window_ids(ids: list[str], rows: _Rows) -> list[str]:
    """Return the name of each window: n for rows n_exp_1 and n_exp_2 that are one, unless another window has it."""
    several = np.bincount(rows.window) > 1
    taken = set(ids)
    names = []
    for k, i in enumerate(rows.first.tolist()):
        found = EXPANSION.fullmatch(ids[i]) if several[k] else None
        names.append(found[1] if found and found[1] not in taken else ids[i])
        taken.add(names[-1])
    return names


def _refuse_twice(rows: _Rows) -> None:
    """Refuse windows whose rows contradict each other: none beside an event, or events that share bars."""
    check, label, start, end = rows.check, rows.label, rows.start, rows.end
    num_R = np.bincount(rows.window)[rows.window]

    def other(i: int) -> str:
        same = np.flatnonzero(rows.window == rows.window[i])
        k = int(same[same != i][0])
        return f"row {k + 1} " + ("says so too" if label[k] < 0 else "names an event in the same window")

    check.refuse(
        (label < 0) & (num_R > 1),
        lambda i: f"label is '{NONE}', and {other(i)}; a window without an event has one row: remove one of the two",
    )
    order = np.lexsort((start, rows.window))
    before = np.full(len(order), -1)
    before[order[1:]] = np.where(rows.window[order[1:]] == rows.window[order[:-1]], order[:-1], -1)
    check.refuse(
        (before >= 0) & (start <= end[before]),
        lambda i: (
            f"bars {start[i]} to {end[i]} share bars with those of row {before[i] + 1}, {start[before[i]]} to "
            f"{end[before[i]]}; events of one window share no bar: shorten one of them, or remove a row"
        ),
    )


def _held(rows: _Rows, classes: tuple[str, ...]) -> list[str]:
    """Return what the window of each row holds, as text: its classes, sorted."""
    held: list[list[str]] = [[] for _ in rows.first]
    for window, label in zip(rows.window.tolist(), rows.label.tolist(), strict=True):
        held[window].append(NONE if label < 0 else classes[label])
    texts = [" and ".join(sorted(names)) for names in held]
    return [texts[window] for window in rows.window.tolist()]


def _read_drawn(table: pa.Table, check: LabelRows) -> np.ndarray | None:
    """Return how each row's window was chosen, or None if the file does not say. Shapes: text [R]."""
    names = read_texts(table, "drawn") if "drawn" in table.column_names else []
    if not any(names):
        return None
    check.refuse(
        np.array([name not in ("", *DRAWN) for name in names]),
        lambda i: f"drawn is '{names[i]}'; allowed: {', '.join(DRAWN)}, or empty{nearest_name(names[i], DRAWN)}",
    )
    return np.array(names)


def _refuse_different(rows: _Rows, name: str, values: np.ndarray | None) -> None:
    """Refuse a row whose column differs from that of its window's first row."""
    if values is not None:
        there = rows.of_window()
        rows.check.refuse(
            values != values[there],
            lambda i: f"{name} differs from that of row {there[i] + 1}, of the same window; give both the same",
        )


def _at(values: np.ndarray, event_R: np.ndarray) -> np.ndarray:
    """Return the value of each row's event, 0 if it has none."""
    return np.where(event_R < 0, 0, values[np.maximum(event_R, 0)]) if len(values) else np.zeros_like(event_R)
