"""doctor: what is wrong is found, each thing with its cure, and what needs no choice is done."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import QUICK, SMOKE, Store

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
    (tmp_path / "before").mkdir()
    before = Store(tmp_path / "before")
    assert before.run("pretrain", {**SMALL, "register": "moola-encoder"}).returncode == 0
    (run,) = before.runs()
    before.folder.rename(tmp_path / "after")
    moved = Store(tmp_path / "after")
    told = moved.run("doctor", {})
    assert told.returncode == 1
    assert f"change the paths in the store to {moved.folder}/mlruns" in told.stdout
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


def test_a_store_that_does_not_answer_is_told_with_its_cure(store: Store) -> None:
    environment = {**store.environment, "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    done = subprocess.run(
        store.command("doctor", {}, launcher=False),
        cwd=store.folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1
    assert "does not answer" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
