"""sweep as users start it: one study, one parent run, one child run a trial, whatever is killed or deleted."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import mlflow
import optuna
import psutil
import pytest
import sqlalchemy
import yaml
from harness import QUICK, ROOT, SMOKE, Store, note_of
from mlflow.entities import Run

import moola_mlflow
from moola_mlflow.tracking.recovery.heartbeat import host_name

TINY = {**QUICK, "base": SMOKE, "config": str(ROOT / "configs" / "sweep.yaml")}
FAST_DEATH = {"sweep.heartbeat_s": "1", "sweep.grace_s": "4"}
# Long enough to be killed in the middle, with as many epochs in every trial.
SLOW_TRIALS = {"trainer.epochs": "60", "trainer.patience": "60", "sweep.pruner": "none"}


def parent_of(store: Store, study: str) -> Run:
    (run,) = [run for run in store.runs() if run.data.tags.get("moola.study") == study]
    return run


def children_of(store: Store, parent: Run) -> list[Run]:
    return [run for run in store.runs() if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]


def states(runs: list[Run]) -> Counter[str]:
    return Counter(run.data.tags.get("moola.trial_state", run.info.status) for run in runs)


def assert_done(store: Store, study: str, n_trials: int) -> tuple[Run, list[Run]]:
    """One parent, FINISHED; ``n_trials`` well-ended children, numbers distinct, nothing RUNNING."""
    mlflow.set_tracking_uri(store.uri)  # another test's store may have been the last
    parent = parent_of(store, study)
    runs = children_of(store, parent)
    numbers = [int(run.data.tags["moola.trial"]) for run in runs]
    assert parent.info.status == "FINISHED"
    assert len(set(numbers)) == len(numbers)
    found = states(runs)
    assert found["COMPLETE"] + found["PRUNED"] == n_trials, found
    assert [run for run in store.runs() if run.info.status == "RUNNING"] == []
    best = min(run.data.metrics["sweep/value"] for run in runs if "sweep/value" in run.data.metrics)
    assert parent.data.metrics["sweep/best_value"] == best
    assert moola_mlflow.load_study(parent.info.run_id).best_value == best
    return parent, runs


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with a sweep of 20 trials by two workers, started by the launcher."""
    store = Store(tmp_path_factory.mktemp("swept"))
    done = store.run("sweep", {**TINY, "n_trials": "20", "workers": "2", "study": "twenty"}, launcher=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return store


@pytest.mark.slow
def test_twenty_trials_are_twenty_children_of_one_run(swept: Store) -> None:
    parent, runs = assert_done(swept, "twenty", 20)
    assert sorted(int(run.data.tags["moola.trial"]) for run in runs) == list(range(20))
    assert len(swept.runs()) == 21
    for run in runs:
        assert set(run.data.params) == {"trainer.batch_size", "optimizer.lr"}
        epochs = swept.client.get_metric_history(run.info.run_id, "val/huber")
        assert [point.step for point in epochs if point.step] == [1] or run.info.status == "KILLED"
        assert run.info.status == {"COMPLETE": "FINISHED", "PRUNED": "KILLED"}[run.data.tags["moola.trial_state"]]
    assert parent.data.params["sweep.n_trials"] == "20"
    assert len(parent.data.tags["moola.data_sha256"]) == 64


@pytest.mark.slow
def test_the_parent_shows_best_table_figures_and_the_command_that_goes_on(swept: Store) -> None:
    mlflow.set_tracking_uri(swept.uri)
    parent = parent_of(swept, "twenty")
    study = moola_mlflow.load_study(parent.info.run_id)
    table = json.loads(swept.artifact(parent, "trials.json").read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["trial"] for row in rows] == list(range(20))
    assert [row["value"] for row in rows] == [trial.value for trial in study.trials]
    assert "sweep.html" in {item.path for item in swept.client.list_artifacts(parent.info.run_id)}
    front = json.loads(swept.artifact(parent, "pareto.json").read_text())["trials"]
    assert study.best_trial.number in front
    note = parent.data.tags["mlflow.note.content"]
    assert f"trial {study.best_trial.number}" in note
    assert "mlflow run . -e pretrain -P config=" in note
    best = yaml.safe_load(swept.artifact(parent, "best_config.yaml").read_text())
    assert best["trainer"]["batch_size"] == study.best_params["trainer.batch_size"]
    assert best["optimizer"]["lr"] == study.best_params["optimizer.lr"]
    assert "sweep" not in best


@pytest.mark.slow
def test_pretrain_takes_the_best_config(swept: Store) -> None:
    path = swept.artifact(parent_of(swept, "twenty"), "best_config.yaml")
    done = swept.run("pretrain", {"config": str(path), "register": "none"})
    assert done.returncode == 0, done.stderr[-2000:]
    (run,) = [run for run in swept.runs() if run.data.tags["moola.stage"] == "pretrain"]
    value = min(point.value for point in swept.client.get_metric_history(run.info.run_id, "val/huber"))
    assert value == parent_of(swept, "twenty").data.metrics["sweep/best_value"]  # the trial again, bit for bit


@pytest.mark.slow
def test_a_deleted_database_comes_back_from_the_runs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    given = {**TINY, "study": "again", "config": str(ROOT / "configs" / "sweep_jade10.yaml"), "epochs": "1"}
    given["trainer.epochs"] = given.pop("epochs")
    assert store.run("sweep", {**given, "n_trials": "5"}).returncode == 0
    before = moola_mlflow.load_study(parent_of(store, "again").info.run_id)
    points = [trial.params["trainer.batch_size"] for trial in before.trials[:3]]
    assert points == [512, 768, 1024]  # the published ones first
    (tmp_path / "mlruns" / "optuna.db").unlink()
    done = store.run("sweep", {**given, "n_trials": "9", "workers": "2"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert_done(store, "again", 9)
    after = moola_mlflow.load_study(parent_of(store, "again").info.run_id)
    assert len(after.trials) == 9
    for old, new in zip(before.trials, after.trials, strict=False):
        assert (new.number, new.params, new.value, new.state) == (old.number, old.params, old.value, old.state)
        assert (new.distributions, new.intermediate_values) == (old.distributions, old.intermediate_values)
    done = store.run("sweep", {**given, "n_trials": "9"})  # nothing left: it says the best and touches nothing
    assert "Best of 9 complete" in done.stdout
    assert len(children_of(store, parent_of(store, "again"))) == 9


def started(store: Store, given: dict[str, str]) -> subprocess.Popen[str]:
    """Start a sweep and wait until its stores are made: two that make a SQLite store together leave it half made."""
    process = store.start("sweep", given)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "workers coordinate in" in line:
            return process
    raise AssertionError("".join(lines))


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """Process ids of a command's workers. (`ps` would cut long command lines at 80 columns.)"""
    found = []
    for child in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # ended, and perhaps not yet waited for
            if any("spawn_main" in word for word in child.cmdline()):
                found.append(child.pid)
    return found


def in_hand(store: Store, study: str, storage: str = "") -> dict[int, str]:
    """Process id of a worker -> run of the trial it is in the middle of."""
    path = store.folder / "mlruns" / "optuna.db"
    storage = storage or (f"sqlite:///{path}" if path.is_file() else "")
    try:
        trials = _trials_of(study, storage) if storage else []
    except (KeyError, RuntimeError, sqlalchemy.exc.OperationalError):  # not made yet
        return {}
    live = [t for t in trials if t.state.name == "RUNNING" and t.intermediate_values]
    return {trial.user_attrs["worker"][1]: trial.user_attrs["run_id"] for trial in live}


def _trials_of(study: str, address: str) -> list[optuna.trial.FrozenTrial]:
    """Trials of a study as its database has them now. No connection stays open: this is asked many times."""
    storage = optuna.storages.RDBStorage(address)
    try:
        return optuna.load_study(study_name=study, storage=storage).trials
    finally:
        storage.remove_session()
        storage.engine.dispose()


def drained(process: subprocess.Popen[str]) -> list[str]:
    """What a command goes on to say, read as it comes: a full pipe would hold it up."""
    said: list[str] = []
    assert process.stdout is not None
    threading.Thread(target=said.extend, args=(process.stdout,), daemon=True).start()
    return said


def wait_until(true: object, seconds: float = 240, said: Sequence[str] = ()) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not come to that\n" + "".join(said)[-5000:]
        time.sleep(0.3)


@pytest.mark.slow
def test_killed_workers_and_a_killed_sweep_lose_nothing_and_count_nothing_twice(tmp_path: Path) -> None:
    store = Store(tmp_path)
    given = {**TINY, **FAST_DEATH, **SLOW_TRIALS, "study": "killed", "n_trials": "14", "workers": "4"}
    given |= {"trainer.epochs": "30", "trainer.patience": "30"}
    process = started(store, given)
    said = drained(process)
    wait_until(lambda: len(in_hand(store, "killed")) >= 2, said=said)
    crew = set(workers_of(process))
    os.kill(next(iter(in_hand(store, "killed"))), signal.SIGKILL)
    wait_until(lambda: set(workers_of(process)) - crew, said=said)  # another has taken its place
    trials = lambda: [run for run in store.runs() if run.data.tags.get("moola.stage") == "trial"]  # noqa: E731
    wait_until(lambda: states(trials())["FAIL"] >= 1, said=said)
    wait_until(lambda: len(in_hand(store, "killed")) >= 2, said=said)
    doomed = set(in_hand(store, "killed").values())
    os.killpg(process.pid, signal.SIGKILL)  # all at once, as a machine that loses power
    process.wait(30)
    assert any(run.info.status == "RUNNING" for run in store.runs())
    assert store.run("features", {"bars.sample_bars": "12000"}).returncode == 0  # whatever is started next closes it
    assert not any(run.info.status == "RUNNING" for run in store.runs())
    done = store.run("sweep", given)
    assert done.returncode == 0, done.stderr[-3000:]
    parent, runs = assert_done(store, "killed", 14)
    by_id = {run.info.run_id: run for run in runs}
    dead = [by_id[run_id] for run_id in doomed if by_id[run_id].data.tags["moola.trial_state"] == "FAIL"]
    assert dead
    for run in dead:
        assert run.info.status == "FAILED"
        assert "gone" in run.data.tags["mlflow.note.content"]
    retried = {run.data.tags["moola.retry_of"]: run for run in runs if "moola.retry_of" in run.data.tags}
    for run in dead:
        again = retried[run.data.tags["moola.trial"]]
        assert again.data.params == run.data.params
    assert parent.data.metrics["sweep/complete"] == 14


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_leaves_nothing_running_and_the_sweep_goes_on_later(tmp_path: Path, workers: str) -> None:
    store = Store(tmp_path)
    given = {**TINY, **SLOW_TRIALS, "study": "stopped", "n_trials": "3", "workers": workers}
    process = started(store, given)
    wait_until(lambda: any("sweep/epoch_value" in run.data.metrics for run in store.runs()))
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(90) == 130
    parent = parent_of(store, "stopped")
    assert parent.info.status == "KILLED"
    stopped = [run for run in children_of(store, parent) if run.data.tags["moola.trial_state"] == "FAIL"]
    assert {run.info.status for run in stopped} == {"KILLED"}
    assert store.run("sweep", given).returncode == 0
    _, runs = assert_done(store, "stopped", 3)
    retried = {run.data.tags["moola.retry_of"]: run for run in runs if "moola.retry_of" in run.data.tags}
    assert {run.data.tags["moola.trial"] for run in stopped} == set(retried)


BAD = {
    "an unknown key": ({"sweep.space": "{optimizer.rl: {low: 1e-4, high: 1e-2}}"}, "did you mean 'optimizer.lr'?"),
    "an empty range": ({"sweep.space": "{optimizer.lr: {low: 1e-2, high: 1e-4}}"}, "the range from 0.01 to 0.0001 is"),
    "no trials": ({"n_trials": "0"}, "sweep.n_trials='0'"),
    "a value the key forbids": ({"sweep.space": "{encoder.dropout: [0.5, 1.0]}"}, "encoder.dropout at 1.0"),
    "storage of another kind": ({"storage": "mysql://root@localhost/x"}, "neither SQLite nor PostgreSQL"),
    "storage that does not answer": ({"storage": "postgresql://nobody:pw@127.0.0.1:1/x"}, "does not work"),
    "bars that are not there": ({"bars": "no/such.parquet"}, "no/such.parquet"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_with_one_message_and_no_run(tmp_path: Path, case: str) -> None:
    parameters, message = BAD[case]
    store = Store(tmp_path)
    done = store.run("sweep", {**TINY, **parameters})
    assert done.returncode == 2, done.stderr[-2000:]
    assert message in done.stderr
    assert ("Traceback" in done.stderr, "pw" in done.stderr) == (False, False)
    assert store.runs() == []
    assert all(message in note_of(run) for run in store.refused())  # a mistake on the line has none


@pytest.mark.slow
def test_a_study_of_another_search_space_is_refused_and_left_alone(swept: Store) -> None:
    before = parent_of(swept, "twenty")
    other = {"sweep.space": "{optimizer.lr: {low: 1e-4, high: 1e-2}}"}
    for changed, message in ((other, "another search space: optimizer.lr, trainer.batch_size"),
                             ({"encoder.layers": "1"}, "encoder.layers was 2, is 1")):  # fmt: skip
        done = swept.run("sweep", {**TINY, "n_trials": "30", "study": "twenty", **changed})
        assert done.returncode == 2
        assert message in done.stderr
    assert parent_of(swept, "twenty").data.tags == before.data.tags
    assert parent_of(swept, "twenty").info.status == "FINISHED"


@pytest.mark.slow
def test_a_sweep_that_is_coordinated_elsewhere_is_not_taken_over(swept: Store, tmp_path: Path) -> None:
    parent = parent_of(swept, "twenty")
    beat = {"at": time.time(), "host": "elsewhere", "pid": 1, "storage": "sqlite:////elsewhere.db"}
    swept.client.set_tag(parent.info.run_id, "moola.coordinator", json.dumps(beat))
    given = {**TINY, "n_trials": "20", "study": "twenty", "storage": f"sqlite:///{tmp_path}/other.db"}
    done = swept.run("sweep", given)
    assert done.returncode == 2
    assert "is being worked on by process 1 of elsewhere" in done.stderr
    swept.client.set_tag(parent.info.run_id, "moola.coordinator", json.dumps({**beat, "over": True}))
    done = swept.run("sweep", given)  # ended: another machine may go on
    assert done.returncode == 0
    assert host_name() in swept.client.get_run(parent.info.run_id).data.tags["moola.coordinator"]
    assert_done(swept, "twenty", 20)


@pytest.mark.slow
def test_the_winner_is_registered_when_asked_by_its_probe_and_equal_windows(tmp_path: Path) -> None:
    store = Store(tmp_path)
    space = (
        "{objective.name: [masked, price_path], "
        "objective.mask_ratio: {low: 0.1, high: 0.3, when: {objective.name: masked}}}"
    )
    done = store.run(
        "sweep",
        {**TINY, "sweep.space": space, "sweep.objective": "probe/r2_gain", "n_trials": "4", "study": "probed",
         "sweep.register_best": "true", "sweep.budget": "windows", "sweep.budget_amount": "400"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    parent = parent_of(store, "probed")
    runs = children_of(store, parent)
    assert len({run.data.metrics["sweep/windows"] for run in runs if "sweep/windows" in run.data.metrics}) == 1
    for run in runs:
        assert ("objective.mask_ratio" in run.data.params) == (run.data.params["objective.name"] == "masked")
    version = store.client.get_model_version_by_alias("moola-encoder", "candidate")
    assert version.tags["moola.sweep"] == parent.info.run_id
    kept = [run for run in runs if store.client.list_artifacts(run.info.run_id, "encoder")]
    assert [run.data.tags["moola.trial"] for run in kept] == [parent.data.tags["moola.best_trial"]]
    assert moola_mlflow.load_encoder("models:/moola-encoder@candidate").card["run_id"] in {r.info.run_id for r in runs}
    best = yaml.safe_load(store.artifact(parent, "best_config.yaml").read_text())
    assert best["trainer"]["epochs"] == 2  # the base's own length


@pytest.mark.slow
def test_encoders_of_rules_are_searched_by_fresh_rules_and_the_winner_reads_with_its_heads(tmp_path: Path) -> None:
    store = Store(tmp_path)
    given = {"base": str(ROOT / "configs" / "rules.yaml"), "config": str(ROOT / "configs" / "sweep.yaml"),
             "sweep.space": "{optimizer.lr: {low: 1e-3, high: 5e-3, log: true}}", "sweep.objective": "rules/few_shot",
             "objective.num_rules": "24", "objective.rules_per_step": "8", "encoder.hidden": "8", "n_trials": "2",
             "bars.sample_bars": "60000", "sweep.budget": "windows", "sweep.budget_amount": "1200", "study": "rules",
             "sweep.register_best": "true"}  # fmt: skip
    done = store.run("sweep", given)
    assert done.returncode == 0, done.stderr[-2000:]
    parent = parent_of(store, "rules")
    runs = children_of(store, parent)
    values = [run.data.metrics["sweep/value"] for run in runs]
    assert parent.data.metrics["sweep/best_value"] == min(values) > 0
    assert {run.data.metrics["sweep/epochs"] for run in runs} == {1}  # the budget counts, not the 4,000 steps
    encoder = moola_mlflow.load_encoder("models:/moola-encoder@candidate")
    assert len(encoder.task_heads.names) == 24
    assert encoder.card["few_shot"]["loss"] == pytest.approx(min(values))


@pytest.mark.slow
def test_finetune_is_searched_inside_the_folds(tmp_path: Path) -> None:
    store = Store(tmp_path)
    given = {"config": str(ROOT / "configs" / "sweep_finetune.yaml"), "base": str(ROOT / "configs" / "finetune.yaml"),
             "finetune.inputs": "price_path", "trainer.epochs": "3", "labels.n": "80", "cv.folds": "2", "n_trials": "3",
             "study": "heads"}  # fmt: skip
    done = store.run("sweep", given)
    assert done.returncode == 0, done.stderr[-2000:]
    parent = parent_of(store, "heads")
    assert parent.data.metrics["sweep/best_value"] == max(
        run.data.metrics["sweep/value"] for run in children_of(store, parent)
    )
    assert "mlflow run . -e finetune -P config=" in parent.data.tags["mlflow.note.content"]


READ = """
import sys, mlflow
import moola_mlflow
study = moola_mlflow.load_study(sys.argv[1])
print(study.best_trial.number, len(study.trials), study.study_name)
"""


@pytest.mark.slow
def test_a_notebook_loads_the_study_by_its_run(swept: Store) -> None:
    parent = parent_of(swept, "twenty")
    words = [sys.executable, "-c", READ, parent.info.run_id]
    done = subprocess.run(words, cwd=swept.folder, env=swept.environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == [str(int(parent.data.metrics["sweep/best_trial"])), "20", "twenty"], done.stderr
