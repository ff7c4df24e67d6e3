"""The last word on an interrupted run: it answers the launcher alone, and once."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from moola_mlflow.core.signals import Interrupts
from moola_mlflow.tracking.recovery import launcher_status

RUN = "1" * 32


@pytest.fixture
def client(workdir: Path) -> Iterator[mlflow.MlflowClient]:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{workdir}/mlflow.db")
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(before)


def test_what_the_launcher_wrote_over_is_restored_once(client: mlflow.MlflowClient) -> None:
    run = client.create_run("0").info.run_id
    client.set_terminated(run, "FAILED")
    launcher_status.watch(run, "KILLED", os.getpid())  # returns although the launcher lives on, as a notebook does
    assert client.get_run(run).info.status == "KILLED"


@pytest.mark.parametrize("status", ["RUNNING", "FINISHED"])
def test_the_status_of_a_run_that_somebody_went_on_with_is_theirs(client: mlflow.MlflowClient, status: str) -> None:
    run = client.create_run("0").info.run_id
    client.update_run(run, status=status)
    launcher_status.watch(run, "KILLED", os.getpid())
    assert client.get_run(run).info.status == status


def test_nothing_is_left_behind_where_the_launcher_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = Interrupts(watch_parent=True)
    gone.parent = os.getpid()  # which is not this process's parent
    assert gone.orphaned
    assert gone.reason() == "SIGTERM"
    monkeypatch.setattr(Interrupts, "current", gone)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("it would keep what it has no answer to"))
    launcher_status.restore_status_later(RUN, "KILLED")


def test_the_launcher_that_is_watched_is_the_one_of_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    class Watching:
        stdout = open(os.devnull)  # noqa: SIM115

        def __init__(self, words: list[str], **_: object) -> None:
            started.append(words[-3:])

    monkeypatch.setattr(Interrupts, "current", Interrupts(watch_parent=True))
    monkeypatch.setattr(subprocess, "Popen", Watching)
    launcher_status.restore_status_later(RUN, "KILLED")
    assert started == [[RUN, "KILLED", str(os.getppid())]]
