"""Labels files with one row an event: windows without an event, several rows of one window, and what contradicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from small_labels import small_labels

from moola_mlflow.core import UserError
from moola_mlflow.labels import EventLabels, events_sha256, read_event_labels, read_span_labels, write_labels

BASE = small_labels(num=5)


def frame() -> pd.DataFrame:
    """w0 holds two events, the later one first; w1 none; w2 to w4 one each."""
    assert BASE.start_ns is not None
    assert BASE.end_ns is not None
    at = [0, 0, 1, 2, 3, 4]
    return pd.DataFrame(
        {
            "window_id": [f"w{i}" for i in at],
            "label": ["fall", "rise", "none", "rise", "fall", "rise"],
            "expansion_start": [60, 40, None, 40, 40, 40],
            "expansion_end": [66, 46, None, 46, 46, 46],
            "start_time": pd.to_datetime(BASE.start_ns[at], utc=True),
            "end_time": pd.to_datetime(BASE.end_ns[at], utc=True),
            "drawn": ["top", "top", "random", "random", None, "random"],
            "grade": ["A", "B", None, "C", "D", "A"],
            "seconds": [1.5, 2.5, 3.5, None, 5.5, 6.5],
            "suggested": [True, False, None, True, True, False],
            "my own": [0, 1, 2, 3, 4, 5],
            "features": [BASE.ohlc[i].tolist() for i in at],
        }
    )


def written(table: pd.DataFrame, folder: Path) -> Path:
    table.to_parquet(folder / "events.parquet")
    return folder / "events.parquet"


def assert_same(one: EventLabels, other: EventLabels) -> None:
    names = ("window_id", "ohlc", "window", "label", "start", "end", "start_ns", "end_ns", "instrument", "drawn")
    for name in names:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for name in ("classes", "weak", "sha256", "rule", "bars_sha256"):
        assert getattr(one, name) == getattr(other, name), name
    assert (one.extra is None) == (other.extra is None)
    if one.extra is not None and other.extra is not None:
        assert one.extra.to_pylist() == other.extra.to_pylist()


def test_windows_hold_none_one_or_several_events_in_order_of_time(tmp_path: Path) -> None:
    labels = read_event_labels(written(frame(), tmp_path))
    assert labels.window_id.tolist() == ["w0", "w1", "w2", "w3", "w4"]
    assert labels.classes == ("fall", "rise")
    assert labels.window.tolist() == [0, 0, 2, 3, 4]
    assert labels.label.tolist() == [1, 0, 1, 0, 1]
    assert labels.start.tolist() == [40, 60, 40, 40, 40]
    assert labels.counts() == {"fall": 2, "rise": 3, "none": 1}
    np.testing.assert_array_equal(labels.ohlc, BASE.ohlc)
    np.testing.assert_array_equal(labels.start_ns, BASE.start_ns)
    assert labels.drawn is not None
    assert labels.drawn.tolist() == ["top", "random", "random", "", "random"]
    assert labels.extra is not None
    assert labels.extra["my own"].to_pylist() == [1, 0, 2, 3, 4, 5]


def test_what_is_read_and_written_again_loses_nothing(tmp_path: Path) -> None:
    labels = read_event_labels(written(frame(), tmp_path))
    write_labels(labels, tmp_path / "again.parquet")
    assert_same(labels, read_event_labels(tmp_path / "again.parquet"))
    assert {"grade", "seconds", "suggested", "my own"} <= set(pd.read_parquet(tmp_path / "again.parquet").columns)


def test_a_file_of_the_first_form_has_one_event_a_window_and_its_hash(tmp_path: Path) -> None:
    write_labels(BASE, tmp_path / "first.parquet")
    spans, labels = read_span_labels(tmp_path / "first.parquet"), read_event_labels(tmp_path / "first.parquet")
    assert labels.sha256 == spans.sha256 == events_sha256(labels)
    assert labels.events_per_window().tolist() == [1] * 5
    assert (labels.drawn, labels.extra) == (None, None)
    write_labels(labels, tmp_path / "second.parquet")
    assert (tmp_path / "second.parquet").read_bytes() == (tmp_path / "first.parquet").read_bytes()


def test_one_class_beside_none_is_enough_for_events(tmp_path: Path) -> None:
    labels = read_event_labels(written(frame().replace({"label": {"fall": "rise"}}), tmp_path))
    assert (labels.classes, labels.counts()["none"]) == (("rise",), 1)


def test_a_file_may_hold_rejected_windows_only(tmp_path: Path) -> None:
    labels = read_event_labels(written(frame()[2:3], tmp_path))
    assert (len(labels), labels.num_events, labels.classes) == (1, 0, ())
    write_labels(labels, tmp_path / "again.parquet")
    assert_same(labels, read_event_labels(tmp_path / "again.parquet"))


def test_a_span_detector_reads_the_windows_with_one_event_and_a_warning_counts_the_others(tmp_path: Path) -> None:
    spans = read_span_labels(written(frame(), tmp_path))
    assert spans.window_id.tolist() == ["w2", "w3", "w4"]
    assert spans.warnings == (
        "1 windows without an event and 1 with several were left out: 3 windows with exactly one event are used.",
    )


def published() -> pd.DataFrame:
    """Ids as the published files have them: w0 with two events, 7 with one, and 9_exp_2 of other bars than 9_exp_1."""
    ids = ["3_exp_1", "3_exp_2", "7_exp_1", "9_exp_1", "9_exp_2", "5_exp_1"]
    table = frame().assign(window_id=ids, drawn=None)
    table["features"] = [BASE.ohlc[i].tolist() for i in (0, 0, 1, 2, 3, 4)]
    return table.drop(columns=["start_time", "end_time"])


def test_published_ids_of_one_window_are_grouped_by_equal_bars(tmp_path: Path) -> None:
    labels = read_event_labels(written(published(), tmp_path))
    assert labels.window_id.tolist() == ["3", "7_exp_1", "9_exp_1", "9_exp_2", "5_exp_1"]
    assert labels.events_per_window().tolist() == [2, 0, 1, 1, 1]


def test_a_grouped_window_keeps_a_name_of_its_own(tmp_path: Path) -> None:
    table = published().assign(window_id=["3_exp_1", "3_exp_2", "3", "9_exp_1", "9_exp_2", "5"])
    assert read_event_labels(written(table, tmp_path)).window_id.tolist()[:2] == ["3_exp_1", "3"]


def cell(row: int, column: str, value: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        values = table[column].tolist()
        values[row] = value
        return table.assign(**{column: values})

    return change


REFUSED: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "none with a span": (
        cell(2, "expansion_start", 40),
        r"row 3 \(window_id 'w1'\): label is 'none', a window without an event, and expansion_start is 40; empty",
    ),
    "a class without a span": (cell(3, "expansion_end", None), r"row 4 \(window_id 'w2'\): expansion_end is empty"),
    "none in capitals": (cell(2, "label", "None"), r"row 3 .*label 'None' is an unknown class; write 'none', which"),
    "no label": (cell(2, "label", None), r"row 3 .*label is empty; give it a class, write none if nothing is there"),
    "none beside an event": (
        lambda f: f.assign(
            window_id=["w0", "w0", "w0", *f["window_id"][3:]], features=[f["features"][0]] * 3 + [*f["features"][3:]]
        ),
        r"row 3 \(window_id 'w0'\): label is 'none', and row 1 names an event in the same window; a window without",
    ),
    "none twice": (
        lambda f: pd.concat([f[2:], f[2:3]]),
        r"row 1 \(window_id 'w1'\): label is 'none', and row 5 says so too; a window without an event has one row",
    ),
    "events that share a bar": (
        cell(0, "expansion_start", 46),
        r"row 1 \(window_id 'w0'\): bars 46 to 66 share bars with those of row 2, 40 to 46; events of one window share",
    ),
    "other bars under one id": (
        cell(1, "window_id", "w2"),
        r"row 4 \(window_id 'w2'\): window_id repeats that of row 2, whose bars differ; rows of one window hold",
    ),
    "other times in one window": (
        cell(1, "start_time", pd.Timestamp("2023-11-01", tz="UTC")),
        r"row 2 \(window_id 'w0'\): start_time differs from that of row 1, of the same window",
    ),
    "other draws in one window": (cell(1, "drawn", "random"), r"row 2 .*drawn differs from that of row 1"),
    "an unknown draw": (
        cell(3, "drawn", "randm"),
        "row 4 .*drawn is 'randm'; allowed: random, uncertain, top, listed, or empty; did you mean 'random'",
    ),
    "one window, an event and none": (
        lambda f: f.assign(features=[*f["features"][:3], f["features"][2], *f["features"][4:]]),
        r"row 4 .*the same prices are row 3 \(window_id 'w1'\), labelled 'none' there and 'rise' here",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("read", [read_event_labels, read_span_labels])
def test_rows_that_contradict_are_refused_by_row_and_cure(
    tmp_path: Path, kind: str, read: Callable[[Path], Any]
) -> None:
    change, message = REFUSED[kind]
    with pytest.raises(UserError, match=message):
        read(written(change(frame()), tmp_path))


def test_columns_that_no_table_can_keep_are_left_out(tmp_path: Path) -> None:
    labels = read_event_labels(written(frame().assign(embedding=[[1.0, 2.0]] * 6), tmp_path))
    assert labels.extra is not None
    assert "embedding" not in labels.extra.column_names


def test_a_weak_set_of_events_stays_weak(tmp_path: Path) -> None:
    labels = replace(read_event_labels(written(frame(), tmp_path)), weak=True, rule="surge-1", bars_sha256="abc")
    labels = replace(labels, sha256=events_sha256(labels), extra=pa.table({"grade": ["A"] * 6}))
    write_labels(labels, tmp_path / "weak.parquet")
    assert_same(labels, read_event_labels(tmp_path / "weak.parquet"))
