"""The queue of a study: trials to claim until as many as wanted have ended well; dead ones are replaced.

Invariant, kept under the study's lock: complete + pruned + running + waiting trials are never more than ``n_trials``.
"""

from __future__ import annotations

import contextlib
import copy
import os
import random
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager

import mlflow
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from moola_mlflow.core import SweepConfig, TrainingError
from moola_mlflow.sweep.space import Params, Space
from moola_mlflow.sweep.storage import Coordination
from moola_mlflow.sweep.trial_runs import GONE, end_run
from moola_mlflow.tracking import STORE_FAILURES, host_name, is_dead

WELL = (TrialState.COMPLETE, TrialState.PRUNED)
LIVE = (*WELL, TrialState.RUNNING, TrialState.WAITING)


class TrialQueue:
    """Trials of one study, shared with every other process that works on it."""

    def __init__(
        self,
        study: optuna.Study,
        coordination: Coordination,
        sweep: SweepConfig,
        space: Space,
        client: mlflow.MlflowClient,
    ) -> None:
        self.study, self.coordination, self.sweep, self.client = study, coordination, sweep, client
        self.grid: list[Params] | None = None
        if sweep.sampler == "grid":
            self.grid = space.grid()
            random.Random(sweep.seed).shuffle(self.grid)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._retry_dead = RetryHeartbeatStaleTrialCallback(max_retry=sweep.max_retries)
            self._retry_interrupted = RetryHeartbeatStaleTrialCallback()
        coordination.rdb.heartbeat_stale_trial_callback = self._died

    def exclusive(self) -> AbstractContextManager[None]:
        """The study's lock."""
        return self.coordination.exclusive(self.study.study_name)

    def trials(self) -> list[FrozenTrial]:
        """All trials, in order; not to be changed."""
        return self.study.get_trials(deepcopy=False)

    def counts(self) -> Counter[TrialState]:
        """Trials by state."""
        return Counter(trial.state for trial in self.trials())

    def is_done(self) -> bool:
        """Whether nothing is left to do, or to wait for."""
        found = self.counts()
        open_ = found[TrialState.RUNNING] + found[TrialState.WAITING]
        return sum(found[state] for state in WELL) >= self.sweep.n_trials or (self.grid is not None and not open_)

    def others_running(self) -> bool:
        """Whether some other process, which is not known to be dead, has a trial in hand."""
        mine = [host_name(), os.getpid()]
        workers = [t.user_attrs.get("worker") for t in self.trials() if t.state == TrialState.RUNNING]
        return any(worker not in (None, mine) and not is_dead(*worker) for worker in workers)

    def fill(self, first: Sequence[Params] = (), retried: Sequence[FrozenTrial] = ()) -> list[FrozenTrial]:
        """Bury the dead; add a waiting trial where none waits and more are wanted. The caller holds the lock.

        The queue is kept short: every waiting trial is read again by everybody at every step.

        ``first``: points to be tried before others, unless they were; ``retried``: failed trials to repeat.
        """
        trials = self._bury()
        missing = self.sweep.n_trials - sum(trial.state in LIVE for trial in trials)
        points = [point for point in first if not any(_holds(trial, point) for trial in trials)]
        if not points and not retried and not any(trial.state == TrialState.WAITING for trial in trials):
            points = self._next(trials)
        for trial in retried[: max(0, missing)]:
            self._repeat(self._retry_interrupted, trial)
        points = points[: max(0, missing - len(retried))]
        for point in points:
            self.study.enqueue_trial(point)
        return self.trials() if points or retried else trials

    def _next(self, trials: Sequence[FrozenTrial]) -> list[Params]:
        """Return the point to try next, an empty one where the sampler draws it; none where a grid is exhausted."""
        if self.grid is None:
            return [{}]
        # A failed trial that is not repeated has had its turn; so has every other.
        taken = [t for t in trials if t.state != TrialState.FAIL or "reason" in t.user_attrs]
        return [point for point in self.grid if not any(_holds(trial, point) for trial in taken)][:1]

    def claim(self) -> FrozenTrial | None:
        """Take the waiting trial with the lowest number, and leave a sign of life; None where none waits.

        Raises: TrainingError where more trials have failed by themselves than the sweep allows.
        """
        storage = self.coordination.rdb
        with self.exclusive():
            trials = self.fill()
            if sum(trial.state in WELL for trial in trials) >= self.sweep.n_trials:
                return None
            self._check_failures(trials)
            for trial in trials:
                if trial.state == TrialState.WAITING and storage.set_trial_state_values(
                    trial._trial_id, TrialState.RUNNING
                ):
                    storage.set_trial_user_attr(trial._trial_id, "worker", [host_name(), os.getpid()])
                    storage.record_heartbeat(trial._trial_id)
                    return trial
        return None

    def interrupted(self, number: int) -> bool:
        """Give a trial up in its middle, to be repeated with its values; return whether it still ran."""
        with self.exclusive():
            if ran := self._fail(number):
                self._repeat(self._retry_interrupted, self.trials()[number])
            return ran

    def bury(self) -> None:
        """Fail the trials whose process is gone, to be repeated."""
        with self.exclusive():
            self._bury()

    def failed(self, trial: optuna.Trial, reason: str) -> None:
        """Give a trial up that failed by itself; another takes its place."""
        trial.set_user_attr("reason", reason)
        with self.exclusive():
            self.study.tell(trial, state=TrialState.FAIL)
            self.fill()

    def _check_failures(self, trials: Sequence[FrozenTrial]) -> None:
        failed = [trial for trial in trials if trial.state == TrialState.FAIL and "reason" in trial.user_attrs]
        if len(failed) > self.sweep.max_failures:
            raise TrainingError(
                f"{len(failed)} trials failed by themselves, sweep.max_failures allows {self.sweep.max_failures}; the "
                f"last, trial {failed[-1].number} with {failed[-1].params}: {failed[-1].user_attrs['reason']}"
            )

    def _bury(self) -> list[FrozenTrial]:
        """Fail running trials whose process is gone, or silent for too long, and repeat them; return all trials."""
        trials = self.trials()
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        if not running:
            return trials
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            optuna.storages.fail_stale_trials(self.study)
        for trial in running:
            # A claim writes its worker under the lock: one that has none died in the middle of it.
            worker = trial.user_attrs.get("worker")
            if (worker is None or is_dead(*worker)) and self._fail(trial.number):
                self._died(self.study, trial)
        return self.trials()

    def _fail(self, number: int) -> bool:
        """Fail a running trial; return whether it still ran."""
        ran = self.trials()[number].state == TrialState.RUNNING
        self.study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
        return ran

    def _died(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """End a dead trial's run and repeat it."""
        if run_id := trial.user_attrs.get("run_id"):
            with contextlib.suppress(*STORE_FAILURES):  # whoever ends the sweep tries again
                end_run(self.client, run_id, TrialState.FAIL, GONE, retry=True)
        self._repeat(self._retry_dead, trial)

    def _repeat(self, callback: RetryHeartbeatStaleTrialCallback, trial: FrozenTrial) -> None:
        fresh = copy.deepcopy(trial)
        fresh.user_attrs = {}  # its run and its worker are its own
        callback(self.study, fresh)


def _holds(trial: FrozenTrial, point: Params) -> bool:
    """Whether a trial has, or will have, the values of a point."""
    values = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    return all(key in values and values[key] == value for key, value in point.items())
