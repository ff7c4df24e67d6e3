"""The last word on an interrupted run's status.

``mlflow run`` writes FAILED over whatever status its child has set (it compares the status text with numbers, so
it never sees that the run has ended). A child that was interrupted therefore leaves a small process behind that
restores KILLED once the launcher has written, and ends then, or with the launcher. Where the launcher is gone already
there is nothing to restore.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import mlflow

from moola_mlflow.core import Interrupts

OVERWRITTEN = "FAILED"
"""What the launcher writes; any other status is somebody's who went on with the run."""
PATIENCE_S = 60.0
POLL_S = 0.05


def restore_status_later(run_id: str, status: str) -> None:
    """Start the process that restores a status, and return once it is watching; nothing where nobody will write."""
    watched = Interrupts.current
    if watched is not None and watched.orphaned:
        return
    launcher = (watched.parent if watched is not None else None) or os.getppid()
    watcher = subprocess.Popen(
        [sys.executable, "-m", "moola_mlflow.tracking.recovery.launcher_status", run_id, status, str(launcher)],
        env={**os.environ, "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()},  # not where `ps` shows its password
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    assert watcher.stdout is not None
    watcher.stdout.readline()


def watch(run_id: str, status: str, launcher: int) -> None:
    """Restore the status once the launcher has written over it, unless it is gone or somebody goes on with the run."""
    client = mlflow.MlflowClient()
    client.get_run(run_id)  # opens the store before the launcher is let go
    print("watching", flush=True)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        gone = not _alive(launcher)
        now = client.get_run(run_id).info.status
        if now == OVERWRITTEN:
            client.set_terminated(run_id, status)
        if gone or now != status:
            return
        time.sleep(POLL_S)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    watch(sys.argv[1], sys.argv[2], int(sys.argv[3]))
