"""Runs whose process died without a word: who says so, and that nobody speaks for one that lives."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
from harness import Store, kill

from moola_mlflow.core.errors import UserError
from moola_mlflow.sweep.trial_runs import TrialRun
from moola_mlflow.tracking import Tags, run_folder
from moola_mlflow.tracking.delivery import JOURNAL_FILE, read_history
from moola_mlflow.tracking.recovery import heartbeat, stale_runs
from moola_mlflow.tracking.run import Run
from moola_mlflow.tracking.run_folder import DIED, HEARTBEAT, RUNS


@pytest.fixture
def store(workdir: Path) -> Store:
    return Store(workdir)


def living() -> Run:
    return Run.start("pretrain", "a training")


def dead(stage: str = "pretrain") -> Run:
    """A run whose process was killed: the system has closed its files."""
    run = Run.start(stage, "a training")
    kill(run)
    return run


def stored(store: Store, run_id: str) -> tuple[str, str]:
    run = store.client.get_run(run_id)
    return run.info.status, run.data.tags.get(Tags.NOTE, "")


def test_the_others_say_of_a_first_process_that_is_gone_that_the_run_has_failed(store: Store) -> None:
    run = dead()
    assert stale_runs.end_lost_run(run.id)
    assert stored(store, run.id) == ("FAILED", stale_runs.LOST)  # nothing of it was saved
    assert read_history(RUNS / run.id).status == "FAILED"
    assert stale_runs.close_stale_runs() == []
    assert not stale_runs.end_lost_run(run.id, 0)  # a second one that says it finds it said


def test_what_was_saved_is_named_with_the_command_that_goes_on(store: Store) -> None:
    run = dead()
    (RUNS / run.id / "checkpoints").mkdir()
    (RUNS / run.id / "checkpoints" / "checkpoint_latest.pt").write_bytes(b"")
    assert stale_runs.end_lost_run(run.id)
    assert stored(store, run.id)[1].endswith(
        f"Resume it: `moola pretrain --config {RUNS / run.id / 'config.yaml'} --resume {run.id}`"
    )


def test_nobody_speaks_for_a_first_process_that_lives_or_has_spoken(store: Store) -> None:
    run = living()
    assert not stale_runs.end_lost_run(run.id, 0.3)
    assert stored(store, run.id)[0] == "RUNNING"
    run.finish("KILLED", "asked to stop")
    assert not stale_runs.end_lost_run(run.id)
    assert stored(store, run.id) == ("KILLED", "asked to stop")


def test_a_run_that_goes_on_after_it_was_listed_as_gone_is_left_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = dead()
    again = Run.resume(run.id, "pretrain", "again")
    monkeypatch.setattr(stale_runs.run_folder, "stale_folders", lambda: [run.id])
    for status in ("RUNNING", "FINISHED"):  # which somebody still holds, and which has ended since
        before = (run.folder / JOURNAL_FILE).read_bytes()
        assert stale_runs.close_stale_runs() == []
        assert (run.folder / JOURNAL_FILE).read_bytes() == before
        assert stored(store, run.id)[0] == status
        if status == "RUNNING":
            again.finish("FINISHED")


def test_the_next_start_ends_a_sweep_that_is_gone_with_its_trials_and_leaves_those_of_others(store: Store) -> None:
    sweep = dead("sweep").id
    client, experiment = store.client, store.client.get_run(sweep).info.experiment_id
    theirs, mine, done = (TrialRun.start(client, experiment, sweep, number, {}).id for number in range(3))
    client.set_tag(theirs, Tags.WORKER, json.dumps(["elsewhere", 1]))
    client.set_tag(mine, Tags.WORKER, json.dumps([heartbeat.host_name(), 2**22 + 1]))
    client.set_terminated(done, "FINISHED")

    def said(at: float) -> list[str]:
        client.set_tag(sweep, Tags.COORDINATOR, json.dumps({"at": at, "host": "elsewhere", "pid": 1}))
        Run.start("features", "another command").finish("FINISHED")
        return [stored(store, run_id)[0] for run_id in (sweep, theirs, mine, done)]

    assert said(time.time()) == ["RUNNING", "RUNNING", "KILLED", "FINISHED"]  # another command goes on with it
    assert said(time.time() - 2 * heartbeat.SILENT_S) == ["KILLED", "KILLED", "KILLED", "FINISHED"]
    assert stored(store, mine)[1] == DIED


def test_a_store_on_the_first_processs_machine_is_left_to_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = dead()
    beat = json.loads((RUNS / run.id / HEARTBEAT).read_text())
    (RUNS / run.id / HEARTBEAT).write_text(json.dumps({**beat, "host": f"not-{socket.gethostname()}"}))
    assert not stale_runs.end_lost_run(run.id, 0)
    assert stored(store, run.id)[0] == "RUNNING"
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "http://a-server")
    assert stale_runs.end_lost_run(run.id, 0)
    assert stored(store, run.id)[0] == "FAILED"
    assert read_history(RUNS / run.id).status == ""  # not this machine's to write
    (RUNS / run.id / HEARTBEAT).write_text(json.dumps(beat))
    assert stale_runs.close_stale_runs() == []
    assert read_history(RUNS / run.id).status == "FAILED"
    assert stored(store, run.id)[0] == "FAILED"


HOLD = """
import pathlib, sys
from moola_mlflow.tracking import hold_run_folder
lock = hold_run_folder(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
"""


def test_who_holds_a_run_is_named_only_where_it_is_he(tmp_path: Path) -> None:
    def said() -> str:
        with pytest.raises(UserError) as refusal:
            run_folder.hold_run_folder(tmp_path)
        return str(refusal.value)

    run_folder.hold_run_folder(tmp_path).close()
    run_folder.write_beat(tmp_path, 0.0)  # this process, which lives and holds the run no more
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert said().startswith(f"run {tmp_path.name} is being trained by another process; wait")
        beat = {**run_folder.read_beat(tmp_path), "pid": holder.pid}
        for host, who in ((beat["host"], f"process {holder.pid} on {beat['host']}"), ("elsewhere", "another process")):
            (tmp_path / HEARTBEAT).write_text(json.dumps({**beat, "host": host}))
            assert f"is being trained by {who}; wait" in said()
