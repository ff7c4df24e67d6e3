"""Open runs in the tracking store, and say in one line what is wrong with a store that does not work."""

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
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException, RestException
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as SqlTimeout
from sqlalchemy.pool import NullPool

from moola_mlflow.core import DEFAULT_PROJECT, EXPERIMENT_ID, UserError, conceal_secrets, printable
from moola_mlflow.tracking import (
    origin,
    retry_after,  # noqa: F401  # it bounds the waits of MLflow's client
)
from moola_mlflow.tracking.addresses import check_address, store_file

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

STORE_FAILURES = (MlflowException, SQLAlchemyError, OSError)
"""What a store, or the connection to it, raises. None of it is a bug of this project."""
UNANSWERED = re.compile(r"API request to (\w+://[^/\s]+)\S* failed with (?:timeout )?exception")
TRY_AGAIN = {408, 429, 500, 502, 503, 504}
"""HTTP codes by which a server says that it cannot answer now."""
CONNECTION_LOST = (OperationalError, InterfaceError, SqlTimeout)
"""What SQLAlchemy raises if a database cannot be reached, or has closed the connection."""
WRONG_ADDRESS = re.compile(
    r"(?i)authentication failed|does not exist|no pg_hba|access denied|unknown database|no password"
)
"""What a database says of an address that waiting does not correct."""
TLS = re.compile(r"\[SSL[^\]\n]{0,100}\] ([^(\n']{1,200})")
"""The reason in the error of a TLS connection."""
PROBE_S = 5
SQLITE = b"SQLite format 3\0"
"""First bytes of a SQLite file; a new one may be empty."""
UNREACHABLE = (
    ConnectionError,
    TimeoutError,
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    requests.exceptions.RetryError,
    requests.exceptions.ChunkedEncodingError,
)

GIVEN_EXPERIMENT = os.environ.get(EXPERIMENT_ID, "")
"""The experiment that the user has named by its id. MLflow sets the variable itself later, to any experiment."""


class Outage(UserError):
    """The store is on another machine and does not answer now. The user's settings may be right."""


def open_run(name: str, experiment: str, adopt: bool, run_id: str | None = None, folder: Path | None = None) -> Run:
    """Resume a run, adopt the launcher's, or make one in an experiment. It becomes MLflow's active run.

    ``folder``: the folder that the run to resume must belong to. Any other run stays as it is.

    Raises: UserError that says what is wrong with the store and what to do; Outage if a server does not answer.
    """
    uri, given = mlflow.get_tracking_uri(), os.environ.get("MLFLOW_RUN_ID", "") if adopt else ""
    if (path := store_file(uri)) and given and not path.exists():
        raise UserError(_stale_id(given, uri, f"there is no store at {path}"))
    path = _prepare(uri, experiment)
    try:
        with _sqlite_lock(path):
            if adopt:  # with MLFLOW_RUN_ID set, set_experiment would make start_run fail
                adopted = mlflow.start_run()
                _tighten(path)
                return adopted
            if run_id is not None:
                if folder is not None:
                    origin.check_belongs(mlflow.MlflowClient().get_run(run_id), folder)
                return mlflow.start_run(run_id)
            if GIVEN_EXPERIMENT and experiment == DEFAULT_PROJECT:
                chosen = mlflow.set_experiment(experiment_id=GIVEN_EXPERIMENT)
            else:
                chosen = mlflow.set_experiment(experiment)
            # If another command makes the experiment at the same time, MLflow 3.17 returns it but does not set it.
            return mlflow.start_run(experiment_id=chosen.experiment_id, run_name=name)
    except STORE_FAILURES as e:
        if given and ("not found" in first_line(e) or "deleted" in first_line(e)):
            raise UserError(_stale_id(given, uri, first_line(e))) from e
        raise _wrong(uri, experiment, e, run_id) from e


class _LazyClient:
    """A client that is made at its first use. MLflow's own connects at once, and to a lost database for minutes."""

    @cached_property
    def _client(self) -> mlflow.MlflowClient:
        return mlflow.MlflowClient()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def store_client(down: bool) -> mlflow.MlflowClient:
    """Return a client of the store. ``down``: the store does not answer now."""
    return cast(mlflow.MlflowClient, _LazyClient()) if down else mlflow.MlflowClient()


@contextmanager
def active_run(run_id: str) -> Iterator[None]:
    """Make a run MLflow's active run in this thread, because parts of MLflow ask for it."""
    current = mlflow.active_run()
    if current is not None and current.info.run_id == run_id:
        yield
        return
    client = mlflow.MlflowClient()
    before = client.get_run(run_id).info
    mlflow.start_run(run_id, nested=True, log_system_metrics=False)
    try:
        yield
    finally:
        _deactivate(run_id)
        if before.status != "RUNNING":  # start_run has set it to RUNNING
            client.set_terminated(run_id, before.status, before.end_time)


def _deactivate(run_id: str) -> None:
    stack = mlflow.tracking.fluent._active_run_stack.get()
    stack[:] = [run for run in stack if run.info.run_id != run_id]


def release_run(run_id: str) -> None:
    """Make a run no longer MLflow's active one, without calling the store: ``mlflow.end_run`` would wait for it."""
    _deactivate(run_id)
    os.environ.pop("MLFLOW_RUN_ID", None)
    if monitor := mlflow.tracking.fluent.run_id_to_system_metrics_monitor.pop(run_id, None):
        monitor.finish()


def is_outage(error: BaseException) -> bool:
    """Return whether an error says that the store cannot be reached, or cannot answer now."""
    text, cause = str(error), error.__cause__ or error.__context__
    if isinstance(database := cause if isinstance(error, MlflowException) else error, CONNECTION_LOST):
        # SQLite's files are on this machine: waiting does not help.
        original = getattr(database, "orig", None) or database
        return not (isinstance(original, sqlite3.Error) or WRONG_ADDRESS.search(str(original)))
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
    """Return the store's address without passwords."""
    return printable(mlflow.get_tracking_uri())


def hide_passwords(uri: str) -> None:
    """Keep the passwords of a store's address out of our messages and of the links that MLflow prints."""
    conceal_secrets(uri)
    if printable(uri) != uri:
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"


def find_run(tags: Mapping[str, str]) -> Run | None:
    """Return the oldest run of any experiment that has these tags. Raises: UserError and Outage as above."""
    uri = mlflow.get_tracking_uri()
    path = _prepare(uri)
    client, wanted = mlflow.MlflowClient(), " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    try:
        with _sqlite_lock(path):
            experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        found = client.search_runs(experiments, wanted, max_results=1, order_by=["attributes.start_time ASC"])
    except STORE_FAILURES as e:
        raise _wrong(uri, "", e) from e
    return found[0] if found else None


def check_run(run_id: str) -> Run | None:
    """Check that the store works, and return the run that is to be added to, or None for an empty id.

    Raises: UserError if the store does not work or does not have the run.
    """
    uri = mlflow.get_tracking_uri()
    path = _prepare(uri)
    client = mlflow.MlflowClient()
    try:
        with _sqlite_lock(path):
            client.search_experiments(max_results=1)
        run = client.get_run(run_id) if run_id else None
    except STORE_FAILURES as e:
        text = first_line(e)
        if run_id and "not found" in text:
            raise UserError(
                f"the store '{shown_uri()}' has no run {run_id}; set MLFLOW_TRACKING_URI to the store where it began, "
                "or make it again there: moola sync RUN_DIR --as-new"
            ) from e
        raise _wrong(uri, "", e) from e
    if run is not None and run.info.lifecycle_stage == "deleted":
        raise UserError(
            f"run {run_id} was deleted from the store '{shown_uri()}'; restore it first: "
            f"mlflow runs restore --run-id {run_id}"
        )
    return run


def _prepare(uri: str, experiment: str = "") -> Path | None:
    """Check a store before MLflow does, which would retry for minutes. Return the file of a SQLite store.

    Raises: UserError and Outage as above.
    """
    hide_passwords(uri)
    check_address(uri)
    path = store_file(uri)
    if path:
        _check_sqlite(uri, path)
    try:
        probe_store(uri)
    except STORE_FAILURES as e:
        raise _wrong(uri, experiment, e) from e
    return path


def probe_store(uri: str) -> None:
    """Connect to a PostgreSQL store. Raises: the database's error, within seconds."""
    if not uri.startswith("postgres"):
        return
    engine = sqlalchemy.create_engine(uri, poolclass=NullPool, connect_args={"connect_timeout": PROBE_S})
    with engine.connect():
        pass


@contextmanager
def _sqlite_lock(path: Path | None) -> Iterator[None]:
    """Let one process at a time open a SQLite store: two that create its tables together leave it half made."""
    if path is None or fcntl is None:
        yield
        return
    with open(path.with_name(f"{path.name}.lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # closing the file, or a crash, releases it
        if not path.exists():
            _make_private(path)
        yield


def _make_private(path: Path) -> None:
    """Make a new SQLite store, and the artifact folder beside it, readable by their owner alone."""
    with suppress(OSError):  # MLflow will report what is wrong with the place
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        artifacts = path.parent / "mlruns"
        artifacts.mkdir(mode=0o700, exist_ok=True)
        artifacts.chmod(0o700)


def _tighten(path: Path | None) -> None:
    """Close a SQLite store that the launcher has just made to other users. A store with other runs stays as it is."""
    client = mlflow.MlflowClient()
    if path is None or len(client.search_runs(_every_experiment(client), "", ViewType.ALL, max_results=2)) > 1:
        return
    for place, mode in ((path, 0o600), (path.parent / "mlruns", 0o700)):
        with suppress(OSError):  # somebody else's
            if place.exists() and not place.is_symlink():
                place.chmod(mode)


def _every_experiment(client: mlflow.MlflowClient) -> list[str]:
    return [experiment.experiment_id for experiment in client.search_experiments(ViewType.ALL)]


def _check_sqlite(uri: str, path: Path) -> None:
    """Refuse a SQLite store that cannot be written, or is none: MLflow would retry for minutes."""
    if not path.parent.is_dir():
        raise UserError(f"the tracking store '{uri}' is in a folder that does not exist; make {path.parent}")
    for target in (path, path.parent):
        if target.exists() and not os.access(target, os.W_OK):
            raise UserError(
                f"the tracking store '{uri}' cannot be written: {target} is read-only; run in a folder you may write "
                "to, or set MLFLOW_TRACKING_URI"
            )
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(len(SQLITE))
        if start not in (b"", SQLITE):
            raise UserError(
                f"the tracking store '{uri}' is damaged: {path} is no SQLite database; restore it from a copy, or set "
                "MLFLOW_TRACKING_URI"
            )


def _wrong(uri: str, experiment: str, error: Exception, resumed: str | None = None) -> UserError:
    """Return the error to raise if a store cannot be opened."""
    return (Outage if is_outage(error) else UserError)(_diagnosis(uri, experiment, error, resumed))


def _diagnosis(uri: str, experiment: str, error: Exception, resumed: str | None = None) -> str:
    text, uri = first_line(error), printable(uri)
    if resumed and ("not found" in text or "deleted" in text):
        return (
            f"resume: run '{resumed}' is on disk, but the store '{uri}' does not have it: {text}. Set "
            f"MLFLOW_TRACKING_URI to its store, restore it, make it again with moola sync .moola/runs/{resumed} "
            f"--as-new, or continue in a new run with resume=new:{resumed}"
        )
    if "deleted" in text:
        return f"experiment '{experiment}': {text}; restore it, or set tracking.experiment to another"
    if isinstance(error, MlflowException) and error.error_code == "INVALID_PARAMETER_VALUE":
        return f"the store '{uri}' refuses the run: {text}; correct tracking.experiment (now '{experiment[:80]}')"
    if fault := _tls_fault(error):
        return (
            f"TLS with the tracking server '{uri}' failed: {fault}. If it speaks plain http, write http://; if it has "
            "a certificate of your own, name that in MLFLOW_TRACKING_SERVER_CERT_PATH"
        )
    if "failed with error code 404" in str(error):
        return f"'{uri}' answers, but not as an MLflow server (HTTP 404); correct MLFLOW_TRACKING_URI"
    return (
        f"the tracking store '{uri}' does not work: {text}; start its server, or correct MLFLOW_TRACKING_URI "
        "(sqlite:///mlflow.db is the default)"
    )


def _stale_id(run_id: str, uri: str, why: str) -> str:
    return (
        f"MLFLOW_RUN_ID={run_id[:80]} names no run of the store '{printable(uri)}': {why}; unset MLFLOW_RUN_ID, or set "
        "MLFLOW_TRACKING_URI to the run's store"
    )


def _tls_fault(error: BaseException | None) -> str:
    """Return what TLS found wrong, empty if the cause is another."""
    while error is not None:
        if isinstance(error, requests.exceptions.SSLError):
            found = TLS.search(str(error))
            return found[1].strip() if found else "the certificate or the protocol is wrong"
        error = error.__cause__ or error.__context__
    return ""


def first_line(error: BaseException) -> str:
    """Return the first line of the original error: a database's wrappers hide its message."""
    while isinstance(error, SQLAlchemyError) and (inner := error.__cause__ or getattr(error, "orig", None)):
        error = inner
    text = printable(str(error).strip())
    if found := UNANSWERED.match(text):
        why = re.search(r"(\[Errno [^\]]+\] [^\"')]+|[Rr]ead timed out|timed out|too many \d+ error responses)", text)
        return f"{found[1]} does not answer" + (f": {why[1]}" if why else "")
    return text.splitlines()[0] if text else type(error).__name__
