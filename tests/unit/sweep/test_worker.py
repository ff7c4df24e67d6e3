"""A worker's trials: which failures are the trial's own, which end the sweep, and what is repeated."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from mlflow.exceptions import MlflowException
from small_studies import Bench, configured, fails_in, parabola, trial_runs

from moola_mlflow.core import SweepKeys
from moola_mlflow.core.errors import TrainingError
from moola_mlflow.sweep.attach import join_study
from moola_mlflow.sweep.restore import load_study
from moola_mlflow.sweep.worker import Reporter, TrialOutcome, Worker

ADDRESS = "http://me:secret@127.0.0.1:9/api"


def test_a_full_disk_is_a_trials_own_failure_and_the_sweep_goes_on(workdir: Path) -> None:
    def full(report: Reporter) -> None:
        raise OSError(28, "No space left on device")

    queue, run_id = Bench(configured(n_trials=3)).sweep(fails_in(1, full))
    assert [trial.state.name for trial in queue.study.trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert "No space left" in load_study(run_id).trials[1].user_attrs["reason"]
    assert {run.info.status for run in trial_runs()} == {"FINISHED", "FAILED"}


def test_a_store_that_refuses_ends_the_sweep_and_the_trial_in_hand_is_left_to_be_repeated(workdir: Path) -> None:
    def refused(report: Reporter) -> None:
        raise MlflowException("permission denied")

    with pytest.raises(MlflowException, match="permission denied"):
        Bench(configured(n_trials=3)).sweep(fails_in(1, refused))
    first, second = trial_runs()
    assert (first.info.status, second.info.status) == ("FINISHED", "FAILED")
    assert "permission denied; it is tried again" in second.data.tags["mlflow.note.content"]
    queue, _ = Bench(configured(n_trials=3)).sweep()
    trials = queue.study.trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert trials[2].params == trials[1].params


def test_a_trial_that_is_given_up_twice_is_repeated_once_more_and_not_again_from_the_runs(workdir: Path) -> None:
    def refused(report: Reporter) -> None:
        raise MlflowException("permission denied")

    for number in (0, 1):
        with pytest.raises(MlflowException):
            Bench(configured(n_trials=2)).sweep(fails_in(number, refused))
    queue, run_id = Bench(configured(n_trials=1)).sweep()
    history = [trial.system_attrs.get("retry_history", []) for trial in queue.study.trials]
    assert history[:3] == [[], [0], [0, 1]]
    assert [trial.system_attrs.get("retry_history", []) for trial in load_study(run_id).trials] == history[:3]
    (workdir / "mlruns" / "optuna.db").unlink()
    queue, _ = Bench(configured(n_trials=2)).sweep()
    assert [trial.state.name for trial in queue.study.trials] == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert queue.study.trials[3].params != queue.study.trials[2].params


def test_a_coordination_database_that_is_lost_in_a_trial_leaves_no_run_running(workdir: Path) -> None:
    def lost(report: Reporter) -> None:
        with sqlite3.connect(workdir / "mlruns" / "optuna.db", timeout=30) as database:
            database.execute("DROP TABLE trials")
        report.epoch(1, 1.0, {})

    with pytest.raises((optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError)):
        Bench(configured(n_trials=3)).sweep(fails_in(1, lost))
    assert [run.info.status for run in trial_runs()] == ["FINISHED", "FAILED"]
    (workdir / "mlruns" / "optuna.db").unlink()
    queue, _ = Bench(configured(n_trials=3)).sweep()
    assert queue.study.trials[2].params == queue.study.trials[1].params  # repeated, as the runs alone tell


def test_a_stop_while_the_store_does_not_answer_is_no_failure_of_the_sweep(workdir: Path) -> None:
    asked: list[str] = []

    def down(report: Reporter) -> None:
        asked.append("SIGINT")
        raise ConnectionError("refused")

    bench = Bench(configured(n_trials=3))
    with pytest.raises(ConnectionError):
        bench.sweep(fails_in(0, down))
    joined = join_study(bench.config, bench.space, bench.coordination, "contract", None)
    asked.clear()
    objective = fails_in(1, down)
    Worker(
        bench.config, bench.space, joined.queue, joined.experiment, joined.run_id, objective,
        lambda: asked[0] if asked else None,
    ).run()  # fmt: skip
    assert asked
    assert [trial.state.name for trial in joined.queue.trials()] == ["FAIL", "FAIL", "WAITING"]
    assert [run.info.status for run in trial_runs()] == ["FAILED", "FAILED"]


def test_why_a_trial_failed_is_told_without_the_password_of_an_address(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def objective(config: SweepKeys, report: Reporter) -> TrialOutcome:
        if report.trial.number == 0:
            raise TrainingError(f"nothing at {ADDRESS}")
        if report.trial.number == 1:
            raise RuntimeError(f"a bug at {ADDRESS}")
        return parabola(config, report)

    queue, _ = Bench(configured(n_trials=2)).sweep(objective)
    said = capsys.readouterr()
    assert "in objective" in said.err  # where the bug is
    told = [json.dumps(trial.user_attrs) for trial in queue.trials()]
    told += [json.dumps(run.data.tags) for run in trial_runs()]
    assert not any("secret" in text for text in [*told, said.out, said.err])
    assert "nothing at http://127.0.0.1:9/api" in told[0]
