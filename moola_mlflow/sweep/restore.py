"""The study from the tracking store alone: every trial out of its child run."""

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
from moola_mlflow.sweep.trial_runs import EPOCH_VALUE, REASON, RETRY, RETRY_OF, SECONDS, STATE, STUDY, VALUE
from moola_mlflow.tracking import Tags, first_line, shown_uri

SPACE, DIRECTION, CONFIG = Tags.SPACE, Tags.DIRECTION, Tags.SWEEP_SHA256


@dataclass(frozen=True)
class Recorded:
    """What a sweep's parent run and its child runs say."""

    run: Run
    space: Space
    direction: str
    children: list[Run]
    trials: list[FrozenTrial]
    """All finished: a run that is RUNNING stands for a trial that failed. Numbers no run has are failures too."""

    def unretried(self) -> list[FrozenTrial]:
        """Trials that were interrupted, or whose process died, and that no later one repeats."""
        again = {run.data.tags[RETRY_OF] for run in self.children if RETRY_OF in run.data.tags}
        lost = [run for run in self.children if trial_state(run) is None or _interrupted(run)]
        numbers = {trial_runs.number_of(run) for run in lost} - {int(number) for number in again}
        return [trial for trial in self.trials if trial.number in numbers and trial.params]


def load_study(run_id: str) -> optuna.Study:
    """Return a sweep's study in memory, a copy made from its runs.

    Raises: UserError where there is no such run or it is no sweep.
    """
    recorded = read(mlflow.MlflowClient(), run_id)
    name = recorded.run.data.tags[STUDY]
    study = optuna.create_study(study_name=name, direction=StudyDirection[recorded.direction.upper()])
    study.set_user_attr("run_id", run_id)
    study.add_trials(recorded.trials)
    return study


def read(client: mlflow.MlflowClient, run_id: str) -> Recorded:
    """Read a sweep from the tracking store. Raises: UserError where the run is none."""
    try:
        run = client.get_run(run_id)
    except MlflowException as e:
        raise UserError(f"no run '{run_id}' in {shown_uri()}: {first_line(e)}") from e
    tags = run.data.tags
    if SPACE not in tags:
        raise UserError(f"run '{run_id}' is no sweep; give the id of the parent run, not of a trial")
    space = Space.from_json(tags[SPACE])
    runs = trial_runs.trial_runs_of(client, run.info.experiment_id, run_id)
    return Recorded(run, space, tags[DIRECTION], runs, _trials(client, runs, space))


def _trials(client: mlflow.MlflowClient, runs: list[Run], space: Space) -> list[FrozenTrial]:
    trials: list[FrozenTrial] = []
    for run in runs:
        number = trial_runs.number_of(run)
        if number < len(trials):
            continue  # a second run of one number: only a process that was taken for dead makes it
        while len(trials) < number:
            trials.append(_numbered(create_trial(state=TrialState.FAIL), len(trials)))
        history: list[int] = []
        if RETRY_OF in run.data.tags:
            before = int(run.data.tags[RETRY_OF])
            history = [*trials[before].system_attrs.get("retry_history", []), before]
        trials.append(_numbered(_trial(client, run, space, history), number))
    return trials


def _trial(client: mlflow.MlflowClient, run: Run, space: Space, history: list[int]) -> FrozenTrial:
    params = space.read(run.data.params)
    state, values = trial_state(run) or TrialState.FAIL, run.data.metrics
    curve = {}
    if EPOCH_VALUE in values:
        curve = {point.step: point.value for point in client.get_metric_history(run.info.run_id, EPOCH_VALUE)}
    value = None
    if state == TrialState.COMPLETE:
        value = values[VALUE]
    elif state == TrialState.PRUNED and curve:
        value = curve[max(curve)]  # as Optuna has it
    attributes: dict[str, object] = {"run_id": run.info.run_id}
    if SECONDS in values:
        attributes["seconds"] = values[SECONDS]
    if state == TrialState.FAIL and REASON in run.data.tags:
        attributes["reason"] = run.data.tags[REASON]
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
    """Return how a trial's run says it ended; None where it does not."""
    name = run.data.tags.get(STATE)
    if name is None or (name == "COMPLETE" and VALUE not in run.data.metrics):
        return None
    return TrialState[name]


def _interrupted(run: Run) -> bool:
    """Whether a failed trial is to be tried again with its values: one that failed by itself is not."""
    return run.data.tags.get(STATE) == "FAIL" and run.data.tags.get(RETRY) == "true"


def _numbered(trial: FrozenTrial, number: int) -> FrozenTrial:
    trial.number = number
    return trial


def _time(milliseconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(milliseconds / 1000)
