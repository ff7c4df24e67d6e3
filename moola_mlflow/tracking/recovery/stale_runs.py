"""Runs whose process died without a word: the store and the run's journal are told how they ended."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import mlflow
from mlflow.entities import Run

from moola_mlflow.core import UserError
from moola_mlflow.tracking import run_folder
from moola_mlflow.tracking.delivery.journal import OFFLINE, Sent
from moola_mlflow.tracking.delivery.replay import NOTE, PARENT
from moola_mlflow.tracking.recovery import heartbeat
from moola_mlflow.tracking.run_folder import DIED, RUNS
from moola_mlflow.tracking.store import STORE_FAILURES, first_line, is_outage

PATIENCE_S = 45.0
"""How long the others of a training wait, at most, for its first process to end the run itself.

One that hangs in its GPU is killed by torchrun, 30 s after it was asked to stop: only then is it gone.
"""
POLL_S = 0.1
LOST = "**Failed:** the first process of this training, which tracked it, is gone without a word."


def id_in_store(run_id: str) -> str:
    """Return the id of a run in the store, empty where the store has not heard of it yet."""
    if not run_id.startswith(OFFLINE):
        return run_id
    sent = Sent.read(RUNS / run_id)
    return sent.run_id if sent else ""


def close_abandoned() -> list[str]:
    """Mark runs as KILLED whose process died without a word (kill -9, power, no memory); return their ids.

    With a sweep go those of its trials that nobody is at work on. Runs of another store are left alone. They can be
    resumed all the same.
    """
    client, closed = mlflow.MlflowClient(), []
    for folder in (RUNS / name for name in run_folder.stale_folders()):
        try:
            with run_folder.hold_run_folder(folder):
                if run_folder.lacks_status(folder) and (run_id := _close(client, folder)):
                    closed.append(run_id)
        except UserError:  # somebody goes on with it since, and holds it
            continue
        except STORE_FAILURES as e:
            if is_outage(e):
                break
    return closed


def _close(client: mlflow.MlflowClient, folder: Path) -> str:
    """End the run of a folder that this process holds; return its id where the store took it to be RUNNING."""
    run_id, status, note = id_in_store(folder.name), "KILLED", DIED + _going_on(folder)
    run = client.get_run(run_id) if run_id else None
    stored = run.info.status if run else ""
    if run is not None and run.data.tags.get(heartbeat.STAGE) == "sweep":
        _close_trials(client, run)
        if heartbeat.is_at_work(run):  # another command that shares it
            return ""
    if stored == "RUNNING":
        _end(client, run_id, status, note)
    elif stored in ("FAILED", "FINISHED"):  # as another process of its training, or of its sweep, has found
        status = stored
    run_folder.close_run_folder(folder, status, note)
    return run_id if stored == "RUNNING" else ""


def _close_trials(client: mlflow.MlflowClient, sweep: Run) -> None:
    """End the runs of a sweep's trials whose process is gone, which the sweep does only if it is started again."""
    wanted = f"tags.`{PARENT}` = '{sweep.info.run_id}' and attributes.status = 'RUNNING'"
    for trial in client.search_runs([sweep.info.experiment_id], wanted):
        if heartbeat.is_at_work(trial) is False:
            _end(client, trial.info.run_id, "KILLED", DIED)


def end_lost_run(run_id: str, patience_s: float = PATIENCE_S) -> bool:
    """End a run as FAILED whose first process is gone without a word; return whether that was so.

    For the other processes of its training, any of them. A first process that lives, or was asked to stop, ends its
    run itself: it is given time for that.
    """
    folder, deadline = RUNS / run_id, time.monotonic() + patience_s
    try:
        if not _is_here(folder):
            return _end_elsewhere(run_id, deadline)
        if not _left_silently(folder, deadline):
            return False
        note = LOST + _going_on(folder)
        with run_folder.hold_run_folder(folder):
            if not run_folder.lacks_status(folder):
                return False
            run_folder.close_run_folder(folder, "FAILED", note)  # first: `moola sync` brings it to a store that is away
            client, known = mlflow.MlflowClient(), id_in_store(run_id)
            if known and client.get_run(known).info.status == "RUNNING":
                _end(client, known, "FAILED", note)
    except UserError:  # another process goes on with it, or ends it
        return False
    except STORE_FAILURES as e:
        print(f"moola: that run {run_id} has failed could not be stored: {first_line(e)}", file=sys.stderr)
    return True


def _is_here(folder: Path) -> bool:
    """Return whether the process that a folder belongs to is, or was, one of this machine."""
    if not (folder / run_folder.JOURNAL_FILE).exists():
        return False
    return run_folder.read_beat(folder).get("host") in (None, socket.gethostname())


def _left_silently(folder: Path, deadline: float) -> bool:
    """Wait until a run's process is gone or has ended its run; return whether it left no last status."""
    while not run_folder.is_stale(folder):
        if run_folder.read_journal(folder).status or time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _end_elsewhere(run_id: str, deadline: float) -> bool:
    """End a run of another machine, once its process has had its time; its journal follows where it lies."""
    if run_id.startswith(OFFLINE) or mlflow.get_tracking_uri().startswith("sqlite:"):
        return False  # such a store is on that machine too
    client = mlflow.MlflowClient()
    while client.get_run(run_id).info.status == "RUNNING":
        if time.monotonic() > deadline:
            _end(client, run_id, "FAILED", f"{LOST} Start again where it ran, with resume=auto.")
            return True
        time.sleep(POLL_S)
    return False


def _going_on(folder: Path) -> str:
    """Return how an interrupted training goes on, empty where nothing of it was saved."""
    if not any((folder / "checkpoints").glob("*.pt")):
        return ""
    return f" What was trained so far is saved. Go on: `moola pretrain --resume {folder.name}`"


def _end(client: mlflow.MlflowClient, run_id: str, status: str, note: str) -> None:
    client.set_tag(run_id, NOTE, note)
    client.set_terminated(run_id, status)
