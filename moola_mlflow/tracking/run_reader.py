"""Finished runs read back: what they logged, and which pre-training a fine-tuning's encoder came from."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import mlflow
import yaml
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from moola_mlflow.core import UserError, current_name, nearest_name
from moola_mlflow.tracking.names import Artifacts, Tags
from moola_mlflow.tracking.registry.models import without_progress_bar
from moola_mlflow.tracking.store import STORE_FAILURES, shown_uri

STAGE, PARENT, COMMIT = Tags.STAGE, Tags.PARENT, Tags.COMMIT
READ, MADE = Tags.ENCODER, Tags.ENCODER_RUN_ID
"""Tags of a fine-tuning: the encoders that it read, and the runs that made them, with commas."""
OWN = "report"
"""Folder of a run's artifacts where its report lies: never a part of what the report is made from."""
RENAMED = ("objective.name", "finetune.inputs")
"""Keys of which a value has another name since version 0.1."""
SEARCHED = 1000
PAGE = 500


@dataclass(frozen=True)
class RunRecord:
    """One run as the store has it; artifacts are fetched when they are asked for."""

    run: Run
    _fetched: dict[str, bytes | None] = field(default_factory=dict, repr=False, compare=False)

    @property
    def id(self) -> str:
        """MLflow's id."""
        return str(self.run.info.run_id)

    @property
    def name(self) -> str:
        """What the run is called, by whomever."""
        return str(self.run.info.run_name or self.id)

    @property
    def status(self) -> str:
        """FINISHED, FAILED, KILLED or RUNNING."""
        return str(self.run.info.status)

    @property
    def tags(self) -> dict[str, str]:
        """Tags."""
        return dict(self.run.data.tags)

    @property
    def stage(self) -> str:
        """Which command it belongs to; empty for a run that is none of this project's."""
        return self.tags.get(STAGE, "")

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of each metric."""
        return dict(self.run.data.metrics)

    @property
    def params(self) -> dict[str, str]:
        """Parameters as they were logged, under current names."""
        return {key: current_name(v) if key in RENAMED else v for key, v in self.run.data.params.items()}

    @property
    def inputs(self) -> list[tuple[str, str, str]]:
        """Name, SHA-256 and rows of each data file."""
        out = []
        for one in self.run.inputs.dataset_inputs if self.run.inputs else []:
            tags = {tag.key: tag.value for tag in one.tags}
            try:
                rows = str(json.loads(one.dataset.profile or "{}").get("num_rows", ""))
            except ValueError:
                rows = ""
            out.append((one.dataset.name, tags.get("sha256", one.dataset.digest), rows))
        return sorted(out)

    @cached_property
    def files(self) -> dict[str, int]:
        """Size of each artifact by its path, apart from its report. Units: bytes."""
        client, out, folders = mlflow.MlflowClient(), {}, [""]
        while folders:
            for entry in client.list_artifacts(self.id, folders.pop() or None):
                if entry.path == OWN:
                    continue
                if entry.is_dir:
                    folders.append(entry.path)
                else:
                    out[entry.path] = int(entry.file_size or 0)
        return dict(sorted(out.items()))

    @cached_property
    def config(self) -> dict[str, dict[str, Any]]:
        """The resolved configuration; empty where it was not logged."""
        try:
            read = yaml.safe_load(self.text(Artifacts.CONFIG) or "") or {}
        except yaml.YAMLError:
            return {}
        sections = {k: v for k, v in read.items() if isinstance(v, dict)} if isinstance(read, dict) else {}
        for section, key in (name.split(".") for name in RENAMED):
            if isinstance(value := sections.get(section, {}).get(key), str):
                sections[section][key] = current_name(value)
        return sections

    def bytes(self, path: str) -> bytes | None:
        """Return an artifact, None where it is not there or cannot be fetched."""
        if path not in self._fetched:
            try:
                with tempfile.TemporaryDirectory() as scratch, without_progress_bar():
                    local = mlflow.artifacts.download_artifacts(run_id=self.id, artifact_path=path, dst_path=scratch)
                    self._fetched[path] = Path(local).read_bytes()
            except STORE_FAILURES:
                self._fetched[path] = None
        return self._fetched[path]

    def text(self, path: str) -> str | None:
        """Return a text artifact, None where it is not there."""
        raw = self.bytes(path)
        return None if raw is None else raw.decode("utf-8", errors="replace")

    def json(self, path: str) -> Any:
        """Return a JSON artifact, None where it is not there or is damaged."""
        try:
            return json.loads(self.text(path) or "null")
        except ValueError:
            return None

    def history(self, metric: str) -> dict[int, float]:
        """Return a metric by step; of two values at one step the later."""
        points = mlflow.MlflowClient().get_metric_history(self.id, metric)
        points = sorted(points, key=lambda point: (point.step, point.timestamp))
        return {int(point.step): float(point.value) for point in points}

    def children(self, stage: str) -> list[RunRecord]:
        """Return the runs nested in it, of one stage, the oldest first."""
        return search_runs({PARENT: self.id, STAGE: stage}, [self.run.info.experiment_id])

    def version(self) -> str | None:
        """Return the URI of the model version that it registered, of several the first."""
        found = mlflow.MlflowClient().search_model_versions(f"run_id = '{self.id}'")
        first = min(found, key=lambda version: (version.name, int(version.version)), default=None)
        return f"models:/{first.name}/{first.version}" if first else None


def read_run(run_id: str, parameter: str) -> RunRecord:
    """Return a run that is there. ``parameter`` is what the user gave it as.

    Raises: UserError where no run is called so, with the nearest that is, or where it is deleted.
    """
    try:
        run = mlflow.MlflowClient().get_run(run_id)
    except MlflowException as e:
        if e.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise UserError(f"{parameter}='{run_id}' is no run of the store '{shown_uri()}'{_meant(run_id)}") from None
    if run.info.lifecycle_stage == "deleted":
        raise UserError(
            f"{parameter}='{run_id}' ({run.info.run_name}) is deleted; bring it back: "
            f"mlflow runs restore --run-id {run_id}"
        )
    return RunRecord(run)


def _meant(text: str) -> str:
    """Return the run that an id which is none may have meant: called so, beginning so, or nearest."""
    runs = [one for stage in ("pretrain", "finetune") for one in search_runs({STAGE: stage}, limit=SEARCHED)]
    if not runs:
        return "; it has no pretrain or finetune run yet: mlflow run . -e pretrain"
    like = [one for one in runs if one.name == text] or [one for one in runs if text and one.id.startswith(text)]
    if like:
        return f"; did you mean '{like[-1].id}' ({like[-1].name})?"
    nearest = nearest_name(text, [one.id for one in runs])
    return f"{nearest} Ids stand in the UI on a run's page, and in the last line it says"


def search_runs(
    tags: Mapping[str, str], experiments: Sequence[str] | None = None, limit: int | None = None
) -> list[RunRecord]:
    """Return the runs that have these tags, the oldest first; all experiments where none are given."""
    client = mlflow.MlflowClient()
    wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    if experiments is None:
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    out: list[RunRecord] = []
    token: str | None = None
    while True:
        page = client.search_runs(
            list(experiments), wanted, max_results=PAGE, order_by=["attributes.start_time ASC"], page_token=token
        )
        out += map(RunRecord, page)
        token = page.token
        if not token or (limit and len(out) >= limit):
            return sorted(out, key=lambda one: (one.run.info.start_time, one.id))


@dataclass(frozen=True)
class Sources:
    """The pre-training runs of the encoders that a fine-tuning was given."""

    run_ids: tuple[str, ...]
    unknown: str = ""
    """Why they are not known, or not all; empty where they are."""


def encoder_sources(tuning: RunRecord) -> Sources:
    """Return which runs made the encoders of a fine-tuning, by what it recorded when it read them.

    That is its tags; of older runs without them the URI, where it cannot have come to mean another, or the detector's
    card. An alias says nothing: it may have moved since.
    """
    if READ in tuning.tags:
        made = tuple(run_id for run_id in tuning.tags.get(MADE, "").split(",") if run_id)
        lacking = len(made) < len(tuning.tags[READ].split(","))
        return Sources(made, f"'{tuning.tags[READ]}' does not say which run made each encoder" if lacking else "")
    given = str((tuning.config.get("finetune") or {}).get("encoder") or tuning.params.get("finetune.encoder") or "")
    uris = [uri.strip() for uri in given.split(",") if uri.strip()]
    fixed = [_run_of(uri) for uri in uris]
    if all(fixed):
        return Sources(tuple(run_id for run_id in fixed if run_id))
    card = tuning.json(Artifacts.DETECTOR_CARD)
    if not isinstance(card, dict):
        return Sources(
            tuple(run_id for run_id in fixed if run_id),
            f"it named its encoder '{given}', which may have changed since, and it ended ({tuning.status}) before its "
            "detector's card was written",
        )
    by_card = [str(one.get("run_id") or "") for one in card.get("encoders") or []]
    nameless = [uri for uri, run_id in zip(uris, by_card, strict=False) if not run_id]
    why = f"the card of its encoder '{nameless[0]}' names no run" if nameless else ""
    return Sources(tuple(run_id for run_id in by_card if run_id), why)


def _run_of(uri: str) -> str | None:
    """Return the run behind a URI that cannot come to mean another: a version or a run; else None."""
    if uri.startswith("runs:/"):
        return uri.removeprefix("runs:/").split("/")[0]
    name, slash, version = uri.removeprefix("models:/").rpartition("/")
    if not uri.startswith("models:/") or not slash or "@" in version:
        return None
    try:
        return mlflow.MlflowClient().get_model_version(name, version).run_id or None
    except MlflowException:  # deleted since
        return None


def tunings_of(pretraining: RunRecord) -> tuple[list[RunRecord], list[tuple[RunRecord, str]]]:
    """Return the fine-tunings that read a pre-training's encoder, and those of which that is unknown, with why."""
    used, unknown = [], []
    for tuning in _younger(search_runs({STAGE: "finetune"}), pretraining):
        sources = encoder_sources(tuning)
        if pretraining.id in sources.run_ids:
            used.append(tuning)
        elif sources.unknown:
            unknown.append((tuning, sources.unknown))
    return used, unknown


def _younger(runs: Iterable[RunRecord], than: RunRecord) -> list[RunRecord]:
    """An encoder cannot be read before its training began; on another machine, give or take an hour of its clock."""
    return [one for one in runs if one.run.info.start_time >= than.run.info.start_time - 3_600_000]
