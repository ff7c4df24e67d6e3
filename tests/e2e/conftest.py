"""Fixtures that several end-to-end tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from outage import Server, here
from postgres import Postgres

# A suite that a script has started in the background, or `nohup`, has signals ignored; commands that it starts would
# inherit that, and not hear them.
for number in (signal.SIGINT, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Postgres]:
    running = Postgres()
    yield running
    running.remove()


@pytest.fixture(scope="module")
def postgres(cluster: Postgres) -> Postgres:
    """A PostgreSQL server, at work."""
    cluster.start()
    return cluster


@pytest.fixture
def server(machine: Server, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server, at work, as the store of this process and of an empty working folder."""
    machine.start()
    here(monkeypatch, machine.uri)
    yield machine
    machine.start()
    mlflow.set_tracking_uri(None)
