"""Other forms of labels: CSV of times and Label Studio, read, written, and read again without a loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from event_files import some_events

from moola_mlflow import labels_from_spans
from moola_mlflow.bars import Bars, read_bars
from moola_mlflow.core import BarsConfig, LabelsKeys, UserError, make_config
from moola_mlflow.labels import EventLabels, events_sha256, read_any_labels, write_any_labels

BARS = read_bars(BarsConfig(sample_bars=3000, sample_seed=4))


def no_bars() -> Bars:
    raise AssertionError("bars are not needed")


def config(**keys: Any) -> LabelsKeys:
    return make_config(LabelsKeys, {}, {key.replace("__", "."): value for key, value in keys.items()})


def read(path: Path, load_bars: Callable[[], Bars] = no_bars, **keys: Any) -> EventLabels:
    return read_any_labels(str(path), config(**keys), load_bars)


def from_bars(rest: str = "none") -> EventLabels:
    """Labels of the sample bars: windows with none, one and two events, with other columns."""
    at = np.array([[300, 310], [330, 338], [900, 904], [1500, 1520]])
    spans = pd.DataFrame({
        "start": BARS.time_ns[at[:, 0]], "end": BARS.time_ns[at[:, 1]], "label": ["rise", "fall", "rise", "fall"],
        "grade": ["A", "B", None, "D"], "seconds": [1.5, 2.5, 3.5, None], "annotator": ["ann", "bob", "ann", None],
    })  # fmt: skip
    return labels_from_spans(BARS, spans, rest=rest)


def assert_same(one: EventLabels, other: EventLabels) -> None:
    assert one.counts() == other.counts()
    assert one.window_id.tolist() == other.window_id.tolist()
    assert one.sha256 == other.sha256
    assert one.bars_sha256 == other.bars_sha256
    assert one.extra is not None
    assert other.extra is not None
    assert one.extra.to_pydict() == {name: other.extra[name].to_pylist() for name in one.extra.column_names}


@pytest.mark.parametrize("name", ["again.parquet", "again.json", "again.csv"])
def test_what_is_written_in_any_form_is_read_back_the_same(tmp_path: Path, name: str) -> None:
    labels = from_bars()
    write_any_labels(labels, tmp_path / "new" / name, lambda: BARS)
    back = read(tmp_path / "new" / name, lambda: BARS if name.endswith("csv") else no_bars())
    assert_same(labels, back)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


def test_tasks_of_label_studio_need_no_bars_and_keep_weak_labels_and_draws(tmp_path: Path) -> None:
    labels = replace(some_events(), weak=True, rule="surge-1", bars_sha256="abc")
    labels = replace(labels, sha256=events_sha256(labels))
    write_any_labels(labels, tmp_path / "tasks.json", no_bars)
    back = read(tmp_path / "tasks.json")
    assert_same(labels, back)
    assert (back.weak, back.rule) == (True, "surge-1")
    bare = replace(some_events(), start_ns=None, end_ns=None, instrument=None, drawn=None, extra=None)
    write_any_labels(bare, tmp_path / "bare.json", no_bars)
    assert read(tmp_path / "bare.json").sha256 == events_sha256(bare)


def test_a_csv_of_times_needs_times_and_says_so(tmp_path: Path) -> None:
    bare = replace(some_events(), start_ns=None, end_ns=None)
    with pytest.raises(UserError, match="a CSV of times needs windows with start_time and end_time"):
        write_any_labels(bare, tmp_path / "out.csv", no_bars)
    assert list(tmp_path.iterdir()) == []


def test_a_window_with_a_gap_takes_its_times_from_its_bars(tmp_path: Path) -> None:
    kept = BARS.rows(np.delete(np.arange(1000), [350, 360]))
    at = np.array([[300, 370]])
    spans = pd.DataFrame({"start": kept.time_ns[at[:, 0]], "end": kept.time_ns[at[:, 1]], "label": ["rise"]})
    labels = labels_from_spans(kept, spans)
    write_any_labels(labels, tmp_path / "gap.csv", lambda: kept)
    assert pd.Timestamp(pd.read_csv(tmp_path / "gap.csv")["end"][0]).value == kept.time_ns[370]
    assert read(tmp_path / "gap.csv", lambda: kept).sha256 == labels.sha256
    with pytest.raises(UserError, match=r"window '.*' has a gap, and the bars that it was cut from"):
        write_any_labels(labels, tmp_path / "other.csv", lambda: BARS)


def test_windows_that_a_csv_names_stay_and_the_rest_may_count_as_looked_at(tmp_path: Path) -> None:
    labels = from_bars(rest="unknown")
    write_any_labels(labels, tmp_path / "some.csv", no_bars)
    back = read(tmp_path / "some.csv", lambda: BARS, labels__rest="none")
    assert back.counts()["none"] > 15
    assert set(labels.window_id.tolist()) < set(back.window_id.tolist())
    assert (np.diff(np.searchsorted(BARS.time_ns, back.start_ns)) >= 105).all()
    frame = pd.read_csv(tmp_path / "some.csv").assign(window_start=str(pd.Timestamp(BARS.time_ns[250])))
    frame.to_csv(tmp_path / "wrong.csv", index=False)
    with pytest.raises(UserError, match=r"row \d .*the event is not inside the window of 105 bars that begins at"):
        read(tmp_path / "wrong.csv", lambda: BARS)


@pytest.mark.parametrize(("separator", "names"), [(",", ("start", "end", "label")), (";", ("Begin", "To", "Class"))])
def test_a_csv_of_a_spreadsheet_is_read_with_its_bars(tmp_path: Path, separator: str, names: tuple[str, ...]) -> None:
    stamps = pd.to_datetime(BARS.time_ns[[300, 310, 900, 905]]).strftime("%Y-%m-%d %H:%M")
    lines = [names, (stamps[0], stamps[1], "rise"), (stamps[2], stamps[3], "fall")]
    (tmp_path / "mine.csv").write_text("\n".join(separator.join(line) for line in lines), encoding="utf-8-sig")
    labels = read(tmp_path / "mine.csv", lambda: BARS)
    assert labels.counts() == {"fall": 1, "rise": 1, "none": 0}
    many = read(tmp_path / "mine.csv", lambda: BARS, labels__rest="none")
    assert many.counts()["none"] > 15


def region(start: Any, end: Any, *labels: str) -> dict[str, Any]:
    return {"start": start, "end": end, "instant": False, "timeserieslabels": list(labels)}


def annotation(*regions: dict[str, Any], **changes: Any) -> dict[str, Any]:
    result = [
        {"id": f"r{i}", "from_name": "label", "to_name": "ts", "type": "timeserieslabels", "value": one}
        for i, one in enumerate(regions)
    ]
    return {"result": result, "was_cancelled": False, "completed_by": 3, "updated_at": "2026-05-01T10:00:00Z",
            "lead_time": 12.5, **changes}  # fmt: skip


TIMES = [str(pd.Timestamp(BARS.time_ns[k])) for k in (300, 310, 900, 905)]
ROWS = [300, 310, 900, 905]


@pytest.mark.parametrize("ends", [TIMES, ROWS], ids=["times", "numbers of bars"])
@pytest.mark.parametrize("form", ["json", "json-min", "csv"])
def test_an_export_of_label_studio_points_into_bars(tmp_path: Path, ends: list[Any], form: str) -> None:
    regions = [region(ends[0], ends[1], "rise"), region(ends[2], ends[3], "fall")]
    flat = {"csv": "/data/upload/es.csv", "id": 1, "annotator": "3", "annotation_id": 7, "label": regions,
            "updated_at": "2026-05-01T10:00:00Z", "lead_time": 12.5}  # fmt: skip
    path = tmp_path / ("export.csv" if form == "csv" else "export.json")
    if form == "json":
        path.write_text(json.dumps([{"id": 1, "data": {"csv": "/data/es.csv"}, "annotations": [annotation(*regions)]}]))
    elif form == "json-min":
        path.write_text(json.dumps([flat]))
    else:
        pd.DataFrame([{**flat, "label": json.dumps(regions)}]).to_csv(path, index=False)
    labels = read(path, lambda: BARS)
    assert labels.counts() == {"fall": 1, "rise": 1, "none": 0}
    first = np.searchsorted(BARS.time_ns, labels.start_ns)
    assert (first + labels.start).tolist() == [300, 900]
    assert (first + labels.end).tolist() == [310, 905]
    assert labels.extra is not None
    assert labels.extra["annotator"].to_pylist() == ["3", "3"]
    assert labels.extra["seconds"].to_pylist() == [12.5, 12.5]
    assert labels.extra["source"].to_pylist() == ["human", "human"]
    assert labels.extra["labelled_at"].to_pylist() == ["2026-05-01T10:00:00Z"] * 2


def test_skipped_and_open_tasks_are_left_out_and_of_several_annotations_one_counts(tmp_path: Path) -> None:
    rise, fall = region(300, 310, "rise"), region(300, 310, "fall")
    tasks = [
        {"id": 1, "data": {}, "annotations": [annotation(rise, updated_at="2026-05-02T10:00:00Z"), annotation(fall)]},
        {"id": 2, "data": {}, "annotations": [annotation(region(900, 905, "fall"), was_cancelled=True)]},
        {"id": 3, "data": {}, "annotations": []},
        {"id": 4, "data": {}, "annotations": [annotation()]},
        {"id": 5, "data": {}, "annotations": [annotation(region(1500, 1510, "fall")),
            annotation(region(1500, 1510, "rise"), ground_truth=True, updated_at="2025-01-01T10:00:00Z")]},
    ]  # fmt: skip
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    labels = read(tmp_path / "export.json", lambda: BARS)
    assert labels.counts() == {"rise": 2, "none": 0}
    assert labels.warnings == (
        "2 tasks without an annotation were left out.",
        "2 tasks have several annotations: the ground truth counts, or else the newest.",
        "1 annotated tasks without a region do not say which bars they show: left out.",
    )


def test_a_task_that_names_its_window_may_hold_nothing(tmp_path: Path) -> None:
    ends = {"start_time": str(pd.Timestamp(BARS.time_ns[300])), "end_time": str(pd.Timestamp(BARS.time_ns[404]))}
    other = {"start_time": str(pd.Timestamp(BARS.time_ns[600])), "window_id": "w7"}
    tasks = [
        {"data": ends, "annotations": [annotation()]},
        {"data": other, "annotations": [annotation(region(str(pd.Timestamp(BARS.time_ns[620])),
                                                          str(pd.Timestamp(BARS.time_ns[630])), "rise"))]},
    ]  # fmt: skip
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    labels = read(tmp_path / "export.json", lambda: BARS)
    assert labels.counts() == {"rise": 1, "none": 1}
    assert (labels.start.tolist(), labels.end.tolist()) == ([20], [30])
    assert labels.window_id[1] == "w7"


REFUSED: dict[str, tuple[str, str]] = {
    "no JSON": ("{", "cannot be read as JSON"),
    "other JSON": ('{"a": 1}', "is not an export of Label Studio"),
    "two classes": (
        json.dumps([{"id": 9, "data": {}, "annotations": [annotation(region(3, 9, "rise", "fall"))]}]),
        "task 9: a region has the labels rise, fall; give each one class",
    ),
    "no end": (
        json.dumps([{"id": 9, "data": {}, "annotations": [annotation({"start": 3, "timeserieslabels": ["rise"]})]}]),
        "task 9: region 'rise' has no start or no end",
    ),
    "no such bar": (
        json.dumps([{"data": {}, "annotations": [annotation(region(3, 30_000, "rise"))]}]),
        "a region ends at bar 30000, and there are 3,000 bars",
    ),
    "a number for a list": (
        json.dumps([{"data": {}, "annotations": 3}]),
        r"holds a value that does not fit its form \('int' object is not iterable\); docs/reference/labels.md",
    ),
    "text for prices": (
        json.dumps([{"data": {"ts": {key: ["x"] * 105 for key in ("open", "high", "low", "close")}},
                     "annotations": [annotation()]}]),
        "holds a value that does not fit its form",
    ),
    "nothing annotated": (json.dumps([{"data": {}, "annotations": []}]), "holds no annotated task"),
    "no region": (json.dumps([{"data": {}, "annotations": [annotation()]}]), "holds no region"),
    "a point": (
        json.dumps([{"data": {}, "annotations": [annotation(region(30, 30, "rise"))]}]),
        "holds 1 bars; it needs two or more",
    ),
    "half a window": (
        json.dumps([{"data": {"ts": {key: [1.0] for key in ("open", "high", "low", "close")}},
                     "annotations": [annotation()]}]),
        "task 1 holds 1 bars with open, high, low, close; give each task the 105 of a window",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_an_export_that_says_too_little_is_refused(tmp_path: Path, kind: str) -> None:
    text, message = REFUSED[kind]
    (tmp_path / "export.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read(tmp_path / "export.json", lambda: BARS)


@pytest.mark.parametrize("axis", ["numbers", "times", "epochs", "none"])
def test_a_task_with_its_own_bars_may_have_any_axis(tmp_path: Path, axis: str) -> None:
    window = BARS.ohlc[600:705]
    times = pd.to_datetime(BARS.time_ns[600:705])
    values = {
        "numbers": list(range(105)),
        "times": [str(t) for t in times],
        "epochs": (BARS.time_ns[600:705] // 10**6).tolist(),
    }
    series = {key: window[:, k].tolist() for k, key in enumerate(("open", "high", "low", "close"))}
    known = list(range(105)) if axis == "none" else values[axis]
    if axis != "none":
        series = {"time": values[axis], **series}
    tasks = [{"data": {"ts": series}, "annotations": [annotation(region(known[40], known[47], "rise"))]}]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    labels = read(tmp_path / "export.json")
    assert (labels.start.tolist(), labels.end.tolist()) == ([40], [47])
    np.testing.assert_array_equal(labels.ohlc[0], window)


def test_a_csv_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(UserError, match="cannot be read as CSV"):
        read(tmp_path / "a.csv", lambda: BARS)
    (tmp_path / "b.csv").write_text("when,what\n2024-01-01,rise\n")
    with pytest.raises(UserError, match=r"b.csv has no column 'start'.*there are: when, what"):
        read(tmp_path / "b.csv", lambda: BARS)
