"""Events of a run's journal as calls to the tracking store; to apply one twice changes nothing."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from requests import HTTPError

from moola_mlflow.core import UserError, undisturbed
from moola_mlflow.models import DETECTOR_CARD, ENCODER_CARD, read_detector_card, read_encoder_card
from moola_mlflow.tracking import store, ui
from moola_mlflow.tracking.delivery import journal
from moola_mlflow.tracking.delivery.journal import Event
from moola_mlflow.tracking.names import Tags
from moola_mlflow.tracking.registry import models
from moola_mlflow.tracking.registry.models import EVENT_TAG

# MLflow's limits: a longer parameter is cut, a longer note is refused by some stores.
MAX_PARAM, MAX_NOTE, MAX_BATCH, MAX_METRICS = 6000, 5000, 100, 1000
NOTE = Tags.NOTE
PARENT = Tags.PARENT
EXPERIMENT_KIND = Tags.EXPERIMENT_KIND
TABLES = Tags.TABLES
"""Tag by which the UI finds tables."""
LOCAL = Tags.OFFLINE
"""Tag of a run that began without its store: the name of its folder."""
BATCHED = ("params", "tags", "metrics")
REFUSED = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"}
"""What a store says of an event that it will never take."""
DENIED = "PERMISSION_DENIED"
NOT_NOW = {401, 408, 429}
"""HTTP codes that are no word on what was sent: a login that has run out, a request that was slow or one too many."""
TOO_LARGE = re.compile(r"(?i)failed with error code 413\b|^413: |^INTERNAL_ERROR: .*(too (large|long|big)|size limit)")
"""What MLflow makes of a proxy's 413; of one in JSON it keeps the words alone."""
Entry = Metric | RunTag | Param


class Replayer:
    """Sends events to one run of the store, in their order."""

    def __init__(self, client: mlflow.MlflowClient, folder: Path, run_id: str, run: Run | None = None) -> None:
        """``run_id`` is empty where the store has not got the run yet; ``run`` is what is known of it, if anything."""
        self.client, self.folder, self.run_id = client, folder, run_id
        self.experiment_id = ""
        self.versions: dict[str, str] = {}
        """Registered versions by the key of their event."""
        self._known_params: set[str] | None = None
        self._tried: set[str] = set()
        """Keys of events that were begun, and whose answer may have been lost."""
        if run is not None:
            self._learn(run)

    def _learn(self, run: Run) -> None:
        self.experiment_id = run.info.experiment_id
        self._known_params = set(run.data.params)

    def _ask(self) -> Run:
        run = self.client.get_run(self.run_id)
        self._learn(run)
        return run

    def is_there(self) -> bool:
        """Return whether the store has the run, not deleted. Raises: what the store raises but for that."""
        try:
            return bool(self.client.get_run(self.run_id).info.lifecycle_stage == "active")
        except MlflowException as e:
            if e.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def apply(self, events: list[Event], fresh: bool) -> None:
        """Send events that ``groups`` has put together.

        ``fresh`` says that nobody can have sent them before. Raises: what the store raises; UserError where a model
        cannot be registered under its name.
        """
        if events[0].kind in BATCHED:
            self._batch(events)
            return
        for event in events:
            key = event.record.get("key", "")
            maybe_there = not fresh or key in self._tried
            if key:
                self._tried.add(key)
            match event.kind:
                case "begin":
                    self._begin(event)
                case "inputs":
                    self._inputs(event.record)
                case "child":
                    self._child(event, maybe_there)
                case "artifacts":
                    self._artifacts(event.record)
                case "register":
                    self._register(event.record)
                case "handover":
                    self._hand_over(event.record["run_id"])
                case "status":
                    self._status(event)

    def _begin(self, event: Event) -> None:
        record = event.record
        if "make" in record and not self.run_id:
            self._make(event.record["make"])
        if record.get("running") or record.get("name"):
            status = "RUNNING" if record.get("running") else None
            self.client.update_run(self.run_id, status=status, name=record.get("name"))
        if record.get("show"):
            self._show_as_training()

    def _make(self, make: Mapping[str, Any]) -> None:
        """Make the run of a process that began without its store, under the time at which it began."""
        experiment = mlflow.set_experiment(make["experiment"]).experiment_id
        there = self.client.search_runs([experiment], f"tags.`{LOCAL}` = '{self.folder.name}'")
        if there:
            self.run_id = there[0].info.run_id
        else:
            tags = {**make["tags"], LOCAL: self.folder.name}
            made = self.client.create_run(experiment, start_time=make["at_ms"], tags=tags, run_name=make["name"])
            self.run_id = made.info.run_id
        self._ask()

    def _show_as_training(self) -> None:
        """Have the UI open the experiment as model training, not as GenAI."""
        experiment = self.client.get_experiment(self.experiment_id or self._ask().info.experiment_id)
        if EXPERIMENT_KIND not in experiment.tags:
            self.client.set_experiment_tag(experiment.experiment_id, EXPERIMENT_KIND, "custom_model_development")
        ui.offer_views(self.client, experiment)

    def _batch(self, events: list[Event]) -> None:
        """Send figures, parameters and tags in one request.

        A point that is there, with its time and step, is not doubled: MLflow's stores know it by them. A parameter
        that is there stays: the launcher logs short keys as raw text, and MLflow forbids a second value.
        """
        params: dict[str, str] = {}
        tags: dict[str, str] = {}
        points: list[Metric] = []
        for event in events:
            params = {**_cut(event.record.get("params", {})), **params}
            tags |= self._named(event.record.get("tags", {}))
            points += _points(event.record.get("metrics", {}), event.at_ms, event.record.get("step", 0))
        if params:
            known = self._known_params if self._known_params is not None else set(self._ask().data.params)
            params = {key: value for key, value in params.items() if key not in known}
        rows = [Param(key, value) for key, value in params.items()]
        labels = [RunTag(key, value) for key, value in tags.items()]
        for part in _parts(points, labels, rows):
            self._log(self.run_id, part)
        if self._known_params is not None:
            self._known_params |= set(params)

    def _log(self, run_id: str, entries: list[Entry]) -> None:
        """Send entries in one request, or in halves where the way to the store takes none of their size.

        Raises: what the store raises; of an entry that is too large alone once all others are sent.
        """
        kinds = {"metrics": Metric, "tags": RunTag, "params": Param}
        parts: dict[str, Any] = {name: [x for x in entries if isinstance(x, kind)] for name, kind in kinds.items()}
        try:
            self.client.log_batch(run_id, **parts)
            return
        except MlflowException as e:
            if not is_too_large(e) or len(entries) == 1:
                raise
        half = len(entries) // 2
        too_large: MlflowException | None = None
        for some in (entries[:half], entries[half:]):
            try:
                self._log(run_id, some)
            except MlflowException as e:
                if not is_too_large(e):
                    raise
                too_large = e
        if too_large is not None:
            raise too_large

    def _named(self, tags: Mapping[str, str]) -> dict[str, str]:
        """Return texts with the run's id in the store in the place of the one it had before that."""
        local = self.folder.name
        if not local.startswith(journal.OFFLINE):
            return dict(tags)
        return {key: value.replace(local, self.run_id) for key, value in tags.items()}

    def _inputs(self, record: Mapping[str, Any]) -> None:
        """Log inputs by path, SHA-256 and rows. MLflow keeps 36 characters of a digest: the rest is a tag."""
        inputs = []
        for path, sha256, rows in record["files"]:
            source, profile = json.dumps({"uri": path}), json.dumps({"num_rows": rows})
            dataset = Dataset(Path(path).name, sha256[:36], "local", source, profile=profile)
            tags = [InputTag(Tags.INPUT_CONTEXT, record.get("context", "training")), InputTag("sha256", sha256)]
            inputs.append(DatasetInput(dataset, tags))
        self.client.log_inputs(self.run_id, inputs)

    def _child(self, event: Event, maybe_there: bool) -> None:
        record, at = event.record, event.at_ms
        points = [
            point for step, row in enumerate(record["series"]) for point in _points(row, at, step) if _finite(point)
        ]
        points += [point for point in _points(record["final"], at, 0) if _finite(point)]
        experiment = self.experiment_id or self._ask().info.experiment_id
        with undisturbed():  # no child is left RUNNING
            there = self._made_by(record["key"]) if maybe_there else []
            if there:
                child = there[0].info.run_id
            else:
                tags = {PARENT: self.run_id, EVENT_TAG: record["key"], **record["tags"]}
                begun = at - int(1000 * record["seconds"])
                made = self.client.create_run(experiment, start_time=begun, tags=tags, run_name=record["name"])
                child = made.info.run_id
            params = [Param(key, value[:MAX_PARAM]) for key, value in record["params"].items()]
            for part in _parts(points, [], params):
                self._log(child, part)
            self.client.set_terminated(child, "FINISHED", at)

    def _made_by(self, key: str) -> list[Run]:
        experiment = self.experiment_id or self._ask().info.experiment_id
        wanted = f"tags.`{EVENT_TAG}` = '{key}' and tags.`{PARENT}` = '{self.run_id}'"
        return list(self.client.search_runs([experiment], wanted, order_by=["attributes.start_time ASC"]))

    def remove_doubles(self, keys: Iterable[str]) -> int:
        """Delete children that one event has made twice: a request whose answer was lost is sent again, by MLflow too.

        Returns how many.
        """
        removed = 0
        for key in keys:
            for run in self._made_by(key)[1:]:
                self.client.delete_run(run.info.run_id)
                removed += 1
        return removed

    def _artifacts(self, record: Mapping[str, Any]) -> None:
        waiting = self._waiting(record["key"])
        if waiting.is_dir():  # else they were sent, and the answer was lost
            self.client.log_artifacts(self.run_id, str(waiting))
        if tables := record.get("tables"):
            named = json.loads(self._ask().data.tags.get(TABLES, "[]"))
            new = [entry for path in tables if (entry := {"path": path, "type": "table"}) not in named]
            if new:
                self.client.set_tag(self.run_id, TABLES, json.dumps([*named, *new]))
        shutil.rmtree(waiting, ignore_errors=True)

    def _register(self, record: Mapping[str, Any]) -> None:
        """Register a model that lies in the outbox. Raises: UserError where its name holds models of another kind."""
        kind, name, key = record["model"], record["name"], record["key"]
        waiting = self._waiting(key)
        folder = waiting / kind
        log, read, card = {
            "encoder": (models.log_encoder, read_encoder_card, ENCODER_CARD),
            "detector": (models.log_detector, read_detector_card, DETECTOR_CARD),
        }[kind]
        if folder.is_dir():
            with store.active_run(self.run_id):
                self.versions[key] = log(name, folder, read(folder / card), record["tags"], key)
        shutil.rmtree(waiting, ignore_errors=True)

    def _waiting(self, key: str) -> Path:
        """Return where an event's files wait. Raises: UserError where a link leads from there to other files."""
        place = journal.outbox_folder(self.folder, key)
        for path in (place.parent, place, *place.rglob("*")):
            if path.is_symlink():
                raise UserError(f"'{path}' is a link, which this program never leaves there: nothing of it is sent")
        return place

    def _hand_over(self, own: str) -> None:
        """End the launcher's run: what it was made for went on in this one."""
        self.client.set_tag(own, Tags.RESUMED, self.run_id)
        self.client.set_tag(own, NOTE, f"Went on with run `{self.run_id}`, which holds everything.")
        self.client.set_terminated(own, "FINISHED")

    def _status(self, event: Event) -> None:
        self.client.set_terminated(self.run_id, event.record["status"], event.at_ms)
        if event.record.get("note") is not None:
            note = self._named({NOTE: event.record["note"]})[NOTE]
            self.client.set_tag(self.run_id, NOTE, note[:MAX_NOTE])


def groups(events: Iterable[Event]) -> Iterator[list[Event]]:
    """Put neighbours together that fit into one request; everything else stands alone."""
    group: list[Event] = []
    counts = dict.fromkeys(BATCHED, 0)
    limits = {"params": MAX_BATCH, "tags": MAX_BATCH, "metrics": MAX_METRICS - 2 * MAX_BATCH}
    for event in events:
        if event.kind not in BATCHED:
            if group:
                yield group
            group, counts = [], dict.fromkeys(BATCHED, 0)
            yield [event]
            continue
        num = len(event.record[event.kind])
        if group and counts[event.kind] + num > limits[event.kind]:
            yield group
            group, counts = [], dict.fromkeys(BATCHED, 0)
        group.append(event)
        counts[event.kind] += num
    if group:
        yield group


def is_refusal(error: BaseException) -> bool:
    """Return whether a store has said that what it was given is wrong, and not that it cannot take it now."""
    said = getattr(error, "error_code", "") in REFUSED and not store.is_outage(error)  # BAD_REQUEST: any of a database
    return isinstance(error, UserError) or said


def is_too_large(error: BaseException) -> bool:
    """Return whether a request was larger than the store, or a proxy on the way to it, takes."""
    if isinstance(error, HTTPError):
        return error.response is not None and error.response.status_code == 413
    return isinstance(error, MlflowException) and TOO_LARGE.search(str(error)) is not None


def is_denial(error: BaseException) -> bool:
    """Return whether a store has said that it does not take this from this user, or not in this size.

    It may from another, or once its limits have been changed: files are worth keeping until then.
    """
    if isinstance(error, HTTPError):  # of an artifact
        code = 0 if error.response is None else error.response.status_code
        return 400 <= code < 500 and code not in NOT_NOW
    return getattr(error, "error_code", "") == DENIED


def _parts(points: list[Metric], tags: list[RunTag], params: list[Param]) -> Iterator[list[Entry]]:
    """Cut a request into those that MLflow takes."""
    most = MAX_METRICS - 2 * MAX_BATCH if tags or params else MAX_METRICS
    requests = max(-(-len(points) // most), -(-len(tags) // MAX_BATCH), -(-len(params) // MAX_BATCH))
    for i in range(requests):
        few = slice(i * MAX_BATCH, (i + 1) * MAX_BATCH)
        yield [*points[i * most : (i + 1) * most], *tags[few], *params[few]]


def _points(metrics: Mapping[str, float | None], at_ms: int, step: int) -> list[Metric]:
    return [Metric(key, float(value), at_ms, step) for key, value in metrics.items() if value is not None]


def _finite(point: Metric) -> bool:
    return math.isfinite(point.value)


def _cut(params: Mapping[str, str]) -> dict[str, str]:
    return {key: value[:MAX_PARAM] for key, value in params.items()}
