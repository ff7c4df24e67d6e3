"""Where workers coordinate: an Optuna database beside the tracking store, and the one lock that everybody takes."""

from __future__ import annotations

import os
import socket
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from moola_mlflow.errors import UserError
from moola_mlflow.store import first_line

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# A table of migrations of its own: MLflow's has the same name, so the two cannot share a schema.
SCHEMA = "optuna"
FAILURES = (SQLAlchemyError, StorageInternalError, OSError)
# SQLite waits this long for another process's transaction.
WAIT_S = 60


class Coordination:
    """An open Optuna storage with its lock."""

    def __init__(self, url: URL, heartbeat_s: int, grace_s: int) -> None:
        """Open it, making file, schema and tables where they are missing. Raises: UserError with the cure."""
        self.url = url
        self.shown = url.render_as_string(hide_password=True)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            if url.get_backend_name() == "sqlite":
                Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
            else:
                _make_schema(url)
            with self.exclusive("open"), warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                self.rdb = RDBStorage(
                    url.render_as_string(hide_password=False), {"connect_args": _arguments(url)},
                    heartbeat_interval=heartbeat_s, grace_period=grace_s,
                )  # fmt: skip
        except ModuleNotFoundError as e:
            raise UserError(
                f"the sweep's storage '{self.shown}' does not work: this Python lacks the package '{e.name}'; "
                "pip install -e '.[postgresql]', or correct sweep.storage"
            ) from e
        except (*FAILURES, RuntimeError) as e:
            raise UserError(f"the sweep's storage '{self.shown}' does not work: {first_line(e)}; {CURE}") from e
        if url.get_backend_name() == "sqlite":
            _lock_at_begin(self.rdb.engine)

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Let one process at a time, on whatever machine, change what a name stands for. Not to be nested."""
        if self.url.get_backend_name() != "sqlite":
            key = zlib.crc32(f"moola {name}".encode())
            with _engine(self.url).connect() as connection:  # the server frees the lock when the process dies
                connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": key})
                try:
                    yield
                finally:
                    connection.execute(sqlalchemy.text("SELECT pg_advisory_unlock(:key)"), {"key": key})
            return
        with open(f"{self.url.database}.lock", "w", encoding="utf-8") as lock:
            if fcntl:
                fcntl.flock(lock, fcntl.LOCK_EX)  # freed when the file is closed, also by a crash
            yield


CURE = "start it or correct sweep.storage (sqlite:///file.db or postgresql://user@host/database)"


def locate(given: str, tracking_uri: str) -> tuple[URL, str]:
    """Return where to coordinate and, where that reaches one machine only, a warning.

    Beside a SQLite store it is ``mlruns/optuna.db``, in a PostgreSQL store the schema ``optuna``; a tracking server
    gives its clients no database, so without ``given`` it is ``mlruns/optuna.db`` in the current folder.
    """
    uri, warning = given or tracking_uri, ""
    if not given and uri.startswith("sqlite"):
        folder = Path(sqlalchemy.make_url(uri).database or "mlflow.db").parent
        return _sqlite(folder / "mlruns" / "optuna.db"), warning
    if not given and not uri.startswith("postgresql"):
        warning = (
            "the tracking store gives no database to coordinate in: workers of this machine share mlruns/optuna.db; "
            "for workers on other machines set storage=postgresql://..."
        )
        return _sqlite(Path("mlruns") / "optuna.db"), warning
    try:
        url = sqlalchemy.make_url(uri)
        backend = url.get_backend_name()
    except (SQLAlchemyError, ValueError) as e:
        raise UserError(f"sweep.storage='{uri}' is no database URL ({first_line(e)}); {CURE}") from e
    if backend == "sqlite" and url.database not in (None, "", ":memory:"):
        return _sqlite(Path(str(url.database))), warning
    if backend != "postgresql":
        raise UserError(f"sweep.storage='{url.render_as_string()}' is neither SQLite nor PostgreSQL; {CURE}")
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")  # SQLAlchemy's default is psycopg2
    if "options" not in url.query:
        url = url.update_query_dict({"options": f"-csearch_path={SCHEMA}"})
    return url, warning


def _sqlite(path: Path) -> URL:
    return URL.create("sqlite", database=str(path.resolve()))


def _arguments(url: URL) -> dict[str, int]:
    return {"timeout": WAIT_S} if url.get_backend_name() == "sqlite" else {"connect_timeout": 10}


def _engine(url: URL) -> sqlalchemy.Engine:
    return sqlalchemy.create_engine(
        url, connect_args=_arguments(url), poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT"
    )


def _make_schema(url: URL) -> None:
    options = str(url.query.get("options", ""))
    schema = options.partition("search_path=")[2].split(",")[0].split()[0] if "search_path=" in options else ""
    if not schema:
        return
    with _engine(url).connect() as connection:
        key = {"key": zlib.crc32(b"moola schema")}
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), key)  # two at once would both make it
        quoted = connection.dialect.identifier_preparer.quote(schema)
        connection.execute(sqlalchemy.text(f"CREATE SCHEMA IF NOT EXISTS {quoted}"))


def _lock_at_begin(engine: sqlalchemy.Engine) -> None:
    """Take SQLite's write lock where a transaction begins.

    Python's driver begins one at the first write: two workers that both read a waiting trial would both claim it.
    """
    engine.dispose()

    @sqlalchemy.event.listens_for(engine, "connect")
    def _connect(connection, record) -> None:  # type: ignore[no-untyped-def]
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(engine, "begin")
    def _begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def machine() -> str:
    """Return what tells this machine's processes from another's: host, and on Linux its process numbering."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def is_dead(host: str, pid: int) -> bool:
    """Return whether a process is known to be gone; of another machine's nothing is known."""
    if host != machine():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    try:  # killed, but its parent has not asked yet
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False
