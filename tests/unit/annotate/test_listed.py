"""Windows of a list: names in a file, or the table that detect writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_sessions import sample

from moola_mlflow.annotate.candidates import Candidates
from moola_mlflow.annotate.listed import read_listed
from moola_mlflow.core import UserError

FOUND = Candidates.of(sample(), 105, 105, 5, "UTC")


def hits(**changes: object) -> pd.DataFrame:
    rows = FOUND.starts[[4, 9]] + 50
    times = pd.DatetimeIndex(sample().time_ns[rows].view("datetime64[ns]"), tz="UTC")
    ends = pd.DatetimeIndex(sample().time_ns[rows + 8].view("datetime64[ns]"), tz="UTC")
    table = {"instrument": FOUND.instruments(rows), "start": times, "end": ends, "label": "flag", "score": [0.3, 0.9]}
    return pd.DataFrame({**table, **changes})


def test_names_are_shown_in_the_order_of_the_file_once_each(tmp_path: Path) -> None:
    names = FOUND.names(FOUND.starts[[7, 2]])
    (tmp_path / "list.txt").write_text("\n".join([*names, "unknown", names[0], ""]))
    listed = read_listed(str(tmp_path / "list.txt"), FOUND)
    assert (listed.rows, listed.hits, listed.left_out) == (FOUND.starts[[7, 2]].tolist(), {}, 1)


def test_hits_lie_in_the_middle_of_their_windows_the_highest_score_first(tmp_path: Path) -> None:
    hits().to_parquet(tmp_path / "detections.parquet")
    listed = read_listed(str(tmp_path / "detections.parquet"), FOUND)
    (first, second) = listed.rows
    assert [event["score"] for event in listed.hits[first]] == [0.9]
    (event,) = listed.hits[second]
    assert event["end"] - event["start"] == 8
    assert second + event["start"] == FOUND.starts[4] + 50
    assert FOUND.fits(first)


def test_hits_elsewhere_are_counted(tmp_path: Path) -> None:
    hits(instrument=[FOUND.instruments(FOUND.starts[[4]])[0], "other"]).to_parquet(tmp_path / "d.parquet")
    listed = read_listed(str(tmp_path / "d.parquet"), FOUND)
    assert (len(listed.rows), listed.left_out) == (1, 1)


def test_what_is_no_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.txt").write_text("unknown")
    (tmp_path / "bad.parquet").write_text("text")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    hits().drop(columns="label").to_parquet(tmp_path / "short.parquet")
    for name, said in {
        "missing.txt": "is no file", "none.txt": "names no window", "bad.parquet": "cannot be read as parquet",
        "bytes.txt": "cannot be read as text", "short.parquet": "has no column 'label'",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=said):
            read_listed(str(tmp_path / name), FOUND)


def test_a_table_without_scores_keeps_its_order(tmp_path: Path) -> None:
    hits().drop(columns="score").to_parquet(tmp_path / "d.parquet")
    listed = read_listed(str(tmp_path / "d.parquet"), FOUND)
    assert np.all(np.diff(listed.rows) > 0)
    assert all(event["score"] is None for own in listed.hits.values() for event in own)
