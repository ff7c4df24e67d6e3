"""Rebuild a study from the tracking store alone: every trial from its child run."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import mlflow
import optuna
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from moola_mlflow.core import UserError
from moola_mlflow.sweep import trial_runs
from moola_mlflow.sweep.space import Space
from moola_mlflow.tracking import Metrics, Tags, first_line, need_store, shown_uri


@dataclass(frozen=True)
class RecordedStudy:
    """A sweep as its parent run and its child runs record it."""

    run: Run
    space: Space
    direction: str
    children: list[Run]
    trials: list[FrozenTrial]
    """All of them have ended: a run that is RUNNING, or missing, counts as a failed trial."""

    def to_repeat(self) -> list[FrozenTrial]:
        """Return the trials that were interrupted, or whose process died, and that no later trial repeats."""
        repeated = {run.data.tags[Tags.RETRY_OF] for run in self.children if Tags.RETRY_OF in run.data.tags}
        lost = [run for run in self.children if trial_state(run) is None or _was_interrupted(run)]
        numbers = {trial_runs.number_of(run) for run in lost} - {int(number) for number in repeated}
        return [trial for trial in self.trials if trial.number in numbers and trial.params]


def load_study(run_id: str) -> optuna.Study:
    """Rebuild a sweep's Optuna study in memory, from its runs in the tracking store.

    Changes of the study are not stored.

    Parameters
    ----------
    run_id
        The id of the sweep's parent run.

    Returns
    -------
    optuna.Study
        The study with all its trials; each trial's user attribute ``run_id`` names its run.

    Raises
    ------
    UserError
        If the run does not exist or is no sweep.

    Examples
    --------
    >>> load_study("no-such-run")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    moola_mlflow.core.errors.UserError: no run 'no-such-run' in ...
    """
    need_store(f"run '{run_id}'")
    recorded = read_recorded_study(mlflow.MlflowClient(), run_id)
    name = recorded.run.data.tags[Tags.STUDY]
    study = optuna.create_study(study_name=name, direction=StudyDirection[recorded.direction.upper()])
    study.set_user_attr("run_id", run_id)
    study.add_trials(recorded.trials)
    return study


def read_recorded_study(client: mlflow.MlflowClient, run_id: str) -> RecordedStudy:
    """Read a sweep from the tracking store. Raises: UserError if the run does not exist or is no sweep."""
    try:
        run = client.get_run(run_id)
    except MlflowException as e:
        raise UserError(f"no run '{run_id}' in {shown_uri()}: {first_line(e)}") from e
    tags = run.data.tags
    if Tags.SPACE not in tags:
        raise UserError(f"run '{run_id}' is no sweep; give the id of the parent run, not of a trial")
    space = Space.from_json(tags[Tags.SPACE])
    runs = trial_runs.trial_runs_of(client, run.info.experiment_id, run_id)
    return RecordedStudy(run, space, tags[Tags.DIRECTION], runs, _trials(client, runs, space))


def _trials(client: mlflow.MlflowClient, runs: list[Run], space: Space) -> list[FrozenTrial]:
    trials: list[FrozenTrial] = []
    for run in runs:
        number = trial_runs.number_of(run)
        if number < len(trials):
            continue  # a second run of one number: only a process that was taken for dead makes it
        while len(trials) < number:
            trials.append(_numbered(create_trial(state=TrialState.FAIL), len(trials)))
        history: list[int] = []
        if Tags.RETRY_OF in run.data.tags:
            before = int(run.data.tags[Tags.RETRY_OF])
            history = [*trials[before].system_attrs.get("retry_history", []), before]
        trials.append(_numbered(_trial(client, run, space, history), number))
    return trials


def _trial(client: mlflow.MlflowClient, run: Run, space: Space, history: list[int]) -> FrozenTrial:
    params = space.read(run.data.params)
    state, values = trial_state(run) or TrialState.FAIL, run.data.metrics
    curve = {}
    if Metrics.SWEEP_EPOCH_VALUE in values:
        points = client.get_metric_history(run.info.run_id, Metrics.SWEEP_EPOCH_VALUE)
        curve = {point.step: point.value for point in points}
    value = None
    if state == TrialState.COMPLETE:
        value = values[Metrics.SWEEP_VALUE]
    elif state == TrialState.PRUNED and curve:
        value = curve[max(curve)]  # as in Optuna
    attributes: dict[str, object] = {"run_id": run.info.run_id}
    if Metrics.SWEEP_SECONDS in values:
        attributes["seconds"] = values[Metrics.SWEEP_SECONDS]
    if state == TrialState.FAIL and Tags.REASON in run.data.tags:
        attributes["reason"] = run.data.tags[Tags.REASON]
    trial = create_trial(
        state=state,
        value=value,
        params=params,
        distributions={key: space.distributions[key] for key in params},
        intermediate_values=curve,
        user_attrs=attributes,
        system_attrs={"failed_trial": history[0], "retry_history": history} if history else {},
    )
    trial.datetime_start = _time(run.info.start_time)
    trial.datetime_complete = _time(run.info.end_time or run.info.start_time)
    return trial


def trial_state(run: Run) -> TrialState | None:
    """Return how a trial ended, by its run. None if the run does not say it."""
    name = run.data.tags.get(Tags.TRIAL_STATE)
    if name is None or (name == "COMPLETE" and Metrics.SWEEP_VALUE not in run.data.metrics):
        return None
    return TrialState[name]


def _was_interrupted(run: Run) -> bool:
    """Return whether a failed trial is to be repeated with its values. One that failed by itself is not."""
    return run.data.tags.get(Tags.TRIAL_STATE) == "FAIL" and run.data.tags.get(Tags.RETRY) == "true"


def _numbered(trial: FrozenTrial, number: int) -> FrozenTrial:
    trial.number = number
    return trial


def _time(milliseconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(milliseconds / 1000)
