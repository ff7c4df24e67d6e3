"""Which registered version, and which run, stood behind the model that a run has read: an alias may move tomorrow."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import mlflow
from mlflow.entities import LoggedModelInput
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from moola_mlflow.tracking.store import STORE_FAILURES


@dataclass(frozen=True)
class Origin:
    """What stood behind a URI when it was read."""

    uri: str
    """``models:/name/version`` where an alias or a version was named, else the URI itself."""
    run_id: str = ""
    """Of the run that made it, empty where unknown."""
    model_id: str = ""
    """MLflow's id of the logged model, empty where there is none."""


def resolve_origin(uri: str, card: dict[str, Any]) -> Origin:
    """Return which version an alias names now, and which run made it; ``card`` is that of the model."""
    run_id = str(card.get("run_id") or "")
    name = uri.removeprefix("models:/")
    if name == uri:
        return Origin(uri, run_id or (uri.removeprefix("runs:/").split("/")[0] if uri.startswith("runs:/") else ""))
    client = mlflow.MlflowClient()
    try:
        if "@" in name:
            version = client.get_model_version_by_alias(*name.split("@", 1))
        else:
            version = client.get_model_version(*name.rsplit("/", 1))
    except (MlflowException, TypeError):  # models:/m-...: a logged model without a version
        return Origin(uri, run_id, name if name.startswith("m-") else "")
    return Origin(
        f"models:/{version.name}/{version.version}", run_id or str(version.run_id or ""), model_id_of(version)
    )


def model_id_of(version: ModelVersion) -> str:
    """Return the logged model behind a version: a SQL store tells it in the source alone."""
    source = str(version.source or "").removeprefix("models:/")
    return str(version.model_id or (source if source.startswith("m-") else ""))


def log_model_inputs(run_id: str, model_ids: Sequence[str]) -> None:
    """Make logged models inputs of a run, so that the UI leads from one to the other; stores that cannot do not."""
    if model_ids:
        with suppress(*STORE_FAILURES):  # the run's tags say the same
            models = [LoggedModelInput(model_id) for model_id in model_ids]
            mlflow.MlflowClient().log_inputs(run_id, models=models)
