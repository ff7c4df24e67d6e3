"""Events of a run's journal as calls to the tracking store. Applying an event twice changes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from moola_mlflow.core import UserError, undisturbed
from moola_mlflow.tracking import origin, store, ui
from moola_mlflow.tracking.artifact_places import no_local_artifacts
from moola_mlflow.tracking.delivery.batches import (
    BATCHED,
    Item,
    cut_params,
    finite_points,
    metric_points,
    split_request,
)
from moola_mlflow.tracking.delivery.files import checked_waiting_folder
from moola_mlflow.tracking.delivery.journal import Event
from moola_mlflow.tracking.delivery.refusals import is_from_mlflow, is_too_large
from moola_mlflow.tracking.names import Tags, VersionTags
from moola_mlflow.tracking.origin import OFFLINE

MAX_NOTE = 5000
"""Some stores refuse a longer note."""
DECIDING = {VersionTags.GATES, VersionTags.PROMOTED_BY, Tags.GATES}
"""Tags that decide whether an alias may name a version."""


class Replayer:
    """Sends events to one run of the store, in their order.

    Events that this process wrote, or that this user's folder holds, are trusted. A folder from elsewhere sets no tag
    that decides a promotion, moves no alias and ends no other run.
    """

    def __init__(
        self, client: mlflow.MlflowClient, folder: Path, run_id: str, run: Run | None = None, check: bool = False
    ) -> None:
        """``run_id`` is empty until the store has the run. ``run``: what the store said of it, if it was asked.

        ``check``: before anything is sent, ask the store whether the run is that of the folder.
        """
        self.client, self.folder, self.run_id = client, folder, run_id
        self.left_out: set[str] = set()
        """What of a folder from elsewhere is not sent, in words."""
        self._is_ours, self._check = origin.is_ours(folder), check
        self.experiment_id = ""
        self._remade_ms: int | None = None
        """Start time of a run that was made again, None for any other."""
        self.versions: dict[str, str] = {}
        """Registered versions by the key of their event."""
        self._known_params: set[str] | None = None
        self._tried_keys: set[str] = set()
        """Keys of events that were sent at least once; the answer may have been lost."""
        if run is not None:
            self._remember(run)

    def _remember(self, run: Run) -> None:
        self.experiment_id = run.info.experiment_id
        self._known_params = set(run.data.params)
        self._remade_ms = run.info.start_time if Tags.REMADE_FROM in run.data.tags else None

    def _fetch(self) -> Run:
        run = self.client.get_run(self.run_id)
        self._remember(run)
        return run

    def run_exists(self) -> bool:
        """Return whether the store has the run, and it is not deleted. Raises: any other error of the store."""
        try:
            return bool(self.client.get_run(self.run_id).info.lifecycle_stage == "active")
        except MlflowException as e:
            if e.error_code == "RESOURCE_DOES_NOT_EXIST" and is_from_mlflow(e):
                return False
            raise

    def apply(self, events: list[Event], fresh: bool) -> None:
        """Send the events of one group.

        ``fresh``: nobody can have sent them before. Raises: what the store raises; UserError if a model cannot be
        registered under its name.
        """
        if self._check:
            origin.check_belongs(self._fetch(), self.folder)
            self._check = False
        with no_local_artifacts(self.folder):
            self._apply(events, fresh)

    def _apply(self, events: list[Event], fresh: bool) -> None:
        trusted = fresh or self._is_ours
        if events[0].kind in BATCHED:
            self._send_batch(events, trusted)
            return
        for event in events:
            key = event.record.get("key", "")
            maybe_sent = not fresh or key in self._tried_keys
            if key:
                self._tried_keys.add(key)
            match event.kind:
                case "begin":
                    self._begin(event)
                case "inputs":
                    self._log_inputs(event.record)
                case "child":
                    self._log_child(event, maybe_sent)
                case "artifacts":
                    self._log_artifacts(event.record)
                case "register":
                    self._register(event.record, trusted, fresh)
                case "handover" if trusted:
                    self._finish_launcher_run(event.record["run_id"])
                case "handover":
                    self.left_out.add(f"the end of run {event.record['run_id']}")
                case "status":
                    self._set_status(event)

    def _begin(self, event: Event) -> None:
        record = event.record
        if "make" in record and not self.run_id:
            self.make_run(record["make"], Tags.OFFLINE)
        if record.get("running") or record.get("name"):
            status = "RUNNING" if record.get("running") else None
            self.client.update_run(self.run_id, status=status, name=record.get("name"))
        if record.get("show"):
            self._show_as_training()

    def make_run(self, make: Mapping[str, Any], known_by: str) -> None:
        """Make the run in the store, with its original start time, unless it was made before.

        ``known_by``: the tag that holds the name of its folder.
        """
        if "'" in self.folder.name:
            raise UserError(f"'{self.folder}' is no folder of a run: its name is an id")
        experiment = mlflow.set_experiment(make["experiment"]).experiment_id
        wanted, tag = f"tags.`{known_by}` = '{self.folder.name}'", origin.tag_of(self.folder)
        found = self.client.search_runs([experiment], wanted)
        made_before = [run for run in found if run.data.tags.get(Tags.FOLDER, tag) == tag]
        if made_before:
            self.run_id = made_before[0].info.run_id
        else:
            tags = {**make["tags"], known_by: self.folder.name, **({Tags.FOLDER: tag} if tag else {})}
            made = self.client.create_run(experiment, start_time=make["at_ms"], tags=tags, run_name=make["name"])
            self.run_id = made.info.run_id
        self._fetch()

    def _show_as_training(self) -> None:
        """Make the UI open the experiment as model training instead of GenAI."""
        experiment = self.client.get_experiment(self.experiment_id or self._fetch().info.experiment_id)
        ui.add_tag(self.client, experiment, Tags.EXPERIMENT_KIND, "custom_model_development")
        ui.offer_views(self.client, experiment)

    def _send_batch(self, events: list[Event], trusted: bool) -> None:
        """Send metrics, parameters and tags in one request.

        MLflow's stores ignore a second point with the same time, step and value. A parameter that the run has stays:
        the launcher logs short keys as raw text, and MLflow forbids a second value.
        """
        params: dict[str, str] = {}
        tags: dict[str, str] = {}
        points: list[Metric] = []
        for event in events:
            params = {**cut_params(event.record.get("params", {})), **params}
            tags |= self._with_stored_id(self._allowed(event.record.get("tags", {}), trusted))
            points += metric_points(event.record.get("metrics", {}), event.at_ms, event.record.get("step", 0))
        if params:
            known = self._known_params if self._known_params is not None else set(self._fetch().data.params)
            params = {key: value for key, value in params.items() if key not in known}
        rows = [Param(key, value) for key, value in params.items()]
        labels = [RunTag(key, value) for key, value in tags.items()]
        for part in split_request(points, labels, rows):
            self._log(self.run_id, part)
        if self._known_params is not None:
            self._known_params |= set(params)

    def _log(self, run_id: str, items: list[Item]) -> None:
        """Send items in one request. If a proxy finds it too large, send it in halves.

        Raises: what the store raises. An item that is too large alone raises after all others are sent.
        """
        kinds = {"metrics": Metric, "tags": RunTag, "params": Param}
        parts: dict[str, Any] = {name: [x for x in items if isinstance(x, kind)] for name, kind in kinds.items()}
        try:
            self.client.log_batch(run_id, **parts)
            return
        except MlflowException as e:
            if not is_too_large(e) or len(items) == 1:
                raise
        half = len(items) // 2
        too_large: MlflowException | None = None
        for some in (items[:half], items[half:]):
            try:
                self._log(run_id, some)
            except MlflowException as e:
                if not is_too_large(e):
                    raise
                too_large = e
        if too_large is not None:
            raise too_large

    def _allowed(self, tags: Mapping[str, str], trusted: bool) -> dict[str, str]:
        """Return tags without those that decide a promotion, if they come from elsewhere."""
        dropped = DECIDING & tags.keys() if not trusted else set()
        self.left_out |= {f"tag {key}" for key in dropped}
        return {key: value for key, value in tags.items() if key not in dropped}

    def _with_stored_id(self, tags: Mapping[str, str]) -> dict[str, str]:
        """Return tags in which the run's id in the store replaces the one that it had offline, or before a loss."""
        first_id = self.folder.name
        if not (first_id.startswith(OFFLINE) or self._remade_ms is not None):
            return dict(tags)
        return {key: value.replace(first_id, self.run_id) for key, value in tags.items()}

    def _log_inputs(self, record: Mapping[str, Any]) -> None:
        """Log inputs by path, SHA-256 and rows. MLflow keeps 36 characters of a digest: a tag holds all of it."""
        inputs = []
        for path, sha256, rows in record["files"]:
            source, profile = json.dumps({"uri": path}), json.dumps({"num_rows": rows})
            dataset = Dataset(Path(path).name, sha256[:36], "local", source, profile=profile)
            tags = [InputTag(Tags.INPUT_CONTEXT, record.get("context", "training")), InputTag("sha256", sha256)]
            inputs.append(DatasetInput(dataset, tags))
        self.client.log_inputs(self.run_id, inputs)

    def _log_child(self, event: Event, maybe_sent: bool) -> None:
        record, at_ms = event.record, event.at_ms
        points = [point for step, row in enumerate(record["series"]) for point in finite_points(row, at_ms, step)]
        points += finite_points(record["final"], at_ms, 0)
        experiment = self.experiment_id or self._fetch().info.experiment_id
        with undisturbed():  # an interruption must not leave the child RUNNING
            made_before = self._children_of_event(record["key"]) if maybe_sent else []
            if made_before:
                child = made_before[0].info.run_id
            else:
                tags = {**record["tags"], Tags.PARENT: self.run_id, Tags.EVENT: record["key"]}
                started_ms = at_ms - int(1000 * record["seconds"])
                made = self.client.create_run(experiment, start_time=started_ms, tags=tags, run_name=record["name"])
                child = made.info.run_id
            params = [Param(key, value) for key, value in cut_params(record["params"]).items()]
            for part in split_request(points, [], params):
                self._log(child, part)
            self.client.set_terminated(child, "FINISHED", at_ms)

    def _children_of_event(self, key: str) -> list[Run]:
        experiment = self.experiment_id or self._fetch().info.experiment_id
        wanted = f"tags.`{Tags.EVENT}` = '{key}' and tags.`{Tags.PARENT}` = '{self.run_id}'"
        return list(self.client.search_runs([experiment], wanted, order_by=["attributes.start_time ASC"]))

    def delete_duplicate_children(self, keys: Iterable[str]) -> int:
        """Delete child runs that one event has made twice, and return how many.

        A request whose answer was lost is sent again, by MLflow too.
        """
        num_deleted = 0
        for key in keys:
            for run in self._children_of_event(key)[1:]:
                self.client.delete_run(run.info.run_id)
                num_deleted += 1
        return num_deleted

    def _log_artifacts(self, record: Mapping[str, Any]) -> None:
        waiting = checked_waiting_folder(self.folder, record["key"])
        held = waiting.is_dir()  # otherwise they were sent, and the answer was lost
        if held:
            self.client.log_artifacts(self.run_id, str(waiting))
        if (tables := record.get("tables")) and (held or self._remade_ms is None):
            named = json.loads(self._fetch().data.tags.get(Tags.TABLES, "[]"))
            new = [entry for path in tables if (entry := {"path": path, "type": "table"}) not in named]
            if new:
                self.client.set_tag(self.run_id, Tags.TABLES, json.dumps([*named, *new]))
        shutil.rmtree(waiting, ignore_errors=True)

    def _register(self, record: Mapping[str, Any], trusted: bool, fresh: bool) -> None:
        """Register a model whose files wait on disk. Raises: UserError if its name holds models of another kind."""
        # Most runs register nothing, and these need torch.
        from moola_mlflow.models import DETECTOR_CARD, ENCODER_CARD, read_detector_card, read_encoder_card
        from moola_mlflow.tracking.registry import models

        tags = self._allowed(record["tags"], trusted)
        kind, name, key = record["model"], record["name"], record["key"]
        waiting = checked_waiting_folder(self.folder, key)
        folder = waiting / kind
        log, read, card = {
            "encoder": (models.log_encoder, read_encoder_card, ENCODER_CARD),
            "detector": (models.log_detector, read_detector_card, DETECTOR_CARD),
        }[kind]
        if folder.is_dir():
            if not trusted:
                self.left_out.add(f"alias candidate of {name}")
            with store.active_run(self.run_id):
                name_it = trusted and (fresh or self._may_be_candidate(name))
                self.versions[key] = log(name, folder, read(folder / card), tags, key, name_it)
        shutil.rmtree(waiting, ignore_errors=True)

    def _may_be_candidate(self, name: str) -> bool:
        """Return whether a version may get alias ``candidate``. A run made again takes it from no later run."""
        from moola_mlflow.tracking.registry.models import CANDIDATE

        if self._remade_ms is None:
            return True
        try:
            holder = self.client.get_model_version_by_alias(name, CANDIDATE)
            return bool(self.client.get_run(str(holder.run_id)).info.start_time <= self._remade_ms)
        except MlflowException as e:
            if store.is_outage(e):
                raise
            return True

    def _finish_launcher_run(self, run_id: str) -> None:
        """Set the run that the launcher made to FINISHED and link this one: the command resumed this run instead."""
        try:
            self.client.set_tag(run_id, Tags.RESUMED, self.run_id)
        except MlflowException as e:
            if e.error_code == "RESOURCE_DOES_NOT_EXIST" and is_from_mlflow(e):  # there is nothing to end
                return
            raise
        self.client.set_tag(run_id, Tags.NOTE, f"This command resumed run `{self.run_id}`, which holds all results.")
        self.client.set_terminated(run_id, "FINISHED")

    def _set_status(self, event: Event) -> None:
        self.client.set_terminated(self.run_id, event.record["status"], event.at_ms)
        if event.record.get("note") is not None:
            note = self._with_stored_id({Tags.NOTE: event.record["note"]})[Tags.NOTE]
            self.client.set_tag(self.run_id, Tags.NOTE, note[:MAX_NOTE])
