"""Annotation batches: JSON with the expansions (events) of each window, and a parquet that says which bars it shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from moola_mlflow.bars import Bars, check_parquet, parse_times
from moola_mlflow.core import LabelsKeys, UserError, nearest_name
from moola_mlflow.labels.columns import NONE, TIMES
from moola_mlflow.labels.label_table import LabelTable
from moola_mlflow.labels.timed_spans import TimedSpans, rows_in

INDEX = "master_index.csv"
REJECTED = "D"
"""The grade of a window that holds nothing to learn from."""
KEYS = {"window_id", "expansions"}
NAMES = {
    "label": ("type", "expansion_type"),
    "start": ("start_bar", "start_index"),
    "end": ("end_bar", "end_index"),
    "grade": ("quality", "quality_grade"),
}
"""The parts of an expansion, and the keys under which each is found."""


@dataclass(frozen=True)
class Looked:
    """One window that somebody looked at: its events by class, first bar, last bar and grade."""

    window_id: str
    file: Path
    events: Sequence[Mapping[str, Any]]
    known: Mapping[str, Any]


def is_batch(content: Any) -> bool:
    """Return whether parsed JSON is a window of a batch, or a list of them."""
    windows = _windows_in(content)
    return bool(windows) and all(
        isinstance(one, dict) and "window_id" in one and "expansions" in one for one in windows
    )


def read_batches(files: Sequence[Path], duplicates: str) -> tuple[list[Looked], list[str]]:
    """Return the windows of batch files, and warnings about those that are left out.

    A window of grade D that has expansions is left out: its annotator did not trust them.

    Raises: UserError if a file is no batch, or if a window was annotated twice and ``duplicates`` is ``refuse``.
    """
    index = _read_index(files[0].parent / INDEX)
    found: dict[str, Looked] = {}
    rejected = twice = 0
    for file in files:
        for one in _windows_in(parse_json(file)):
            if not (isinstance(one, dict) and one.keys() >= KEYS):
                raise UserError(f"labels: '{file}' is no batch: a window needs window_id and expansions")
            looked = _looked(one, file, index)
            grade = looked.known.get("grade", "")
            if grade == REJECTED and looked.events:
                rejected += 1
                continue
            before = found.get(looked.window_id)
            if before is not None and duplicates == "refuse":
                raise UserError(
                    f"labels: window '{looked.window_id}' is in {before.file.name} and in {file.name}; remove one, or "
                    "set labels.duplicates=newest"
                )
            twice += before is not None
            if before is None or _time(looked) >= _time(before):
                found[looked.window_id] = looked
    windows = list(found.values())
    plain = sum(not one.events and one.known.get("grade", REJECTED) != REJECTED for one in windows)
    said = {
        f"{rejected:,} windows of grade {REJECTED} with expansions were left out.": rejected,
        f"{plain:,} windows without expansions have a grade better than {REJECTED}; they count as {NONE}.": plain,
        f"{twice:,} windows were annotated twice: the newest counts.": twice,
    }
    return windows, [*(text for text, num in said.items() if num), *_compared(index, found, rejected)]


def batch_table(
    looked: Sequence[Looked], path: Path, config: LabelsKeys, load_bars: Callable[[], Bars]
) -> LabelTable | TimedSpans:
    """Return the windows: a table if a parquet holds their bars, or else spans of times in the bars.

    Raises: UserError if no parquet says which bars a window shows.
    """
    source = _window_file(path, config.labels.windows)
    windows = pq.read_table(source)
    ids = [str(value) for value in windows["window_id"].to_pylist()]
    position = {name: i for i, name in enumerate(ids)}
    missing = [one.window_id for one in looked if one.window_id not in position]
    if missing:
        raise UserError(
            f"labels: {len(missing):,} windows are not in '{source}', the first is '{missing[0]}'"
            f"{nearest_name(missing[0], ids)} Give the parquet that the batches were made from as labels.windows"
        )
    rows, at = _rows(looked, position)
    frame = pd.DataFrame(rows)
    if "features" in windows.column_names:
        shown = windows.take(pa.array(at))
        columns: dict[str, Any] = {name: pa.array(frame[name]) for name in frame.columns if frame[name].notna().any()}
        for name in ("expansion_start", "expansion_end"):
            columns[name] = pa.array(frame[name], pa.float64())
        columns |= {name: shown[name] for name in ("features", *TIMES, "instrument") if name in shown.column_names}
        known = ("window_id", "label", "expansion_start", "expansion_end", "features", *TIMES, "instrument")
        return LabelTable(path, pa.table(columns), {}, tuple(name for name in columns if name not in known))
    return _in_bars(frame, windows.take(pa.array(at)), source, config, load_bars())


def _rows(looked: Sequence[Looked], position: Mapping[str, int]) -> tuple[list[dict[str, Any]], list[int]]:
    """Return a row for each event and for each window without one, and its window's row in the parquet."""
    rows, at = [], []
    for one in looked:
        for event in one.events or ({"label": NONE, "start": None, "end": None},):
            grade = event.get("grade") or one.known.get("grade")
            rows.append(
                {
                    "window_id": one.window_id,
                    "label": event["label"],
                    "expansion_start": event["start"],
                    "expansion_end": event["end"],
                    **one.known,
                    "grade": grade,
                    "source": "human",
                }
            )
            at.append(position[one.window_id])
    return rows, at


def _in_bars(frame: pd.DataFrame, windows: pa.Table, source: Path, config: LabelsKeys, bars: Bars) -> TimedSpans:
    """Return the events as spans of bars: each window begins at its start_time, or lies around its centre."""
    length = config.windows.length
    name = next((name for name in ("start_time", "center_timestamp") if name in windows.column_names), "")
    if not name:
        raise UserError(
            f"labels: '{source}' has neither features nor start_time nor center_timestamp; one of them must say which "
            "bars a window shows"
        )
    time_ns, bad, _ = parse_times(windows[name], f"{source}: {name}")
    symbols = windows["instrument"].to_pylist() if "instrument" in windows.column_names else [""] * len(frame)
    label = [str(value) for value in frame["label"]]
    shown = TimedSpans(str(source), time_ns, time_ns, label, [str(value or "") for value in symbols])
    shown.check().refuse(bad, f"{name} is empty or no time; write yyyy-mm-dd hh:mm")
    first = rows_in(bars, shown, time_ns, after=True) - (config.labels.centre_bar if name == "center_timestamp" else 0)
    shown.check().refuse(
        (first < 0) | (first + length > len(bars)),
        f"the {length} bars of its window are not all in bars.path; give more bars, or set labels.centre_bar",
    )
    empty = frame["label"].to_numpy() == NONE
    start = np.where(empty, 0, pd.to_numeric(frame["expansion_start"], errors="coerce").fillna(-1)).astype(np.int64)
    end = np.where(empty, length - 1, pd.to_numeric(frame["expansion_end"], errors="coerce").fillna(-1)).astype(
        np.int64
    )
    shown.check().refuse(
        (start < 0) | (end >= length) | (start >= end),
        lambda i: f"bars {start[i]} to {end[i]} are no span within 0 to {length - 1}; correct the expansion",
    )
    others = [name for name in frame.columns if name not in ("window_id", "label", "expansion_start", "expansion_end")]
    return TimedSpans(
        str(source), bars.time_ns[first + start], bars.time_ns[first + end], label, shown.instrument,
        bars.time_ns[first], frame["window_id"].tolist(),
        pa.Table.from_pandas(frame[others], preserve_index=False) if others else None,
    )  # fmt: skip


def _looked(one: Mapping[str, Any], file: Path, index: Mapping[str, Mapping[str, Any]]) -> Looked:
    window_id = str(one["window_id"])
    listed = index.get(window_id, {})
    events = []
    for expansion in one["expansions"] or []:
        event = {part: next((expansion[key] for key in keys if key in expansion), None) for part, keys in NAMES.items()}
        if any(event[part] is None for part in ("label", "start", "end")):
            raise UserError(
                f"labels: '{file}': an expansion of window '{window_id}' lacks its type, start_bar or end_bar; it has: "
                f"{', '.join(expansion)}"
            )
        events.append({**event, "label": str(event["label"])})
    known = {
        "grade": one.get("window_quality") or listed.get("quality_grade"),
        "annotator": one.get("annotator_id"),
        "labelled_at": one.get("timestamp") or listed.get("annotation_date"),
        "notes": one.get("annotator_notes"),
    }
    return Looked(window_id, file, events, {key: str(value) for key, value in known.items() if value not in (None, "")})


def _windows_in(content: Any) -> list[Any]:
    if isinstance(content, dict) and "window_id" not in content:
        lists = [value for value in content.values() if isinstance(value, list)]
        return lists[0] if len(lists) == 1 else []
    return content if isinstance(content, list) else [content]


def parse_json(file: Path) -> Any:
    """Return what a JSON file holds. Raises: UserError if it is not JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as e:
        raise UserError(f"labels: '{file}' cannot be read as JSON: {e}; correct or remove it") from None


def _read_index(path: Path) -> dict[str, Mapping[str, Any]]:
    """Return the rows of a batch's index by window_id, none if there is no index."""
    if not path.is_file():
        return {}
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    if "window_id" not in frame.columns:
        raise UserError(f"labels: '{path}' has no column 'window_id'; there are: {', '.join(frame.columns)}")
    return {str(row["window_id"]): {str(key): value for key, value in row.items()} for row in frame.to_dict("records")}


def _compared(index: Mapping[str, Mapping[str, Any]], found: Mapping[str, Looked], rejected: int) -> list[str]:
    """Return warnings about differences between the index and the batches."""
    if not index:
        return []
    missing = max(0, sum(name not in found for name in index) - rejected)
    other = sum(
        name in found
        and row.get("expansion_count", "").isdigit()
        and int(row["expansion_count"]) != len(found[name].events)
        for name, row in index.items()
    )
    said = [f"{missing:,} windows of {INDEX} are in no batch."] if missing else []
    return said + ([f"{other:,} windows have another number of expansions than {INDEX} says."] if other else [])


def _window_file(path: Path, given: str) -> Path:
    """Return the parquet that says which bars the windows show."""
    if given:
        source = Path(given).expanduser()
        if not source.is_file():
            raise UserError(f"labels.windows='{given}' does not exist; give the parquet with window_id and features")
        return source
    folder = path if path.is_dir() else path.parent
    there = [p for p in sorted(folder.glob("*.parquet")) if "window_id" in _names(p)]
    if len(there) != 1:
        raise UserError(
            f"labels: '{folder}' holds {len(there)} parquet files with a column window_id; name the one that the "
            "batches were made from as labels.windows"
        )
    return there[0]


def _names(path: Path) -> list[str]:
    try:
        check_parquet(path)
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError):
        return []


def _time(looked: Looked) -> str:
    return str(looked.known.get("labelled_at", ""))
