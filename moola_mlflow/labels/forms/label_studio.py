"""Label Studio: read exports (JSON, JSON-MIN, CSV) of time-series regions, and write tasks that it can import.

Source: labelstud.io/guide/task_format and labelstud.io/tags/timeserieslabels, as of version 1.x.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from moola_mlflow.bars import PRICES, parse_times
from moola_mlflow.core import UserError
from moola_mlflow.labels.columns import NONE
from moola_mlflow.labels.event_labels import EventLabels
from moola_mlflow.labels.label_table import KNOWN, LabelTable, features_of

REGION = "timeserieslabels"
NOT_DATA = ("id", "annotation_id", "annotator", "created_at", "updated_at", "lead_time")
"""Columns that a CSV or a JSON-MIN export adds to the task's data."""
MOST_ROW = 100_000_000
"""A region's end below this is the number of a bar, not an epoch."""


@dataclass(frozen=True)
class Region:
    """One labelled part of a series: its ends as they are on the axis of the series."""

    start: Any
    end: Any
    label: str
    meta: Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """One annotated task: what was shown, the regions, and who labelled it when."""

    data: Mapping[str, Any]
    regions: Sequence[Region]
    known: Mapping[str, Any] = field(default_factory=dict)


def is_export(content: Any) -> bool:
    """Return whether parsed JSON is a Label Studio export."""
    return isinstance(content, list) and all(isinstance(one, dict) for one in content) and any(
        "annotations" in one or "data" in one or "annotation_id" in one or regions_in(one) for one in content
    )  # fmt: skip


def read_tasks(content: Any, where: str) -> tuple[list[Task], list[str]]:
    """Return the annotated tasks of an export, and warnings about those that are left out.

    If a task has several annotations, the ground truth counts. If there is no ground truth, the newest counts.

    Raises: UserError that names the task if a region has no ends or several classes.
    """
    tasks, open_tasks, several = [], 0, 0
    for number, one in enumerate(content, 1):
        name = f"labels: {where}: task {one.get('id', number)}"
        if "annotations" not in one and "data" not in one:
            tasks.append(_flat(one, name))
            continue
        given = [a for a in one.get("annotations") or [] if isinstance(a, dict) and not a.get("was_cancelled")]
        if not given:
            open_tasks += 1
            continue
        several += len(given) > 1
        best = max(given, key=_weight)
        results = [r for r in best.get("result") or [] if isinstance(r, dict) and REGION in (r.get("value") or {})]
        regions = [_region(r["value"], r.get("meta") or {}, name) for r in results]
        tasks.append(Task(one.get("data") or {}, regions, _known(best, best.get("completed_by"))))
    said = [f"{open_tasks:,} tasks without an annotation were left out."] if open_tasks else []
    if several:
        said.append(f"{several:,} tasks have several annotations: the ground truth counts, or else the newest.")
    return tasks, said


def inline_table(tasks: Sequence[Task], path: Path, length: int) -> LabelTable | None:
    """Return the windows of tasks that hold their own bars, as ``tasks_of`` writes them. None if no task holds bars.

    Raises: UserError if only some tasks hold bars, or if a region's end is not on the axis.
    """
    shown = [_prices(task.data) for task in tasks]
    if not any(shown):
        return None
    rows: list[dict[str, Any]] = []
    for number, (task, prices) in enumerate(zip(tasks, shown, strict=True), 1):
        name = f"labels: {path}: task {number}"
        if prices is None or len(prices["open"]) != length:
            num = 0 if prices is None else len(prices["open"])
            raise UserError(
                f"{name} holds {num} bars with {', '.join(PRICES)}; give each task the {length} of a window"
            )
        data = task.data
        fixed = {
            "window_id": str(data.get("window_id") or data.get("id") or f"task-{number}"),
            "features": np.array([prices[key] for key in PRICES], np.float64).T,
            **{key: data[key] for key in ("instrument", "start_time", "end_time", "drawn") if data.get(key)},
        }
        axis = next((values for key, values in prices.items() if key not in (*PRICES, "volume")), None)
        for region in task.regions:
            ends = {f"expansion_{end}": _bar(getattr(region, end), axis, length, name) for end in ("start", "end")}
            rows.append({**task.known, **region.meta, **fixed, **ends, "label": region.label})
        if not task.regions:
            rows.append({**task.known, **(data.get("meta") or {}), **fixed, "label": NONE})
    columns: dict[str, Any] = {}
    for key in dict.fromkeys(key for row in rows for key in row if key != "features"):
        values = [row.get(key) for row in rows]
        try:
            columns[key] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            columns[key] = pa.array([None if value is None else str(value) for value in values])
    for end in ("expansion_start", "expansion_end"):
        columns.setdefault(end, pa.nulls(len(rows), pa.int64()))
    columns["features"] = features_of(np.stack([row["features"] for row in rows]))
    notes = {
        "weak": any(task.data.get("weak") for task in tasks),
        **{key: str(tasks[0].data.get(key) or "") for key in ("rule", "bars_sha256")},
    }
    return LabelTable(path, pa.table(columns), notes, tuple(name for name in columns if name not in KNOWN))


def span_frame(tasks: Sequence[Task], time_ns: np.ndarray) -> tuple[pd.DataFrame, list[str]]:
    """Return a row with times for each region of tasks without their own bars, and warnings about the other tasks.

    A region's ends are times. If the series has no column of times, they are bar numbers.

    Shapes: times of the bars int64 [N].
    Raises: UserError if a number is no bar.
    """
    rows, empty = [], 0
    for task in tasks:
        window = {
            key: task.data[name]
            for key, name in (("window_start", "start_time"), ("window_id", "window_id"), ("instrument", "instrument"))
            if task.data.get(name)
        }
        rows += [
            {**task.known, **region.meta, **window, "start": region.start, "end": region.end, "label": region.label}
            for region in task.regions
        ]
        if not task.regions and {"start_time", "end_time"} <= {key for key in task.data if task.data[key]}:
            ends = {"start": task.data["start_time"], "end": task.data["end_time"]}
            rows.append({**task.known, **window, **ends, "label": NONE})
        elif not task.regions:
            empty += 1
    frame = pd.DataFrame(rows)
    said = [f"{empty:,} annotated tasks without a region do not say which bars they show: left out."] if empty else []
    if not len(frame):
        return frame, said
    numbers = pd.concat([pd.to_numeric(frame[key], errors="coerce") for key in ("start", "end")])
    if numbers.notna().all() and numbers.abs().max() < MOST_ROW:
        for key in ("start", "end"):
            at = pd.to_numeric(frame[key]).round().astype("int64").to_numpy()
            outside = at[(at < 0) | (at >= len(time_ns))]
            if len(outside):
                raise UserError(
                    f"labels: a region {key}s at bar {outside[0]}, and there are {len(time_ns):,} bars; give the bars "
                    "that the series was made of, in the same order"
                )
            frame[key] = time_ns[at]
    return frame, said


def tasks_of(labels: EventLabels) -> list[dict[str, Any]]:
    """Return one task for each window, with its bars, its regions and everything that is known about it."""
    length = labels.ohlc.shape[1]
    extra = labels.extra.to_pylist() if labels.extra is not None else [{}] * len(labels.row_window())
    rows: list[list[int]] = [[] for _ in range(len(labels))]
    for row, window in enumerate(labels.row_window().tolist()):
        rows[window].append(row)
    event_R = labels.row_event().tolist()
    tasks = []
    for i, mine in enumerate(rows):
        data: dict[str, Any] = {"window_id": str(labels.window_id[i])}
        if labels.start_ns is not None and labels.end_ns is not None:
            data |= {
                key: pd.Timestamp(int(ns[i]), tz="UTC").isoformat()
                for key, ns in (("start_time", labels.start_ns), ("end_time", labels.end_ns))
            }
        for key, values in (("instrument", labels.instrument), ("drawn", labels.drawn)):
            if values is not None and values[i]:
                data[key] = str(values[i])
        if labels.weak:
            data["weak"] = True
        data |= {key: text for key, text in (("rule", labels.rule), ("bars_sha256", labels.bars_sha256)) if text}
        data["bars"] = {"bar": list(range(length))} | {
            key: labels.ohlc[i, :, k].tolist() for k, key in enumerate(PRICES)
        }
        results = []
        for row in mine:
            k, meta = event_R[row], {key: _plain(value) for key, value in extra[row].items() if value is not None}
            if k < 0:
                data |= {"meta": meta} if meta else {}
                continue
            value = {"start": int(labels.start[k]), "end": int(labels.end[k]), "instant": False}
            results.append(
                {"id": f"{i}-{k}", "from_name": "label", "to_name": "ts", "type": REGION}
                | {"value": {**value, REGION: [labels.classes[labels.label[k]]]}}
                | ({"meta": meta} if meta else {})
            )
        tasks.append({"id": i + 1, "data": data, "annotations": [{"result": results, "was_cancelled": False}]})
    return tasks


def _weight(annotation: Mapping[str, Any]) -> tuple[bool, str]:
    """Return the key by which the best annotation of a task is chosen: ground truth first, then the newest."""
    return bool(annotation.get("ground_truth")), str(annotation.get("updated_at") or annotation.get("created_at") or "")


def _flat(one: Mapping[str, Any], name: str) -> Task:
    """Return a task of a CSV or a JSON-MIN export, where regions are a column."""
    key, regions = next(iter(regions_in(one).items()), ("", []))
    data = {k: v for k, v in one.items() if k not in (*NOT_DATA, key)}
    return Task(data, [_region(region, {}, name) for region in regions], _known(one, one.get("annotator")))


def regions_in(one: Mapping[str, Any]) -> dict[str, list[Any]]:
    found = {}
    for key, value in one.items():
        cells = value
        if isinstance(value, str) and REGION in value:
            try:
                cells = json.loads(value)
            except ValueError:
                continue
        if isinstance(cells, list) and cells and all(isinstance(cell, dict) and REGION in cell for cell in cells):
            found[key] = cells
    return found


def _region(value: Mapping[str, Any], meta: Mapping[str, Any], name: str) -> Region:
    names = value.get(REGION) or []
    if len(names) != 1:
        raise UserError(f"{name}: a region has the labels {', '.join(map(str, names)) or 'none'}; give each one class")
    if value.get("start") is None or value.get("end") is None:
        raise UserError(f"{name}: region '{names[0]}' has no start or no end; export the task again")
    texts = meta.get("text")
    known = {"notes": " ".join(map(str, texts))} if isinstance(texts, list) else dict(meta)
    return Region(value["start"], value["end"], str(names[0]), known)


def _known(one: Mapping[str, Any], who: Any) -> dict[str, Any]:
    """Return annotator, labelled_at and seconds, as far as an annotation names them."""
    if isinstance(who, Mapping):
        who = who.get("email") or who.get("id")
    found = {
        "annotator": None if who is None else str(who),
        "labelled_at": one.get("updated_at") or one.get("created_at"),
        "seconds": one.get("lead_time"),
    }
    known = {key: value for key, value in found.items() if value not in (None, "")}
    return {**known, "source": "human"} if known else {}


def _prices(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the part of a task's data that holds the prices of its bars."""
    for value in (data, *data.values()):
        if isinstance(value, Mapping) and all(isinstance(value.get(key), list) for key in PRICES):
            return {key: values for key, values in value.items() if isinstance(values, list)}
    return None


def _bar(end: Any, axis: Sequence[Any] | None, length: int, name: str) -> int:
    """Return the bar that an end of a region lies at."""
    values = list(range(length)) if axis is None else list(axis)
    number = isinstance(end, int | float) and all(isinstance(value, int | float) for value in values)
    if number:
        distances = np.abs(np.array(values, np.float64) - float(end))
        return int(np.argmin(distances))
    if end in values:
        return values.index(end)
    wanted, bad, _ = parse_times(pa.chunked_array([pa.array([str(end)])]), name)
    known, unread, _ = parse_times(pa.chunked_array([pa.array([str(value) for value in values])]), name)
    if bad.any() or unread.any() or not known[0] <= wanted[0] <= known[-1] + 60 * 10**9:
        raise UserError(f"{name}: a region ends at '{end}', which is not on the axis {values[0]} to {values[-1]}")
    return int(np.searchsorted(known, wanted[0], "right") - 1)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) else str(value)
