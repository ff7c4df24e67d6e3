"""Finding the sweep that a command belongs to, or beginning it; and making database and runs agree again."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import mlflow
import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from moola_mlflow.core import SweepKeys, UserError, make_config
from moola_mlflow.sweep import restore, trial_runs
from moola_mlflow.sweep.queue import TrialQueue
from moola_mlflow.sweep.restore import CONFIG, DIRECTION, SPACE, Recorded
from moola_mlflow.sweep.space import Space
from moola_mlflow.sweep.storage import STORAGE_FAILURES as STORAGE_FAILURES
from moola_mlflow.sweep.storage import Coordination
from moola_mlflow.sweep.trial_runs import STUDY
from moola_mlflow.sweep.worker import build_pruner
from moola_mlflow.tracking import (
    BEAT_S,
    SILENT_S,
    STORE_FAILURES,
    Run,
    Tags,
    find_run,
    host_name,
    is_coordinated,
    read_beat,
    shown_uri,
)

MAX_SPACE = 5000
# What may differ between commands that share a sweep: where and how they run, not what a trial is.
FREE = ("tracking.", "registry.", "runtime.", "gates.", "cv.workers")
KEPT = ("stage", "objective", "space", "budget", "budget_amount")
"""Keys of the section sweep that may not differ."""


@dataclass(frozen=True)
class Joined:
    """A study with its queue filled, and the run it belongs to."""

    queue: TrialQueue
    run_id: str
    experiment: str


def find_parent_run(study: str) -> str:
    """Return the id of the run of a sweep, empty where there is none."""
    if not study or "'" in study:
        return ""
    run = find_run({Tags.STAGE: "sweep", Tags.STUDY: study})
    return run.info.run_id if run else ""


def join_study(config: SweepKeys, space: Space, coordination: Coordination, name: str, active: Run | None) -> Joined:
    """Find the study of a name and its run, make them anew from each other where one is gone, and fill the queue.

    ``active`` becomes the sweep's run where there is none yet. What is there already is changed only once it is clear
    that this command belongs to it.

    Raises: UserError where the study is another one than the configuration describes.
    """
    client = mlflow.MlflowClient()
    with coordination.exclusive(name):
        names = {study.study_name for study in coordination.rdb.get_all_studies()}
        study = optuna.load_study(study_name=name, storage=coordination.rdb) if name in names else None
        parent = find_parent_run(name)
        if study is not None and parent != study.user_attrs.get("run_id"):
            raise UserError(
                f"sweep.study='{name}' is known in {coordination.shown}, but its run {study.user_attrs.get('run_id')} "
                f"is not in the tracking store {shown_uri()}; give the study another name, or the store "
                "that has its run"
            )
        done: Sequence[FrozenTrial] = ()
        retried: Sequence[FrozenTrial] = ()
        if not parent:
            if active is None:
                raise UserError(f"the run of sweep.study='{name}' was deleted a moment ago; start again")
            parent = active.id
            _begin(config, space, name, active)
        else:
            recorded = restore.read(client, parent)
            _check_same(config, space, recorded)
            if study is None or _is_behind(study, recorded):
                _check_alone(recorded, name)
                if study is not None:
                    optuna.delete_study(study_name=name, storage=coordination.rdb)
                study, done, retried = None, recorded.trials, recorded.unretried()
        if study is None:
            study = optuna.create_study(study_name=name, storage=coordination.rdb, direction=config.sweep.direction)
            study.add_trials(done)
            study.set_user_attr("run_id", parent)
        study.pruner = build_pruner(config)
        queue = TrialQueue(study, coordination, config.sweep, space, client)
        queue.fill(first=config.sweep.enqueue, retried=retried)
        experiment = client.get_run(parent).info.experiment_id
        trial_runs.reconcile_trials(client, trial_runs.trial_runs_of(client, experiment, parent), queue.trials())
    return Joined(queue, parent, experiment)


def _begin(config: SweepKeys, space: Space, name: str, active: Run) -> None:
    text = space.to_json()
    if len(text) > MAX_SPACE:
        raise UserError(
            f"sweep.space: its description has {len(text)} characters, allowed {MAX_SPACE}; search fewer keys"
        )
    active.tags(
        {SPACE: text, DIRECTION: config.sweep.direction, CONFIG: _digest(config), Tags.TARGET: config.sweep.target}
    )
    active.tags({STUDY: name})  # last: by it others find the sweep


def _fixed(config: SweepKeys) -> dict[str, Any]:
    kept = {f"sweep.{key}" for key in KEPT}
    flat = {key: value for key, value in config.flat().items() if not key.startswith(FREE)}
    return {key: value for key, value in flat.items() if key in kept or not key.startswith("sweep.")}


def _digest(config: SweepKeys) -> str:
    return hashlib.sha256(json.dumps(_fixed(config), sort_keys=True).encode()).hexdigest()


def _check_same(config: SweepKeys, space: Space, recorded: Recorded) -> None:
    """Refuse to mix trials of one sweep with those of another."""
    tags, name = recorded.run.data.tags, recorded.run.data.tags[STUDY]
    if tags.get(CONFIG) == _digest(config):
        return
    cure = "give this one another name, or the configuration that the study began with"
    if recorded.space.to_json() != space.to_json():
        keys = {*recorded.space.distributions, *space.distributions}
        other = sorted(k for k in keys if recorded.space.distributions.get(k) != space.distributions.get(k))
        raise UserError(
            f"sweep.study='{name}' exists with another search space: {', '.join(other) or 'its conditions'} "
            f"differ{'s' if len(other) == 1 else ''}; {cure}"
        )
    try:
        text = mlflow.artifacts.load_text(f"runs:/{recorded.run.info.run_id}/config.yaml")
        then = _fixed(make_config(type(config), yaml.safe_load(text), {}))
    except (*STORE_FAILURES, ValueError):
        then = {}
    now = _fixed(config)
    if then == now:  # an earlier version hashed other names, or the keys of every command
        return
    other = [f"{key} was {then[key]}, is {now[key]}" for key in now if key in then and then[key] != now[key]]
    raise UserError(f"sweep.study='{name}' exists with another configuration: {'; '.join(other[:5])}; {cure}")


def _is_behind(study: optuna.Study, recorded: Recorded) -> bool:
    """Whether the runs tell of ends that the database does not know: the sweep has gone on elsewhere."""
    known = study.get_trials(deepcopy=False)
    for trial in recorded.trials:
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            continue
        same = known[trial.number] if trial.number < len(known) else None
        if same is None or same.user_attrs.get("run_id") != trial.user_attrs["run_id"]:
            return True
    return False


def _check_alone(recorded: Recorded, name: str) -> None:
    """Refuse to take over a sweep that somebody coordinates elsewhere right now, whatever its status says."""
    beat = read_beat(recorded.run)
    if is_coordinated(recorded.run) and [beat["host"], beat["pid"]] != [host_name(), os.getpid()]:
        raise UserError(
            f"sweep.study='{name}' is being worked on by process {beat['pid']} of {beat['host'].split()[0]}, which "
            f"coordinates in {beat['storage']}: a place that this command does not share; give both the same "
            f"storage=postgresql://..., or stop the other and wait {SILENT_S:.0f} s"
        )


class Beat:
    """Say on the sweep's run, every so often and from a thread, that it is RUNNING, who coordinates it and where.

    Another command, or its launcher, may have ended the run meanwhile.
    """

    def __init__(self, run: Run, coordination: Coordination, queue: TrialQueue) -> None:
        self._run, self._where, self._queue = run, coordination.shown, queue
        self._answers = True
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go, daemon=True)

    def __enter__(self) -> None:
        self._say()
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        with suppress(*STORE_FAILURES, *STORAGE_FAILURES):  # it is silent soon, which says the same
            if self._answers and not self._queue.others_running():
                self._say(over=True)

    def _go(self) -> None:
        while not self._over.wait(BEAT_S):
            try:
                self._say()
                self._answers = True
            except STORE_FAILURES:  # whoever needs the store more will tell
                self._answers = False

    def _say(self, over: bool = False) -> None:
        self._run.beat()
        beat = {
            "at": round(time.time()),
            "host": host_name(),
            "pid": os.getpid(),
            "storage": self._where,
            "over": over,
        }
        client = mlflow.MlflowClient()
        client.set_tag(self._run.id, Tags.COORDINATOR, json.dumps(beat))
        client.update_run(self._run.id, status="RUNNING")
