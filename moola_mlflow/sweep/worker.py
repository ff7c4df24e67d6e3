"""One worker of a sweep: claim a trial, train it, report its epochs to Optuna and to its run, and repeat."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import optuna
from mlflow.exceptions import MlflowException
from optuna.exceptions import StorageInternalError, TrialPruned, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState
from requests.exceptions import RequestException
from sqlalchemy.exc import SQLAlchemyError

from moola_mlflow.core import FinetuneSweepKeys, SweepConfig, SweepKeys, TrainingError, UserError, printable
from moola_mlflow.sweep.queue import TrialQueue
from moola_mlflow.sweep.space import Space, trial_config
from moola_mlflow.sweep.storage import STORAGE_FAILURES as STORAGE_FAILURES
from moola_mlflow.sweep.storage import Coordination
from moola_mlflow.sweep.trial_runs import TrialEnd, TrialRun, end_run
from moola_mlflow.tracking import STORE_FAILURES as TRACKING_FAILURES
from moola_mlflow.tracking import Metrics, Tags, first_line

IDLE_S = 0.5
STORES = (MlflowException, SQLAlchemyError, StorageInternalError, RequestException, ConnectionError, TimeoutError)
"""What the two stores, or the connections to them, raise. Any other OSError, like a full disk, fails the trial."""


class Stopped(Exception):
    """A trial was asked to stop before its end."""


@dataclass(frozen=True)
class TrialOutcome:
    """The result of a trial. Units: seconds of training; CPU time if it trained on the CPU."""

    value: float
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Reporter:
    """Takes the results of a trial while it trains."""

    trial: optuna.Trial
    run: TrialRun
    target: str
    should_stop: Callable[[], str | None]

    def is_best(self, value: float) -> bool:
        """Return whether no complete trial of the study has a better value."""
        complete = self.trial.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        values = [trial.value for trial in complete if trial.value is not None]
        lower = self.trial.study.direction == optuna.study.StudyDirection.MINIMIZE
        return all(value <= other if lower else value >= other for other in values)

    def epoch(self, step: int, value: float, metrics: Mapping[str, float]) -> None:
        """Log an epoch's metrics and its value of the target. Raises: TrialPruned if other trials are better."""
        self.run.metrics({**metrics, self.target: value, Metrics.SWEEP_EPOCH_VALUE: value}, step)
        self.trial.report(value, step)
        if self.trial.should_prune():
            raise TrialPruned(f"stopped at epoch {step + 1}: other trials are better")


class TrialObjective(Protocol):
    """Trains one trial. A process may call it many times."""

    def __call__(self, config: SweepKeys, report: Reporter) -> TrialOutcome: ...


@dataclass(frozen=True)
class Worker:
    """Works on a study in this process."""

    config: SweepKeys
    space: Space
    queue: TrialQueue
    experiment: str
    parent: str
    objective: TrialObjective
    should_stop: Callable[[], str | None] = lambda: None
    log: Callable[[str], None] = lambda line: None

    def run(self) -> None:
        """Claim trials until none is left, and none runs elsewhere that may have to be repeated."""
        waiting = False
        while not self.should_stop():
            claimed = self.queue.claim()
            if claimed is not None:
                waiting = False
                self._work_on(claimed)
            elif self.queue.is_done():
                return
            else:
                if not waiting:
                    self.log("Nothing left to claim; waiting for trials that run elsewhere.")
                waiting = True
                time.sleep(IDLE_S)

    def _work_on(self, claimed: FrozenTrial) -> None:
        with TrialHeartbeat(self.queue.coordination, claimed._trial_id, self.config.sweep.heartbeat_s):
            run: TrialRun | None = None
            try:
                trial, run = self._start(claimed)
                self._train_or_leave(trial, run)
            except Exception as e:  # of a store, or a bug: _train has dealt with failures of the trial itself
                self._requeue(claimed.number, run, e)
                if not self.should_stop():
                    raise

    def _start(self, claimed: FrozenTrial) -> tuple[optuna.Trial, TrialRun]:
        queue, study = self.queue, self.queue.study
        study.sampler = build_sampler(self.config.sweep, claimed.number)
        queue.draw_new(claimed)
        trial = optuna.Trial(study, claimed._trial_id)
        repeated = claimed.system_attrs.get("retry_history", [])
        tags = {Tags.RETRY_OF: repeated[-1]} if repeated else {}
        run = TrialRun.start(queue.client, self.experiment, self.parent, trial.number, tags, self.should_stop)
        return trial, run

    def _train_or_leave(self, trial: optuna.Trial, run: TrialRun) -> None:
        try:
            trial.set_user_attr("run_id", run.id)
            self._train(trial, run)
        except UpdateFinishedTrialError:  # another worker has repeated it after a long silence of this one
            note = "**Failed:** it was silent for too long, and another worker repeats it."
            run.end(TrialEnd(TrialState.FAIL, note, retry=True))
            self.log(f"Trial {trial.number}: silent for too long; another worker repeats it.")

    def _requeue(self, number: int, run: TrialRun | None, error: Exception) -> None:
        """Have a trial repeated, as far as the two stores answer."""
        was_running = True
        with suppress(*STORAGE_FAILURES):
            was_running = self.queue.requeue(number)
        if run is not None and was_running:
            with suppress(*TRACKING_FAILURES):
                note = f"**Failed:** the sweep ended during this trial: {first_line(error)}; it is tried again."
                end_run(self.queue.client, run.id, TrialEnd(TrialState.FAIL, note, retry=True))

    def _train(self, trial: optuna.Trial, run: TrialRun) -> None:
        queue, target = self.queue, self.config.sweep.target
        params: dict[str, object] = {}
        try:
            params = self.space.suggest(trial)
            run.params(params)
            report = Reporter(trial, run, target, self.should_stop)
            outcome = self.objective(trial_config(self.config, params), report)
        except TrialPruned as e:
            self._finish_trial(trial, state=TrialState.PRUNED)
            run.end(TrialEnd(TrialState.PRUNED, f"**Pruned:** {e}"))
            self._log_trial(trial, f"pruned at {target} {queue.trials()[trial.number].value}", params)
        except Stopped as e:
            queue.requeue(trial.number)
            run.end(TrialEnd(TrialState.FAIL, f"Interrupted ({e}); it is tried again.", status="KILLED", retry=True))
            self._log_trial(trial, f"interrupted ({e})", params)
        except UpdateFinishedTrialError:
            raise
        except STORES:
            raise  # not the trial's fault: it is repeated when the stores answer again
        except Exception as e:
            if not isinstance(e, UserError | TrainingError):
                print(printable(traceback.format_exc()), file=sys.stderr, end="", flush=True)
            known = isinstance(e, UserError | TrainingError)
            reason = printable(str(e)) if known else f"{type(e).__name__}: {first_line(e)}"
            queue.fail(trial, reason)
            run.end(TrialEnd(TrialState.FAIL, reason=reason))
            self._log_trial(trial, f"failed: {reason}", params)
        else:
            figures = {target: outcome.value, Metrics.SWEEP_VALUE: outcome.value}
            figures[Metrics.SWEEP_SECONDS] = outcome.seconds
            run.metrics({**outcome.metrics, **figures})
            trial.set_user_attr("seconds", outcome.seconds)
            self._finish_trial(trial, value=outcome.value)
            run.end(TrialEnd(TrialState.COMPLETE))
            self._log_trial(trial, f"{target} {outcome.value:.5g} in {outcome.seconds:.1f} s", params)

    def _finish_trial(self, trial: optuna.Trial, value: float | None = None, state: TrialState | None = None) -> None:
        try:
            self.queue.study.tell(trial, value, state=state)
        except ValueError as e:  # Optuna's error if another process has ended the trial
            raise UpdateFinishedTrialError(str(e)) from e

    def _log_trial(self, trial: optuna.Trial, result: str, params: Mapping[str, object]) -> None:
        values = ", ".join(
            f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in params.items()
        )
        self.log(f"Trial {trial.number:3d}: {result}; {values}")


class TrialHeartbeat:
    """Records a trial's heartbeat from a thread until the block ends."""

    def __init__(self, coordination: Coordination, trial_id: int, every_s: float) -> None:
        self._storage, self._trial_id, self._every_s = coordination.rdb, trial_id, every_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stopped.wait(self._every_s):
            try:
                self._storage.record_heartbeat(self._trial_id)
            except STORAGE_FAILURES:  # if it lasts, the trial itself will fail
                continue
        self._storage.remove_session()


def build_sampler(sweep: SweepConfig, number: int) -> optuna.samplers.BaseSampler:
    """Return the sampler of one trial. Its seed comes from the trial's number, so any worker draws the same."""
    seed = int(np.random.SeedSequence([sweep.seed, number]).generate_state(1)[0])
    if sweep.sampler == "tpe":
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=sweep.startup_trials, constant_liar=True)
    return optuna.samplers.RandomSampler(seed=seed)


def build_pruner(config: SweepKeys) -> optuna.pruners.BasePruner:
    """Return the pruner of a configuration."""
    sweep = config.sweep
    if sweep.pruner in ("percentile", "median"):
        keep = 50.0 if sweep.pruner == "median" else 100 * sweep.prune_keep
        return optuna.pruners.PercentilePruner(keep, sweep.prune_startup, sweep.prune_after)
    if sweep.pruner == "hyperband":
        least = max(1, sweep.prune_after)
        if sweep.budget != "epochs":  # trials differ in length; Optuna takes that of the first complete one
            return optuna.pruners.HyperbandPruner(min_resource=least, reduction_factor=3)
        most = config.trainer.epochs
        if isinstance(config, FinetuneSweepKeys):
            most = config.cv.folds * config.cv.repeats
        least = min(least, most)
        return optuna.pruners.HyperbandPruner(min_resource=least, max_resource=most, reduction_factor=3)
    return optuna.pruners.NopPruner()
