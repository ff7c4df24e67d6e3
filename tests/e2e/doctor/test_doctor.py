"""doctor: what is wrong is found, each thing with its cure, and what needs no choice is done."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
from harness import QUICK, SMOKE, Store

from moola_mlflow.sweep.trial_runs import TrialRun
from moola_mlflow.tracking import run_folder
from moola_mlflow.tracking.delivery import JOURNAL_FILE, Sent, append_status, read_history
from moola_mlflow.tracking.recovery.doctor import Check, examine_store
from moola_mlflow.tracking.recovery.heartbeat import host_name
from moola_mlflow.tracking.run import Run

SMALL = {**QUICK, "config": SMOKE, "register": "none"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def kill_in_the_middle(store: Store) -> str:
    """Start a training and kill -9 it; return its run's id."""
    process = store.start("pretrain", {**SMALL, "trainer.epochs": "500"})
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(store.folder.glob(".moola/runs/*/checkpoints/*.pt")):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (run,) = store.runs()
    assert run.info.status == "RUNNING"
    return str(run.info.run_id)


@pytest.mark.slow
def test_a_run_whose_process_is_gone_is_found_and_closed_and_can_still_be_resumed(store: Store) -> None:
    run_id = kill_in_the_middle(store)
    told = store.run("doctor", {})
    assert told.returncode == 1
    assert f"run {run_id}" in told.stdout
    assert "its process is gone" in told.stdout
    assert store.client.get_run(run_id).info.status == "RUNNING"  # a look changes nothing
    fixed = store.run("doctor", {"fix": "true"})
    assert "fixed   run" in fixed.stdout
    assert store.client.get_run(run_id).info.status == "KILLED"
    assert "its process is gone" not in store.run("doctor", {}).stdout
    overrides = {"trainer.epochs": "500", "resume": run_id}
    process = store.start("pretrain", {**SMALL, **overrides})
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and store.client.get_run(run_id).info.status != "RUNNING":
        time.sleep(0.2)
    assert f"run {run_id}" in store.run("doctor", {}).stdout  # alive, and said to be
    assert "its process is gone" not in store.run("doctor", {}).stdout
    os.killpg(process.pid, signal.SIGINT)
    process.communicate()
    assert store.client.get_run(run_id).info.status == "KILLED"


@pytest.mark.slow
def test_the_next_start_closes_a_run_whose_process_is_gone(store: Store) -> None:
    run_id = kill_in_the_middle(store)
    assert store.run("features", {"bars.sample_bars": "12000"}).returncode == 0
    closed = store.client.get_run(run_id)
    assert closed.info.status == "KILLED"
    assert f"--resume {run_id}" in closed.data.tags["mlflow.note.content"]
    assert [run for run in store.runs() if run.info.status == "RUNNING"] == []


@pytest.mark.slow
def test_moved_artifacts_and_aliases_moved_by_hand_are_found(store: Store) -> None:
    assert store.run("pretrain", {**SMALL, "register": "moola-encoder"}).returncode == 0
    assert "are missing, for instance" not in store.run("doctor", {}).stdout
    store.client.set_registered_model_alias("moola-encoder", "champion", "1")
    shutil.move(store.folder / "mlruns", store.folder / "elsewhere")
    told = store.run("doctor", {}).stdout
    assert "alias 'champion' of moola-encoder was moved by hand to version 1" in told
    assert "the artifacts of 1 finished runs are missing" in told
    assert f"ln -s WHERE_IT_IS_NOW {store.folder}/mlruns" in told


@pytest.mark.slow
def test_a_moved_checkout_finds_its_artifacts_again_and_its_store_is_kept(tmp_path: Path) -> None:
    before = Store(tmp_path / "before")
    before.folder.mkdir()
    assert before.run("pretrain", {**SMALL, "register": "moola-encoder"}).returncode == 0
    (run,) = before.runs()
    before.folder.rename(tmp_path / "after")
    moved = Store(tmp_path / "after")
    told = moved.run("doctor", {})
    assert told.returncode == 1
    assert f"have the store name {moved.folder}/mlruns instead" in told.stdout
    assert str(before.folder) in moved.client.get_run(run.info.run_id).info.artifact_uri  # a look changes nothing
    fixed = moved.run("doctor", {"fix": "true"})
    assert "fixed   the artifacts of 1 finished runs" in fixed.stdout
    assert moved.artifact(moved.runs()[0], "config.yaml").is_file()
    code = "import moola_mlflow as m; print(m.load_encoder('models:/moola-encoder@candidate').input_size)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=moved.folder, env=moved.environment,
                            capture_output=True, text=True, timeout=300)  # fmt: skip
    assert loaded.stdout.strip() == "11", loaded.stderr
    assert moved.run("pretrain", {**SMALL, "register": "moola-encoder"}).returncode == 0
    assert not before.folder.exists()  # new runs go where the checkout is
    assert "are missing, for instance" not in moved.run("doctor", {}).stdout
    kept = sqlite3.connect(moved.folder / "mlflow.db.before-relocation")
    assert kept.execute("SELECT artifact_uri FROM runs").fetchone()[0].startswith(str(before.folder))
    kept.close()


@pytest.fixture
def workdir(workdir: Path) -> Path:
    """The shared fixture, and MLflow told so: what an earlier test told it counts more than the environment."""
    mlflow.set_tracking_uri(f"sqlite:///{workdir}/mlflow.db")
    return workdir


def wrong() -> list[Check]:
    """What is found and has a cure."""
    return [finding for finding in examine_store() if finding.cure]


def begin() -> str:
    """A run that went on without another word; return its id."""
    with Run.start("pretrain", "quiet") as run:
        run.metrics({"val/huber": 1.0}, 0)
    lines = (run.folder / JOURNAL_FILE).read_text().splitlines(keepends=True)
    (run.folder / JOURNAL_FILE).write_text("".join(line for line in lines if '"kind": "status"' not in line))
    mlflow.MlflowClient().update_run(run.id, status="RUNNING")
    return run.id


def test_a_run_of_a_container_that_was_started_again_under_another_name_is_closed(workdir: Path) -> None:
    run_id = begin()
    folder = run_folder.RUNS / run_id

    def beat(age_s: float) -> None:
        run_folder.write_beat(folder, 0.0)
        beat = {**run_folder.read_beat(folder), "host": "elsewhere", "beat_at": time.time() - age_s}
        (folder / run_folder.HEARTBEAT).write_text(json.dumps(beat))

    beat(60)
    assert run_folder.stale_folders() == []
    assert f"run {run_id} (quiet) is running" in [finding.what for finding in examine_store()]
    assert wrong() == []
    beat(2 * run_folder.FRESH_S)
    assert run_folder.stale_folders() == [run_id]
    (finding,) = wrong()
    assert finding.what == f"run {run_id} (quiet) says RUNNING, but its process is gone"
    assert finding.fix is not None
    finding.fix()
    assert mlflow.MlflowClient().get_run(run_id).info.status == "KILLED"
    assert wrong() == []


def test_a_run_that_ended_and_of_which_the_store_lacks_a_part_is_not_said_to_be_running(workdir: Path) -> None:
    with Run.start("pretrain", "ended") as run:
        run.text("kept", "kept.txt")
        run.metrics({"val/huber": 1.0}, 0)
    sent = Sent.read(run.folder)
    assert sent is not None
    lines = (run.folder / JOURNAL_FILE).read_bytes().splitlines(keepends=True)
    mlflow.MlflowClient().update_run(run.id, status="RUNNING")
    dataclasses.replace(sent, offset=sent.offset - len(lines[-1]) - len(lines[-2])).write(run.folder)
    (finding,) = wrong()
    assert finding.what == f"the store lacks 2 events of {run.folder}"
    assert finding.cure == f"moola sync {run.folder}"
    sent.write(run.folder)
    (finding,) = wrong()
    assert (finding.what, finding.cure) == (
        f"run {run.id} (ended) says RUNNING, but it ended FINISHED",
        f"moola sync {run.folder}",
    )
    mlflow.MlflowClient().set_terminated(run.id)
    assert wrong() == []


def test_a_run_that_began_without_its_store_is_found_by_its_folder(workdir: Path) -> None:
    run_id = begin()
    folder = (run_folder.RUNS / run_id).rename(run_folder.RUNS / f"offline-{run_id}")
    with run_folder.hold_run_folder(folder):
        assert f"run {run_id} (quiet) is running" in [finding.what for finding in examine_store()]
    (finding,) = wrong()
    assert "its process is gone" in finding.what
    assert finding.fix is not None
    finding.fix()
    assert mlflow.MlflowClient().get_run(run_id).info.status == "KILLED"
    assert wrong() == []


def test_trials_whose_process_is_gone_or_whose_sweep_has_ended_are_found_and_closed(workdir: Path) -> None:
    client = mlflow.MlflowClient()
    parents = [client.create_run("0", tags={"moola.stage": "sweep"}).info.run_id for _ in range(2)]
    beat = {"at": time.time(), "host": "elsewhere", "pid": 1}
    client.set_tag(parents[0], "moola.coordinator", json.dumps(beat))
    client.set_terminated(parents[1], "KILLED")
    works, dead, left = (TrialRun.start(client, "0", parents[i], i, {}).id for i in (0, 0, 1))
    client.set_tag(dead, "moola.worker", json.dumps([host_name(), 2**22 + 1]))
    found = wrong()
    assert {finding.what.split()[1] for finding in found} == {dead, left}
    for finding in found:
        assert finding.fix is not None
        finding.fix()
    assert [client.get_run(run_id).info.status for run_id in (works, dead, left)] == ["RUNNING", "KILLED", "KILLED"]
    assert wrong() == []


def test_an_alias_that_points_nowhere_is_found_and_removed(workdir: Path) -> None:
    client = mlflow.MlflowClient()
    client.create_registered_model("moola-encoder")
    version = client.create_model_version("moola-encoder", str(workdir / "nowhere")).version
    client.set_registered_model_alias("moola-encoder", "champion", version)
    with sqlite3.connect(workdir / "mlflow.db") as database:
        database.execute("UPDATE registered_model_aliases SET version = 7")
    (finding,) = wrong()
    assert finding.what == "alias 'champion' of moola-encoder points to version 7, which does not exist"
    assert "moola promote --model moola-encoder --version VERSION --alias champion" in finding.cure
    assert finding.fix is not None
    finding.fix()
    assert wrong() == []
    assert not client.get_registered_model("moola-encoder").aliases


def test_a_store_that_can_be_read_and_not_written_is_found(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow.MlflowClient().search_experiments()
    assert wrong() == []
    with sqlite3.connect(workdir / "mlflow.db", isolation_level=None) as writer:
        writer.execute("BEGIN IMMEDIATE")
        (finding,) = wrong()
        assert "nothing can be written: database is locked" in finding.what
        writer.execute("ROLLBACK")
    writer.close()
    with open(workdir / "mlflow.db", "r+b") as file:
        file.seek(18)  # the version that is needed for writing: one that SQLite does not know makes it read-only
        file.write(b"\x03")
    (finding,) = wrong()
    assert "attempt to write a readonly database" in finding.what
    assert "make it writable" in finding.cure
    (workdir / "mlruns").mkdir(exist_ok=True)
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place).name != "mlruns")  # root may do everything
    (finding,) = wrong()
    assert f"nothing can be written: {workdir}/mlruns is read-only" in finding.what


def test_a_store_that_does_not_answer_is_told_with_its_cure(store: Store) -> None:
    environment = {**store.environment, "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    done = subprocess.run(
        store.command("doctor", {}, launcher=False),
        cwd=store.folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1
    assert "does not answer" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_folder_is_abandoned_when_nobody_holds_it_and_its_journal_has_no_end(tmp_path: Path) -> None:
    def journal(name: str, *lines: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / JOURNAL_FILE).write_text("".join(f"{line}\n" for line in lines))
        return folder

    begin, end = '{"kind": "begin"}', '{"kind": "status", "status": "FINISHED"}'
    journal("ended", begin, end)
    journal("again", begin, end, begin)
    journal("cut", begin, '{"kind": "metri')
    journal("long", begin, *['{"kind": "metrics", "metrics": {"a": 1}}'] * 2000, end)
    held = run_folder.hold_run_folder(journal("held", begin))
    assert run_folder.stale_folders(tmp_path) == ["again", "cut"]
    held.close()
    assert run_folder.stale_folders(tmp_path) == ["again", "cut", "held"]
    append_status(tmp_path / "cut", "KILLED", run_folder.DIED)
    assert run_folder.stale_folders(tmp_path) == ["again", "held"]
    assert read_history(tmp_path / "cut").status == "KILLED"
