"""Whether a process lives, and whether one works on a sweep or a trial, by what their runs say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from moola_mlflow.tracking import Tags
from moola_mlflow.tracking.recovery import heartbeat
from moola_mlflow.tracking.recovery.heartbeat import host_name, is_dead, is_worked_on

NO_PID = 2**22 + 1
"""More than Linux gives a process."""


def test_a_process_is_dead_once_it_has_ended_waited_for_or_not() -> None:
    assert not is_dead(host_name(), os.getpid())
    assert is_dead(host_name(), NO_PID)
    assert not is_dead("elsewhere", NO_PID)  # nothing is known of another host
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert not is_dead(host_name(), child.pid)
        child.kill()
        deadline = time.monotonic() + 60
        while not is_dead(host_name(), child.pid) and time.monotonic() < deadline:  # a zombie until it is waited for
            time.sleep(0.01)
        assert is_dead(host_name(), child.pid)
        assert child.returncode is None
    assert is_dead(host_name(), child.pid)


@pytest.fixture
def client(workdir: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient()


def beat(age_s: float, host: str = "elsewhere", pid: int = 1, over: bool = False) -> str:
    return json.dumps({"at": time.time() - age_s, "host": host, "pid": pid, "storage": "", "over": over})


@pytest.mark.parametrize(
    ("coordinator", "expected"),
    [
        (dict, None),
        (lambda: {Tags.COORDINATOR: beat(1)}, True),
        (lambda: {Tags.COORDINATOR: beat(2 * heartbeat.SILENT_S)}, False),
        (lambda: {Tags.COORDINATOR: beat(1, over=True)}, False),
        (lambda: {Tags.COORDINATOR: beat(1, host_name(), NO_PID)}, False),
        (lambda: {Tags.COORDINATOR: beat(1, host_name(), os.getpid())}, True),
    ],
    ids=["no heartbeat", "fresh", "silent", "ended", "dead", "alive"],
)
def test_a_sweep_is_worked_on_while_its_coordinator_lives(
    client: mlflow.MlflowClient, coordinator: Callable[[], dict[str, str]], expected: bool | None
) -> None:
    assert is_worked_on(client.create_run("0", tags={Tags.STAGE: "sweep", **coordinator()})) is expected


@pytest.mark.parametrize(
    ("worker", "coordinator", "status", "expected"),
    [
        (["elsewhere", 1], lambda: {Tags.COORDINATOR: beat(1)}, "RUNNING", True),
        ([host_name(), NO_PID], lambda: {Tags.COORDINATOR: beat(1)}, "RUNNING", False),
        (["elsewhere", 1], lambda: {Tags.COORDINATOR: beat(2 * heartbeat.SILENT_S)}, "RUNNING", False),
        (["elsewhere", 1], lambda: {Tags.COORDINATOR: beat(1, over=True)}, "RUNNING", True),
        (["elsewhere", 1], dict, "RUNNING", True),
        (["elsewhere", 1], dict, "KILLED", False),
    ],
    ids=["fresh sweep", "dead worker", "silent sweep", "one command ended", "an early sweep", "an early sweep ended"],
)
def test_a_trial_is_worked_on_while_its_worker_and_its_sweep_live(
    client: mlflow.MlflowClient,
    worker: list[object],
    coordinator: Callable[[], dict[str, str]],
    status: str,
    expected: bool,
) -> None:
    parent = client.create_run("0", tags={Tags.STAGE: "sweep", **coordinator()}).info.run_id
    client.update_run(parent, status=status)
    tags = {Tags.STAGE: "trial", Tags.PARENT: parent, Tags.WORKER: json.dumps(worker)}
    assert is_worked_on(client.create_run("0", tags=tags)) is expected


def test_of_a_run_of_another_kind_nothing_is_known(client: mlflow.MlflowClient) -> None:
    assert is_worked_on(client.create_run("0", tags={Tags.STAGE: "pretrain"})) is None
    assert is_worked_on(client.create_run("0")) is None
