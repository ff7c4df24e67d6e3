"""Resuming through the command: the same run, the same weights, no gap and no double point."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch
from epochs import epochs_logged, wait_for_epochs
from harness import QUICK, SMOKE, Store
from mlflow.entities import Run

SMALL = {**QUICK, "config": SMOKE, "trainer.epochs": "12", "trainer.patience": "12", "register": "none"}
LONG = {**SMALL, "trainer.epochs": "40", "trainer.patience": "40"}
KILLS = 10
"""At random moments; test_killed_anywhere.py kills before every single change of the disk."""
TIMING = ("epoch_seconds", "windows_per_second", "total_seconds")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def weights(store: Store, run: Run) -> dict[str, torch.Tensor]:
    path = store.artifact(run, "checkpoints/checkpoint_latest.pt")
    return torch.load(path, map_location="cpu", weights_only=True)["model_state_dict"]


def curves(store: Store, run: Run) -> dict[str, list[tuple[int, float]]]:
    """Every metric that was logged by epoch, as it came."""
    names = [name for name in run.data.metrics if name not in TIMING and (name.startswith("train/") or name == "lr")]
    names += [name for name in run.data.metrics if name.startswith("val/")]
    return {name: [(p.step, p.value) for p in store.client.get_metric_history(run.info.run_id, name)] for name in names}


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_as_if_it_had_never_been(store: Store, tmp_path: Path) -> None:
    whole = Store(tmp_path / "whole")
    whole.folder.mkdir()
    assert whole.run("pretrain", LONG).returncode == 0
    (expected,) = whole.runs()
    at = [point.timestamp for point in whole.client.get_metric_history(expected.info.run_id, "val/huber")]
    epoch_s = (at[-1] - at[0]) / 1000 / (len(at) - 1)
    rng = random.Random(7)
    for kill in range(KILLS):
        process = store.start("pretrain", {**LONG, "resume": "auto"})
        if kill and rng.random() < 0.25:  # while it starts, or in what it takes up from the one before
            time.sleep(rng.uniform(0, 5))
        else:
            before, moment = epochs_logged(store), rng.uniform(0, 2 * epoch_s)
            wait_for_epochs(store, before + 1, process)
            until = time.monotonic() + moment
            while time.monotonic() < until and epochs_logged(store) < before + 3:  # on a machine that got faster
                time.sleep(0.005)
        assert process.poll() is None, process.communicate()[0]
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    done = store.run("pretrain", {**LONG, "resume": "auto"})
    assert done.returncode == 0, done.stderr[-2000:]
    (run,) = store.runs()
    assert run.info.status == "FINISHED"
    ours, theirs = weights(store, run), weights(whole, expected)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert curves(store, run) == curves(whole, expected)
    assert run.data.metrics["test/huber"] == expected.data.metrics["test/huber"]
    assert run.data.metrics["probe/r2_gain"] == expected.data.metrics["probe/r2_gain"]


@pytest.mark.slow
def test_ctrl_c_and_resume_under_the_launcher_go_on_with_the_same_run(store: Store) -> None:
    # The launcher works in the project's root, where its runs then are; 37 epochs are no other test's.
    mine = {**SMALL, "trainer.epochs": "37", "trainer.patience": "37"}
    assert store.runs() == []  # this makes the store, which two processes must not do at once
    process = store.start("pretrain", mine, launcher=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not any(run.data.metrics.get("val/huber") for run in store.runs()):
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate()
    (stopped,) = store.runs()
    deadline = time.monotonic() + 30  # the launcher's last word is corrected after it has gone
    while time.monotonic() < deadline and stopped.info.status != "KILLED":
        time.sleep(0.2)
        (stopped,) = store.runs()
    assert stopped.info.status == "KILLED"
    done = store.run("pretrain", {**mine, "resume": "auto"}, launcher=True)
    assert done.returncode == 0, done.stderr[-2000:]
    runs = {run.info.run_id: run for run in store.runs()}
    assert len(runs) == 2
    original = runs.pop(stopped.info.run_id)
    (launchers,) = runs.values()
    assert (original.info.status, launchers.info.status) == ("FINISHED", "FINISHED")
    assert launchers.data.tags["moola.resumed"] == original.info.run_id
    steps = [step for step, _ in curves(store, original)["val/huber"]]
    assert steps == list(range(37))


def test_a_run_that_is_not_there_is_refused_and_leaves_none(store: Store) -> None:
    refused = store.run("pretrain", {**SMALL, "resume": "1" * 32})
    assert refused.returncode == 2
    assert "Continue a run where it was trained" in refused.stderr
    assert store.runs() == []


@pytest.mark.slow
def test_a_changed_key_is_refused_then_allowed_and_recorded_and_a_fork_names_its_parent(store: Store) -> None:
    short = {**SMALL, "trainer.epochs": "2"}
    assert store.run("pretrain", short).returncode == 0
    (first,) = store.runs()
    longer = {**short, "trainer.epochs": "3", "resume": first.info.run_id}
    refused = store.run("pretrain", longer)
    assert refused.returncode == 2
    assert "trainer.epochs was 2, is 3" in refused.stderr
    assert store.client.get_run(first.info.run_id).info.status == "FINISHED"  # untouched
    allowed = store.run("pretrain", {**longer, "tracking.allow_drift": "trainer.epochs"})
    assert allowed.returncode == 0, allowed.stderr[-2000:]
    again = store.client.get_run(first.info.run_id)
    assert again.data.tags["moola.drift"] == "trainer.epochs: 2 -> 3"
    assert [step for step, _ in curves(store, again)["val/huber"]] == [0, 1, 2]
    forked = store.run("pretrain", {**short, "trainer.epochs": "4", "resume": f"new:{first.info.run_id}"})
    assert forked.returncode == 0, forked.stderr[-2000:]
    fork = store.runs()[0]
    assert fork.info.run_id != first.info.run_id
    assert fork.data.tags["moola.forked_from"] == first.info.run_id
    assert [step for step, _ in curves(store, fork)["val/huber"]] == [0, 1, 2, 3]


@pytest.mark.slow
def test_of_two_processes_that_resume_one_run_at_once_one_is_refused(store: Store) -> None:
    endless = {**SMALL, "trainer.epochs": "5000", "trainer.patience": "5000"}
    process = store.start("pretrain", endless)
    wait_for_epochs(store, 1, process)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate()
    (stopped,) = store.runs()
    both = [store.start("pretrain", {**endless, "resume": stopped.info.run_id}) for _ in range(2)]
    wait_for_epochs(store, epochs_logged(store) + 3, *both)
    deadline = time.monotonic() + 60
    while all(process.poll() is None for process in both) and time.monotonic() < deadline:
        time.sleep(0.1)
    (refused,) = [process for process in both if process.poll() is not None]
    (goes_on,) = [process for process in both if process is not refused]
    said = refused.communicate()[0]
    assert refused.returncode == 2, said
    assert f"run {stopped.info.run_id} is being trained by" in said
    late = store.run("pretrain", {**endless, "resume": stopped.info.run_id})
    assert late.returncode == 2
    assert f"being trained by process {goes_on.pid}" in late.stderr
    os.killpg(goes_on.pid, signal.SIGINT)
    goes_on.communicate()
    assert goes_on.returncode == 130
    run = store.client.get_run(stopped.info.run_id)
    assert run.info.status == "KILLED"
    steps = [step for step, _ in curves(store, run)["val/huber"]]
    assert steps == list(range(len(steps)))


def stop_outside_of_a_write(process: subprocess.Popen[str], database: Path) -> None:
    """Stop a command at a moment when it does not hold SQLite's lock: other commands would wait for it in vain."""
    for _ in range(100):
        os.killpg(process.pid, signal.SIGSTOP)
        with closing(sqlite3.connect(database, timeout=1)) as store:
            try:
                store.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                os.killpg(process.pid, signal.SIGCONT)
                time.sleep(0.1)
                continue
            store.rollback()
            return
    raise AssertionError("it always writes")


@pytest.mark.slow
def test_a_training_that_was_stopped_for_long_is_taken_over_by_nobody_and_goes_on(store: Store) -> None:
    mine = {**SMALL, "trainer.epochs": "20", "trainer.patience": "20"}
    process = store.start("pretrain", mine)
    wait_for_epochs(store, 2, process)
    stop_outside_of_a_write(process, store.folder / "mlflow.db")
    try:
        (folder,) = store.folder.glob(".moola/runs/*")
        beat = json.loads((folder / "heartbeat.json").read_text())
        (folder / "heartbeat.json").write_text(json.dumps({**beat, "beat_at": beat["beat_at"] - 3600}))  # an hour later
        journal = (folder / "journal.jsonl").read_bytes()
        given = store.run("pretrain", {**mine, "resume": folder.name})
        assert given.returncode == 2
        assert f"run {folder.name} is being trained by process {process.pid}" in given.stderr
        anew = store.run("pretrain", {**mine, "resume": "auto", "trainer.epochs": "1"})
        assert anew.returncode == 0, anew.stderr  # it closes runs whose process is gone, and begins one of its own
        looked = store.run("doctor", {"fix": "true"})
        assert f"run {folder.name}" in looked.stdout
        assert "its process is gone" not in looked.stdout
        assert store.client.get_run(folder.name).info.status == "RUNNING"
        assert (folder / "journal.jsonl").read_bytes() == journal
    finally:
        os.killpg(process.pid, signal.SIGCONT)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    run = store.client.get_run(folder.name)
    assert run.info.status == "FINISHED"
    assert [step for step, _ in curves(store, run)["val/huber"]] == list(range(20))
