"""The tour on a real store, by both launchers, and interrupted."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import mlflow
import pytest
from harness import QUICK, ROOT, Store
from mlflow.entities import Run
from warm_process import run_python

pytestmark = pytest.mark.slow

SMALL = {**QUICK, "trainer.epochs": "1"}
SHORT = str(ROOT / "tests" / "helpers" / "short_tour.py")
STEPS = [
    *("data", "features", "pretrain", "pretrain", "promote", "label"),
    *("finetune", "finetune", "promote", "detect", "evaluate", "report"),
]


def all_runs(store: Store) -> list[Run]:
    client = mlflow.MlflowClient()
    return client.search_runs([one.experiment_id for one in client.search_experiments()], max_results=1000)


def toured(store: Store, short: bool = False) -> tuple[str, Run, list[Run]]:
    """Run the tour in a store, by the launcher or as a script that makes its fine-tunings short.

    Returns what it said, its run and those of its steps.
    """
    if short:
        words = [SHORT, *store.command("main", SMALL, launcher=False)[3:]]
        done = run_python(words, store.folder, store.environment)
    else:
        done = store.run("main", SMALL, launcher=True)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = all_runs(store)
    tour = max((run for run in runs if run.data.tags["moola.stage"] == "main"), key=lambda run: run.info.start_time)
    steps = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == tour.info.run_id]
    steps.sort(key=lambda run: run.info.start_time)
    assert tour.info.status == "FINISHED"
    assert [run.data.tags["moola.stage"] for run in steps] == STEPS
    ended = {run.data.tags["moola.stage"]: run.info.status for run in steps}
    assert {stage for stage, status in ended.items() if status != "FINISHED"} <= {"promote"}  # evidence may not suffice
    assert not [run for run in runs if run.info.status == "RUNNING"]
    return done.stdout, tour, steps


def versions(store: Store) -> dict[str, list[str]]:
    """The runs of the versions of both models."""
    names = ("demo-encoder", "demo-detector")
    return {name: [v.run_id for v in store.client.search_model_versions(f"name = '{name}'")] for name in names}


def test_the_tour_runs_every_command_and_a_second_one_makes_new_versions_and_breaks_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    said, tour, steps = toured(store)
    check_what_is_said(said, tour, steps)
    first = versions(store)
    assert [len(made) for made in first.values()] == [2, 2]
    said, again, more = toured(store, short=True)
    check_what_is_said(said, again, more)
    assert again.info.run_id != tour.info.run_id
    for name, made in versions(store).items():
        new = set(made) - set(first[name])
        assert len(made) == 4
        assert len(new) == 2
        assert new <= {run.info.run_id for run in more}


def check_what_is_said(said: str, tour: Run, steps: list[Run]) -> None:
    assert tour.data.metrics["tour/seconds"] > 0
    lines = [line for line in said.splitlines() if "look at: " in line]
    assert len(lines) == len(STEPS)
    for line, run in zip(lines, steps, strict=True):
        assert line.endswith(f" of run {run.info.run_id}")
    folder = Path("out") / "tour"  # where it runs: the launcher in the project's folder, `moola` in the store's
    assert f"its files are in {folder}" in said
    assert "moola sweep" in said
    promotion = next(run for run in steps if run.data.tags["moola.stage"] == "promote")
    made = "@champion" if promotion.info.status == "FINISHED" else f"/{promotion.data.tags['moola.to']}"
    assert f"--encoder models:/demo-encoder{made} --repeats" in said
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
