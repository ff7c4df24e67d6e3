"""Commands that share a sweep: which one coordinates it, what another finds, and when its run is RUNNING."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import sqlalchemy
from mlflow.exceptions import MlflowException
from optuna.trial import TrialState
from small_studies import Bench, configured, in_hand_elsewhere, parabola

from moola_mlflow.cli.commands import sweep
from moola_mlflow.core import SweepKeys
from moola_mlflow.core.errors import UserError
from moola_mlflow.core.signals import Interrupts
from moola_mlflow.sweep import attach
from moola_mlflow.sweep.attach import SweepHeartbeat, join_study
from moola_mlflow.sweep.storage import Coordination
from moola_mlflow.sweep.trial_runs import TrialRun
from moola_mlflow.sweep.worker import Reporter, TrialOutcome
from moola_mlflow.tracking import Run, Tags
from moola_mlflow.tracking.recovery import heartbeat

RANGE = {"optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True}}


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


def joined_again(space: dict, sha256: str = "") -> None:
    bench = Bench(configured(n_trials=2, space=space))
    join_study(bench.config, bench.space, bench.coordination, bench.config.sweep.study, None, sha256)


def test_a_study_knows_the_data_that_it_searched_on_and_refuses_other_data(workdir: Path) -> None:
    bench = Bench(configured(n_trials=2, space=RANGE))
    with Run.start("sweep", "bench") as run:
        join_study(bench.config, bench.space, bench.coordination, bench.config.sweep.study, run, "a" * 64)
    joined_again(RANGE, "a" * 64)
    with pytest.raises(UserError, match=r"searched on data with SHA-256 a{12}\.\.\., and this command .* b{12}"):
        joined_again(RANGE, "b" * 64)


def test_a_range_of_a_study_may_be_widened_and_not_narrowed(workdir: Path) -> None:
    bench = Bench(configured(n_trials=2, space=RANGE))
    with Run.start("sweep", "bench") as run:
        run.config(bench.config)
        queue = join_study(bench.config, bench.space, bench.coordination, bench.config.sweep.study, run).queue
    wider = {"optimizer.lr": {**RANGE["optimizer.lr"], "high": 0.5}}
    joined_again(wider)
    assert '"high": 0.5' in queue.client.get_run(run.id).data.tags[Tags.SPACE]
    joined_again(wider)
    with pytest.raises(UserError, match=r"another search space: optimizer.lr differs.* may only become wider"):
        joined_again(RANGE)
