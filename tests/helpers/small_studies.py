"""Sweeps of trials that train nothing."""

from __future__ import annotations

from collections.abc import Callable

import mlflow
import optuna
from mlflow.entities import Run as StoredRun

from moola_mlflow.core import PretrainSweepKeys, SweepKeys, make_config
from moola_mlflow.sweep.attach import join_study
from moola_mlflow.sweep.queue import TrialQueue
from moola_mlflow.sweep.space import Space
from moola_mlflow.sweep.storage import Coordination, locate_storage
from moola_mlflow.sweep.trial_runs import trial_runs_of
from moola_mlflow.sweep.worker import Reporter, TrialOutcome, Worker
from moola_mlflow.tracking.run import Run

SPACE = {
    "trainer.batch_size": [16, 32, 64],
    "optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "encoder.hidden": {"low": 4, "high": 16, "step": 4},
    "encoder.dropout": {"low": 0.0, "high": 0.8, "when": {"trainer.batch_size": [16, 32]}},
}


def configured(**sweep: object) -> PretrainSweepKeys:
    given = {"space": SPACE, "n_trials": 8, "startup_trials": 3, "pruner": "none", "study": "contract", **sweep}
    return make_config(PretrainSweepKeys, {"sweep": given}, {})


def parabola(config: SweepKeys, report: Reporter) -> TrialOutcome:
    """A trial without training: three epochs that approach a value."""
    value = abs(config.optimizer.lr - 0.01) + config.encoder.hidden / 1000
    for step in range(3):
        report.epoch(step, value + 1 / (step + 1), {"lr": config.optimizer.lr})
    return TrialOutcome(value, seconds=config.encoder.hidden / 10)


class Bench:
    """A sweep of trivial trials in this process."""

    def __init__(self, config: SweepKeys) -> None:
        self.config, self.space = config, Space.of(config)
        url, _ = locate_storage("", mlflow.get_tracking_uri())
        self.coordination = Coordination(url, 1, 2)

    def sweep(self, objective: Callable[[SweepKeys, Reporter], TrialOutcome] = parabola) -> tuple[TrialQueue, str]:
        with Run.start("sweep", "bench") as run:
            joined = join_study(self.config, self.space, self.coordination, self.config.sweep.study, run)
            Worker(self.config, self.space, joined.queue, joined.experiment, joined.run_id, objective).run()
        return joined.queue, joined.run_id

    def rejoin(self, run_id: str) -> tuple[TrialQueue, str]:
        """Join a sweep that is there without working on it."""
        joined = join_study(self.config, self.space, self.coordination, self.config.sweep.study, None)
        assert joined.run_id == run_id
        return joined.queue, joined.run_id


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
    return trial_runs_of(mlflow.MlflowClient(), "1", parent.info.run_id)


def in_hand_elsewhere(queue: TrialQueue) -> optuna.Trial:
    """A trial that a process of another machine has in hand."""
    trial = queue.study.ask()
    trial.set_user_attr("worker", ["elsewhere pid:[1]", 1])
    return trial
