"""A run's journal on disk: what is whole in it is read again, and nothing else does harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moola_mlflow.tracking import run_folder
from moola_mlflow.tracking.delivery import JOURNAL_FILE, journal, read_history
from moola_mlflow.tracking.delivery.files import OUTBOX, copy_into, waiting_folder
from moola_mlflow.tracking.delivery.journal import Journal, read_events
from moola_mlflow.tracking.delivery.replay import Replayer
from moola_mlflow.tracking.delivery.schema import event_line, parse_event
from moola_mlflow.tracking.delivery.sent import SENT_FILE, Sent


def test_what_a_crash_cut_short_is_passed_over_and_what_follows_is_whole(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    first.append({"kind": "metrics", "step": 0, "metrics": {"a": 1.0}})
    first.close()
    with open(tmp_path / "journal.jsonl", "ab") as f:
        f.write(b'{"kind": "metrics", "st')
    assert [event.record["step"] for event in journal.read_events(tmp_path)] == [0]
    second = Journal(tmp_path)
    end = second.append({"kind": "metrics", "step": 2, "metrics": {"a": 3.0}})
    second.close()
    events = list(journal.read_events(tmp_path))
    assert [event.record["step"] for event in events] == [0, 2]
    assert events[-1].end == end == (tmp_path / "journal.jsonl").stat().st_size
    assert [event.record["step"] for event in journal.read_events(tmp_path, events[0].end)] == [2]
    assert journal.logged_steps(tmp_path, "a") == {0, 2}
    assert journal.logged_steps(tmp_path, "b") == set()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"offset": 3}', '{"offset": null, "uri": 1}'])
def test_a_damaged_acknowledgement_is_that_of_nothing_and_a_written_one_comes_back(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / SENT_FILE).write_text(content)
    assert Sent.read(tmp_path) == Sent(0, tmp_path.name, "")
    (tmp_path / JOURNAL_FILE).write_text("{}\n")
    Sent(3, "abc", "http://here").write(tmp_path)
    assert Sent.read(tmp_path) == Sent(3, "abc", "http://here")


def test_what_becomes_of_a_staged_file_later_does_not_change_what_is_sent(tmp_path: Path) -> None:
    source = tmp_path / "model"
    (source / "deep").mkdir(parents=True)
    (source / "card.json").write_text("1")
    (source / "deep" / "a.pt").write_bytes(b"weights")
    staged = waiting_folder(tmp_path, "a" * 32)
    copy_into(staged / "encoder", source)
    (source / "card.json").write_text("2")
    assert (staged / "encoder" / "card.json").read_text() == "1"
    assert (staged / "encoder" / "deep" / "a.pt").samefile(source / "deep" / "a.pt")  # no second copy of a checkpoint


def test_each_line_has_a_checksum_and_damaged_lines_are_known_by_their_numbers(tmp_path: Path) -> None:
    book = Journal(tmp_path)
    for step in range(4):
        book.append({"kind": "metrics", "step": step, "metrics": {"a": 0.25}})
    book.close()
    path = tmp_path / JOURNAL_FILE
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"0.25", b"0.75")  # it is an event still, and a wrong one
    lines[2] = lines[2].replace(b'"sum"', b'"sun"')
    path.write_bytes(b"".join(lines))
    assert journal.damaged_lines(tmp_path) == [2, 3]
    assert [event.record["step"] for event in journal.read_events(tmp_path)] == [0, 3]


@given(st.integers(0, 10**9), st.integers(0, 7))
def test_no_flipped_bit_of_a_line_goes_unnoticed(place: int, bit: int) -> None:
    line = bytearray(event_line({"at": 1.5, "kind": "metrics", "step": 3, "metrics": {"a": 0.25}}))
    line[place % (len(line) - 1)] ^= 1 << bit
    assert parse_event(bytes(line)) is None or parse_event(bytes(line)) == {
        "at": 1.5, "kind": "metrics", "step": 3, "metrics": {"a": 0.25},
    }  # fmt: skip


def test_a_journal_of_version_0_2_is_read_as_it_was(tmp_path: Path) -> None:
    (tmp_path / JOURNAL_FILE).write_text("".join(json.dumps({"at": 1.0, **record}) + "\n" for record in GOOD))
    assert len(list(journal.read_events(tmp_path))) == len(GOOD)
    assert journal.damaged_lines(tmp_path) == []
    assert not journal.has_checksums(tmp_path)
    Journal(tmp_path).append({"kind": "begin"})  # and goes on with checksums
    assert journal.damaged_lines(tmp_path) == []
    assert len(list(journal.read_events(tmp_path))) == len(GOOD) + 1


GOOD: list[dict[str, Any]] = [
    {"kind": "begin", "show": True, "make": {"name": "a", "experiment": "b", "tags": {}, "at_ms": 1}},
    {"kind": "begin", "show": False, "running": True},
    {"kind": "handover", "run_id": "abc"},
    {"kind": "params", "params": {"a": "1"}},
    {"kind": "tags", "tags": {"a": "1"}},
    {"kind": "metrics", "step": 3, "metrics": {"a": 1.0, "b": float("nan"), "c": None}},
    {"kind": "inputs", "files": [["a.csv", "00", 3]], "context": "training"},
    {"kind": "child", "key": "0" * 32, "name": "fold 1", "seconds": 1.5, "tags": {}, "params": {},
     "series": [{"a": 1, "b": None}], "final": {}},
    {"kind": "artifacts", "key": "0" * 32, "names": ["a"], "tables": ["a"]},
    {"kind": "register", "key": "0" * 32, "model": "encoder", "name": "a", "tags": {}},
    {"kind": "status", "status": "FINISHED", "note": None},
    {"kind": "of a later version", "key": "../.."},
]  # fmt: skip
JUNK = [None, 1, -1e300, "x", "../../home", "/etc", [], {}, [1], {"a": {}}, [["a"]], True, 10**40]


def test_every_event_that_is_written_is_read_again(tmp_path: Path) -> None:
    book = Journal(tmp_path)
    for record in GOOD:
        book.append(record)
    assert [event.record["kind"] for event in journal.read_events(tmp_path)] == [record["kind"] for record in GOOD]


@given(st.sampled_from(GOOD[:-1]), st.data())
def test_an_event_of_another_shape_is_passed_over_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, record: dict[str, Any], data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from(["at", *record]))
    value = data.draw(st.sampled_from([*JUNK, "missing"]))
    hurt = {**record, key: value}
    if value == "missing":
        del hurt[key]
    folder = tmp_path_factory.mktemp("run")
    (folder / "journal.jsonl").write_text(json.dumps(hurt) + "\n")
    client = MagicMock()
    client.search_runs.return_value = []
    replayer = Replayer(client, folder, "abc", None)
    replayer.experiment_id, replayer._known_params = "0", set()
    for event in journal.read_events(folder):
        if event.kind in ("artifacts", "register"):
            assert waiting_folder(folder, event.record["key"]).parent == folder / OUTBOX
        elif event.kind in GOOD_KINDS:
            replayer.apply([event], fresh=False)
    read_history(folder)
    journal.logged_steps(folder, "a")


GOOD_KINDS = {record["kind"] for record in GOOD} - {"begin"}


@pytest.mark.parametrize("content", ['{"pid": 1, "host": "x", "beat_at": "now"}', "[" * 100_000, "7"])
def test_a_beat_that_is_none_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / run_folder.HEARTBEAT).write_text(content)
    (tmp_path / JOURNAL_FILE).write_text("[" * 100_000 + "\n7\n")
    assert run_folder.read_beat(tmp_path) == {}
    run_folder.check_run_folder_free(tmp_path)


def test_a_clock_that_is_set_forward_decides_no_later_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"day": 1_000_000.0, "boot": 50.0}
    monkeypatch.setattr(journal.time, "time", lambda: clock["day"])
    monkeypatch.setattr(journal, "time_since_boot", lambda: clock["boot"])
    opened = Journal(tmp_path)

    def times(day: float, passed: float) -> float:
        clock["day"], clock["boot"] = day, clock["boot"] + passed
        opened.append({"kind": "tags", "tags": {}})
        return [event.record["at"] for event in read_events(tmp_path)][-1]

    assert times(1_000_000, 0) == 1_000_000
    assert times(1_000_010, 10) == 1_000_010
    assert times(9_000_000, 5) == 1_000_015 + journal.CLOCK_TOLERANCE_S  # set to another year
    assert times(1_000_020, 5) == 1_000_015 + journal.CLOCK_TOLERANCE_S  # and back: no time goes back
    assert times(1_000_200, 180) == 1_000_200
    opened.close()
    clock["day"] = 2_000_000.0
    opened = Journal(tmp_path)  # resumed days later
    assert times(2_000_000, 0) == 2_000_000
    opened.close()
