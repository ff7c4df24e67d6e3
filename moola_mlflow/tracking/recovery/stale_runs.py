"""End the runs whose process died without setting a status, in the store and in the run's journal."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import mlflow
from mlflow.entities import Run

from moola_mlflow.core import UserError
from moola_mlflow.tracking import origin, run_folder
from moola_mlflow.tracking.delivery import (
    JOURNAL_FILE,
    append_status,
    id_in_store,
    lacks_status,
    read_history,
)
from moola_mlflow.tracking.names import Tags
from moola_mlflow.tracking.origin import OFFLINE
from moola_mlflow.tracking.recovery import heartbeat
from moola_mlflow.tracking.run_folder import DIED, RUNS
from moola_mlflow.tracking.store import STORE_FAILURES, first_line, is_outage

PATIENCE_S = 45.0
"""How long the other processes of a training wait for the first one to end the run.

torchrun kills a process that hangs in its GPU 30 s after asking it to stop.
"""
POLL_S = 0.1
LOST = "**Failed:** the first process of this training, which tracked it, died without setting a status."


def close_stale_runs() -> list[str]:
    """Set runs to KILLED whose process died (kill -9, power cut, out of memory). Return their ids.

    A sweep's trials end with it, unless a process still works on them. Runs of another store are left alone. All of
    them can be resumed.
    """
    client, closed = mlflow.MlflowClient(), []
    for folder in (RUNS / name for name in run_folder.stale_folders()):
        try:
            with run_folder.hold_run_folder(folder):
                if lacks_status(folder) and (run_id := _close(client, folder)):
                    closed.append(run_id)
        except UserError:  # another process has resumed it meanwhile
            continue
        except STORE_FAILURES as e:
            if is_outage(e):
                break
    return closed


def _close(client: mlflow.MlflowClient, folder: Path) -> str:
    """End the run of a folder that this process holds. Return its id if the store had it as RUNNING, else ''."""
    run_id, status, note = id_in_store(folder), "KILLED", DIED + _how_to_resume(folder)
    run = client.get_run(run_id) if run_id else None
    if run is not None and not origin.belongs(run, folder):  # a folder that names another's run
        return ""
    stored = run.info.status if run else ""
    if run is not None and run.data.tags.get(Tags.STAGE) == "sweep":
        _close_trials(client, run)
        if heartbeat.is_worked_on(run):  # by another command that shares the sweep
            return ""
    if stored == "RUNNING":
        _end(client, run_id, status, note)
    elif stored in ("FAILED", "FINISHED"):  # another process of its training or sweep has set it
        status = stored
    append_status(folder, status, note)
    return run_id if stored == "RUNNING" else ""


def _close_trials(client: mlflow.MlflowClient, sweep: Run) -> None:
    """End the runs of a sweep's trials whose process died. The sweep itself would do so only when started again."""
    wanted = f"tags.`{Tags.PARENT}` = '{sweep.info.run_id}' and attributes.status = 'RUNNING'"
    for trial in client.search_runs([sweep.info.experiment_id], wanted):
        if heartbeat.is_worked_on(trial) is False:
            _end(client, trial.info.run_id, "KILLED", DIED)


def end_lost_run(run_id: str, patience_s: float = PATIENCE_S) -> bool:
    """Set a run to FAILED if its first process died without setting a status. Return whether it did.

    Any other process of the training may call this. A first process that lives, or was asked to stop, gets time to
    end the run itself.
    """
    folder, deadline = RUNS / run_id, time.monotonic() + patience_s
    try:
        if not _is_here(folder):
            return _end_remote_run(run_id, deadline)
        if not _died(folder, deadline):
            return False
        note = LOST + _how_to_resume(folder)
        with run_folder.hold_run_folder(folder):
            if not lacks_status(folder):
                return False
            append_status(folder, "FAILED", note)  # first, so that `moola sync` can bring it to a store that is down
            client, known = mlflow.MlflowClient(), id_in_store(folder)
            run = client.get_run(known) if known else None
            if run is not None and run.info.status == "RUNNING" and origin.belongs(run, folder):
                _end(client, known, "FAILED", note)
    except UserError:  # another process resumes it, or ends it
        return False
    except STORE_FAILURES as e:
        print(f"moola: the status FAILED of run {run_id} could not be stored: {first_line(e)}", file=sys.stderr)
    return True


def _is_here(folder: Path) -> bool:
    """Return whether the process of a run's folder runs, or ran, on this machine."""
    if not (folder / JOURNAL_FILE).exists():
        return False
    return run_folder.read_beat(folder).get("host") in (None, socket.gethostname())


def _died(folder: Path, deadline: float) -> bool:
    """Wait until a run's process has died or ended its run. Return whether it died."""
    while not run_folder.is_stale(folder):
        if read_history(folder).status or time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _end_remote_run(run_id: str, deadline: float) -> bool:
    """End a run of another machine after its process had time to. That machine holds its journal."""
    if run_id.startswith(OFFLINE) or mlflow.get_tracking_uri().startswith("sqlite:"):
        return False  # such a store is on that machine too
    client = mlflow.MlflowClient()
    while client.get_run(run_id).info.status == "RUNNING":
        if time.monotonic() > deadline:
            _end(client, run_id, "FAILED", f"{LOST} Start again on that machine, with resume=auto.")
            return True
        time.sleep(POLL_S)
    return False


def _how_to_resume(folder: Path) -> str:
    """Return how to resume an interrupted training, empty if it has no checkpoint."""
    if not any((folder / "checkpoints").glob("*.pt")):
        return ""
    return f" Its checkpoints are saved. Resume it: `{run_folder.resume_command(folder)}`"


def _end(client: mlflow.MlflowClient, run_id: str, status: str, note: str) -> None:
    client.set_tag(run_id, Tags.NOTE, note)
    client.set_terminated(run_id, status)
