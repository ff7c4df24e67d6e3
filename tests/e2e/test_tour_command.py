"""The tour on a real store, through the launcher, and interrupted."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import mlflow
import pytest
from harness import Store
from mlflow.entities import Run

pytestmark = pytest.mark.slow

SMALL = {"bars.sample_bars": "25000", "encoder.hidden": "4", "trainer.epochs": "2"}
STEPS = [
    *("data", "features", "pretrain", "pretrain", "promote", "label"),
    *("finetune", "finetune", "promote", "detect", "report"),
]


def all_runs(store: Store) -> list[Run]:
    client = mlflow.MlflowClient()
    return client.search_runs([one.experiment_id for one in client.search_experiments()], max_results=1000)


def test_the_tour_runs_every_command_and_nests_their_runs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    done = store.run("main", SMALL, launcher=True)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = all_runs(store)
    (tour,) = [run for run in runs if run.data.tags["moola.stage"] == "main"]
    assert tour.info.status == "FINISHED"
    steps = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == tour.info.run_id]
    steps.sort(key=lambda run: run.info.start_time)
    assert [run.data.tags["moola.stage"] for run in steps] == STEPS
    ended = {run.data.tags["moola.stage"]: run.info.status for run in steps}
    assert {stage for stage, status in ended.items() if status != "FINISHED"} <= {"promote"}  # evidence may not suffice
    assert not [run for run in runs if run.info.status == "RUNNING"]
    assert done.stdout.count("look at: ") == len(STEPS)
    folder = Path("out") / "tour"  # in the project's folder, where the launcher runs it
    assert f"its files are in {folder}" in done.stdout
    assert "moola sweep" in done.stdout
    for run in steps:
        assert run.info.run_id in tour.data.tags["mlflow.note.content"]


def test_ctrl_c_ends_the_tour_and_its_step(tmp_path: Path) -> None:
    store = Store(tmp_path)
    process = store.start("main", SMALL | {"trainer.epochs": "2000"})
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("[3/"):
            break
    log = tmp_path / "out" / "tour" / "03-pretrain.log"
    while "Epoch   2" not in (log.read_text() if log.exists() else ""):
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    status = {run.data.tags["moola.stage"]: run.info.status for run in all_runs(store)}
    assert status == {"main": "KILLED", "data": "FINISHED", "features": "FINISHED", "pretrain": "KILLED"}
