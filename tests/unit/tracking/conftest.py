"""Every test of this folder starts with the store of its environment, without an active run or experiment."""

from __future__ import annotations

from collections.abc import Iterator

import mlflow
import pytest


@pytest.fixture(autouse=True)
def _nothing_of_an_earlier_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """MLflow keeps store, experiment and runs for the whole process, the experiment in the environment too."""
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
    monkeypatch.setattr(mlflow.tracking.fluent, "_active_experiment_id", None)
    mlflow.set_tracking_uri(None)
    yield
    mlflow.tracking.fluent._active_run_stack.get().clear()
    mlflow.set_tracking_uri(None)
