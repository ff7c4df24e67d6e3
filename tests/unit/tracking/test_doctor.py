"""What doctor finds in a store and in the run folders: each thing with its cure, and the cures that need no choice."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import sqlite3
import time
from pathlib import Path

import mlflow
import pytest

from moola_mlflow.sweep.trial_runs import TrialRun
from moola_mlflow.tracking import run_folder
from moola_mlflow.tracking.delivery import JOURNAL_FILE, Sent
from moola_mlflow.tracking.recovery import doctor
from moola_mlflow.tracking.recovery.doctor import Check, examine_store
from moola_mlflow.tracking.recovery.heartbeat import host_name
from moola_mlflow.tracking.run import Run


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
    Sent((run.folder / JOURNAL_FILE).stat().st_size, run.id, f"sqlite:///{Path.cwd()}/mlflow.db").write(run.folder)
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


def about(folder: Path) -> list[Check]:
    return [finding for finding in wrong() if str(folder) in finding.what]


def test_a_folder_that_cannot_be_read_stops_no_command_and_is_named(workdir: Path) -> None:
    broken = run_folder.RUNS / ("b" * 32)
    (broken / JOURNAL_FILE).mkdir(parents=True)
    with Run.start("pretrain", "goes on"):
        pass
    (finding,) = about(broken)
    assert str(broken) in finding.what
    assert "is no regular file" in finding.what


def test_damaged_lines_of_a_journal_are_named(workdir: Path) -> None:
    with Run.start("pretrain", "damaged") as run:
        run.metrics({"val/huber": 0.25}, 0)
    path = run.folder / JOURNAL_FILE
    number = next(i for i, line in enumerate(path.read_text().splitlines(), 1) if "val/huber" in line)
    path.write_text(path.read_text().replace("0.25", "0.75"))
    (finding,) = about(run.folder)
    assert finding.what == f"line {number} of the journal in {run.folder} cannot be read"


def test_events_that_the_store_did_not_take_are_found(workdir: Path) -> None:
    with Run.start("pretrain", "refused") as run:
        run._session.write({"kind": "metrics", "step": 0, "metrics": {"no?name": 1.0}}, send=False)
    (finding,) = about(run.folder)
    assert (finding.what, finding.cure) == (
        f"the store did not take 1 events of {run.folder} (metrics)",
        f"moola sync {run.folder} tries them again, and says why",
    )


def test_no_run_of_another_folder_is_closed(workdir: Path) -> None:
    client = mlflow.MlflowClient()
    theirs = client.create_run("0", tags={"moola.folder": "0" * 32, "moola.stage": "pretrain"}).info.run_id
    folder = run_folder.RUNS / theirs
    folder.mkdir(parents=True)
    (folder / JOURNAL_FILE).write_text('{"kind": "begin"}\n')
    Sent(0, theirs, "here").write(folder)
    for finding in examine_store():
        if finding.fix:
            finding.fix()
    with Run.start("pretrain", "the next start"):
        pass
    assert client.get_run(theirs).info.status == "RUNNING"


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


@pytest.mark.parametrize("place", ["checkout", "elsewhere", "wheel"])
def test_the_cure_of_a_package_out_of_its_range_fits_how_this_one_was_installed(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    needed = ["numpy>=99", "no-such-package", "mlflow>=3", "polars>=1; extra == 'other'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: needed)
    monkeypatch.setattr(doctor, "__file__", str(workdir / "a checkout" / "moola_mlflow/tracking/recovery/doctor.py"))
    (workdir / "a checkout").mkdir()
    if place != "wheel":
        (workdir / "a checkout" / "Makefile").write_text("setup:\n")
    if place == "checkout":
        monkeypatch.chdir(workdir / "a checkout")
    (found,) = [check for check in examine_store() if "ranges" in check.what]
    assert "no-such-package missing instead of any version" in found.what
    pip = "pip install 'numpy>=99' no-such-package"
    make = {"checkout": "make setup, or ", "elsewhere": f"make -C '{workdir}/a checkout' setup, or ", "wheel": ""}
    assert found.cure == make[place] + pip
