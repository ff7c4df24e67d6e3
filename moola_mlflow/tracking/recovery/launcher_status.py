"""Restore the status KILLED, which ``mlflow run`` overwrites with FAILED.

The launcher writes FAILED whatever status its child has set: it compares the status text with numbers, so it never
sees that the run has ended. A child that was interrupted therefore starts a small process. That process restores
KILLED after the launcher has written, and then ends. It also ends with the launcher. If the launcher is gone already,
nothing is overwritten and no process starts.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import mlflow

from moola_mlflow.core import Interrupts

OVERWRITTEN = "FAILED"
"""What the launcher writes. Any other status means that somebody has resumed the run."""
LIMIT_S = 60.0
POLL_S = 0.05


def restore_status_later(run_id: str, status: str) -> None:
    """Start the process that restores a status, and return once it watches the launcher."""
    interrupts = Interrupts.current
    if interrupts is not None and interrupts.orphaned:
        return
    launcher = (interrupts.parent if interrupts is not None else None) or os.getppid()
    watcher = subprocess.Popen(
        [sys.executable, "-m", "moola_mlflow.tracking.recovery.launcher_status", run_id, status, str(launcher)],
        env={**os.environ, "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()},  # in arguments, `ps` shows its password
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    assert watcher.stdout is not None
    watcher.stdout.readline()


def watch(run_id: str, status: str, launcher: int) -> None:
    """Restore the status once the launcher has overwritten it. Stop if the launcher ends or the run is resumed."""
    client = mlflow.MlflowClient()
    client.get_run(run_id)  # open the store before the launcher goes on
    print("watching", flush=True)
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        ended = not _is_alive(launcher)
        now = client.get_run(run_id).info.status
        if now == OVERWRITTEN:
            client.set_terminated(run_id, status)
        if ended or now != status:
            return
        time.sleep(POLL_S)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    watch(sys.argv[1], sys.argv[2], int(sys.argv[3]))
