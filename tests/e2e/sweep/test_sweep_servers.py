"""Sweeps over machines' borders: a real PostgreSQL, an MLflow server over http, and several commands on one study."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from documented import files
from harness import QUICK, ROOT, SMOKE, Served, free_port, wait_for_server
from postgres import Postgres
from warm_process import start_python

from moola_mlflow.sweep import storage
from tests.e2e.sweep.test_sweep import (
    FAST_DEATH,
    SLOW_TRIALS,
    assert_done,
    children_of,
    in_hand,
    parent_of,
    started,
    wait_until,
)

pytestmark = pytest.mark.slow
TINY = {**QUICK, "base": SMOKE, "config": str(ROOT / "configs" / "sweep.yaml"), "trainer.epochs": "1"}


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> str:
    """The address of an empty database."""
    return postgres.create("moola")


@pytest.fixture(scope="module")
def served(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An MLflow server over http that keeps its runs in that database."""
    folder, port = tmp_path_factory.mktemp("served"), free_port()
    words = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "2",
             "--backend-store-uri", database, "--artifacts-destination", str(folder / "artifacts")]  # fmt: skip
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    with open(folder / "server.log", "w", encoding="utf-8") as log:
        server = start_python(words, folder, environment, log)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for_server(address, folder / "server.log")
        yield Served(folder, address)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def test_four_workers_share_a_study_through_postgresql_and_an_http_server(served: Served, database: str) -> None:
    given = {**TINY, "storage": database, "study": "four", "n_trials": "12", "workers": "4"}
    done = served.run("sweep", given)
    assert done.returncode == 0, done.stderr[-3000:]
    _, runs = assert_done(served, "four", 12)
    assert sorted(int(run.data.tags["moola.trial"]) for run in runs) == list(range(12))
    with sqlalchemy.create_engine(database).connect() as connection:
        trials = connection.execute(sqlalchemy.text("SELECT count(*) FROM optuna.trials")).scalar()
        tables = connection.execute(
            sqlalchemy.text("SELECT count(*) FROM pg_tables WHERE tablename = 'alembic_version'")
        ).scalar()
    assert trials >= 12
    assert tables == 2  # MLflow's and Optuna's, each in its schema


def test_killed_workers_and_a_lost_schema_lose_nothing_on_postgresql(served: Served, postgres: Postgres) -> None:
    own = postgres.create("killed")
    given = {**TINY, **FAST_DEATH, **SLOW_TRIALS, "storage": own, "study": "killed", "n_trials": "3", "workers": "2"}

    def hands() -> dict[int, str]:
        return in_hand(served, "killed", f"{own}?options=-csearch_path%3Doptuna")

    process = started(served, given)
    wait_until(lambda: len(hands()) == 2)
    victim, first = next(iter(hands().items()))
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: served.client.get_run(first).info.status == "FAILED")
    wait_until(lambda: len(hands()) == 2)
    doomed = set(hands().values())
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    doomed = {run for run in doomed if served.client.get_run(run).info.status == "RUNNING"}  # one may just have ended
    assert doomed
    with sqlalchemy.create_engine(own, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(sqlalchemy.text("DROP SCHEMA optuna CASCADE"))
    done = served.run("sweep", given)
    assert done.returncode == 0, done.stderr[-3000:]
    _, runs = assert_done(served, "killed", 3)
    by_id = {run.info.run_id: run for run in runs}
    again = {run.data.tags["moola.retry_of"]: run for run in runs if "moola.retry_of" in run.data.tags}
    for run_id in {first, *doomed}:
        assert by_id[run_id].info.status == "FAILED"
        assert again[by_id[run_id].data.tags["moola.trial"]].data.params == by_id[run_id].data.params


def test_who_waits_for_a_lock_says_for_whom_and_a_vanished_machine_loses_it(
    database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(storage, "NOTICE_S", 1)
    url, _ = storage.locate_storage(database, "")
    one, other = (storage.Coordination(url, 1, 2) for _ in range(2))
    with one.rdb.engine.connect() as connection:  # what the server asks of a connection that is silent
        for name, value in storage.KEEPALIVES.items():
            assert connection.execute(sqlalchemy.text(f"SHOW tcp_{name}")).scalar() == str(value)
    said: list[str] = []

    def wait() -> None:
        with other.exclusive("held"):
            said.append("taken")

    waiting = threading.Thread(target=wait)
    with one.exclusive("held"):
        waiting.start()
        while not any("Waiting for the lock of study held" in text for text in said):
            said.append(capsys.readouterr().out)
            assert waiting.is_alive()
            time.sleep(0.1)
        assert f"'moola {socket.gethostname()} {os.getpid()}' at 127.0.0.1" in "".join(said)
        assert "taken" not in said
    waiting.join(30)
    assert said[-1] == "taken"


def test_two_launched_commands_work_on_one_sweep(served: Served, database: str, tmp_path: Path) -> None:
    given = {**TINY, "storage": database, "study": "pair", "n_trials": "10", "tracking.experiment": "pair"}
    there = Served(tmp_path, served.address)  # as on another machine: nothing but the two addresses is shared
    processes = [store.start("sweep", given, launcher=True) for store in (served, there)]
    said = [process.communicate(timeout=400)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    parent, runs = assert_done(served, "pair", 10)
    assert len(runs) == 10
    helpers = [run for run in served.runs() if run.data.tags.get("moola.resumed") == parent.info.run_id]
    assert [run.info.status for run in helpers] == ["FINISHED"]
    assert all("Trial " in text for text in said)  # both had a part


def test_an_array_of_jobs_is_one_sweep_also_if_a_job_is_killed_and_started_again(
    served: Served, postgres: Postgres, tmp_path: Path
) -> None:
    own = postgres.create("jobs")
    script = tmp_path / "sweep_job.sh"
    script.write_text(files("docs/how-to/sweep.md")[script.name], encoding="utf-8")
    given = {**TINY, **FAST_DEATH, **SLOW_TRIALS, "study": "jobs", "n_trials": "6", "tracking.experiment": "jobs"}
    words = ["sh", str(script), *(f"--{key}={value}" for key, value in given.items())]
    environment = {**served.environment, "HOME": str(tmp_path), "COORDINATION": own}

    def job(index: int) -> subprocess.Popen[bytes]:
        with open(tmp_path / f"{index}.log", "ab") as log:
            return subprocess.Popen(
                words, cwd=tmp_path, env={**environment, "SLURM_ARRAY_TASK_ID": str(index)}, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def hands() -> dict[int, str]:
        return in_hand(served, "jobs", f"{own}?options=-csearch_path%3Doptuna")

    jobs = [job(index) for index in range(4)]
    try:
        wait_until(lambda: any(run.data.tags.get("moola.study") == "jobs" for run in served.runs()))
        wait_until(lambda: len(hands()) >= 2)
        victim, broken = next(iter(hands().items()))
        index = next(k for k, one in enumerate(jobs) if os.getsid(victim) == one.pid)
        os.killpg(jobs[index].pid, signal.SIGKILL)
        jobs[index].wait(30)
        jobs[index] = job(index)
        said = [(one.wait(400), (tmp_path / f"{k}.log").read_text()[-2000:]) for k, one in enumerate(jobs)]
        assert [code for code, _ in said] == [0, 0, 0, 0], said
    finally:
        for one in jobs:
            one.kill()
    parent, runs = assert_done(served, "jobs", 6)
    helpers = [run for run in served.runs() if run.data.tags.get("moola.resumed") == parent.info.run_id]
    experiment = served.client.get_experiment_by_name("jobs")
    assert experiment is not None
    assert {run.info.experiment_id for run in (parent, *runs, *helpers)} == {experiment.experiment_id}
    by_id = {run.info.run_id: run for run in runs}
    assert by_id[broken].info.status == "FAILED"
    retried = [run for run in runs if run.data.tags.get("moola.retry_of") == by_id[broken].data.tags["moola.trial"]]
    assert [run.data.params for run in retried] == [by_id[broken].data.params]
    assert {path.name for path in (tmp_path / "sweep").iterdir()} == {"0", "1", "2", "3"}


def test_a_server_without_storage_is_served_by_one_machine_with_a_warning(served: Served) -> None:
    done = served.run("sweep", {**TINY, "study": "alone", "n_trials": "2"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Warning: the tracking store gives no database" in done.stdout
    assert (served.folder / "mlruns" / "optuna.db").is_file()
    assert_done(served, "alone", 2)


def test_beside_a_postgresql_store_the_study_is_in_its_schema(postgres: Postgres, tmp_path: Path) -> None:
    own = postgres.create("beside")  # a server's experiments keep artifacts with it
    store = Served(tmp_path, own)
    done = store.run("sweep", {**TINY, "study": "beside", "n_trials": "2"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert_done(store, "beside", 2)
    assert not (tmp_path / "mlruns" / "optuna.db").exists()
    with sqlalchemy.create_engine(own).connect() as connection:
        names = connection.execute(sqlalchemy.text("SELECT study_name FROM optuna.studies")).scalars().all()
    assert "beside" in names
    assert len(children_of(store, parent_of(store, "beside"))) == 2


def test_a_sweep_outlasts_a_restart_of_postgresql(served: Served, postgres: Postgres) -> None:
    own = postgres.create("restarted")
    given = {**TINY, **SLOW_TRIALS, "storage": own, "study": "restarted", "n_trials": "3", "workers": "2"}
    process = started(served, given)
    wait_until(lambda: len(in_hand(served, "restarted", f"{own}?options=-csearch_path%3Doptuna")) == 2)
    postgres.kill()
    postgres.start()
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    _, runs = assert_done(served, "restarted", 3)
    assert {run.info.status for run in runs} <= {"FINISHED", "FAILED"}
