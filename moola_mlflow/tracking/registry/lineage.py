"""Which model version, and which run, a model URI means now: an alias may move tomorrow."""

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
    """What a model URI meant when it was read."""

    uri: str
    """``models:/name/version`` for an alias or a version, else the URI as given."""
    run_id: str = ""
    """Id of the run that made the model, empty if unknown."""
    model_id: str = ""
    """MLflow's id of the logged model, empty without one."""

    def said(self, given: str) -> str:
        """Return the version that was read, in words, and the name that the user gave if it is another.

        >>> Origin("models:/nq-detector/3", "12ab").said("models:/nq-detector@champion")
        'models:/nq-detector/3 (models:/nq-detector@champion now), made by run 12ab'
        """
        now = "" if given == self.uri else f" ({given} now)"
        return f"{self.uri}{now}" + (f", made by run {self.run_id}" if self.run_id else "")


def resolve_origin(uri: str, card: dict[str, Any]) -> Origin:
    """Return the version that a URI means now, and the run that made it. ``card``: the card of the loaded model."""
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
    """Return the id of a version's logged model. SQL stores keep it in the version's source only."""
    source = str(version.source or "").removeprefix("models:/")
    return str(version.model_id or (source if source.startswith("m-") else ""))


def log_model_inputs(run_id: str, model_ids: Sequence[str]) -> None:
    """Make logged models inputs of a run, so that the UI links them. Stores without that feature are left alone."""
    if model_ids:
        with suppress(*STORE_FAILURES):  # the run's tags have the same information
            models = [LoggedModelInput(model_id) for model_id in model_ids]
            mlflow.MlflowClient().log_inputs(run_id, models=models)
