"""Find the sweep that a command belongs to, or begin it, and make the database and the runs agree again."""

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
from optuna.trial import FrozenTrial, TrialState
from yaml import YAMLError

from moola_mlflow.core import SweepKeys, UserError, make_config, read_yaml
from moola_mlflow.sweep import restore, trial_runs
from moola_mlflow.sweep.queue import TrialQueue
from moola_mlflow.sweep.restore import RecordedStudy
from moola_mlflow.sweep.space import Space
from moola_mlflow.sweep.storage import STORAGE_FAILURES as STORAGE_FAILURES
from moola_mlflow.sweep.storage import Coordination
from moola_mlflow.sweep.worker import build_pruner
from moola_mlflow.tracking import (
    BEAT_S,
    SILENT_S,
    STORE_FAILURES,
    Artifacts,
    Run,
    Tags,
    find_run,
    host_name,
    is_coordinated,
    read_beat,
    shown_uri,
)

MAX_SPACE = 5000
"""Most characters of a search space: it is kept in a tag."""
MAY_DIFFER = ("tracking.", "registry.", "runtime.", "gates.", "cv.workers")
"""Sections and keys that commands of one sweep may set differently: where and how they run, not what a trial is."""
MUST_MATCH = ("stage", "objective", "space", "budget", "budget_amount")
"""Keys of the section sweep that must be equal in all commands of one sweep."""


@dataclass(frozen=True)
class JoinedStudy:
    """A study with its queue filled, and the run that it belongs to."""

    queue: TrialQueue
    run_id: str
    experiment: str


def find_parent_run(study: str) -> str:
    """Return the id of a sweep's run, empty if there is none."""
    if not study or "'" in study:
        return ""
    run = find_run({Tags.STAGE: "sweep", Tags.STUDY: study})
    return run.info.run_id if run else ""


def join_study(
    config: SweepKeys,
    space: Space,
    coordination: Coordination,
    name: str,
    active: Run | None,
    data_sha256: str = "",
) -> JoinedStudy:
    """Find a study and its run, rebuild whichever of the two is missing, and fill the queue.

    ``active`` becomes the sweep's run if there is none yet. ``data_sha256``: of the bars or labels that trials read.
    A range of numbers may be wider than before. Nothing that exists is changed before all checks passed.

    Raises: UserError if the study has another search space or configuration, or other bars or labels.
    """
    client = mlflow.MlflowClient()
    with coordination.exclusive(name):
        names = {study.study_name for study in coordination.rdb.get_all_studies()}
        study = optuna.load_study(study_name=name, storage=coordination.rdb) if name in names else None
        parent = find_parent_run(name)
        if study is not None and parent != study.user_attrs.get("run_id"):
            raise UserError(
                f"{coordination.shown} knows sweep.study='{name}', but the tracking store {shown_uri()} does not have "
                f"its run {study.user_attrs.get('run_id')}; give the study another name, or set the store of its run"
            )
        done: Sequence[FrozenTrial] = ()
        repeated: Sequence[FrozenTrial] = ()
        if not parent:
            if active is None:
                raise UserError(f"the run of sweep.study='{name}' was deleted a moment ago; start again")
            parent = active.id
            _begin(config, space, name, active)
            if data_sha256:
                active.tags({Tags.DATA_SHA256: data_sha256})
        else:
            recorded = restore.read_recorded_study(client, parent)
            _check_same(config, space, recorded)
            _check_data(recorded, data_sha256)
            if study is None or _is_behind(study, recorded):
                _check_not_coordinated(recorded, name)
                if study is not None:
                    optuna.delete_study(study_name=name, storage=coordination.rdb)
                study, done, repeated = None, recorded.trials, recorded.to_repeat()
            if recorded.space != space:
                client.set_tag(parent, Tags.SPACE, _space_text(space))
                client.set_tag(parent, Tags.SWEEP_SHA256, _digest(config))
        if study is None:
            study = optuna.create_study(study_name=name, storage=coordination.rdb, direction=config.sweep.direction)
            study.add_trials(done)
            study.set_user_attr("run_id", parent)
        study.pruner = build_pruner(config)
        queue = TrialQueue(study, coordination, config.sweep, space, client)
        queue.fill(first=config.sweep.enqueue, repeated=repeated)
        experiment = client.get_run(parent).info.experiment_id
        trial_runs.reconcile_trials(client, trial_runs.trial_runs_of(client, experiment, parent), queue.trials())
    return JoinedStudy(queue, parent, experiment)


def _begin(config: SweepKeys, space: Space, name: str, active: Run) -> None:
    text = _space_text(space)
    active.tags(
        {
            Tags.SPACE: text,
            Tags.DIRECTION: config.sweep.direction,
            Tags.SWEEP_SHA256: _digest(config),
            Tags.TARGET: config.sweep.target,
        }
    )
    active.keep()  # trials of any process will be its child runs
    active.tags({Tags.STUDY: name})  # last, because other commands find the sweep by it


def _space_text(space: Space) -> str:
    text = space.to_json()
    if len(text) > MAX_SPACE:
        raise UserError(
            f"sweep.space: its description has {len(text)} characters, allowed {MAX_SPACE}; search fewer keys"
        )
    return text


def _check_data(recorded: RecordedStudy, now: str) -> None:
    """Refuse other bars or labels: values of the target do not compare across them. Raises: UserError."""
    then = recorded.run.data.tags.get(Tags.DATA_SHA256, "")
    if now and then and now != then:
        raise UserError(
            f"sweep.study='{recorded.run.data.tags[Tags.STUDY]}' searched on data with SHA-256 {then[:12]}..., and "
            f"this command reads data with {now[:12]}...: the file has changed, or is another; name another study, or "
            "give the data that it began with"
        )


def _fixed(config: SweepKeys) -> dict[str, Any]:
    """Return the part of a configuration that all commands of a sweep share."""
    kept = {f"sweep.{key}" for key in MUST_MATCH}
    flat = {key: value for key, value in config.flat().items() if not key.startswith(MAY_DIFFER)}
    return {key: value for key, value in flat.items() if key in kept or not key.startswith("sweep.")}


def _digest(config: SweepKeys) -> str:
    return hashlib.sha256(json.dumps(_fixed(config), sort_keys=True).encode()).hexdigest()


def _check_same(config: SweepKeys, space: Space, recorded: RecordedStudy) -> None:
    """Refuse to mix the trials of two different sweeps. Raises: UserError."""
    tags, name = recorded.run.data.tags, recorded.run.data.tags[Tags.STUDY]
    if tags.get(Tags.SWEEP_SHA256) == _digest(config):
        return
    cure = "give this one another name, or the configuration that the study began with"
    wider = recorded.space != space and space.widens(recorded.space)
    if recorded.space != space and not wider:
        keys = {*recorded.space.distributions, *space.distributions}
        other = sorted(k for k in keys if recorded.space.distributions.get(k) != space.distributions.get(k))
        raise UserError(
            f"sweep.study='{name}' exists with another search space: {', '.join(other) or 'its conditions'} "
            f"differ{'s' if len(other) == 1 else ''}; {cure}. A range of numbers may only become wider"
        )
    try:
        text = mlflow.artifacts.load_text(f"runs:/{recorded.run.info.run_id}/{Artifacts.CONFIG}")
        then = _fixed(make_config(type(config), read_yaml(text), {}))
    except (*STORE_FAILURES, ValueError, YAMLError):
        then = {}
    now = _fixed(config)
    if wider:
        then.pop("sweep.space", None)
        now.pop("sweep.space")
    if then == now:  # an early version hashed other names, or the keys of every command
        return
    other = [f"{key} was {then[key]}, is {now[key]}" for key in now if key in then and then[key] != now[key]]
    raise UserError(f"sweep.study='{name}' exists with another configuration: {'; '.join(other[:5])}; {cure}")


def _is_behind(study: optuna.Study, recorded: RecordedStudy) -> bool:
    """Return whether the runs have ended trials that the database lacks: the sweep went on in another database."""
    known = study.get_trials(deepcopy=False)
    for trial in recorded.trials:
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            continue
        same = known[trial.number] if trial.number < len(known) else None
        if same is None or same.user_attrs.get("run_id") != trial.user_attrs["run_id"]:
            return True
    return False


def _check_not_coordinated(recorded: RecordedStudy, name: str) -> None:
    """Refuse to take over a sweep that a process coordinates in another database now. Raises: UserError."""
    beat = read_beat(recorded.run)
    if is_coordinated(recorded.run) and [beat["host"], beat["pid"]] != [host_name(), os.getpid()]:
        raise UserError(
            f"sweep.study='{name}' is being worked on by process {beat['pid']} of {beat['host'].split()[0]}, which "
            f"coordinates in {beat['storage']}, a place that this command does not share. Give both the same "
            f"storage=postgresql://..., or stop the other one and wait {SILENT_S:.0f} s"
        )


class SweepHeartbeat:
    """Tags a sweep's run from a thread: it is RUNNING, and which process coordinates it where.

    The status is set each time, because another command, or its launcher, may have ended the run.
    """

    def __init__(self, run: Run, coordination: Coordination, queue: TrialQueue) -> None:
        self._run, self._storage, self._queue = run, coordination.shown, queue
        self._store_answers = True
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> None:
        self._beat()
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._thread.join()
        with suppress(*STORE_FAILURES, *STORAGE_FAILURES):  # without the last tag, its silence means the same soon
            if self._store_answers and not self._queue.others_running():
                self._beat(over=True)

    def _work(self) -> None:
        while not self._stopped.wait(BEAT_S):
            try:
                self._beat()
                self._store_answers = True
            except STORE_FAILURES:  # the trials report it
                self._store_answers = False

    def _beat(self, over: bool = False) -> None:
        self._run.beat()
        beat = {
            "at": round(time.time()),
            "host": host_name(),
            "pid": os.getpid(),
            "storage": self._storage,
            "over": over,
        }
        client = mlflow.MlflowClient()
        client.set_tag(self._run.id, Tags.COORDINATOR, json.dumps(beat))
        client.update_run(self._run.id, status="RUNNING")
