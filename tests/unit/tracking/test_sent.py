"""How much of a journal the store has: written in one step, read with care, counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moola_mlflow.tracking.delivery.journal import JOURNAL_FILE, Journal
from moola_mlflow.tracking.delivery.sent import SENT_FILE, Sent, count_unsent, id_in_store, unsent_events

EVENTS = [{"at": float(i), "kind": "metrics", "step": i, "metrics": {"a": 1.0}} for i in range(4)]
LINES = [json.dumps(event).encode() + b"\n" for event in EVENTS]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / JOURNAL_FILE).write_bytes(b"".join(LINES))
    return tmp_path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    sent = Sent(0, "abc", "http://host", [3, 7])
    sent.write(tmp_path)
    assert Sent.read(tmp_path) == sent
    assert [path.name for path in tmp_path.iterdir()] == [SENT_FILE]


def test_a_file_of_an_early_version_has_nothing_set_aside(tmp_path: Path) -> None:
    (tmp_path / SENT_FILE).write_text('{"offset": 0, "run_id": "a", "uri": "b"}')
    assert Sent.read(tmp_path) == Sent(0, "a", "b", [])


@pytest.mark.parametrize(
    "content",
    [
        "",
        "null",
        "[]",
        '{"offset": 5}',
        '{"offset": -1, "run_id": "a", "uri": "b"}',
        '{"offset": "5", "run_id": "a", "uri": "b"}',
        '{"offset": 5, "run_id": 3, "uri": "b"}',
        '{"offset": 5, "run_id": "a", "uri": null}',
        '{"offset": 5, "run_id": "a", "uri": "b", "held": 3}',
        '{"offset": 5, "run_id": "a", "uri": "b", "held": [-1]}',
        "[" * 100_000,
    ],
)
def test_with_a_damaged_file_nothing_counts_as_sent(folder: Path, content: str) -> None:
    (folder / SENT_FILE).write_text(content)
    assert Sent.read(folder) == Sent(0, folder.name, "")
    assert count_unsent(folder) == len(EVENTS)


def test_an_offset_inside_of_a_line_is_damage_too(folder: Path) -> None:
    Sent(len(LINES[0]) + 3, "a", "b", [0]).write(folder)
    assert Sent.read(folder) == Sent(0, "a", "b", [])


def test_a_lost_file_counts_as_nothing_sent_if_the_journal_has_checksums_and_else_as_all_sent(tmp_path: Path) -> None:
    (tmp_path / JOURNAL_FILE).write_bytes(LINES[0])
    assert Sent.read(tmp_path) is None
    (tmp_path / JOURNAL_FILE).unlink()
    Journal(tmp_path).append(EVENTS[0])
    assert Sent.read(tmp_path) == Sent(0, tmp_path.name, "")


def test_events_after_the_offset_are_unsent_and_those_set_aside_count_too(folder: Path) -> None:
    Sent(len(LINES[0]) + len(LINES[1]), "a", "b", [0]).write(folder)
    assert [event.record["step"] for event in unsent_events(folder)] == [2, 3]
    assert count_unsent(folder) == 3


def test_without_an_acknowledgement_nothing_is_known_to_be_unsent(folder: Path) -> None:
    assert list(unsent_events(folder)) == []
    assert count_unsent(folder) == 0


def test_a_run_that_began_offline_gets_its_id_from_the_store(tmp_path: Path) -> None:
    offline = tmp_path / "offline-123"
    offline.mkdir()
    assert id_in_store(tmp_path / "abc") == "abc"
    assert id_in_store(offline) == ""
    Sent(0, "", "b").write(offline)
    assert id_in_store(offline) == ""
    Sent(0, "f00", "b").write(offline)
    assert id_in_store(offline) == "f00"
