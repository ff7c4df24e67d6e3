"""Runs whose process died without a word: who says so, and that nobody speaks for one that lives."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import mlflow
import pytest

from moola_mlflow import abandoned
from moola_mlflow.runfolder import HEARTBEAT, JOURNAL, RUNS, read_journal
from moola_mlflow.store import let_go
from moola_mlflow.tracking import NOTE, Run
from tests.e2e.harness import Store


@pytest.fixture
def store(workdir: Path) -> Store:
    return Store(workdir)


def living() -> Run:
    return Run("pretrain", "a training")


def dead() -> Run:
    """A run whose process was killed: the system has closed its files."""
    run = living()
    assert run._watch is not None
    run._watch.stop()
    let_go(run.id)
    for held in (run._journal, run._lock):
        assert held is not None
        held.close()
    return run


def stored(store: Store, run_id: str) -> tuple[str, str]:
    run = store.client.get_run(run_id)
    return run.info.status, run.data.tags.get(NOTE, "")


def test_the_others_say_of_a_first_process_that_is_gone_that_the_run_has_failed(store: Store) -> None:
    run = dead()
    assert abandoned.end_lost(run.id)
    assert stored(store, run.id) == ("FAILED", abandoned.LOST)  # nothing of it was saved
    assert read_journal(RUNS / run.id).status == "FAILED"
    assert abandoned.close_abandoned() == []
    assert not abandoned.end_lost(run.id, 0)  # a second one that says it finds it said


def test_what_was_saved_is_named_with_the_command_that_goes_on(store: Store) -> None:
    run = dead()
    (RUNS / run.id / "checkpoints").mkdir()
    (RUNS / run.id / "checkpoints" / "checkpoint_latest.pt").write_bytes(b"")
    assert abandoned.end_lost(run.id)
    assert stored(store, run.id)[1].endswith(f"Go on: `moola pretrain --resume {run.id}`")


def test_nobody_speaks_for_a_first_process_that_lives_or_has_spoken(store: Store) -> None:
    run = living()
    assert not abandoned.end_lost(run.id, 0.3)
    assert stored(store, run.id)[0] == "RUNNING"
    run.finish("KILLED", "asked to stop")
    assert not abandoned.end_lost(run.id)
    assert stored(store, run.id) == ("KILLED", "asked to stop")


def test_a_run_that_goes_on_after_it_was_listed_as_gone_is_left_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = dead()
    again = Run("pretrain", "again", resume=run.id)
    monkeypatch.setattr(abandoned.runfolder, "abandoned", lambda: [run.id])
    for status in ("RUNNING", "FINISHED"):  # which somebody still holds, and which has ended since
        before = (run.folder / JOURNAL).read_bytes()
        assert abandoned.close_abandoned() == []
        assert (run.folder / JOURNAL).read_bytes() == before
        assert stored(store, run.id)[0] == status
        if status == "RUNNING":
            again.finish("FINISHED")


def test_a_store_on_the_first_processs_machine_is_left_to_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = dead()
    beat = json.loads((RUNS / run.id / HEARTBEAT).read_text())
    (RUNS / run.id / HEARTBEAT).write_text(json.dumps({**beat, "host": f"not-{socket.gethostname()}"}))
    assert not abandoned.end_lost(run.id, 0)
    assert stored(store, run.id)[0] == "RUNNING"
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "http://a-server")
    assert abandoned.end_lost(run.id, 0)
    assert stored(store, run.id)[0] == "FAILED"
    assert read_journal(RUNS / run.id).status == ""  # not this machine's to write
    (RUNS / run.id / HEARTBEAT).write_text(json.dumps(beat))
    assert abandoned.close_abandoned() == []
    assert read_journal(RUNS / run.id).status == "FAILED"
    assert stored(store, run.id)[0] == "FAILED"
