"""Several commands on one sweep, and a store that goes away: nothing is lost, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from empty_store import copy_served_store
from harness import Served, Store, free_port, wait_for_server
from warm_process import start_python

from moola_mlflow.tracking.recovery.heartbeat import host_name
from tests.e2e.sweep.test_sweep import (
    SLOW_TRIALS,
    TINY,
    assert_done,
    children_of,
    parent_of,
    started,
    states,
    wait_until,
)

pytestmark = pytest.mark.slow


def own_trials(store: Store, parent_id: str, process: subprocess.Popen[str]) -> list[str]:
    """Runs of trials that a command, or a process beneath it, has in hand."""
    import optuna

    beneath = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    path = store.folder / "mlruns" / "optuna.db"
    study = optuna.load_study(study_name="shared", storage=f"sqlite:///{path}")
    running = [trial for trial in study.trials if trial.state.name == "RUNNING" and trial.intermediate_values]
    workers = {trial.user_attrs["run_id"]: trial.user_attrs.get("worker") for trial in running}
    return [run_id for run_id, worker in workers.items() if worker in [[host_name(), pid] for pid in beneath]]


@pytest.mark.parametrize("launcher", [False, True], ids=["moola", "mlflow run"])
def test_ctrl_c_at_a_second_command_leaves_the_sweep_to_the_first(tmp_path: Path, launcher: bool) -> None:
    store = Store(tmp_path)
    given = {**TINY, **SLOW_TRIALS, "study": "shared", "n_trials": "5"}
    first = started(store, given)
    parent = parent_of(store, "shared")
    second = store.start("sweep", given, launcher=launcher)
    mine: list[str] = []

    def works() -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            mine[:] = own_trials(store, parent.info.run_id, second)
        return bool(mine)

    wait_until(works)
    os.killpg(second.pid, signal.SIGINT)
    assert second.wait(120) == (1 if launcher else 130)
    assert store.client.get_run(parent.info.run_id).info.status == "RUNNING"  # the first goes on
    left = store.client.get_run(mine[0])
    assert (left.info.status, left.data.tags["moola.trial_state"]) == ("KILLED", "FAIL")
    said = first.communicate(timeout=500)[0]
    assert first.returncode == 0, said
    _, runs = assert_done(store, "shared", 5)
    retried = {run.data.tags["moola.retry_of"] for run in runs if "moola.retry_of" in run.data.tags}
    assert left.data.tags["moola.trial"] in retried
    helpers = [run for run in store.runs() if run.data.tags.get("moola.stage") == "sweep-worker"]
    assert [run.info.status for run in helpers] == (["KILLED"] if launcher else [])


def test_two_sweeps_at_once_in_one_folder_keep_to_their_own_trials(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = started(store, {**TINY, "study": "one", "n_trials": "6", "workers": "2"})
    second = store.start("sweep", {**TINY, "study": "two", "n_trials": "6", "workers": "2", "sweep.seed": "7"})
    for process in (first, second):
        said = process.communicate(timeout=500)[0]
        assert process.returncode == 0, said
        assert "locked" not in said
    for study in ("one", "two"):
        _, runs = assert_done(store, study, 6)
        assert sorted(int(run.data.tags["moola.trial"]) for run in runs) == list(range(6))
    assert len(store.runs()) == 14


def serve(folder: Path, port: int) -> subprocess.Popen[str]:
    copy_served_store(folder, "served.db")
    words = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
             "--backend-store-uri", f"sqlite:///{folder}/served.db",
             "--artifacts-destination", str(folder / "artifacts")]  # fmt: skip
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    with open(folder / "server.log", "a", encoding="utf-8") as log:
        server = start_python(words, folder, environment, log)
    wait_for_server(f"http://127.0.0.1:{port}", folder / "server.log")
    return server


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_sweep_outlasts_an_outage_of_the_server(tmp_path: Path, workers: str) -> None:
    port = free_port()
    store = Served(tmp_path, f"http://127.0.0.1:{port}")
    server = serve(tmp_path, port)
    try:
        process = store.start("sweep", {**TINY, **SLOW_TRIALS, "study": "outage", "n_trials": "4", "workers": workers})
        wait_until(lambda: any("sweep/epoch_value" in run.data.metrics for run in store.runs()))
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(30)
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "does not answer" in line:
                break
        assert "does not answer" in lines[-1], "".join(lines)
        server = serve(tmp_path, port)
        said = process.communicate(timeout=500)[0]
        assert process.returncode == 0, said
        _, runs = assert_done(store, "outage", 4)
        assert states(runs) == {"COMPLETE": 4}
        assert len(children_of(store, parent_of(store, "outage"))) == 4
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)
