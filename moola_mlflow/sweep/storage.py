"""Where workers coordinate: an Optuna database beside the tracking store, and one lock for all processes."""

from __future__ import annotations

import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from moola_mlflow.core import SweepKeys, UserError, printable
from moola_mlflow.sweep.patient_storage import PatientStorage, wait_for_database
from moola_mlflow.tracking import first_line, host_name

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SCHEMA = "optuna"
"""Optuna's own schema: its table of migrations has the same name as MLflow's, so they cannot share one."""
STORAGE_FAILURES = (SQLAlchemyError, StorageInternalError, OSError)
WAIT_S = 60
"""How long SQLite waits for another process's transaction."""
# PostgreSQL's locks end with their connection: after a minute of silence both ends check that the other one lives.
KEEPALIVES = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
NOTICE_S, LOCK_TIMEOUT = 30, "55P03"
"""Seconds after which a process prints which one it waits for, and PostgreSQL's code when they are over."""
HOLDER = """
    SELECT application_name, host(client_addr) FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND classid = 0 AND objid::bigint = :key AND objsubid = 1
"""
SECRETS = ("password", "sslpassword")
"""Passwords that libpq takes in the query of an address."""


class Coordination:
    """An open Optuna storage with its lock."""

    def __init__(self, url: URL, heartbeat_s: int, grace_s: int) -> None:
        """Open the storage; make file, schema and tables if they are missing. Raises: UserError."""
        self.url = url
        self.shown = shown_url(url)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            if url.get_backend_name() == "sqlite":
                _make_private(Path(url.database or ""))
            else:
                _make_schema(url)
            with self.exclusive("open", wait=False), warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                self.rdb = PatientStorage(
                    url.render_as_string(hide_password=False),
                    {"connect_args": _arguments(url), "pool_pre_ping": True},  # a restart closes pooled connections
                    heartbeat_interval=heartbeat_s, grace_period=grace_s,
                )  # fmt: skip
        except ModuleNotFoundError as e:
            raise UserError(
                f"the sweep's storage '{self.shown}' does not work: this Python lacks the package '{e.name}'; "
                "pip install -e '.[postgresql]', or correct sweep.storage"
            ) from e
        except (*STORAGE_FAILURES, RuntimeError) as e:
            raise UserError(f"the sweep's storage '{self.shown}' does not work: {first_line(e)}; {CURE}") from e
        if url.get_backend_name() == "sqlite":
            _lock_at_begin(self.rdb.engine)

    @contextmanager
    def exclusive(self, name: str, wait: bool = True) -> Iterator[None]:
        """Lock a name for one process at a time, on all machines. Do not nest it.

        ``wait``: if the database does not answer, wait for it.
        """
        if self.url.get_backend_name() != "sqlite":
            key = zlib.crc32(f"moola {name}".encode())
            connection = wait_for_database(lambda: self._locked(key, name)) if wait else self._locked(key, name)
            try:  # the server releases the lock if the process dies, or if it restarts itself
                yield
            finally:
                with suppress(SQLAlchemyError):
                    connection.execute(sqlalchemy.text("SELECT pg_advisory_unlock(:key)"), {"key": key})
                connection.close()
            return
        with open(f"{self.url.database}.lock", "w", encoding="utf-8") as lock:
            if fcntl:
                fcntl.flock(lock, fcntl.LOCK_EX)  # closing the file, or a crash, releases it
            yield

    def _locked(self, key: int, name: str) -> sqlalchemy.Connection:
        """Return a connection that holds a lock."""
        connection = _engine(self.url).connect()
        try:
            _lock(connection, key, name)
        except BaseException:
            connection.close()
            raise
        return connection


CURE = "start it or correct sweep.storage (sqlite:///file.db or postgresql://user@host/database)"


def locate_storage(given: str, tracking_uri: str) -> tuple[URL, str]:
    """Return where to coordinate, and a warning if only this machine can reach it.

    Beside a SQLite store that is ``mlruns/optuna.db``, and in a PostgreSQL store the schema ``optuna``. A tracking
    server gives its clients no database: without ``given`` it is ``mlruns/optuna.db`` in the current folder.
    """
    uri, warning = given or tracking_uri, ""
    if not given and uri.startswith("sqlite"):
        folder = Path(sqlalchemy.make_url(uri).database or "mlflow.db").parent
        return _sqlite(folder / "mlruns" / "optuna.db"), warning
    if not given and not uri.startswith("postgresql"):
        warning = (
            "the tracking store gives no database to coordinate in, so only workers of this machine can share the "
            "sweep (mlruns/optuna.db); for workers on other machines set storage=postgresql://..."
        )
        return _sqlite(Path("mlruns") / "optuna.db"), warning
    try:
        url = sqlalchemy.make_url(uri)
        backend = url.get_backend_name()
    except (SQLAlchemyError, ValueError) as e:
        raise UserError(f"sweep.storage='{printable(uri)}' is no database URL ({first_line(e)}); {CURE}") from e
    if backend == "sqlite" and url.database not in (None, "", ":memory:"):
        return _sqlite(Path(str(url.database))), warning
    if backend != "postgresql":
        raise UserError(f"sweep.storage='{shown_url(url)}' is neither SQLite nor PostgreSQL; {CURE}")
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")  # SQLAlchemy's default is psycopg2
    if "options" not in url.query:
        url = url.update_query_dict({"options": f"-csearch_path={SCHEMA}"})
    return url, warning


def shown_url(url: URL) -> str:
    """Return a database's address without passwords."""
    return url.difference_update_query(SECRETS).render_as_string(hide_password=True)


def check_storage_secret(config: SweepKeys) -> None:
    """Refuse a password in ``storage`` under the launcher, which logs all parameters of a run. Raises: UserError."""
    if not config.sweep.storage:
        return
    url = locate_storage(config.sweep.storage, "")[0]
    if url.password is not None or any(name in url.query for name in SECRETS):
        raise UserError(
            "sweep.storage has a password, and `mlflow run` has logged it as a parameter of the run: delete the run, "
            "change the password, and put the new one into ~/.pgpass, or start moola sweep"
        )


def without_password(config: SweepKeys) -> SweepKeys:
    """Return a configuration whose storage shows no password, as the run logs it."""
    if not config.sweep.storage:
        return config
    shown = shown_url(locate_storage(config.sweep.storage, "")[0])
    return config.model_copy(update={"sweep": config.sweep.model_copy(update={"storage": shown})})


def _sqlite(path: Path) -> URL:
    return URL.create("sqlite", database=str(path.resolve()))


def _make_private(path: Path) -> None:
    """Make a new SQLite database, and its folder, readable by their owner alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


def _arguments(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"timeout": WAIT_S}
    serverside = [f"-ctcp_{name}={value}" for name, value in KEEPALIVES.items()]
    options = " ".join([str(url.query.get("options", "")), *serverside]).strip()
    name = f"moola {host_name().split()[0]} {os.getpid()}"
    return {"connect_timeout": 10, "keepalives": 1, **KEEPALIVES, "options": options, "application_name": name}


def _engine(url: URL) -> sqlalchemy.Engine:
    return sqlalchemy.create_engine(
        url, connect_args=_arguments(url), poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT"
    )


def _lock(connection: sqlalchemy.Connection, key: int, name: str) -> None:
    """Take an advisory lock. If that takes long, print which process holds it."""
    connection.execute(sqlalchemy.text(f"SET lock_timeout = '{NOTICE_S}s'"))
    noticed = False
    while True:
        try:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": key})
            return
        except DBAPIError as e:
            if getattr(e.orig, "sqlstate", "") != LOCK_TIMEOUT:
                raise
        if not noticed:
            holder = connection.execute(sqlalchemy.text(HOLDER), {"key": key}).first()
            process = f"'{holder[0]}' at {holder[1] or 'this machine'}" if holder else "another process"
            print(
                f"Waiting for the lock of study {name}: {process} has held it for more than {NOTICE_S} s. If that "
                "machine is gone, the database releases the lock after a minute",
                flush=True,
            )
        noticed = True


def _make_schema(url: URL) -> None:
    options = str(url.query.get("options", ""))
    schema = options.partition("search_path=")[2].split(",")[0].split()[0] if "search_path=" in options else ""
    if not schema:
        return
    with _engine(url).connect() as connection:
        _lock(connection, zlib.crc32(b"moola schema"), "schema")  # two processes at once would both make it
        quoted = connection.dialect.identifier_preparer.quote(schema)
        connection.execute(sqlalchemy.text(f"CREATE SCHEMA IF NOT EXISTS {quoted}"))


def _lock_at_begin(engine: sqlalchemy.Engine) -> None:
    """Take SQLite's write lock at the start of a transaction.

    Python's driver takes it at the first write: two workers that both read a waiting trial would both claim it.
    """
    engine.dispose()

    @sqlalchemy.event.listens_for(engine, "connect")
    def _connect(connection, record) -> None:  # type: ignore[no-untyped-def]
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(engine, "begin")
    def _begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
