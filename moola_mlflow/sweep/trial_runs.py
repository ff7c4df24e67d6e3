"""A trial as a child run: its values, curves and how it ended, enough to make the trial again from the run alone."""

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

from moola_mlflow.tracking import (
    MAX_NOTE,
    STORE_FAILURES,
    Metrics,
    Tags,
    first_line,
    host_name,
    is_outage,
)

STUDY = Tags.STUDY
TRIAL, STATE, RETRY, RETRY_OF = Tags.TRIAL, Tags.TRIAL_STATE, Tags.RETRY, Tags.RETRY_OF
REASON = Tags.REASON
"""Why a trial failed by itself."""
VALUE, EPOCH_VALUE, SECONDS = Metrics.SWEEP_VALUE, Metrics.SWEEP_EPOCH_VALUE, Metrics.SWEEP_SECONDS
STATUS = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAIL: "FAILED"}
PAGE = 1000
# How long a trial waits for a store that does not answer, and the longest pause between two tries.
PATIENCE_S, PAUSE_S = 1800.0, 10.0
MAX_REASON = 5000
KEPT_ENCODER = "encoder"
"""Artifact folder of a trial's run with its encoder, and the user attribute that says there is one."""
T = TypeVar("T")
GONE = "**Failed:** the process that ran it is gone; it is tried again."


def retry_patiently(step: Callable[[], T], should_stop: Callable[[], str | None] = lambda: None) -> T:
    """Do what asks the store; where it does not answer, wait and try again: a trial is worth more than minutes.

    Raises: what ``step`` raises where that is no outage, the outage lasts half an hour, or a stop is asked for.
    """
    began, pause_s = time.monotonic(), 0.5
    while True:
        try:
            return step()
        except STORE_FAILURES as e:
            if not is_outage(e) or should_stop() or time.monotonic() - began > PATIENCE_S:
                raise
            if pause_s == 0.5:
                print(
                    f"The tracking store does not answer ({first_line(e)[:200]}); the trial waits for it.", flush=True
                )
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, PAUSE_S)


@dataclass
class TrialRun:
    """The child run of a trial while it runs; it outlasts an outage of the store."""

    client: mlflow.MlflowClient
    id: str
    should_stop: Callable[[], str | None] = lambda: None

    @classmethod
    def start(
        cls, client: mlflow.MlflowClient, experiment: str, parent: str, number: int, tags: Mapping[str, Any],
        should_stop: Callable[[], str | None] = lambda: None,
    ) -> TrialRun:  # fmt: skip
        """Make the run, RUNNING."""
        all_tags = {
            Tags.PARENT: parent,
            Tags.STAGE: "trial",
            TRIAL: str(number),
            **{key: str(v) for key, v in tags.items()},
        }
        all_tags[Tags.WORKER] = json.dumps([host_name(), os.getpid()])
        now, name = int(time.time() * 1000), f"trial-{number:03d}"
        run = retry_patiently(
            lambda: client.create_run(experiment, start_time=now, tags=all_tags, run_name=name), should_stop
        )
        return cls(client, run.info.run_id, should_stop)

    def params(self, params: Mapping[str, Any]) -> None:
        """Log the values that were drawn; ``repr`` keeps every digit of a float."""
        rows = [Param(key, repr(value) if isinstance(value, float) else str(value)) for key, value in params.items()]
        retry_patiently(lambda: self.client.log_batch(self.id, params=rows), self.should_stop)

    def metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log figures in one batch; what is not finite is left out."""
        now = int(time.time() * 1000)
        rows = [Metric(key, float(value), now, step) for key, value in metrics.items() if math.isfinite(value)]
        retry_patiently(lambda: self.client.log_batch(self.id, metrics=rows), self.should_stop)

    def end(
        self, state: TrialState, note: str = "", *, status: str = "", retry: bool = False, reason: str = ""
    ) -> None:
        """Say how the trial ended, in words too."""
        retry_patiently(
            lambda: end_run(self.client, self.id, state, note, status=status, retry=retry, reason=reason),
            self.should_stop,
        )


def end_run(
    client: mlflow.MlflowClient,
    run_id: str,
    state: TrialState,
    note: str = "",
    *,
    status: str = "",
    retry: bool = False,
    reason: str = "",
) -> None:
    """End a trial's run; ``status`` where it is not the one that goes with the state, ``retry``: will be repeated,
    ``reason``: why it failed by itself."""
    note = note or (f"**Failed:** {reason}" if reason else "")
    tags = [RunTag(STATE, state.name), *[RunTag(REASON, reason[:MAX_REASON])] * bool(reason)]
    tags += [RunTag(Tags.NOTE, note[:MAX_NOTE])] * bool(note) + [RunTag(RETRY, "true")] * retry
    client.log_batch(run_id, tags=tags)
    client.set_terminated(run_id, status or STATUS[state])


def trial_runs_of(client: mlflow.MlflowClient, experiment: str, parent: str) -> list[Run]:
    """Return the runs of a sweep's trials by number, of equal numbers the one that began first."""
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
        runs += [run for run in page if TRIAL in run.data.tags]
        token = page.token
        if not token:
            return sorted(runs, key=lambda run: (number_of(run), run.info.start_time))


def number_of(run: Run) -> int:
    """Return the number of the trial that a run belongs to."""
    return int(run.data.tags[TRIAL])


def reconcile_trials(client: mlflow.MlflowClient, runs: list[Run], trials: list[FrozenTrial]) -> int:
    """End the runs that are RUNNING though their trial is not, or that do not say how it ended; return how many.

    A trial that was told its end before its run was keeps that end, also where the run was closed meanwhile as one
    whose process is gone; a run that no trial stands for has failed.
    """
    ended = 0
    by_run = {trial.user_attrs.get("run_id"): trial for trial in trials}
    # A worker makes the run first and then tells the trial of it.
    claimed = {t.number for t in trials if t.state == TrialState.RUNNING and "run_id" not in t.user_attrs}
    for run in runs:
        if run.info.status != "RUNNING" and STATE in run.data.tags:
            continue
        trial = by_run.get(run.info.run_id)
        if number_of(run) in claimed or (trial is not None and trial.state == TrialState.RUNNING):
            continue
        reason = trial.user_attrs.get("reason", "") if trial is not None else ""
        if trial is not None and trial.state.is_finished() and (reason or trial.state != TrialState.FAIL):
            end_run(client, run.info.run_id, trial.state, reason=reason)
        else:
            end_run(client, run.info.run_id, TrialState.FAIL, GONE, retry=True)
        ended += 1
    return ended
