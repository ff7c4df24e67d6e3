"""Read runs back from the store: what they logged, and which pre-training made a fine-tuning's encoder."""

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

from moola_mlflow.core import UserError, current_name, nearest_name, read_yaml
from moola_mlflow.tracking.artifact_places import no_local_artifacts
from moola_mlflow.tracking.names import Artifacts, Tags
from moola_mlflow.tracking.registry.models import quiet_download
from moola_mlflow.tracking.store import STORE_FAILURES, shown_uri

RENAMED = ("objective.name", "finetune.inputs")
"""Keys that had values of another name in version 0.1."""
SEARCHED = 1000
"""Runs that are compared with an id that does not exist."""
PAGE = 500


@dataclass(frozen=True)
class RunRecord:
    """One run as the store has it. Artifacts are downloaded when they are first read."""

    run: Run
    _fetched: dict[str, bytes | None] = field(default_factory=dict, repr=False, compare=False)

    @property
    def id(self) -> str:
        """MLflow's id."""
        return str(self.run.info.run_id)

    @property
    def name(self) -> str:
        """Name of the run."""
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
        """Command that made the run, empty if another program made it."""
        return self.tags.get(Tags.STAGE, "")

    @property
    def metrics(self) -> dict[str, float]:
        """Last value of each metric."""
        return dict(self.run.data.metrics)

    @property
    def params(self) -> dict[str, str]:
        """Parameters as they were logged, under current names."""
        return {key: current_name(v) if key in RENAMED else v for key, v in self.run.data.params.items()}

    @property
    def inputs(self) -> list[tuple[str, str, str]]:
        """Name, SHA-256 and number of rows of each data file."""
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
        """Size of each artifact by its path, without the run's own report. Units: bytes."""
        client, out, folders = mlflow.MlflowClient(), {}, [""]
        while folders:
            with no_local_artifacts():
                entries = client.list_artifacts(self.id, folders.pop() or None)
            for entry in entries:
                if entry.path == Artifacts.REPORT:
                    continue
                if entry.is_dir:
                    folders.append(entry.path)
                else:
                    out[entry.path] = int(entry.file_size or 0)
        return dict(sorted(out.items()))

    @cached_property
    def config(self) -> dict[str, dict[str, Any]]:
        """The resolved configuration, empty if it was not logged."""
        try:
            read = read_yaml(self.text(Artifacts.CONFIG) or "") or {}
        except (yaml.YAMLError, ValueError, RecursionError):
            return {}
        sections = {k: v for k, v in read.items() if isinstance(v, dict)} if isinstance(read, dict) else {}
        for section, key in (name.split(".") for name in RENAMED):
            if isinstance(value := sections.get(section, {}).get(key), str):
                sections[section][key] = current_name(value)
        return sections

    def bytes(self, path: str) -> bytes | None:
        """Return an artifact, or None if it does not exist or cannot be downloaded."""
        if path not in self._fetched:
            try:
                with tempfile.TemporaryDirectory() as scratch, quiet_download(), no_local_artifacts():
                    local = mlflow.artifacts.download_artifacts(run_id=self.id, artifact_path=path, dst_path=scratch)
                    self._fetched[path] = Path(local).read_bytes()
            except STORE_FAILURES:
                self._fetched[path] = None
        return self._fetched[path]

    def text(self, path: str) -> str | None:
        """Return a text artifact, or None if it does not exist."""
        raw = self.bytes(path)
        return None if raw is None else raw.decode("utf-8", errors="replace")

    def json(self, path: str) -> Any:
        """Return a JSON artifact, or None if it does not exist or is damaged."""
        try:
            return json.loads(self.text(path) or "null")
        except ValueError:
            return None

    def history(self, metric: str) -> dict[int, float]:
        """Return a metric's values by step. Of two values at one step the later one counts."""
        points = mlflow.MlflowClient().get_metric_history(self.id, metric)
        points = sorted(points, key=lambda point: (point.step, point.timestamp))
        return {int(point.step): float(point.value) for point in points}

    def children(self, stage: str) -> list[RunRecord]:
        """Return the child runs of one command, oldest first."""
        return search_runs({Tags.PARENT: self.id, Tags.STAGE: stage}, [self.run.info.experiment_id])

    def version(self) -> str | None:
        """Return the URI of the model version that the run registered; of several, the first."""
        found = mlflow.MlflowClient().search_model_versions(f"run_id = '{self.id}'")
        first = min(found, key=lambda version: (version.name, int(version.version)), default=None)
        return f"models:/{first.name}/{first.version}" if first else None


def read_run(run_id: str, parameter: str) -> RunRecord:
    """Return the run with an id. ``parameter``: name of the user's parameter, for the error message.

    Raises: UserError if no run has the id (with the most similar id), or the run is deleted.
    """
    try:
        run = mlflow.MlflowClient().get_run(run_id)
    except MlflowException as e:
        if e.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise UserError(f"{parameter}='{run_id}' is no run of the store '{shown_uri()}'{_similar(run_id)}") from None
    if run.info.lifecycle_stage == "deleted":
        raise UserError(
            f"{parameter}='{run_id}' ({run.info.run_name}) is deleted; bring it back: "
            f"mlflow runs restore --run-id {run_id}"
        )
    return RunRecord(run)


def _similar(text: str) -> str:
    """Return a hint at the run whose name or id is most like a text."""
    runs = [one for stage in ("pretrain", "finetune") for one in search_runs({Tags.STAGE: stage}, limit=SEARCHED)]
    if not runs:
        return ", which has no pretrain or finetune run yet; make one: mlflow run . -e pretrain"
    like = [one for one in runs if one.name == text] or [one for one in runs if text and one.id.startswith(text)]
    if like:
        return f"; did you mean '{like[-1].id}' ({like[-1].name})?"
    nearest = nearest_name(text, [one.id for one in runs])
    return f"{nearest} A run's id is on its page in the UI, and in the last line that its command prints"


def search_runs(
    tags: Mapping[str, str], experiments: Sequence[str] | None = None, limit: int | None = None
) -> list[RunRecord]:
    """Return the runs with these tags, oldest first. Without ``experiments``, all experiments are searched."""
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
    """The pre-training runs that made the encoders of a fine-tuning."""

    run_ids: tuple[str, ...]
    unknown: str = ""
    """Why some are not known, empty if all are."""


def encoder_sources(tuning: RunRecord) -> Sources:
    """Return the runs that made the encoders of a fine-tuning, by what it recorded when it read them.

    Its tags say it. Early runs lack them: then the URI says it if it names a version or a run, else the detector's
    card. An alias does not say it, because it may have moved since.
    """
    if Tags.ENCODER in tuning.tags:
        read = tuning.tags[Tags.ENCODER]
        made = tuple(run_id for run_id in tuning.tags.get(Tags.ENCODER_RUN_ID, "").split(",") if run_id)
        lacking = len(made) < len(read.split(","))
        return Sources(made, f"'{read}' does not say which run made each encoder" if lacking else "")
    given = str((tuning.config.get("finetune") or {}).get("encoder") or tuning.params.get("finetune.encoder") or "")
    uris = [uri.strip() for uri in given.split(",") if uri.strip()]
    fixed = [_run_of(uri) for uri in uris]
    if all(fixed):
        return Sources(tuple(run_id for run_id in fixed if run_id))
    card = tuning.json(Artifacts.DETECTOR_CARD)
    if not isinstance(card, dict):
        return Sources(
            tuple(run_id for run_id in fixed if run_id),
            f"it read encoder '{given}', an alias that may have moved since, and it ended ({tuning.status}) before "
            "it wrote its detector's card",
        )
    by_card = [str(one.get("run_id") or "") for one in card.get("encoders") or []]
    nameless = [uri for uri, run_id in zip(uris, by_card, strict=False) if not run_id]
    why = f"the card of its encoder '{nameless[0]}' names no run" if nameless else ""
    return Sources(tuple(run_id for run_id in by_card if run_id), why)


def _run_of(uri: str) -> str | None:
    """Return the run behind a URI that names a version or a run, or None for any other URI."""
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
    """Return the fine-tunings that read a pre-training's encoder, and those that may have, with why that is unknown."""
    used, unknown = [], []
    for tuning in _younger(search_runs({Tags.STAGE: "finetune"}), pretraining):
        sources = encoder_sources(tuning)
        if pretraining.id in sources.run_ids:
            used.append(tuning)
        elif sources.unknown:
            unknown.append((tuning, sources.unknown))
    return used, unknown


def _younger(runs: Iterable[RunRecord], than: RunRecord) -> list[RunRecord]:
    """Return the runs that began after another one. Clocks of two machines may differ by an hour."""
    return [one for one in runs if one.run.info.start_time >= than.run.info.start_time - 3_600_000]
