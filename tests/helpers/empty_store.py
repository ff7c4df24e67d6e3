"""An empty MLflow store to copy: to make one costs seconds of migrations, a copy costs milliseconds."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

MAKE = "import mlflow; mlflow.search_experiments()"


def copy_empty_store(folder: Path, name: str = "mlflow.db", artifacts: str = "") -> None:
    """Put an empty database, as MLflow itself makes it, into a folder that has none.

    ``artifacts``: where the default experiment keeps its files; without it beside the database.
    """
    database = folder / name
    if database.exists() or not folder.is_dir():
        return
    shutil.copyfile(_template(), database)
    database.chmod(0o600)
    with contextlib.closing(sqlite3.connect(database)) as store, store:
        location = artifacts or str(folder.resolve() / "mlruns" / "0")
        store.execute("UPDATE experiments SET artifact_location = ?", (location,))


def copy_served_store(folder: Path, name: str) -> None:
    """Put an empty database into a folder for an ``mlflow server`` that hands out artifacts itself."""
    copy_empty_store(folder, name, "mlflow-artifacts:/0")


def _template() -> Path:
    """Return the store that all test processes of this user copy, made once for each version of MLflow."""
    home = Path(tempfile.gettempdir()) / f"moola-empty-store-{os.getuid()}-{version('mlflow')}"
    home.mkdir(mode=0o700, exist_ok=True)
    made = home / "mlflow.db"
    with open(home / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            fresh = home / "fresh.db"
            fresh.unlink(missing_ok=True)
            environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
            environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{fresh}"
            subprocess.run([sys.executable, "-c", MAKE], env=environment, cwd=home, check=True, capture_output=True)
            fresh.rename(made)
    return made
