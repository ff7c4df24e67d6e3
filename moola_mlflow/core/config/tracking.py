"""Sections ``tracking`` and ``registry``: where runs go, how they are resumed, and what is registered."""

from __future__ import annotations

from pydantic import Field

from moola_mlflow.core.config.base import Section

DEFAULT_PROJECT = "moola"
"""Project whose names are used if the user gives none."""


class ProjectConfig(Section):
    """The project that names what a user registers."""

    name: str = Field("", pattern=r"^[^/:\s]{0,100}$")
    """Names what has no name yet: encoder NAME-encoder, detector NAME-detector, experiment NAME; not set: moola."""


class ExperimentConfig(Section):
    """The MLflow experiment of the run."""

    experiment: str = DEFAULT_PROJECT
    """MLflow experiment of the run; not set: that of MLFLOW_EXPERIMENT_NAME or _ID, else the project's name; under
    `mlflow run` the launcher chooses it."""


class TrackingConfig(ExperimentConfig):
    """The MLflow experiment, and how an interrupted training is resumed."""

    resume: str = Field("never", pattern=r"^(never|auto|new(:(offline-)?[0-9a-f]{32})?|(offline-)?[0-9a-f]{32})$")
    """never: start a new run; auto: resume the newest interrupted run of this configuration; a run id: resume that run;
    new or new:ID: start a new run from the latest checkpoint of an old one."""
    allow_drift: str = ""
    """Keys that may have changed since the run was interrupted, separated by commas; the change is recorded."""
    figures_every: int = Field(5, ge=1)
    """Epochs between two pictures of the same reconstructed windows."""


class RegistryConfig(Section):
    """The MLflow model registry."""

    name: str = Field("moola-encoder", pattern=r"^[^/:\s][^/:]{0,250}$")
    """Registered model that gets a new version; `none` registers nothing."""
