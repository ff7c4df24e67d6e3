"""Names that follow from a project: its encoder, its detector, its experiment."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any

from moola_mlflow.core.config.tracking import DEFAULT_PROJECT

EXPERIMENT_NAME, EXPERIMENT_ID = "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"
"""MLflow's own variables that name an experiment."""


def model_name(project: str, kind: str) -> str:
    """Return the registered name of a project's encoder or detector.

    >>> model_name("nq", "encoder"), model_name("", "detector")
    ('nq-encoder', 'moola-detector')
    """
    return f"{project or DEFAULT_PROJECT}-{kind}"


def project_names(
    project: str, keys: Collection[str], preset: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the keys that a project names, as far as a command has them, and the experiment of the environment.

    A key that the preset has set to a name of its own is left out. MLFLOW_EXPERIMENT_NAME counts more than the project.

    >>> project_names("nq", ["registry.name", "finetune.freeze"], {"registry.name": "moola-detector"}, {})
    {'registry.name': 'nq-detector'}
    """
    environment = os.environ if environment is None else environment
    kind = "detector" if "finetune.freeze" in keys else "encoder"
    names = {
        "registry.name": model_name(project, kind),
        "detect.detector": f"models:/{model_name(project, 'detector')}@champion",
        "tracking.experiment": project,
    }
    usual = {"registry.name": model_name("", kind), "detect.detector": f"models:/{model_name('', 'detector')}@champion"}
    if not project:
        names = {}
    if environment.get(EXPERIMENT_ID):
        names.pop("tracking.experiment", None)  # found by its id when the run is opened
    if named := environment.get(EXPERIMENT_NAME):
        names["tracking.experiment"] = named
    return {
        key: name for key, name in names.items() if key in keys and preset.get(key, usual.get(key)) == usual.get(key)
    }
