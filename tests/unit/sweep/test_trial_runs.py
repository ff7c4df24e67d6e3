"""A trial's run: which process works on it, how it ends, and that it outlasts an outage of the store."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from optuna.trial import TrialState
from small_studies import Bench, configured, trial_runs

from moola_mlflow.sweep import trial_runs as trial_runs_module
from moola_mlflow.sweep.trial_runs import TrialEnd, TrialRun, retry_during_outage
from moola_mlflow.tracking import Tags
from moola_mlflow.tracking.recovery import heartbeat
from moola_mlflow.tracking.recovery.heartbeat import host_name


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


def outage() -> None:
    raise ConnectionError("refused")


def test_an_outage_is_waited_out_with_growing_pauses_and_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(trial_runs_module.time, "sleep", pauses.append)

    def step() -> str:
        if len(pauses) < 7:
            outage()
        return "done"

    assert retry_during_outage(step) == "done"
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert capsys.readouterr().out.count("The tracking store does not answer (refused)") == 1


def test_a_stop_or_the_limit_ends_the_waiting_and_a_refusal_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_runs_module.time, "sleep", lambda s: pytest.fail("it waits"))
    with pytest.raises(ConnectionError):
        retry_during_outage(outage, lambda: "SIGINT")
    monkeypatch.setattr(trial_runs_module, "OUTAGE_LIMIT_S", -1.0)
    with pytest.raises(ConnectionError):
        retry_during_outage(outage)

    def refuse() -> None:
        raise MlflowException("permission denied")

    with pytest.raises(MlflowException):
        retry_during_outage(refuse)


@pytest.mark.parametrize(
    ("end", "status", "tags"),
    [
        (TrialEnd(TrialState.COMPLETE), "FINISHED", {Tags.TRIAL_STATE: "COMPLETE"}),
        (TrialEnd(TrialState.PRUNED, "why"), "KILLED", {Tags.TRIAL_STATE: "PRUNED", Tags.NOTE: "why"}),
        (TrialEnd(TrialState.FAIL, reason="nan"), "FAILED",
         {Tags.TRIAL_STATE: "FAIL", Tags.REASON: "nan", Tags.NOTE: "**Failed:** nan"}),
        (TrialEnd(TrialState.FAIL, "stopped", status="KILLED", retry=True), "KILLED",
         {Tags.TRIAL_STATE: "FAIL", Tags.RETRY: "true", Tags.NOTE: "stopped"}),
        (TrialEnd(TrialState.FAIL, reason="x" * 6000), "FAILED",
         {Tags.TRIAL_STATE: "FAIL", Tags.REASON: "x" * 5000, Tags.NOTE: f"**Failed:** {'x' * 6000}"[:5000]}),
    ],
    ids=["complete", "pruned", "failed", "interrupted", "a long reason"],
)  # fmt: skip
def test_the_end_of_a_trial_is_its_runs_status_and_tags(
    workdir: Path, end: TrialEnd, status: str, tags: dict[str, str]
) -> None:
    client = mlflow.MlflowClient()
    run = TrialRun.start(client, "0", "parent", 3, {Tags.RETRY_OF: 1})
    run.end(end)
    stored = client.get_run(run.id)
    own = {Tags.PARENT: "parent", Tags.STAGE: "trial", Tags.TRIAL: "3", Tags.RETRY_OF: "1"}
    assert stored.info.status == status
    assert stored.info.run_name == "trial-003"
    kept = {key: value for key, value in stored.data.tags.items() if key not in (Tags.RUN_NAME, Tags.WORKER)}
    assert kept == {**own, **tags}


def test_values_keep_every_digit_and_figures_that_are_not_finite_are_left_out(workdir: Path) -> None:
    client = mlflow.MlflowClient()
    run = TrialRun.start(client, "0", "parent", 0, {})
    run.params({"optimizer.lr": 0.1 + 0.2, "encoder.name": "bilstm"})
    run.metrics({"a": 1.0, "nan": float("nan")}, step=2)
    stored = client.get_run(run.id)
    assert stored.data.params == {"optimizer.lr": "0.30000000000000004", "encoder.name": "bilstm"}
    assert stored.data.metrics == {"a": 1.0}


def test_the_runs_of_trials_come_by_number_over_all_pages(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_runs_module, "PAGE", 2)
    client = mlflow.MlflowClient()
    numbers = [4, 0, 2, 2, 1]
    made = [TrialRun.start(client, "0", "parent", number, {}).id for number in numbers]
    client.create_run("0", tags={Tags.PARENT: "parent"})  # a child that is no trial
    found = trial_runs_module.trial_runs_of(client, "0", "parent")
    assert [trial_runs_module.number_of(run) for run in found] == sorted(numbers)
    assert {run.info.run_id for run in found} == set(made)
