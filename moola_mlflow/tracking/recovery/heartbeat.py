"""Signs of life of a sweep and its trials, as their runs show them."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Run

from moola_mlflow.tracking.delivery.replay import PARENT
from moola_mlflow.tracking.names import Tags

STAGE = Tags.STAGE
COORDINATOR = Tags.COORDINATOR
"""Tag of a sweep: who coordinates it, and when it last said so."""
WORKER = Tags.WORKER
"""Tag of a trial: machine and process id of who runs it."""
BEAT_S, SILENT_S = 20.0, 90.0


def read_beat(run: Run) -> dict[str, Any]:
    """Return what a sweep's run says of who coordinates it, empty where it says nothing."""
    return dict(json.loads(run.data.tags.get(COORDINATOR, "{}")))


def is_coordinated(run: Run) -> bool:
    """Return whether somebody was at work on a sweep just now, neither dead nor gone with a word."""
    beat = read_beat(run)
    return bool(beat) and not beat.get("over") and _is_fresh(beat) and not is_dead(beat["host"], beat["pid"])


def is_at_work(run: Run) -> bool | None:
    """Return whether somebody is at work on a sweep or a trial; None for other runs, and where there is no sign."""
    stage = run.data.tags.get(STAGE)
    if stage == "sweep":
        return is_coordinated(run) if read_beat(run) else None
    if stage != "trial":
        return None
    worker = run.data.tags.get(WORKER)
    if worker and is_dead(*json.loads(worker)):
        return False
    parent = mlflow.MlflowClient().get_run(run.data.tags[PARENT])
    beat = read_beat(parent)  # of whichever of its commands was the last to say something
    return _is_fresh(beat) if beat else parent.info.status == "RUNNING"


def _is_fresh(beat: dict[str, Any]) -> bool:
    return bool(time.time() - beat["at"] < SILENT_S)


def machine_name() -> str:
    """Return what tells this machine's processes from another's: host, and on Linux its process numbering."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def is_dead(host: str, pid: int) -> bool:
    """Return whether a process is known to be gone; of another machine's nothing is known."""
    if host != machine_name():
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
