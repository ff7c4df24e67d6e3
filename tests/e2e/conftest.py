"""Fixtures that several end-to-end tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from outage import Server, here

if hasattr(signal, "SIGHUP"):  # commands inherit it where the suite was started by `nohup`, and then do not hear it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def server(machine: Server, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server, at work, as the store of this process and of an empty working folder."""
    machine.start()
    here(monkeypatch, machine.uri)
    yield machine
    machine.start()
    mlflow.set_tracking_uri(None)
