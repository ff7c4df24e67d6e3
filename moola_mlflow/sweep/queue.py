"""The queue of a study: trials to claim until enough have ended well. Trials whose process died are replaced.

The study's lock guards one invariant: complete, pruned, running and waiting trials together are never more than
``n_trials``.
"""

from __future__ import annotations

import contextlib
import copy
import math
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
from moola_mlflow.sweep.trial_runs import DIED_NOTE, TrialEnd, end_run
from moola_mlflow.tracking import STORE_FAILURES, host_name, is_dead

ENDED_WELL = (TrialState.COMPLETE, TrialState.PRUNED)
COUNTED = (*ENDED_WELL, TrialState.RUNNING, TrialState.WAITING)
"""States of the trials that count towards ``n_trials``."""


class TrialQueue:
    """The trials of one study, shared by all processes that work on it."""

    def __init__(
        self,
        study: optuna.Study,
        coordination: Coordination,
        sweep: SweepConfig,
        space: Space,
        client: mlflow.MlflowClient,
    ) -> None:
        self.study, self.coordination, self.sweep, self.client = study, coordination, sweep, client
        self.space = space
        self.is_grid = sweep.sampler == "grid"
        self.points = space.grid() if self.is_grid else space.points()
        """Every point of a grid, or of another space with few points; None if they are too many to count."""
        if self.points is not None:
            random.Random(sweep.seed).shuffle(self.points)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._repeat_dead = RetryHeartbeatStaleTrialCallback(max_retry=sweep.max_retries)
            self._repeat_interrupted = RetryHeartbeatStaleTrialCallback()
        coordination.rdb.heartbeat_stale_trial_callback = self._replace_dead

    def exclusive(self) -> AbstractContextManager[None]:
        """Return the study's lock."""
        return self.coordination.exclusive(self.study.study_name)

    def trials(self) -> list[FrozenTrial]:
        """Return all trials in order. They are not copies: do not change them."""
        return self.study.get_trials(deepcopy=False)

    def counts(self) -> Counter[TrialState]:
        """Return the number of trials in each state."""
        return Counter(trial.state for trial in self.trials())

    def is_done(self) -> bool:
        """Return whether nothing is left to do or to wait for."""
        found = self.counts()
        num_open = found[TrialState.RUNNING] + found[TrialState.WAITING]
        enough = sum(found[state] for state in ENDED_WELL) >= self.sweep.n_trials
        return enough or (self.points is not None and not num_open)

    def others_running(self) -> bool:
        """Return whether another process works on a trial and is not known to be dead."""
        mine = [host_name(), os.getpid()]
        workers = [t.user_attrs.get("worker") for t in self.trials() if t.state == TrialState.RUNNING]
        return any(worker not in (None, mine) and not is_dead(*worker) for worker in workers)

    def fill(self, first: Sequence[Params] = (), repeated: Sequence[FrozenTrial] = ()) -> list[FrozenTrial]:
        """Fail dead trials. Add a waiting trial if none waits and more are wanted. The caller holds the lock.

        The queue is short on purpose: every process reads all waiting trials at every step.

        ``first``: points to try before others, unless they were tried. ``repeated``: failed trials to repeat.
        """
        trials = self._fail_dead()
        num_missing = self.sweep.n_trials - sum(trial.state in COUNTED for trial in trials)
        points = [point for point in first if not any(_has_point(trial, point) for trial in trials)]
        if not points and not repeated and not any(trial.state == TrialState.WAITING for trial in trials):
            points = self._next(trials)
        for trial in repeated[: max(0, num_missing)]:
            self._repeat(self._repeat_interrupted, trial)
        points = points[: max(0, num_missing - len(repeated))]
        for point in points:
            self.study.enqueue_trial(point)
        return self.trials() if points or repeated else trials

    def _next(self, trials: Sequence[FrozenTrial]) -> list[Params]:
        """Return the point to try next: empty if the sampler draws it, none if every point has been tried."""
        if self.points is None:
            return [{}]
        untried = self._untried(trials)
        return untried[:1] if self.is_grid else [{}] if untried else []

    def _untried(self, trials: Sequence[FrozenTrial]) -> list[Params]:
        """Return the points that no trial has used up. A failed one that is repeated by itself has not."""
        used = [t for t in trials if t.state != TrialState.FAIL or "reason" in t.user_attrs or self._is_given_up(t)]
        return [point for point in self.points or [] if not any(_has_point(trial, point) for trial in used)]

    def _is_given_up(self, trial: FrozenTrial) -> bool:
        """Return whether a failed trial's workers died so often that it is not repeated."""
        return len(trial.system_attrs.get("retry_history", [])) >= self.sweep.max_retries

    def draw_new(self, claimed: FrozenTrial) -> None:
        """Fix the values of a claimed trial if the space has few points: one that was tried is not tried again.

        The sampler draws first. If its point was tried, or another worker tries it now, a point at random is taken.
        """
        if self.points is None or claimed.system_attrs.get("fixed_params"):
            return
        with self.exclusive():
            others = [trial for trial in self.trials() if trial.number != claimed.number]
            untried = self._untried(others)
            if not untried:
                return
            drawn = self._drawn(others)
            any_point = random.Random(f"{self.sweep.seed} {claimed.number}").choice(untried)
            point = next((point for point in untried if _is_close(point, drawn)), any_point)
            self.coordination.rdb.set_trial_system_attr(claimed._trial_id, "fixed_params", point)

    def _drawn(self, others: Sequence[FrozenTrial]) -> Params:
        """Return what the sampler draws, in a copy of the study in memory."""
        copied = optuna.create_study(direction=self.study.direction, sampler=self.study.sampler)
        copied.add_trials([trial for trial in others if trial.state in ENDED_WELL])
        return self.space.suggest(copied.ask())

    def claim(self) -> FrozenTrial | None:
        """Take the waiting trial with the lowest number and record a heartbeat. Return None if no trial waits.

        Raises: TrainingError if more trials have failed by themselves than the sweep allows.
        """
        storage = self.coordination.rdb
        with self.exclusive():
            trials = self.fill()
            if sum(trial.state in ENDED_WELL for trial in trials) >= self.sweep.n_trials:
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

    def requeue(self, number: int) -> bool:
        """Fail a running trial and add one that repeats its values. Return whether it was still running."""
        with self.exclusive():
            if was_running := self._fail_running(number):
                self._repeat(self._repeat_interrupted, self.trials()[number])
            return was_running

    def requeue_dead(self) -> None:
        """Fail the trials whose process is gone, and add ones that repeat their values."""
        with self.exclusive():
            self._fail_dead()

    def fail(self, trial: optuna.Trial, reason: str) -> None:
        """Fail a trial that failed by itself, and add another one in its place."""
        trial.set_user_attr("reason", reason)
        with self.exclusive():
            self.study.tell(trial, state=TrialState.FAIL)
            self.fill()

    def _given_up(self, trial: FrozenTrial) -> str:
        num_died = len(trial.system_attrs.get("retry_history", [])) + 1
        return f"its worker died, {num_died} times in all (sweep.max_retries={self.sweep.max_retries}); it is given up"

    def _check_failures(self, trials: Sequence[FrozenTrial]) -> None:
        again = {number for trial in trials for number in trial.system_attrs.get("retry_history", [])}
        reasons = {
            trial.number: trial.user_attrs.get("reason") or self._given_up(trial)
            for trial in trials
            if trial.state == TrialState.FAIL
            and ("reason" in trial.user_attrs or (self._is_given_up(trial) and trial.number not in again))
        }
        if len(reasons) > self.sweep.max_failures:
            last = max(reasons)
            raise TrainingError(
                f"{len(reasons)} trials failed by themselves, sweep.max_failures allows {self.sweep.max_failures}. The "
                f"last one, trial {last} with {trials[last].params}: {reasons[last]}"
            )

    def _fail_dead(self) -> list[FrozenTrial]:
        """Fail running trials whose process is gone or silent for too long, and repeat them. Return all trials."""
        trials = self.trials()
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        if not running:
            return trials
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            optuna.storages.fail_stale_trials(self.study)
        for trial in running:
            # A claim writes its worker under the lock: without one, the claiming process died.
            worker = trial.user_attrs.get("worker")
            if (worker is None or is_dead(*worker)) and self._fail_running(trial.number):
                self._replace_dead(self.study, trial)
        return self.trials()

    def _fail_running(self, number: int) -> bool:
        """Fail a running trial. Return whether it was still running."""
        was_running = self.trials()[number].state == TrialState.RUNNING
        self.study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
        return was_running

    def _replace_dead(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """End the run of a dead trial, and repeat the trial."""
        if run_id := trial.user_attrs.get("run_id"):
            end = TrialEnd(TrialState.FAIL, DIED_NOTE, retry=True)
            if self._is_given_up(trial):
                end = TrialEnd(TrialState.FAIL, reason=self._given_up(trial))
            with contextlib.suppress(*STORE_FAILURES):  # the process that ends the sweep tries again
                end_run(self.client, run_id, end)
        self._repeat(self._repeat_dead, trial)

    def _repeat(self, callback: RetryHeartbeatStaleTrialCallback, trial: FrozenTrial) -> None:
        fresh = copy.deepcopy(trial)
        fresh.user_attrs = {}  # run and worker belong to the failed trial
        callback(self.study, fresh)


def _is_close(point: Params, drawn: Params) -> bool:
    """Return whether two points are the same, but for the last digits of a float that was reached by steps."""
    return point.keys() == drawn.keys() and all(
        math.isclose(value, drawn[key], rel_tol=1e-9) if isinstance(value, float) else value == drawn[key]
        for key, value in point.items()
    )


def _has_point(trial: FrozenTrial, point: Params) -> bool:
    """Return whether a trial has, or will have, the values of a point."""
    values = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    return all(key in values and values[key] == value for key, value in point.items())
