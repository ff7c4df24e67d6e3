"""Every test of this folder works in a folder and a store of its own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest


@pytest.fixture
def workdir(workdir: Path) -> Iterator[Path]:
    """The shared fixture, and MLflow told so: what an earlier test told it counts more than the environment."""
    mlflow.set_tracking_uri(f"sqlite:///{workdir}/mlflow.db")
    yield workdir
    mlflow.tracking.fluent._active_run_stack.get().clear()
    mlflow.set_tracking_uri(None)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    warnings.filterwarnings("ignore", message=".*supposed to be used with Study.optimize")
