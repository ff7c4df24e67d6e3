"""Published annotation batches: one JSON a window, its bars from a parquet or from a bars file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from moola_mlflow.bars import Bars, read_bars
from moola_mlflow.core import BarsConfig, LabelsKeys, UserError, make_config
from moola_mlflow.labels import EventLabels, read_any_labels

BARS = read_bars(BarsConfig(sample_bars=3000, sample_seed=4))
FIRST = {"a1": 300, "a2": 700, "a3": 1500, "a4": 1700, "a5": 1900}
"""The first bar of each window."""


def window(name: str, quality: str, *expansions: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "window_id": name,
        "window_quality": quality,
        "expansions": list(expansions),
        "annotator_notes": f"note on {name}",
        "timestamp": "2026-03-01T10:00:00",
        "annotator_id": "ann",
        **changes,
    }


def batches() -> list[dict[str, Any]]:
    old = {"type": "consolidation", "start_bar": 40, "end_bar": 47, "quality": "A"}
    new = {"expansion_type": "retracement", "start_index": 60, "end_index": 66, "quality_grade": "B"}
    return [
        window("a1", "A", old, new),
        window("a2", "D"),
        window("a3", "D", old),
        window("a4", "C", {**new, "quality_grade": None, "expansion_type": "reversal"}),
        window("a5", "B"),
    ]


def write(folder: Path, windows: list[dict[str, Any]], kind: str = "features") -> Path:
    """Write each window as a file, and the parquet that says which bars it shows."""
    for one in windows:
        (folder / f"batch_{one['window_id']}_{one['annotator_id']}.json").write_text(json.dumps(one))
    rows = np.array(list(FIRST.values()))
    table: dict[str, Any] = {"window_id": list(FIRST)}
    if kind == "features":
        table["features"] = [BARS.ohlc[at : at + 105].tolist() for at in rows]
    elif kind == "start_time":
        table["start_time"] = pd.to_datetime(BARS.time_ns[rows], utc=True)
    elif kind == "center_timestamp":
        table["center_timestamp"] = pd.to_datetime(BARS.time_ns[rows + 52], utc=True)
    pd.DataFrame(table).to_parquet(folder / "windows.parquet")
    return folder


def read(path: Path, **keys: Any) -> EventLabels:
    def load_bars() -> Bars:
        assert keys.get("bars", True)
        return BARS

    given = {key.replace("__", "."): value for key, value in keys.items() if key != "bars"}
    return read_any_labels(str(path), make_config(LabelsKeys, {}, given), load_bars)


@pytest.mark.parametrize("kind", ["features", "start_time", "center_timestamp"])
def test_the_windows_of_batches_have_their_events_and_their_bars(tmp_path: Path, kind: str) -> None:
    labels = read(write(tmp_path, batches(), kind), bars=kind != "features")
    assert labels.window_id.tolist() == ["a1", "a2", "a4", "a5"]
    assert labels.classes == ("consolidation", "retracement", "reversal")
    assert labels.window.tolist() == [0, 0, 2]
    assert labels.start.tolist() == [40, 60, 60]
    assert labels.end.tolist() == [47, 66, 66]
    for i, name in enumerate(labels.window_id.tolist()):
        np.testing.assert_array_equal(labels.ohlc[i], BARS.ohlc[FIRST[name] : FIRST[name] + 105])
    assert (labels.start_ns is None) == (kind == "features")
    assert labels.extra is not None
    assert labels.extra["grade"].to_pylist() == ["A", "B", "D", "C", "B"]
    assert labels.extra["annotator"].to_pylist() == ["ann"] * 5
    assert labels.extra["notes"].to_pylist() == [f"note on {name}" for name in ("a1", "a1", "a2", "a4", "a5")]
    assert labels.warnings == (
        "1 windows of grade D with expansions were left out.",
        "1 windows without expansions have a grade better than D; they count as none.",
    )


def test_the_centre_may_be_another_bar(tmp_path: Path) -> None:
    folder = write(tmp_path, batches(), "center_timestamp")
    labels = read(folder, labels__centre_bar="50")
    np.testing.assert_array_equal(labels.ohlc[0], BARS.ohlc[302 : 302 + 105])


def test_one_file_may_hold_all_windows(tmp_path: Path) -> None:
    write(tmp_path, [])
    (tmp_path / "all.json").write_text(json.dumps({"batch": 3, "windows": batches()}))
    assert read(tmp_path / "all.json").num_events == 3
    (tmp_path / "all.json").write_text(json.dumps(batches()))
    assert read(tmp_path).num_events == 3


def test_the_index_fills_in_grades_and_dates_and_what_differs_is_said(tmp_path: Path) -> None:
    windows = batches()[:2]
    del windows[1]["window_quality"], windows[1]["timestamp"]
    folder = write(tmp_path, windows)
    pd.DataFrame({
        "window_id": ["a1", "a2", "a9"], "batch_file": "b.json", "annotation_date": "2026-02-01",
        "quality_grade": ["A", "D", "B"], "expansion_count": [3, 0, 1],
    }).to_csv(folder / "master_index.csv", index=False)  # fmt: skip
    labels = read(folder)
    assert labels.extra is not None
    assert labels.extra["grade"].to_pylist() == ["A", "B", "D"]
    assert labels.extra["labelled_at"].to_pylist()[2] == "2026-02-01"
    assert labels.warnings == (
        "1 windows of master_index.csv are in no batch.",
        "1 windows have another number of expansions than master_index.csv says.",
    )


def test_a_window_annotated_twice_is_refused_or_the_newest(tmp_path: Path) -> None:
    again = window("a1", "D", annotator_id="bob", timestamp="2026-04-01T10:00:00")
    folder = write(tmp_path, [*batches(), again])
    with pytest.raises(UserError, match=r"window 'a1' is in batch_a1_ann.json and in batch_a1_bob.json; remove one"):
        read(folder)
    labels = read(folder, labels__duplicates="newest")
    assert labels.events_per_window()[0] == 0
    assert "1 windows were annotated twice: the newest counts." in labels.warnings


REFUSED: dict[str, tuple[list[dict[str, Any]], str]] = {
    "no window of that name": ([window("b1", "A")], "1 windows are not in '.*windows.parquet', the first is 'b1'"),
    "no type": ([window("a1", "A", {"start_bar": 4, "end_bar": 9})], "an expansion of window 'a1' lacks its type"),
    "reversed": (
        [window("a1", "A", {"type": "x", "start_bar": 9, "end_bar": 4})],
        r"window_id 'a1'\): expansion_start 9 is not before expansion_end 4",
    ),
    "outside": (
        [window("a1", "A", {"type": "x", "start_bar": 9, "end_bar": 105})],
        r"window_id 'a1'\): expansion_end 105 lies outside",
    ),
    "no batch": ([{"window_id": "a1", "annotator_id": "x"}], "is no batch: a window needs window_id and expansions"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_bad_batch_is_refused_by_file_or_window(tmp_path: Path, kind: str) -> None:
    windows, message = REFUSED[kind]
    with pytest.raises(UserError, match=message):
        read(write(tmp_path, windows))


@pytest.mark.parametrize("kind", ["reversed", "outside"])
def test_a_bad_span_is_refused_with_bars_too(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UserError, match=r"bars 9 to \d+ are no span within 0 to 104; correct the expansion"):
        read(write(tmp_path, REFUSED[kind][0], "start_time"))


def test_a_parquet_that_does_not_say_which_bars_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has neither features nor start_time nor center_timestamp"):
        read(write(tmp_path, batches(), "nothing"))
    (tmp_path / "windows.parquet").unlink()
    with pytest.raises(UserError, match="holds 0 parquet files with a column window_id; name the one"):
        read(tmp_path)
    with pytest.raises(UserError, match=r"labels.windows='no.parquet' does not exist"):
        read(tmp_path, labels__windows="no.parquet")


def test_a_window_that_is_not_in_the_bars_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, [window("a1", "D")])
    late = pd.DataFrame({"window_id": ["a1"], "start_time": pd.to_datetime(BARS.time_ns[[2950]], utc=True)})
    late.to_parquet(folder / "windows.parquet")
    with pytest.raises(UserError, match=r"the 105 bars of its window are not all in bars.path"):
        read(folder)
