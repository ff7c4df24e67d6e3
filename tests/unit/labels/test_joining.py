"""Several labels files joined: folders and globs, windows that two files hold, and files that do not fit together."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from small_labels import small_labels

from moola_mlflow.core import UserError
from moola_mlflow.labels import EventLabels, LabelledSet, read_event_labels, read_span_labels, write_labels

ALL = EventLabels.of(small_labels(num=12, num_classes=3))


def part(first: int, last: int, **changes: Any) -> EventLabels:
    return replace(ALL.select(range(first, last)), **changes)


def write(folder: Path, name: str, labels: EventLabels | LabelledSet, age_s: int = 0) -> None:
    write_labels(labels, folder / name)
    os.utime(folder / name, (1_700_000_000 - age_s,) * 2)


@pytest.mark.parametrize("where", ["", "*.parquet", "**/*.parquet"])
def test_the_files_of_a_folder_or_a_glob_are_one_set(tmp_path: Path, where: str) -> None:
    write(tmp_path, "a.parquet", part(0, 5))
    write(tmp_path, "b.parquet", part(5, 12))
    (tmp_path / "notes.txt").write_text("not labels")
    labels = read_event_labels(tmp_path / where)
    np.testing.assert_array_equal(labels.ohlc, ALL.ohlc)
    np.testing.assert_array_equal(labels.start, ALL.start)
    assert [labels.classes[k] for k in labels.label] == [ALL.classes[k] for k in ALL.label]
    assert labels.window_id.tolist() == ALL.window_id.tolist()
    assert labels.joined == (f"{tmp_path}/a.parquet: 5 windows", f"{tmp_path}/b.parquet: 7 windows")
    spans = read_span_labels(tmp_path / where)
    assert (spans.sha256, spans.joined, spans.warnings) == (labels.sha256, labels.joined, ())


def test_a_folder_or_a_glob_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no file that ends in .parquet or .pq"):
        read_event_labels(tmp_path)
    with pytest.raises(UserError, match=r"no file matches '.*x\*'"):
        read_event_labels(tmp_path / "x*")


def relabelled(labels: EventLabels, **changes: Any) -> EventLabels:
    return replace(labels, label=(labels.label + 1) % 3, **changes)


def test_a_window_in_two_files_is_refused_with_both_labels(tmp_path: Path) -> None:
    write(tmp_path, "a.parquet", part(0, 6))
    write(tmp_path, "b.parquet", relabelled(part(5, 12)))
    one, other = ALL.classes[ALL.label[5]], ALL.classes[(ALL.label[5] + 1) % 3]
    message = rf"1 windows are in two files, .*a.parquet \('w5', {one}\) and in .*b.parquet \('b/w5', {other}\); remove"
    with pytest.raises(UserError, match=message):
        read_event_labels(tmp_path)


@pytest.mark.parametrize("newer", ["a", "b"])
def test_of_a_window_in_two_files_the_newest_file_wins_if_asked(tmp_path: Path, newer: str) -> None:
    write(tmp_path, "a.parquet", part(0, 6), age_s=50)
    write(tmp_path, "b.parquet", relabelled(part(5, 12)), age_s=10 if newer == "b" else 90)
    labels = read_event_labels(tmp_path, duplicates="newest")
    assert len(labels) == 12
    (at,) = np.flatnonzero((labels.ohlc == ALL.ohlc[5]).all(axis=(1, 2)))
    assert labels.label[at] == (ALL.label[5] + (newer == "b")) % 3
    older = "a" if newer == "b" else "b"
    assert labels.warnings[-1].endswith(
        f"1 windows are in a newer file too and were left out: 1 of {tmp_path}/{older}.parquet."
    )


def test_the_time_of_labelling_counts_before_the_time_of_the_file(tmp_path: Path) -> None:
    def at(time: str, num: int) -> pa.Table:
        return pa.table({"labelled_at": [time] * num})

    write(tmp_path, "a.parquet", part(0, 6, extra=at("2026-05-02T10:00Z", 6)), age_s=50)
    write(tmp_path, "b.parquet", relabelled(part(5, 12), extra=at("2026-05-01T10:00Z", 7)), age_s=10)
    labels = read_event_labels(tmp_path, duplicates="newest")
    assert labels.label[labels.window_id == "w5"].tolist() == [ALL.label[5]]


def test_ids_of_an_earlier_file_get_the_name_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, "a.parquet", part(0, 3))
    write(tmp_path, "b.parquet", part(3, 6, window_id=np.array(["w1", "w7", "w2"])))
    labels = read_event_labels(tmp_path)
    assert labels.window_id.tolist() == ["w0", "w1", "w2", "b/w1", "w7", "b/w2"]
    assert "2 windows have a window_id of an earlier file" in labels.warnings[-1]


def test_windows_without_events_and_other_columns_survive(tmp_path: Path) -> None:
    none = part(0, 3, window=np.array([1]), label=np.array([2]), start=np.array([7]), end=np.array([9]))
    write(tmp_path, "a.parquet", replace(none, extra=pa.table({"grade": ["D", "A", "D"], "seconds": [1, 2, 3]})))
    write(tmp_path, "b.parquet", part(3, 5, drawn=np.array(["top", "random"])))
    write(tmp_path, "c.parquet", part(5, 6, extra=pa.table({"seconds": ["fast"], "notes": ["hm"]})))
    labels = read_event_labels(tmp_path)
    assert labels.events_per_window().tolist() == [0, 1, 0, 1, 1, 1]
    assert labels.drawn is not None
    assert labels.drawn.tolist() == ["", "", "", "top", "random", ""]
    assert labels.extra is not None
    assert labels.extra.to_pydict() == {
        "grade": ["D", "A", "D", None, None, None],
        "seconds": ["1", "2", "3", None, None, "fast"],
        "notes": [None] * 5 + ["hm"],
    }


def test_one_weak_file_makes_the_set_weak_and_says_so(tmp_path: Path) -> None:
    write(tmp_path, "a.parquet", part(0, 6, weak=True, rule="surge-1", bars_sha256="abc"))
    write(tmp_path, "b.parquet", part(6, 12))
    labels = read_event_labels(tmp_path)
    assert (labels.weak, labels.rule, labels.bars_sha256) == (True, "surge-1", "")
    assert labels.warnings == ("1 of 2 joined files are weak labels: the set counts as weak.",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start_ns": None, "end_ns": None}, "b.parquet has no start_time and end_time, and .*a.parquet has"),
        ({"instrument": None}, "b.parquet has no instrument, and .*a.parquet has"),
        ({"classes": ("Consolidation", "retracement", "reversal")}, "b.parquet has the class 'Consolidation', and"),
    ],
)
def test_files_that_do_not_fit_together_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write(tmp_path, "a.parquet", part(0, 6))
    write(tmp_path, "b.parquet", part(6, 12, **changes))
    with pytest.raises(UserError, match=message):
        read_event_labels(tmp_path)
