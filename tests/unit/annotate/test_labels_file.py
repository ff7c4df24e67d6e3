"""Decisions become a labels file that every other command reads; earlier labels stay in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from event_files import some_events
from small_sessions import opened, said, sample

from moola_mlflow.annotate import labels_file
from moola_mlflow.annotate.labels_file import LabelsFile, read_earlier
from moola_mlflow.core import UserError
from moola_mlflow.labels import EventLabels, read_event_labels, write_labels


def test_the_file_holds_what_was_said(tmp_path: Path) -> None:
    with opened(tmp_path, annotator="ann") as session:
        first = session.desk.window()
        second = session.desk.decide(
            said(first, ("retracement", 30, 41), ("consolidation", 60, 65), grade="B", notes="clear", seconds=4)
        )
        third = session.desk.decide(said(second))
        session.desk.decide(said(third, action="skip"))
    labels = read_event_labels(tmp_path / "mine.parquet")
    assert sorted(labels.window_id) == sorted([first["window_id"], second["window_id"]])
    assert labels.counts() == {"consolidation": 1, "retracement": 1, "none": 1}
    assert (labels.weak, labels.bars_sha256) == (False, sample().sha256)
    assert labels.drawn is not None
    assert labels.drawn.tolist() == ["random", "random"]
    place = labels.window_id.tolist().index(first["window_id"])
    assert labels.ohlc[place, :, 3].tolist() == first["bars"]["close"]
    assert labels.extra is not None
    rows = [row for row, i in zip(labels.extra.to_pylist(), labels.row_window(), strict=True) if i == place]
    assert [
        {name: row[name] for name in ("grade", "annotator", "seconds", "notes", "source", "suggested")} for row in rows
    ] == [
        {"grade": "B", "annotator": "ann", "seconds": 4.0, "notes": "clear", "source": "human", "suggested": False}
    ] * 2
    assert rows[0]["labelled_at"].endswith("Z")


def test_nothing_but_skipped_windows_writes_no_file(tmp_path: Path) -> None:
    with opened(tmp_path) as session:
        session.desk.decide(said(session.desk.window(), action="skip"))
    assert not (tmp_path / "mine.parquet").exists()


def test_labels_that_were_there_stay_and_are_kept_once_as_a_backup(tmp_path: Path) -> None:
    mine, before = tmp_path / "mine.parquet", some_events()
    write_labels(before, mine)
    for _ in range(2):
        with opened(tmp_path) as session:
            assert session.desk.classes == ("fall", "rise")
            session.desk.decide(said(session.desk.window(), ("rise", 30, 41)))
    labels = read_event_labels(mine)
    assert len(labels) == len(before) + 2
    assert set(before.window_id) < set(labels.window_id)
    kept = labels.select([labels.window_id.tolist().index(name) for name in before.window_id])
    assert np.array_equal(kept.ohlc, before.ohlc)
    assert kept.counts() == before.counts()
    assert (
        read_event_labels(tmp_path / "mine.parquet.bak").sha256
        == read_event_labels(mine.with_name("mine.parquet.bak")).sha256
    )
    assert len(read_event_labels(tmp_path / "mine.parquet.bak")) == len(before)


@pytest.mark.parametrize(
    ("changes", "named"), [({"start_ns": None, "end_ns": None}, "start_time"), ({"instrument": None}, "instrument")]
)
def test_labels_that_do_not_say_which_bars_they_are_about_are_refused(
    tmp_path: Path, changes: dict[str, None], named: str
) -> None:
    mine = tmp_path / "mine.parquet"
    write_labels(replace(some_events(), **changes), mine)  # type: ignore[arg-type]
    before = mine.read_bytes()
    with pytest.raises(UserError, match=f"no column {named}"), opened(tmp_path):
        pass
    assert mine.read_bytes() == before


def test_a_file_that_is_no_labels_file_is_refused_and_stays(tmp_path: Path) -> None:
    (tmp_path / "mine.parquet").write_text("my notes")
    with pytest.raises(UserError, match="cannot be read as parquet"), opened(tmp_path):
        pass
    assert (tmp_path / "mine.parquet").read_text() == "my notes"
    assert read_earlier(tmp_path / "none.parquet", 105) is None


def test_a_file_that_cannot_be_written_is_said_and_tried_again(tmp_path: Path) -> None:
    tries: list[int] = []

    def parts() -> Iterator[EventLabels]:
        tries.append(1)
        raise OSError("no room")

    file = LabelsFile(tmp_path / "mine.parquet", parts)
    file.start()
    file.changed()
    while len(tries) < 2:
        pass
    assert file.problem is not None
    assert "no room" in file.problem
    with pytest.raises(OSError, match="no room"):
        file.close()


def test_a_file_that_is_written_in_parts_is_the_same_as_one_that_is_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels_file, "PART", 3)
    with opened(tmp_path) as session:
        window = session.desk.window()
        for place in range(8):
            marks = [("retracement", 30, 41)] if place < 4 else []
            window = session.desk.decide(said(window, *marks, grade="A" if place % 2 else None))
        whole = session.labels()
    write_labels(whole, tmp_path / "whole.parquet")
    mine, other = (read_event_labels(tmp_path / name) for name in ("mine.parquet", "whole.parquet"))
    assert mine.sha256 == other.sha256
    assert mine.extra == other.extra
    assert len(mine) == 8


def test_a_file_whose_last_label_is_taken_back_is_removed(tmp_path: Path) -> None:
    left = [some_events()]
    file = LabelsFile(tmp_path / "mine.parquet", lambda: iter(left))
    file.close()
    assert (tmp_path / "mine.parquet").is_file()
    left.clear()
    file.close()
    assert not (tmp_path / "mine.parquet").exists()


def test_a_file_that_was_there_stays_where_nothing_is_labelled(tmp_path: Path) -> None:
    (tmp_path / "mine.parquet").write_text("labels of another day")
    LabelsFile(tmp_path / "mine.parquet", lambda: iter([])).close()
    assert (tmp_path / "mine.parquet").read_text() == "labels of another day"
