"""Heartbeats of sweeps and trials: tags on their runs that say which process works on them."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Run

from moola_mlflow.tracking.names import Tags

BEAT_S, SILENT_S = 20.0, 90.0
"""Seconds between two heartbeats, and seconds of silence after which a coordinator counts as gone."""


def read_beat(run: Run) -> dict[str, Any]:
    """Return the last heartbeat of a sweep's coordinator, empty if there is none."""
    return dict(json.loads(run.data.tags.get(Tags.COORDINATOR, "{}")))


def is_coordinated(run: Run) -> bool:
    """Return whether a process coordinates a sweep now: its heartbeat is fresh, and it neither ended nor died."""
    beat = read_beat(run)
    return bool(beat) and not beat.get("over") and _is_fresh(beat) and not is_dead(beat["host"], beat["pid"])


def is_worked_on(run: Run) -> bool | None:
    """Return whether a process works on a sweep or a trial. None for other runs, and without any heartbeat."""
    stage = run.data.tags.get(Tags.STAGE)
    if stage == "sweep":
        return is_coordinated(run) if read_beat(run) else None
    if stage != "trial":
        return None
    worker = run.data.tags.get(Tags.WORKER)
    if worker and is_dead(*json.loads(worker)):
        return False
    parent = mlflow.MlflowClient().get_run(run.data.tags[Tags.PARENT])
    beat = read_beat(parent)  # several commands may share a sweep: this is the latest heartbeat of any of them
    return _is_fresh(beat) if beat else parent.info.status == "RUNNING"


def _is_fresh(beat: dict[str, Any]) -> bool:
    return bool(time.time() - beat["at"] < SILENT_S)


def host_name() -> str:
    """Return a name of this machine's process ids: the host and, on Linux, the process namespace (containers)."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def is_dead(host: str, pid: int) -> bool:
    """Return whether a process has surely ended. False for a process of another host."""
    if host != host_name():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    try:  # a zombie: killed, but its parent has not waited for it yet
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False
