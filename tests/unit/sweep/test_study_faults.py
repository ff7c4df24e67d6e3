"""Sweeps that end by an error, or beside others, leave nothing RUNNING that does not run, and show no password."""

from __future__ import annotations

import json
import multiprocessing
import os
import sqlite3
import stat
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import mlflow
import optuna
import pytest
import sqlalchemy
import torch
from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException
from optuna.trial import TrialState
from small_studies import Bench, configured, parabola

from moola_mlflow.cli.commands import sweep
from moola_mlflow.core import FinetuneSweepKeys, SweepKeys, make_config
from moola_mlflow.core.errors import TrainingError, UserError
from moola_mlflow.core.signals import Interrupts
from moola_mlflow.sweep import attach, processes
from moola_mlflow.sweep import trial_runs as trial_runs_module
from moola_mlflow.sweep.attach import SweepHeartbeat, join_study
from moola_mlflow.sweep.finetune_trials import FinetuneTrials
from moola_mlflow.sweep.processes import WorkerJob
from moola_mlflow.sweep.queue import TrialQueue
from moola_mlflow.sweep.restore import load_study
from moola_mlflow.sweep.storage import Coordination, locate_storage, shown_url
from moola_mlflow.sweep.trial_runs import TrialRun
from moola_mlflow.sweep.worker import Reporter, TrialOutcome, Worker
from moola_mlflow.tracking import Run, Tags
from moola_mlflow.tracking.recovery import heartbeat
from moola_mlflow.tracking.recovery.heartbeat import host_name

ADDRESS = "http://me:secret@127.0.0.1:9/api"


@pytest.fixture
def workdir(workdir: Path) -> Path:
    """The shared fixture, and MLflow told so: what an earlier test told it counts more than the environment."""
    mlflow.set_tracking_uri(f"sqlite:///{workdir}/mlflow.db")
    return workdir


@pytest.fixture(autouse=True)
def _quiet() -> None:
    warnings.filterwarnings("ignore", message=".*supposed to be used with Study.optimize")


def fails_in(number: int, failure: Callable[[Reporter], None]) -> Callable[[SweepKeys, Reporter], TrialOutcome]:
    """The parabola, but for one trial."""

    def objective(config: SweepKeys, report: Reporter) -> TrialOutcome:
        if report.trial.number == number:
            report.epoch(0, 1.0, {})
            failure(report)
        return parabola(config, report)

    return objective


def trial_runs() -> list[StoredRun]:
    (parent,) = mlflow.MlflowClient().search_runs(["1"], "tags.`moola.stage` = 'sweep'")
    return trial_runs_module.trial_runs_of(mlflow.MlflowClient(), "1", parent.info.run_id)


def in_hand_elsewhere(queue: TrialQueue) -> optuna.Trial:
    """A trial that a process of another machine has in hand."""
    trial = queue.study.ask()
    trial.set_user_attr("worker", ["elsewhere pid:[1]", 1])
    return trial


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


def test_a_command_that_joins_leaves_a_run_alone_whose_trial_has_not_heard_of_it_yet(workdir: Path) -> None:
    bench = Bench(configured(n_trials=2))
    queue, run_id = bench.sweep()
    trial = in_hand_elsewhere(queue)
    run = TrialRun.start(queue.client, "1", run_id, trial.number, {})
    bench.rejoin(run_id)
    assert queue.client.get_run(run.id).info.status == "RUNNING"
    trial.set_user_attr("run_id", run.id)
    bench.rejoin(run_id)
    assert queue.client.get_run(run.id).info.status == "RUNNING"
    queue.requeue(trial.number)
    bench.rejoin(run_id)
    ended = queue.client.get_run(run.id)
    assert (ended.info.status, ended.data.tags["moola.retry"]) == ("FAILED", "true")


@pytest.mark.parametrize("fails", [False, True])
def test_a_command_that_ends_while_others_work_leaves_the_sweep_running(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    def refused(config: SweepKeys, report: Reporter) -> TrialOutcome:
        raise MlflowException("permission denied")

    monkeypatch.setattr(sweep, "build_objective", lambda config: refused if fails else parabola)
    monkeypatch.setattr(sweep, "configure_allocator", lambda config: "as it comes")
    bench = Bench(configured(n_trials=2))
    queue, run_id = bench.sweep()
    trial = in_hand_elsewhere(queue)

    def command() -> None:
        if fails:
            with pytest.raises(MlflowException, match="permission denied"):
                sweep.run(configured(n_trials=4), "sweep", Interrupts())
        else:
            sweep.run(configured(n_trials=2), "sweep", Interrupts())

    command()
    parent = queue.client.get_run(run_id)
    assert parent.info.status == "RUNNING"
    assert heartbeat.is_coordinated(parent) == (not heartbeat.read_beat(parent)["over"])
    assert not heartbeat.read_beat(parent)["over"]
    assert fails == (queue.counts()[TrialState.FAIL] == 1)
    queue.study.tell(trial, 1.0)
    command()
    parent = queue.client.get_run(run_id)
    assert parent.info.status == ("FAILED" if fails else "FINISHED")
    assert heartbeat.read_beat(parent)["over"]


def test_nobody_elsewhere_takes_a_sweep_over_that_is_worked_on_whatever_its_status_says(workdir: Path) -> None:
    bench = Bench(configured(n_trials=2))
    queue, run_id = bench.sweep()
    other = Bench(configured(n_trials=2))
    other.coordination = Coordination(sqlalchemy.make_url(f"sqlite:///{workdir}/other.db"), 1, 2)

    def as_if_elsewhere() -> None:
        beat = heartbeat.read_beat(queue.client.get_run(run_id))
        queue.client.set_tag(run_id, Tags.COORDINATOR, json.dumps({**beat, "host": "elsewhere"}))

    with SweepHeartbeat(Run.join(run_id), bench.coordination, queue):
        queue.client.set_terminated(run_id, "FINISHED")  # by another command
        as_if_elsewhere()
        with pytest.raises(UserError, match=r"is being worked on by process \d+ of elsewhere"):
            other.rejoin(run_id)
    as_if_elsewhere()
    other.rejoin(run_id)  # over, as it has said


def test_whoever_works_says_that_the_sweep_is_running(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach, "BEAT_S", 0.01)
    bench = Bench(configured(n_trials=2))
    queue, run_id = bench.sweep()
    with SweepHeartbeat(Run.join(run_id), bench.coordination, queue):
        queue.client.set_terminated(run_id, "FINISHED")  # by another command, which looked between two trials
        deadline = time.monotonic() + 30
        while queue.client.get_run(run_id).info.status != "RUNNING":
            assert time.monotonic() < deadline


def test_a_trials_run_says_who_works_on_it_and_whether_that_is_so(workdir: Path) -> None:
    client = mlflow.MlflowClient()
    parent = client.create_run("0", tags={"moola.stage": "sweep"}).info.run_id
    run = TrialRun.start(client, "0", parent, 0, {}).id

    def said(worker: list[object], **beat: object) -> tuple[bool | None, bool | None]:
        client.set_tag(run, Tags.WORKER, json.dumps(worker))
        client.set_tag(parent, Tags.COORDINATOR, json.dumps(beat))
        return heartbeat.is_worked_on(client.get_run(parent)), heartbeat.is_worked_on(client.get_run(run))

    assert json.loads(client.get_run(run).data.tags[Tags.WORKER]) == [host_name(), os.getpid()]
    now, here, dead = time.time(), [host_name(), os.getpid()], [host_name(), 2**22 + 1]
    there = {"host": "elsewhere", "pid": 1}
    assert said(here, at=now, **there) == (True, True)
    assert said(dead, at=now, **there) == (True, False)
    assert said(["elsewhere", 1], at=now - 1000, **there) == (False, False)
    assert said(["elsewhere", 1], at=now, over=True, **there) == (False, True)
    assert said(here, at=now, host=host_name(), pid=dead[1]) == (False, True)
    assert said(here) == (None, True)
    client.set_terminated(parent, "KILLED")
    assert said(here) == (None, False)
    assert heartbeat.is_worked_on(client.create_run("0", tags={"moola.stage": "pretrain"})) is None


def test_a_trial_that_was_told_its_end_keeps_it_though_its_run_was_closed_as_one_whose_process_is_gone(
    workdir: Path,
) -> None:
    Bench(configured(n_trials=2)).sweep()
    client, run_id = mlflow.MlflowClient(), trial_runs()[0].info.run_id
    client.delete_tag(run_id, Tags.TRIAL_STATE)
    client.set_terminated(run_id, "KILLED")
    Bench(configured(n_trials=2)).sweep()
    run = client.get_run(run_id)
    assert (run.info.status, run.data.tags[Tags.TRIAL_STATE]) == ("FINISHED", "COMPLETE")


def test_new_databases_and_folders_are_their_owners_alone(workdir: Path) -> None:
    def modes(*paths: Path) -> list[str]:
        return [oct(stat.S_IMODE(path.stat().st_mode)) for path in paths]

    url, _ = locate_storage("", "http://127.0.0.1:9")
    Coordination(url, 1, 2)
    assert modes(workdir / "mlruns" / "optuna.db", workdir / "mlruns") == ["0o600", "0o700"]
    run_id = mlflow.MlflowClient().create_run("0").info.run_id
    Run.join(run_id)
    assert modes(workdir / ".moola") == ["0o700"]


def test_an_address_is_shown_without_its_passwords() -> None:
    url, _ = locate_storage("postgresql://me:pa%2Fss@db/moola?password=other&sslpassword=third&sslmode=require", "")
    assert "pa/ss" in str(url.password)
    shown = shown_url(url)
    assert "sslmode=require" in shown
    assert not any(secret in shown for secret in ("pa%2Fss", "pa/ss", "other", "third"))


def test_an_encoder_that_is_not_there_is_refused_before_any_trial(workdir: Path) -> None:
    given = {"labels": {"n": 20}, "finetune": {"encoder": "models:/moola-encoder@nope"}}
    searched = {"sweep": {"stage": "finetune", "space": {"optimizer.lr": [1e-3, 1e-2]}}}
    with pytest.raises(UserError, match="moola-encoder@nope"):
        FinetuneTrials(make_config(FinetuneSweepKeys, {**given, **searched}, {}), torch.device("cpu"), "32")
    given["finetune"] = {}
    searched["sweep"]["space"] = {"finetune.encoder": ["", "no/such.pt"]}
    with pytest.raises(UserError, match=r"no/such\.pt"):
        FinetuneTrials(make_config(FinetuneSweepKeys, {**given, **searched}, {}), torch.device("cpu"), "32")


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


def raises(config: SweepKeys) -> Callable[[SweepKeys, Reporter], TrialOutcome]:
    raise RuntimeError(f"no data from {ADDRESS}")


def test_a_worker_process_that_fails_shows_no_password(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configured(n_trials=2)
    _, run_id = Bench(config).sweep()
    monkeypatch.setattr(processes.signal, "signal", lambda *handler: None)
    mine, theirs = multiprocessing.Pipe()
    with pytest.raises(SystemExit) as left:  # any other exception multiprocessing would print whole
        processes._main(WorkerJob(config, "contract", "1", run_id, raises), theirs)
    assert left.value.code == 1
    assert mine.recv() == "RuntimeError: no data from http://127.0.0.1:9/api"
    said = capsys.readouterr().err
    assert "in raises" in said
    assert "secret" not in said
