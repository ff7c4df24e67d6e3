"""Opening a run in the tracking store, and saying in one line what is wrong with a store that will not have it."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import mlflow
import mlflow.tracking.fluent
import requests
import sqlalchemy
from mlflow.entities import Run
from mlflow.exceptions import MlflowException, RestException
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as SqlTimeout
from sqlalchemy.pool import NullPool

from moola_mlflow.core import UserError, conceal_secrets, printable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

STORE_FAILURES = (MlflowException, SQLAlchemyError, OSError)
"""What a store, or the way to it, raises: no fault of this project's code."""
UNANSWERED = re.compile(r"API request to (\w+://[^/\s]+)\S* failed with (?:timeout )?exception")
TRY_AGAIN = {408, 429, 500, 502, 503, 504}
"""HTTP codes by which a server says that it cannot now."""
LOST = (OperationalError, InterfaceError, SqlTimeout)
"""What SQLAlchemy raises where a database cannot be reached, or has let the connection go."""
MISTAKEN = re.compile(r"(?i)authentication failed|does not exist|no pg_hba|access denied|unknown database|no password")
"""What a database says of an address that no waiting corrects."""
PROBE_S = 5
UNREACHABLE = (
    ConnectionError,
    TimeoutError,
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    requests.exceptions.RetryError,
    requests.exceptions.ChunkedEncodingError,
)


class Outage(UserError):
    """The store is somewhere else and does not answer now: nothing is wrong with what the user gave."""


def open_run(name: str, experiment: str, adopt: bool, run_id: str | None = None) -> Run:
    """Go on with a run, adopt the launcher's, or make one in an experiment, and make it MLflow's active run.

    Raises: UserError saying what is wrong with the store, and the cure; Outage where a server does not answer.
    """
    uri = mlflow.get_tracking_uri()
    path = _prepare(uri, experiment)
    try:
        with _alone(path):
            if adopt:  # with MLFLOW_RUN_ID set, set_experiment would make start_run fail
                return mlflow.start_run()
            if run_id is not None:
                return mlflow.start_run(run_id)
            mlflow.set_experiment(experiment)
            return mlflow.start_run(run_name=name)
    except STORE_FAILURES as e:
        raise _wrong(uri, experiment, e, run_id) from e


class _Late:
    """A client that is made when it is first asked: MLflow's own connects at once, and to a database for minutes."""

    @cached_property
    def _made(self) -> mlflow.MlflowClient:
        return mlflow.MlflowClient()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made, name)


def store_client(down: bool) -> mlflow.MlflowClient:
    """Return a client of the store; ``down``: of one that does not answer now."""
    return cast(mlflow.MlflowClient, _Late()) if down else mlflow.MlflowClient()


@contextmanager
def active_run(run_id: str) -> Iterator[None]:
    """Have a run be MLflow's active run in this thread, as parts of MLflow ask for it."""
    current = mlflow.active_run()
    if current is not None and current.info.run_id == run_id:
        yield
        return
    mlflow.start_run(run_id, nested=True, log_system_metrics=False)
    try:
        yield
    finally:
        _pop(run_id)


def _pop(run_id: str) -> None:
    stack = mlflow.tracking.fluent._active_run_stack.get()
    stack[:] = [run for run in stack if run.info.run_id != run_id]


def let_go(run_id: str) -> None:
    """Make a run no longer MLflow's active one, without a word to the store: ``mlflow.end_run`` would wait for it."""
    _pop(run_id)
    os.environ.pop("MLFLOW_RUN_ID", None)
    if monitor := mlflow.tracking.fluent.run_id_to_system_metrics_monitor.pop(run_id, None):
        monitor.finish()


def is_outage(error: BaseException) -> bool:
    """Return whether an error says that the store cannot be reached, or cannot answer, at the moment."""
    text, cause = str(error), error.__cause__ or error.__context__
    if isinstance(database := cause if isinstance(error, MlflowException) else error, LOST):
        # SQLite's files are on this machine: waiting does not cure what is wrong with them.
        said = getattr(database, "orig", None) or database
        return not (isinstance(said, sqlite3.Error) or MISTAKEN.search(str(said)))
    if not isinstance(error, MlflowException):
        return isinstance(error, UNREACHABLE)
    if text.startswith("API request to") and " failed with " in text:
        if found := re.search(r"failed with error code (\d+)", text):
            return int(found[1]) in TRY_AGAIN
        if isinstance(cause, requests.exceptions.SSLError):
            return False
        return isinstance(cause, UNREACHABLE)
    return isinstance(error, RestException) and error.get_http_status_code() in TRY_AGAIN


def shown_uri() -> str:
    """Return the store's address as it may be shown and kept."""
    return printable(mlflow.get_tracking_uri())


def hush(uri: str) -> None:
    """Keep the links that MLflow prints to itself where they would show a password, and have it shown nowhere else."""
    conceal_secrets(uri)
    if printable(uri) != uri:
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"


def find_run(tags: Mapping[str, str]) -> Run | None:
    """Return the oldest run, in whatever experiment, that has these tags. Raises: UserError as above."""
    uri = mlflow.get_tracking_uri()
    path = _prepare(uri)
    client, wanted = mlflow.MlflowClient(), " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    try:
        with _alone(path):
            experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        found = client.search_runs(experiments, wanted, max_results=1, order_by=["attributes.start_time ASC"])
    except STORE_FAILURES as e:
        raise _wrong(uri, "", e) from e
    return found[0] if found else None


def check_run(run_id: str) -> Run | None:
    """Return a run that is to be added to, None for an empty id, once it is clear that the store works.

    Raises: UserError where the store does not work, or has not got the run.
    """
    uri = mlflow.get_tracking_uri()
    path = _prepare(uri)
    client = mlflow.MlflowClient()
    try:
        with _alone(path):
            client.search_experiments(max_results=1)
        run = client.get_run(run_id) if run_id else None
    except STORE_FAILURES as e:
        text = first_line(e)
        if run_id and "not found" in text:
            raise UserError(
                f"the store '{shown_uri()}' has no run {run_id}; set MLFLOW_TRACKING_URI to the store that it began in"
            ) from e
        raise _wrong(uri, "", e) from e
    if run is not None and run.info.lifecycle_stage == "deleted":
        raise UserError(
            f"run {run_id} was deleted from the store '{shown_uri()}'; restore it first: "
            f"mlflow runs restore --run-id {run_id}"
        )
    return run


def _prepare(uri: str, experiment: str = "") -> Path | None:
    """Look at a store before MLflow does, which would retry for minutes; return the file of a SQLite store.

    Raises: UserError and Outage as above.
    """
    hush(uri)
    path = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
    if path:
        _check_sqlite(uri, path)
    try:
        probe_store(uri)
    except STORE_FAILURES as e:
        raise _wrong(uri, experiment, e) from e
    return path


def probe_store(uri: str) -> None:
    """Connect to a PostgreSQL store. Raises: what the database, or the way to it, says within seconds."""
    if not uri.startswith("postgres"):
        return
    engine = sqlalchemy.create_engine(uri, poolclass=NullPool, connect_args={"connect_timeout": PROBE_S})
    with engine.connect():
        pass


@contextmanager
def _alone(path: Path | None) -> Iterator[None]:
    """Let one process at a time open a SQLite store: two that create its tables together leave it half made."""
    if path is None or fcntl is None:
        yield
        return
    with open(path.with_name(f"{path.name}.lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed, also by a crash
        if not path.exists():
            _make_private(path)
        yield


def _make_private(path: Path) -> None:
    """Make a new SQLite store and the folder of artifacts beside it, readable by their owner alone."""
    with suppress(OSError):  # whatever is wrong with the place, MLflow will say
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        artifacts = path.parent / "mlruns"
        artifacts.mkdir(mode=0o700, exist_ok=True)
        artifacts.chmod(0o700)


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


def _wrong(uri: str, experiment: str, error: Exception, resumed: str | None = None) -> UserError:
    """Return what to raise of a failure to open a store."""
    return (Outage if is_outage(error) else UserError)(_diagnosis(uri, experiment, error, resumed))


def _diagnosis(uri: str, experiment: str, error: Exception, resumed: str | None = None) -> str:
    text, uri = first_line(error), printable(uri)
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
    text = printable(str(error).strip())
    if found := UNANSWERED.match(text):
        why = re.search(r"(\[Errno [^\]]+\] [^\"')]+|[Rr]ead timed out|timed out|too many \d+ error responses)", text)
        return f"{found[1]} does not answer" + (f": {why[1]}" if why else "")
    return text.splitlines()[0] if text else type(error).__name__
