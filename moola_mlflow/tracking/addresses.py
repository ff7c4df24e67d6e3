"""Check a store's address before MLflow uses it: its scheme, the driver of its database, and whether it is there."""

from __future__ import annotations

import os
import re
from pathlib import Path

import mlflow
import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from moola_mlflow.core import UserError, printable

SERVERS = ("http", "https", "databricks", "databricks-uc", "uc")
DATABASES = {
    "sqlite": "",
    "postgresql": "pip install -e '.[postgresql]', and write postgresql+psycopg://",
    "mysql": "pip install pymysql, and write mysql+pymysql://",
    "mssql": "pip install pymssql, and write mssql+pymssql://",
}
"""Databases that MLflow knows, and what to do if the driver of one is missing."""
ALLOW_FILES = "MLFLOW_ALLOW_FILE_STORE"
"""MLflow's own variable: a store of files is allowed if it is true."""
SQLITE = "sqlite:///"
HOST = re.compile(r"[\w.-]+(:\d+(/.*)?|/.*)?")
"""An address without a scheme: a host with a port or a path."""


def check_address(uri: str) -> None:
    """Refuse an address that no store can have, or whose driver is missing. Raises: UserError with the reason."""
    if os.environ.get(ALLOW_FILES, "").lower() == "true":
        return
    scheme, _, rest = uri.partition(":")
    kind, shown = scheme.split("+")[0].lower(), printable(uri)
    if not rest.startswith("//") and kind not in (*SERVERS, "file"):
        if HOST.fullmatch(uri) and not Path(uri).exists():
            raise UserError(
                f"MLFLOW_TRACKING_URI='{shown}' has no scheme; write http://{shown} for a server, or "
                "sqlite:///mlflow.db for a file"
            )
        raise UserError(_in_files(shown))
    if kind == "file":
        raise UserError(_in_files(shown))
    if kind in DATABASES:
        _check_driver(uri, kind)
    elif kind not in SERVERS:
        raise UserError(
            f"MLFLOW_TRACKING_URI='{shown}': the scheme '{scheme}' is unknown; allowed: http, https, "
            f"{', '.join(DATABASES)}"
        )


def need_store(wanted: str) -> None:
    """Refuse to look something up if there is no store: MLflow would make an empty one. Raises: UserError."""
    path = store_file(mlflow.get_tracking_uri())
    if path is not None and not path.exists():
        raise UserError(
            f"{wanted} is in an MLflow store, and there is none at {path}: this is not the project's folder. Run "
            f"there, or set MLFLOW_TRACKING_URI, for example sqlite:////path/of/the/project/{path.name}"
        )


def store_file(uri: str) -> Path | None:
    """Return the file of a SQLite store, None for any other store."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def _check_driver(uri: str, kind: str) -> None:
    try:
        sqlalchemy.make_url(uri).get_dialect().import_dbapi()
    except ImportError as e:
        package = getattr(e, "name", None) or str(e)
        raise UserError(
            f"MLFLOW_TRACKING_URI='{printable(uri)}' needs the driver '{package}', which this Python lacks; "
            f"{DATABASES[kind]}"
        ) from None
    except (SQLAlchemyError, ValueError) as e:
        why = printable(str(e))
        raise UserError(f"MLFLOW_TRACKING_URI='{printable(uri)}' is no address of a database: {why}") from e


def _in_files(shown: str) -> str:
    return (
        f"MLFLOW_TRACKING_URI='{shown}' is a folder of files, which MLflow no longer writes; give sqlite:///mlflow.db, "
        "or move it with `mlflow migrate-filestore`"
    )
