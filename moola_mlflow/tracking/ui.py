"""What users see in MLflow's UI: a run's address, saved views of the run table, descriptions of models."""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException

from moola_mlflow.core import markdown_code, markdown_text, printable
from moola_mlflow.tracking.names import Metrics, Tags, VersionTags

COLUMNS = ("attributes.`Models`",)
"""Columns of every view, besides name, age and duration."""


@dataclass(frozen=True)
class View:
    """A saved view of the run table: the runs of one command, newest first, with these columns."""

    name: str
    stage: str
    columns: tuple[str, ...]


VIEWS = {
    "moola-pretrain": View(
        "Pre-training",
        "pretrain",
        (f"metrics.{Metrics.TEST_SKILL}", f"metrics.{Metrics.TEST_HUBER}", f"metrics.{Metrics.PROBE_R2_GAIN}",
         "params.objective.name", f"tags.{Tags.IDENTITY}"),
    ),
    "moola-finetune": View(
        "Fine-tuning",
        "finetune",
        (f"metrics.{Metrics.CV_F1_MACRO}", f"metrics.{Metrics.CV_JOINT_AT_3}",
         f"metrics.{Metrics.CV_DELTA_JOINT_AT_3_LO}", f"metrics.{Metrics.CV_ECE}",
         f"tags.{Tags.GATES}", f"tags.{Tags.ENCODER}"),
    ),
    "moola-trials": View(
        "Trials of sweeps",
        "trial",
        (f"metrics.{Metrics.VAL_HUBER}", f"metrics.{Metrics.CV_F1_MACRO}",
         "params.trainer.batch_size", "params.optimizer.lr"),
    ),
}  # fmt: skip
"""Saved views by their keys in links. MLflow's table shows no metric until the user chooses one."""


def view_tags() -> dict[str, str]:
    """Return the experiment tags that hold the saved views."""
    return {f"{Tags.SAVED_VIEW}{key}": _packed(view) for key, view in VIEWS.items()}


def offer_views(client: mlflow.MlflowClient, experiment: Experiment) -> None:
    """Add the saved views that an experiment lacks. A view that somebody changed is left as it is."""
    for key, value in view_tags().items():
        add_tag(client, experiment, key, value)


def add_tag(client: mlflow.MlflowClient, experiment: Experiment, key: str, value: str) -> None:
    """Set a tag that an experiment lacks."""
    if key in experiment.tags:
        return
    try:
        client.set_experiment_tag(experiment.experiment_id, key, value)
    except MlflowException:  # commands that start together: MLflow 3.17 on PostgreSQL refuses all but one
        if key not in client.get_experiment(experiment.experiment_id).tags:
            raise


def run_address(experiment_id: str, run_id: str) -> str:
    """Return where to see a run: its address on a server, else the command that shows the store and the address.

    Passwords are left out.
    """
    uri = mlflow.get_tracking_uri()
    page = f"#/experiments/{experiment_id}/runs/{run_id}"
    if uri.startswith(("http://", "https://")):
        return f"{printable(uri).rstrip('/')}/{page}"
    return f"{_command(uri)}, then http://127.0.0.1:5000/{page}"


def _command(uri: str) -> str:
    """Return the command that shows a store without a server. ``mlflow ui`` alone reads ./mlflow.db."""
    if uri.startswith("sqlite:///") and Path(uri.removeprefix("sqlite:///")).absolute() == Path.cwd() / "mlflow.db":
        return "mlflow ui"
    if printable(uri) != uri and os.environ.get("MLFLOW_TRACKING_URI") == uri:
        return "mlflow ui --backend-store-uri $MLFLOW_TRACKING_URI"
    return f"mlflow ui --backend-store-uri {printable(uri)}"


def _packed(view: View) -> str:
    """Return a view as the UI stores it: JSON that holds the table's state as deflated JSON."""
    columns = [*COLUMNS, *(_quoted(column) for column in view.columns)]
    state: dict[str, Any] = {
        "searchFilter": f"tags.`{Tags.STAGE}` = '{view.stage}'",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": [],
        "columnWidths": {},
        "runsHiddenMode": "FIRST_10_RUNS",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
    # Constant times, so that the tag is the same whenever it is made.
    return json.dumps({"name": view.name, "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"})


def _quoted(column: str) -> str:
    kind, _, name = column.partition(".")
    return f"{kind}.`{name}`"


def describe(client: mlflow.MlflowClient, kind: str, name: str, version: str, tags: Mapping[str, str]) -> None:
    """Write the descriptions of a model and its version. A model description that somebody wrote stays."""
    if text := version_text(kind, tags):
        client.update_model_version(name, version, text)
    if not client.get_registered_model(name).description:
        client.update_registered_model(name, name_text(kind, name))


def version_text(kind: str, tags: Mapping[str, str]) -> str:
    """Return a version's scores, gates and origin in Markdown, from its tags. Empty if they hold no score."""
    scores = (
        [("Skill", VersionTags.VAL_SKILL, "on validation windows")]
        if kind == "encoder"
        else [("F1 macro", VersionTags.F1_MACRO, ""), ("Joint@3", VersionTags.JOINT_AT_3, "out of fold")]
    )
    found = [f"{title} {markdown_text(tags[tag])} {when}".strip() for title, tag, when in scores if tag in tags]
    if not found:
        return ""
    lines = [", ".join(found) + (", on WEAK labels." if tags.get(VersionTags.WEAK_LABELS) == "true" else ".")]
    if tags.get(VersionTags.IDENTITY) == "true":
        lines.append("It was trained to copy what it saw, so its skill measures copying.")
    state, _, missed = tags.get(VersionTags.GATES, "").partition(": ")
    names = ", ".join(gate.split()[0] for gate in missed.split(";") if gate.strip())
    lines.append("Gates at registration: " + (f"missed {names}." if state == "failed" else f"{state or 'unknown'}."))
    made = [f"{key} {markdown_code(tags[key])}" for key in (VersionTags.PRESET, VersionTags.FEATURES) if key in tags]
    if (begun := tags.get(VersionTags.TRAINED_FROM, "unknown")) != "unknown":
        made.append(f"encoder trained on {begun[:10]} to {tags.get(VersionTags.TRAINED_UNTIL, '')[:10]}")
    lines.append(f"Made with {', '.join(made)}." if made else "")
    return "\n\n".join(filter(None, lines))


def name_text(kind: str, name: str) -> str:
    """Return what a registered model holds, how to load it and what its aliases mean."""
    what = {
        "encoder": "Encoders of one-minute bars: raw OHLC windows to embeddings.",
        "detector": "Detectors of patterns in one-minute bars: raw OHLC windows to class, span, probability.",
    }[kind]
    return (
        f"{what} Alias `candidate` names the newest version. `champion` names the version that `moola promote` put in "
        f"use on its evidence, and `previous` the champion before it. "
        f"Load it: `moola_mlflow.load_{kind}('models:/{name}@champion')`"
    )
