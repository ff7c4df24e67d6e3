"""A study behaves as Optuna documents, in the database that workers share and rebuilt from the runs alone."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import mlflow
import optuna
import pytest
import requests
from mlflow.exceptions import MlflowException
from optuna.trial import TrialState
from small_studies import Bench, configured, parabola

from moola_mlflow.core import SweepKeys
from moola_mlflow.core.errors import TrainingError, UserError
from moola_mlflow.sweep import trial_runs
from moola_mlflow.sweep.queue import TrialQueue
from moola_mlflow.sweep.restore import load_study
from moola_mlflow.sweep.storage import Coordination, locate_storage
from moola_mlflow.sweep.worker import Reporter, TrialOutcome


@pytest.fixture
def workdir(workdir: Path) -> Path:
    """The shared fixture, and MLflow told so: what an earlier test told it counts more than the environment."""
    mlflow.set_tracking_uri(f"sqlite:///{workdir}/mlflow.db")
    return workdir


@pytest.fixture
def stored(workdir: Path) -> tuple[TrialQueue, str]:
    return Bench(configured()).sweep()


@pytest.fixture(params=["the shared database", "the runs alone"])
def study(stored: tuple[TrialQueue, str], request: pytest.FixtureRequest) -> optuna.Study:
    queue, run_id = stored
    return queue.study if request.param == "the shared database" else load_study(run_id)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    warnings.filterwarnings("ignore", message=".*supposed to be used with Study.optimize")


def test_trials_are_in_order_with_values_parameters_and_epochs(study: optuna.Study) -> None:
    assert [trial.number for trial in study.trials] == list(range(8))
    for trial in study.trials:
        assert trial.state == TrialState.COMPLETE
        assert trial.value == abs(trial.params["optimizer.lr"] - 0.01) + trial.params["encoder.hidden"] / 1000
        assert trial.intermediate_values == {step: trial.value + 1 / (step + 1) for step in range(3)}
        assert ("encoder.dropout" in trial.params) == (trial.params["trainer.batch_size"] != 64)
        assert trial.datetime_start is not None
        assert trial.datetime_complete is not None


def test_both_studies_are_equal(stored: tuple[TrialQueue, str]) -> None:
    queue, run_id = stored
    for one, other in zip(queue.study.trials, load_study(run_id).trials, strict=True):
        assert (one.number, one.state, one.values, one.params) == (
            other.number,
            other.state,
            other.values,
            other.params,
        )
        assert (one.distributions, one.intermediate_values) == (other.distributions, other.intermediate_values)
        assert one.user_attrs["run_id"] == other.user_attrs["run_id"]
        assert one.user_attrs["seconds"] == other.user_attrs["seconds"]


def test_why_a_trial_failed_is_known_without_the_database(workdir: Path) -> None:
    def fails_once(config: SweepKeys, report: Reporter) -> TrialOutcome:
        if report.trial.number == 2:
            raise TrainingError("the loss is NaN in epoch 3")
        return parabola(config, report)

    queue, run_id = Bench(configured()).sweep(fails_once)
    rebuilt = load_study(run_id)
    for study in (queue.study, rebuilt):
        assert [t.user_attrs.get("reason") for t in study.trials if t.state == TrialState.FAIL] == [
            "the loss is NaN in epoch 3"
        ]
    Path("mlruns/optuna.db").unlink()
    again, _ = Bench(configured(n_trials=9, max_failures=0)).rejoin(run_id)
    with pytest.raises(TrainingError, match=r"1 trials failed by themselves.*the loss is NaN in epoch 3"):
        again.claim()


def test_a_trial_knows_whether_it_is_the_best_so_far(workdir: Path) -> None:
    said: list[bool] = []

    def asks(config: SweepKeys, report: Reporter) -> TrialOutcome:
        outcome = parabola(config, report)
        said.append(report.is_best(outcome.value))
        return outcome

    queue, _ = Bench(configured()).sweep(asks)
    values = [trial.value or 0.0 for trial in queue.study.trials]
    assert said == [value == min(values[: i + 1]) for i, value in enumerate(values)]
    assert 1 <= sum(said) < len(said)


def test_a_step_waits_for_a_store_that_does_not_answer_and_for_nothing_else() -> None:
    """The errors are real: nobody listens at the port."""
    tried: list[int] = []

    def step() -> str:
        tried.append(1)
        if len(tried) < 3:
            requests.get("http://127.0.0.1:9", timeout=1)
        return "done"

    assert trial_runs.retry_during_outage(step) == "done"
    assert len(tried) == 3
    tried.clear()
    with pytest.raises(requests.exceptions.ConnectionError):
        trial_runs.retry_during_outage(step, should_stop=lambda: "SIGTERM")
    assert len(tried) == 1
    with pytest.raises(MlflowException, match="not found"):
        trial_runs.retry_during_outage(lambda: mlflow.MlflowClient().get_run("0" * 32))


def test_the_best_trial_is_the_best(study: optuna.Study) -> None:
    assert study.direction.name == "MINIMIZE"
    assert study.best_value == min(trial.value for trial in study.trials if trial.value is not None)
    assert study.best_params == study.best_trial.params


def test_ask_and_tell_go_on_with_the_next_number(study: optuna.Study) -> None:
    trial = study.ask()
    assert trial.number == 8
    trial.suggest_float("optimizer.lr", 1e-4, 1e-1, log=True)
    trial.report(1.0, 0)
    study.tell(trial, -1.0)
    assert study.best_trial.number == 8
    failed = study.ask()
    study.tell(failed, state=TrialState.FAIL)
    assert [trial.state for trial in study.trials[8:]] == [TrialState.COMPLETE, TrialState.FAIL]


def test_enqueued_points_come_next_with_their_values(study: optuna.Study) -> None:
    study.enqueue_trial({"optimizer.lr": 0.01}, user_attrs={"why": "a guess"})
    trial = study.ask()
    assert trial.suggest_float("optimizer.lr", 1e-4, 1e-1, log=True) == 0.01
    assert trial.user_attrs == {"why": "a guess"}


def test_user_attributes_stay(study: optuna.Study) -> None:
    study.set_user_attr("who", ["a", 1])
    trial = study.ask()
    trial.set_user_attr("note", {"x": 1})
    study.tell(trial, 1.0)
    assert study.user_attrs["who"] == ["a", 1]
    assert study.trials[-1].user_attrs == {"note": {"x": 1}}


def test_importance_and_dataframe_work(study: optuna.Study) -> None:
    importance = optuna.importance.get_param_importances(study)
    assert {"trainer.batch_size", "optimizer.lr", "encoder.hidden"} <= set(importance)
    assert sum(importance.values()) == pytest.approx(1)
    assert len(study.trials_dataframe()) == 8


def test_a_study_can_be_optimised_further_by_optuna(study: optuna.Study) -> None:
    study.optimize(lambda trial: trial.suggest_float("optimizer.lr", 1e-4, 1e-1, log=True), n_trials=2)
    assert [trial.number for trial in study.trials] == list(range(10))


def test_the_same_seed_draws_the_same_points(workdir: Path) -> None:
    first, _ = Bench(configured(study="one")).sweep()
    second, _ = Bench(configured(study="two")).sweep()
    other, _ = Bench(configured(study="three", seed=5)).sweep()
    params = [[trial.params for trial in queue.study.trials] for queue in (first, second, other)]
    assert params[0] == params[1] != params[2]


@pytest.mark.parametrize("failing", [True, False])
def test_failed_trials_are_replaced_until_too_many_failed(workdir: Path, failing: bool) -> None:
    from moola_mlflow.core.errors import TrainingError

    calls = []

    def objective(config: SweepKeys, report: Reporter) -> TrialOutcome:
        calls.append(config)
        if failing or len(calls) <= 2:
            raise TrainingError("train/loss is nan")
        return parabola(config, report)

    bench = Bench(configured(max_failures=3, n_trials=4))
    if failing:
        with pytest.raises(TrainingError, match=r"4 trials failed by themselves, sweep.max_failures allows 3"):
            bench.sweep(objective)
        return
    queue, run_id = bench.sweep(objective)
    assert [trial.state.name for trial in queue.study.trials] == ["FAIL", "FAIL", *["COMPLETE"] * 4]
    run = mlflow.MlflowClient().get_run(queue.study.trials[0].user_attrs["run_id"])
    assert (run.info.status, run.data.tags["mlflow.note.content"]) == ("FAILED", "**Failed:** train/loss is nan")
    assert [trial.state for trial in load_study(run_id).trials] == [trial.state for trial in queue.study.trials]


def test_pruned_trials_count_and_their_runs_are_killed(workdir: Path) -> None:
    def objective(config: SweepKeys, report: Reporter) -> TrialOutcome:
        value = float(report.trial.number)
        for step in range(3):
            report.epoch(step, value, {})
        return TrialOutcome(value, 1.0)

    queue, run_id = Bench(configured(pruner="median", prune_startup=2, prune_after=0)).sweep(objective)
    assert [trial.state.name for trial in queue.study.trials] == ["COMPLETE"] * 2 + ["PRUNED"] * 6
    again = load_study(run_id)
    assert [(t.state, t.value) for t in again.trials] == [(t.state, t.value) for t in queue.study.trials]
    run = mlflow.MlflowClient().get_run(queue.study.trials[5].user_attrs["run_id"])
    assert run.info.status == "KILLED"


def test_a_grid_visits_every_combination_once(workdir: Path) -> None:
    space = {"trainer.batch_size": [16, 64], "encoder.dropout": {"low": 0.1, "high": 0.3, "step": 0.1,
                                                                "when": {"trainer.batch_size": 16}}}  # fmt: skip
    queue, _ = Bench(configured(space=space, sampler="grid", n_trials=20)).sweep()
    points = {tuple(trial.params.values()) for trial in queue.study.trials}
    assert points == {(16, 0.1), (16, 0.2), (16, 0.3), (64,)}
    assert len(queue.study.trials) == 4


def test_trials_that_were_interrupted_are_repeated_with_their_values_after_the_database_is_gone(workdir: Path) -> None:
    bench = Bench(configured(n_trials=3))

    class Dead(BaseException):
        """What a killed process looks like to its own code: nothing is told to anybody."""

    def objective(config: SweepKeys, report: Reporter) -> TrialOutcome:
        if report.trial.number == 1:
            raise Dead
        return parabola(config, report)

    with pytest.raises(Dead):
        bench.sweep(objective)
    client = mlflow.MlflowClient()
    (parent,) = client.search_runs(["1"], "tags.`moola.stage` = 'sweep'")
    client.set_tag(parent.info.run_id, "moola.coordinator", "{}")
    (workdir / "mlruns" / "optuna.db").unlink()
    queue, run_id = Bench(configured(n_trials=3)).sweep()
    assert run_id == parent.info.run_id
    trials = queue.study.trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert trials[2].params == trials[1].params
    assert client.get_run(trials[1].user_attrs["run_id"]).info.status == "FAILED"


def test_a_database_whose_driver_is_missing_is_refused_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)  # what Python does for a package that is not there
    url, _ = locate_storage("postgresql://user:secret@127.0.0.1:1/x", "")
    with pytest.raises(UserError, match=r"lacks the package 'psycopg'; pip install") as told:
        Coordination(url, 1, 2)
    assert "secret" not in str(told.value)
