"""A study made again from its runs alone is the one that Optuna's database held."""

from __future__ import annotations

from pathlib import Path

import mlflow
import optuna
import pytest
from mlflow.exceptions import MlflowException
from optuna.exceptions import TrialPruned
from optuna.trial import FrozenTrial, TrialState
from small_studies import Bench, configured, fails_in, trial_runs

from moola_mlflow.core import UserError
from moola_mlflow.sweep import load_study
from moola_mlflow.sweep.restore import read_recorded_study
from moola_mlflow.sweep.worker import Reporter
from moola_mlflow.tracking import Tags


def known(trial: FrozenTrial) -> tuple[object, ...]:
    """What a trial's run keeps of it."""
    attributes = {key: trial.user_attrs.get(key) for key in ("run_id", "seconds", "reason")}
    history = trial.system_attrs.get("retry_history", [])
    return (trial.number, trial.state, trial.value, trial.params, trial.intermediate_values, attributes, history)


def prune(report: Reporter) -> None:
    raise TrialPruned("others are better")


def break_down(report: Reporter) -> None:
    raise OSError(28, "No space left on device")


def refuse(report: Reporter) -> None:
    raise MlflowException("permission denied")


@pytest.mark.parametrize("failure", [prune, break_down], ids=["pruned", "failed"])
def test_every_trial_comes_back_from_its_run(workdir: Path, failure) -> None:
    queue, run_id = Bench(configured(n_trials=4)).sweep(fails_in(1, failure))
    again = load_study(run_id)
    assert [known(trial) for trial in again.trials] == [known(trial) for trial in queue.study.trials]
    assert again.best_trial.number == queue.study.best_trial.number
    assert (again.study_name, again.user_attrs["run_id"]) == ("contract", run_id)


def test_an_interrupted_trial_is_to_be_repeated_until_another_repeats_it(workdir: Path) -> None:
    client = mlflow.MlflowClient()
    with pytest.raises(MlflowException):
        Bench(configured(n_trials=3)).sweep(fails_in(1, refuse))
    run_id = trial_runs()[0].data.tags[Tags.PARENT]
    assert [trial.number for trial in read_recorded_study(client, run_id).to_repeat()] == [1]
    Bench(configured(n_trials=3)).sweep()
    assert read_recorded_study(client, run_id).to_repeat() == []


def test_a_trial_that_failed_by_itself_is_not_to_be_repeated(workdir: Path) -> None:
    _, run_id = Bench(configured(n_trials=2)).sweep(fails_in(0, break_down))
    assert read_recorded_study(mlflow.MlflowClient(), run_id).to_repeat() == []


def test_a_run_that_says_nothing_of_its_end_and_one_that_is_missing_are_failures(workdir: Path) -> None:
    client = mlflow.MlflowClient()
    _, run_id = Bench(configured(n_trials=4)).sweep()
    runs = trial_runs()
    client.delete_tag(runs[0].info.run_id, Tags.TRIAL_STATE)
    client.update_run(runs[0].info.run_id, status="RUNNING")
    client.delete_run(runs[1].info.run_id)
    recorded = read_recorded_study(client, run_id)
    complete = TrialState.COMPLETE
    assert [trial.state for trial in recorded.trials] == [TrialState.FAIL, TrialState.FAIL, complete, complete]
    assert [trial.number for trial in recorded.to_repeat()] == [0]  # of the missing one no values are known


def test_a_second_run_of_one_number_is_left_out(workdir: Path) -> None:
    client = mlflow.MlflowClient()
    queue, run_id = Bench(configured(n_trials=2)).sweep()
    first = trial_runs()[0]
    tags = {key: first.data.tags[key] for key in (Tags.PARENT, Tags.TRIAL, Tags.STAGE)}
    client.create_run(first.info.experiment_id, start_time=first.info.start_time + 1, tags=tags)
    assert [known(trial) for trial in load_study(run_id).trials] == [known(trial) for trial in queue.study.trials]


def test_a_run_that_is_no_sweep_is_refused(workdir: Path) -> None:
    run_id = mlflow.MlflowClient().create_run("0").info.run_id
    with pytest.raises(UserError, match=f"run '{run_id}' is no sweep; give the id of the parent run, not of a trial"):
        load_study(run_id)


def test_a_study_of_the_notebook_may_be_changed_without_the_store(workdir: Path) -> None:
    queue, run_id = Bench(configured(n_trials=2)).sweep()
    study = load_study(run_id)
    study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL))
    assert len(queue.study.trials) == len(load_study(run_id).trials) == 2
