"""One worker: claim a trial, train it, report its epochs to Optuna and to its run, until none is left."""

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
from moola_mlflow.sweep.trial_runs import EPOCH_VALUE, RETRY_OF, SECONDS, VALUE, TrialRun, end_run
from moola_mlflow.tracking import STORE_FAILURES as TRACKING_FAILURES
from moola_mlflow.tracking import first_line

IDLE_S = 0.5
STORES = (MlflowException, SQLAlchemyError, StorageInternalError, RequestException, ConnectionError, TimeoutError)
"""What the two stores, or the ways to them, raise. Another OSError, such as of a full disk, is the trial's own."""


class Stopped(Exception):
    """A trial was asked to stop before its end."""


@dataclass(frozen=True)
class TrialOutcome:
    """What a trial came to. Units: seconds of training, CPU time where it trained on the CPU."""

    value: float
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Reporter:
    """What a trial tells while it trains."""

    trial: optuna.Trial
    run: TrialRun
    target: str
    should_stop: Callable[[], str | None]

    def is_best(self, value: float) -> bool:
        """Whether no complete trial of the study, here or elsewhere, has a better value."""
        whole = self.trial.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        found = [trial.value for trial in whole if trial.value is not None]
        lower = self.trial.study.direction == optuna.study.StudyDirection.MINIMIZE
        return all(value <= other if lower else value >= other for other in found)

    def epoch(self, step: int, value: float, metrics: Mapping[str, float]) -> None:
        """Log an epoch and its value of what is searched for. Raises: TrialPruned where others promise more."""
        self.run.metrics({**metrics, self.target: value, EPOCH_VALUE: value}, step)
        self.trial.report(value, step)
        if self.trial.should_prune():
            raise TrialPruned(f"stopped at epoch {step}: others promise more")


class TrialObjective(Protocol):
    """What a trial does; it may be called again and again in one process."""

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
    heard: Callable[[str], None] = lambda line: None

    def run(self) -> None:
        """Claim trials until none is left and none runs elsewhere that might have to be repeated."""
        waiting = False
        while not self.should_stop():
            claimed = self.queue.claim()
            if claimed is not None:
                waiting = False
                self._trial(claimed)
            elif self.queue.is_done():
                return
            else:
                if not waiting:
                    self.heard("Nothing left to claim; waiting for trials that run elsewhere.")
                waiting = True
                time.sleep(IDLE_S)

    def _trial(self, claimed: FrozenTrial) -> None:
        with heartbeat(self.queue.coordination, claimed._trial_id, self.config.sweep.heartbeat_s):
            run: TrialRun | None = None
            try:
                trial, run = self._start(claimed)
                self._work_on(trial, run)
            except Exception as e:  # a store's, or a bug of ours: what fails by itself is dealt with by then
                self._give_up(claimed.number, run, e)
                if not self.should_stop():
                    raise

    def _start(self, claimed: FrozenTrial) -> tuple[optuna.Trial, TrialRun]:
        queue, study = self.queue, self.queue.study
        study.sampler = build_sampler(self.config.sweep, claimed.number)
        trial = optuna.Trial(study, claimed._trial_id)
        repeated = claimed.system_attrs.get("retry_history", [])
        tags = {RETRY_OF: repeated[-1]} if repeated else {}
        run = TrialRun.start(queue.client, self.experiment, self.parent, trial.number, tags, self.should_stop)
        return trial, run

    def _work_on(self, trial: optuna.Trial, run: TrialRun) -> None:
        try:
            trial.set_user_attr("run_id", run.id)
            self._train(trial, run)
        except UpdateFinishedTrialError:  # a long silence, and another worker has taken over
            run.end(TrialState.FAIL, "**Failed:** it was taken for dead, and another worker repeats it.", retry=True)
            self.heard(f"Trial {trial.number}: taken for dead while it was silent; another worker repeats it.")

    def _give_up(self, number: int, run: TrialRun | None, error: Exception) -> None:
        """Leave a trial to be repeated, as far as its two stores can still be told."""
        ran = True
        with suppress(*STORAGE_FAILURES):
            ran = self.queue.interrupted(number)
        if run is not None and ran:
            with suppress(*TRACKING_FAILURES):
                note = f"**Failed:** the sweep ended in the middle of it: {first_line(error)}; it is tried again."
                end_run(self.queue.client, run.id, TrialState.FAIL, note, retry=True)

    def _train(self, trial: optuna.Trial, run: TrialRun) -> None:
        queue, target = self.queue, self.config.sweep.target
        params: dict[str, object] = {}
        try:
            params = self.space.suggest(trial)
            run.params(params)
            report = Reporter(trial, run, target, self.should_stop)
            outcome = self.objective(trial_config(self.config, params), report)
        except TrialPruned as e:
            self._tell(trial, state=TrialState.PRUNED)
            run.end(TrialState.PRUNED, f"**Pruned:** {e}")
            self._say(trial, f"pruned at {target} {queue.trials()[trial.number].value}", params)
        except Stopped as e:
            queue.interrupted(trial.number)
            run.end(TrialState.FAIL, f"Interrupted ({e}); it is tried again.", status="KILLED", retry=True)
            self._say(trial, f"interrupted ({e})", params)
        except UpdateFinishedTrialError:
            raise
        except STORES:
            raise  # no fault of the trial's: it is repeated when the stores are back
        except Exception as e:
            if not isinstance(e, UserError | TrainingError):
                print(printable(traceback.format_exc()), file=sys.stderr, end="", flush=True)
            known = isinstance(e, UserError | TrainingError)
            reason = printable(str(e)) if known else f"{type(e).__name__}: {first_line(e)}"
            queue.failed(trial, reason)
            run.end(TrialState.FAIL, reason=reason)
            self._say(trial, f"failed: {reason}", params)
        else:
            run.metrics({**outcome.metrics, target: outcome.value, VALUE: outcome.value, SECONDS: outcome.seconds})
            trial.set_user_attr("seconds", outcome.seconds)
            self._tell(trial, value=outcome.value)
            run.end(TrialState.COMPLETE)
            self._say(trial, f"{target} {outcome.value:.5g} in {outcome.seconds:.1f} s", params)

    def _tell(self, trial: optuna.Trial, value: float | None = None, state: TrialState | None = None) -> None:
        try:
            self.queue.study.tell(trial, value, state=state)
        except ValueError as e:  # Optuna's word for a trial that somebody else has ended
            raise UpdateFinishedTrialError(str(e)) from e

    def _say(self, trial: optuna.Trial, what: str, params: Mapping[str, object]) -> None:
        values = ", ".join(
            f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in params.items()
        )
        self.heard(f"Trial {trial.number:3d}: {what}; {values}")


class heartbeat:
    """Record a trial's sign of life from a thread until the block ends."""

    def __init__(self, coordination: Coordination, trial_id: int, every_s: float) -> None:
        self._storage, self._trial_id, self._every_s = coordination.rdb, trial_id, every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(self._every_s):
            try:
                self._storage.record_heartbeat(self._trial_id)
            except STORAGE_FAILURES:  # the trial itself will say so if it lasts
                continue
        self._storage.remove_session()


def build_sampler(sweep: SweepConfig, number: int) -> optuna.samplers.BaseSampler:
    """Return the sampler of one trial, seeded by its number: which worker draws it makes no difference."""
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
        if sweep.budget != "epochs":  # trials differ in length; Optuna takes the first complete one's
            return optuna.pruners.HyperbandPruner(min_resource=least, reduction_factor=3)
        most = config.trainer.epochs
        if sweep.stage == "finetune":
            assert isinstance(config, FinetuneSweepKeys)
            most = config.cv.folds * config.cv.repeats
        least = min(least, most)
        return optuna.pruners.HyperbandPruner(min_resource=least, max_resource=most, reduction_factor=3)
    return optuna.pruners.NopPruner()
