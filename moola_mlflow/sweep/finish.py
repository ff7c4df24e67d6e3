"""End a command of a sweep: log the results of a finished study, or leave the study to those who still work on it."""

from __future__ import annotations

from contextlib import suppress

from moola_mlflow.core import SweepKeys
from moola_mlflow.sweep.attach import JoinedStudy
from moola_mlflow.sweep.space import Space
from moola_mlflow.sweep.storage import STORAGE_FAILURES
from moola_mlflow.sweep.summary import study_console_lines, summarise_study
from moola_mlflow.sweep.trial_runs import reconcile_trials, retry_during_outage, trial_runs_of
from moola_mlflow.tracking import STORE_FAILURES, Run

SUMMARISED = "summarised"
"""Attribute of a study: the number of trials, and of ended ones, when its results were logged."""


def finish_study(parent: Run, config: SweepKeys, space: Space, joined: JoinedStudy, full_epochs: int) -> list[str]:
    """Log the results of a finished study and return the lines for the console.

    If two processes see the end of the study, the second one finds the results logged.
    """
    study = joined.queue.study
    with joined.queue.exclusive():
        trials = joined.queue.trials()
        seen = [len(trials), sum(trial.state.is_finished() for trial in trials)]
        if study.user_attrs.get(SUMMARISED) != seen:
            summarise_study(parent, study, space, config, full_epochs)
            study.set_user_attr(SUMMARISED, seen)
    retry_during_outage(lambda: _reconcile(joined))
    return study_console_lines(parent, study, config)


def leave_study(joined: JoinedStudy) -> None:
    """End the runs that dead workers left open, and queue their trials again. Stores that do not answer are skipped."""
    with suppress(*STORE_FAILURES, *STORAGE_FAILURES):
        joined.queue.requeue_dead()
        _reconcile(joined)


def keep_running_for_others(joined: JoinedStudy) -> None:
    """Set the sweep's run back to RUNNING if others still work on the study. The last of them ends it."""
    with suppress(*STORE_FAILURES, *STORAGE_FAILURES):
        if joined.queue.others_running():
            joined.queue.client.update_run(joined.run_id, status="RUNNING")


def _reconcile(joined: JoinedStudy) -> None:
    client = joined.queue.client
    reconcile_trials(client, trial_runs_of(client, joined.experiment, joined.run_id), joined.queue.trials())
