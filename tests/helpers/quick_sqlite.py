"""SQLite that does not wait for the disk: what tests kill is a process, never the machine.

Import this once in a process. MLflow and Optuna commit after every change, and a commit otherwise waits some
milliseconds for the disk: a quarter of the time of a test of a sweep.
"""

from __future__ import annotations

import sqlite3

import sqlalchemy


@sqlalchemy.event.listens_for(sqlalchemy.Engine, "connect")
def _do_not_wait(connection: object, _: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")
