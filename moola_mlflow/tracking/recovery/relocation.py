"""Rewrite the artifact paths of a SQLite store after the project's folder was moved.

A SQLite store holds absolute paths, and MLflow has no call that changes them. The columns below are those of MLflow 3.x
tables. A store with other tables is refused and left as it is.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import sqlalchemy

from moola_mlflow.core import UserError

COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)
BACKUP = ".before-relocation"
WAIT_S = 60.0


def new_root(lost: Path, tracking_uri: str) -> Path | None:
    """Return the ``mlruns`` beside the store if a run's missing artifacts are in it, else None.

    ``lost``: the artifact folder that the store names, ``.../mlruns/<experiment>/<run>/artifacts``.
    """
    database = _database(tracking_uri)
    if database is None:
        return None
    here = database.parent / "mlruns"
    return here if (here / Path(*lost.parts[-3:])).is_dir() and here != lost.parents[2] else None


def relocate(tracking_uri: str, old: Path, new: Path) -> int:
    """Change every path of a store from ``old`` to ``new``, all or none of them. Return how many there were.

    A copy of the store is kept beside it (``mlflow.db.before-relocation``).

    Raises: UserError if the store is no SQLite file, or has other tables.
    """
    database = _database(tracking_uri)
    if database is None:
        raise UserError(f"the store is '{tracking_uri}', and only a SQLite store holds paths that can be rewritten")
    with closing(sqlite3.connect(database, timeout=WAIT_S, isolation_level=None)) as store:
        try:
            with closing(sqlite3.connect(f"{database}{BACKUP}")) as copy:
                store.backup(copy)
            Path(f"{database}{BACKUP}").chmod(0o600)
            store.execute("BEGIN IMMEDIATE")
            changed = sum(_rewrite(store, table, column, old, new) for table, column in COLUMNS)
            store.execute("COMMIT")
        except sqlite3.Error as e:
            raise UserError(f"{database} could not be rewritten and is unchanged: {e}") from e
    return changed


def _rewrite(store: sqlite3.Connection, table: str, column: str, old: Path, new: Path) -> int:
    changed = 0
    for spelled in (str, _uri):
        before, after = spelled(old), spelled(new)
        done = store.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
            (after, len(before) + 1, len(before) + 1, f"{before}/"),
        )
        changed += done.rowcount
    return changed


def _uri(path: Path) -> str:
    return f"file://{quote(str(path))}"


def _database(tracking_uri: str) -> Path | None:
    if not tracking_uri.startswith("sqlite"):
        return None
    return Path(sqlalchemy.make_url(tracking_uri).database or "mlflow.db").resolve()
