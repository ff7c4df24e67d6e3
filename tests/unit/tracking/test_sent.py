"""How much of a journal the store has: written in one step, read with care, counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moola_mlflow.tracking.delivery.journal import JOURNAL_FILE
from moola_mlflow.tracking.delivery.sent import SENT_FILE, Sent, count_unsent, id_in_store, unsent_events

EVENTS = [{"at": float(i), "kind": "metrics", "step": i, "metrics": {"a": 1.0}} for i in range(4)]
LINES = [json.dumps(event).encode() + b"\n" for event in EVENTS]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / JOURNAL_FILE).write_bytes(b"".join(LINES))
    return tmp_path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    sent = Sent(12, "abc", "http://host", [3, 7])
    sent.write(tmp_path)
    assert Sent.read(tmp_path) == sent
    assert [path.name for path in tmp_path.iterdir()] == [SENT_FILE]


def test_a_file_of_an_early_version_has_nothing_set_aside(tmp_path: Path) -> None:
    (tmp_path / SENT_FILE).write_text('{"offset": 5, "run_id": "a", "uri": "b"}')
    assert Sent.read(tmp_path) == Sent(5, "a", "b", [])


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
def test_a_damaged_file_is_no_file(tmp_path: Path, content: str) -> None:
    (tmp_path / SENT_FILE).write_text(content)
    assert Sent.read(tmp_path) is None


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
