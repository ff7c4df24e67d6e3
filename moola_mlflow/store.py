"""Opening a run in the tracking store, and saying in one line what is wrong with a store that will not have it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from moola_mlflow.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FAILURES = (MlflowException, SQLAlchemyError, OSError)
"""What a store, or the way to it, raises: no fault of this project's code."""


def open_run(name: str, experiment: str, adopt: bool, run_id: str | None = None) -> Run:
    """Go on with a run, adopt the launcher's, or make one in an experiment, and make it MLflow's active run.

    Raises: UserError saying what is wrong with the store, and the cure.
    """
    uri = mlflow.get_tracking_uri()
    path = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
    if path:
        _check_sqlite(uri, path)
    try:
        with _alone(path):
            if adopt:  # with MLFLOW_RUN_ID set, set_experiment would make start_run fail
                return mlflow.start_run()
            if run_id is not None:
                return mlflow.start_run(run_id)
            mlflow.set_experiment(experiment)
            return mlflow.start_run(run_name=name)
    except FAILURES as e:
        raise UserError(_diagnosis(uri, experiment, e, run_id)) from e


def find_run(tags: Mapping[str, str]) -> Run | None:
    """Return the oldest run, in whatever experiment, that has these tags. Raises: UserError as above."""
    uri = mlflow.get_tracking_uri()
    path = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
    if path:
        _check_sqlite(uri, path)
    client, wanted = mlflow.MlflowClient(), " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    try:
        with _alone(path):
            experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        found = client.search_runs(experiments, wanted, max_results=1, order_by=["attributes.start_time ASC"])
    except FAILURES as e:
        raise UserError(_diagnosis(uri, "", e)) from e
    return found[0] if found else None


@contextmanager
def _alone(path: Path | None) -> Iterator[None]:
    """Let one process at a time open a SQLite store: two that create its tables together leave it half made."""
    if path is None or fcntl is None:
        yield
        return
    with open(path.with_name(f"{path.name}.lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed, also by a crash
        yield


def _check_sqlite(uri: str, path: Path) -> None:
    """Refuse a SQLite store that cannot be written, for which MLflow would retry for minutes."""
    if not path.parent.is_dir():
        raise UserError(f"the tracking store '{uri}' is in a folder that is not there; make {path.parent}")
    for target in (path, path.parent):
        if target.exists() and not os.access(target, os.W_OK):
            raise UserError(
                f"the tracking store '{uri}' cannot be written: {target} is read-only; run in a folder you may write "
                "to, or set MLFLOW_TRACKING_URI"
            )


def _diagnosis(uri: str, experiment: str, error: Exception, resumed: str | None = None) -> str:
    text = first_line(error)
    if resumed and ("not found" in text or "deleted" in text):
        return (
            f"resume: run '{resumed}' is on disk, but the store '{uri}' does not have it: {text}; set "
            f"MLFLOW_TRACKING_URI to its store, restore it, or go on in a run of its own with resume=new:{resumed}"
        )
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if run_id and "not found" in text:
        return f"MLFLOW_RUN_ID names a run that the store '{uri}' does not have: {text}; unset it or correct it"
    if "deleted" in text:
        return f"experiment '{experiment}': {text}; restore it, or set tracking.experiment to another"
    if isinstance(error, MlflowException) and error.error_code == "INVALID_PARAMETER_VALUE":
        return f"the store '{uri}' refuses the run: {text}; correct tracking.experiment (now '{experiment[:80]}')"
    return (
        f"the tracking store '{uri}' does not work: {text}; start its server, or correct MLFLOW_TRACKING_URI "
        "(sqlite:///mlflow.db is the default)"
    )


def first_line(error: BaseException) -> str:
    """Return the first line of the error that caused the others: wrappers of a database hide its words."""
    while isinstance(error, SQLAlchemyError) and (inner := error.__cause__ or getattr(error, "orig", None)):
        error = inner
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
