"""A trial as a child run: its values, curves and end. The run alone is enough to rebuild the trial."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import mlflow
from mlflow.entities import Metric, Param, Run, RunTag
from optuna.trial import FrozenTrial, TrialState

from moola_mlflow.tracking import MAX_NOTE, STORE_FAILURES, Artifacts, Tags, first_line, host_name, is_outage

STATUS = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAIL: "FAILED"}
PAGE = 1000
OUTAGE_LIMIT_S, LONGEST_PAUSE_S = 1800.0, 10.0
"""How long a trial waits for a store that does not answer, and the longest pause between two tries."""
MAX_REASON = 5000
KEPT_ENCODER = Artifacts.ENCODER
"""Artifact folder of a trial's encoder. Optuna's user attribute of this name says that there is one."""
DIED_NOTE = "**Failed:** its process is gone; the trial is repeated."
T = TypeVar("T")


def retry_during_outage(step: Callable[[], T], should_stop: Callable[[], str | None] = lambda: None) -> T:
    """Call the store and, if it does not answer, wait and try again: a trial costs more than a few minutes.

    Raises: what ``step`` raises if that is no outage, the outage lasts half an hour, or a stop is asked for.
    """
    started_at, pause_s = time.monotonic(), 0.5
    while True:
        try:
            return step()
        except STORE_FAILURES as e:
            if not is_outage(e) or should_stop() or time.monotonic() - started_at > OUTAGE_LIMIT_S:
                raise
            if pause_s == 0.5:
                print(
                    f"The tracking store does not answer ({first_line(e)[:200]}); the trial waits for it.", flush=True
                )
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


@dataclass
class TrialRun:
    """The child run of a trial that is being worked on. It survives an outage of the store."""

    client: mlflow.MlflowClient
    id: str
    should_stop: Callable[[], str | None] = lambda: None

    @classmethod
    def start(
        cls, client: mlflow.MlflowClient, experiment: str, parent: str, number: int, tags: Mapping[str, Any],
        should_stop: Callable[[], str | None] = lambda: None,
    ) -> TrialRun:  # fmt: skip
        """Make the run, with status RUNNING."""
        own = {Tags.PARENT: parent, Tags.STAGE: "trial", Tags.TRIAL: str(number)}
        own[Tags.WORKER] = json.dumps([host_name(), os.getpid()])
        all_tags = {**own, **{key: str(value) for key, value in tags.items()}}
        now_ms, name = int(time.time() * 1000), f"trial-{number:03d}"
        run = retry_during_outage(
            lambda: client.create_run(experiment, start_time=now_ms, tags=all_tags, run_name=name), should_stop
        )
        return cls(client, run.info.run_id, should_stop)

    def params(self, params: Mapping[str, Any]) -> None:
        """Log the values that were drawn, with every digit of a float."""
        rows = [Param(key, repr(value) if isinstance(value, float) else str(value)) for key, value in params.items()]
        retry_during_outage(lambda: self.client.log_batch(self.id, params=rows), self.should_stop)

    def metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log metrics in one batch, without those that are not finite."""
        now_ms = int(time.time() * 1000)
        rows = [Metric(key, float(value), now_ms, step) for key, value in metrics.items() if math.isfinite(value)]
        retry_during_outage(lambda: self.client.log_batch(self.id, metrics=rows), self.should_stop)

    def end(self, end: TrialEnd) -> None:
        """Log how the trial ended, and set the run's status."""
        retry_during_outage(lambda: end_run(self.client, self.id, end), self.should_stop)


@dataclass(frozen=True)
class TrialEnd:
    """How a trial ended."""

    state: TrialState
    note: str = ""
    """Note of the run; by default the reason."""
    status: str = ""
    """Status of the run; by default the one that belongs to the state."""
    retry: bool = False
    """Whether the trial will be repeated with its values."""
    reason: str = ""
    """Why the trial failed by itself."""


def end_run(client: mlflow.MlflowClient, run_id: str, end: TrialEnd) -> None:
    """Set the tags, note and status of a trial's run at its end."""
    note = end.note or (f"**Failed:** {end.reason}" if end.reason else "")
    tags = [RunTag(Tags.TRIAL_STATE, end.state.name)]
    if end.reason:
        tags.append(RunTag(Tags.REASON, end.reason[:MAX_REASON]))
    if note:
        tags.append(RunTag(Tags.NOTE, note[:MAX_NOTE]))
    if end.retry:
        tags.append(RunTag(Tags.RETRY, "true"))
    client.log_batch(run_id, tags=tags)
    client.set_terminated(run_id, end.status or STATUS[end.state])


def trial_runs_of(client: mlflow.MlflowClient, experiment: str, parent: str) -> list[Run]:
    """Return the runs of a sweep's trials by number; of equal numbers, the one that began first comes first."""
    runs: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment],
            f"tags.`{Tags.PARENT}` = '{parent}'",
            max_results=PAGE,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        runs += [run for run in page if Tags.TRIAL in run.data.tags]
        token = page.token
        if not token:
            return sorted(runs, key=lambda run: (number_of(run), run.info.start_time))


def number_of(run: Run) -> int:
    """Return the number of the trial that a run belongs to."""
    return int(run.data.tags[Tags.TRIAL])


def reconcile_trials(client: mlflow.MlflowClient, runs: list[Run], trials: list[FrozenTrial]) -> int:
    """End the runs that are RUNNING or lack a trial state although their trial has ended. Return how many.

    If the database knows how the trial ended, the run gets that end, even if it was closed as dead meanwhile. A run
    without a trial has failed.
    """
    num_ended = 0
    by_run = {trial.user_attrs.get("run_id"): trial for trial in trials}
    # A worker makes the run first, and then writes the run's id into the trial.
    without_run = {t.number for t in trials if t.state == TrialState.RUNNING and "run_id" not in t.user_attrs}
    for run in runs:
        if run.info.status != "RUNNING" and Tags.TRIAL_STATE in run.data.tags:
            continue
        trial = by_run.get(run.info.run_id)
        if number_of(run) in without_run or (trial is not None and trial.state == TrialState.RUNNING):
            continue
        reason = trial.user_attrs.get("reason", "") if trial is not None else ""
        if trial is not None and trial.state.is_finished() and (reason or trial.state != TrialState.FAIL):
            end_run(client, run.info.run_id, TrialEnd(trial.state, reason=reason))
        else:
            end_run(client, run.info.run_id, TrialEnd(TrialState.FAIL, DIED_NOTE, retry=True))
        num_ended += 1
    return num_ended
