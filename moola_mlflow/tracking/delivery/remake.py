"""Make a run again that a store has lost: from its journal, and from the files that its folder still holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from moola_mlflow.core import DEFAULT_PROJECT, UserError, read_preset
from moola_mlflow.tracking import origin
from moola_mlflow.tracking.delivery.files import OUTBOX, checked_waiting_folder, copy_into
from moola_mlflow.tracking.delivery.journal import JOURNAL_FILE, Event, read_events
from moola_mlflow.tracking.delivery.refusals import is_from_mlflow
from moola_mlflow.tracking.delivery.replay import Replayer
from moola_mlflow.tracking.delivery.sent import SENT_FILE, Sent
from moola_mlflow.tracking.names import Artifacts, Tags
from moola_mlflow.tracking.store import shown_uri

OWN = (JOURNAL_FILE, SENT_FILE, origin.MARK_FILE, OUTBOX, "lock", "heartbeat.json")
"""Files of a run's folder that are no artifacts, whatever its journal says."""


def is_forgotten(run_id: str) -> bool:
    """Return whether the store says that it has no run of this id, not even a deleted one.

    Raises: any other error of the store. A proxy's "not found" is one.
    """
    try:
        mlflow.MlflowClient().get_run(run_id)
    except MlflowException as e:
        if e.error_code == "RESOURCE_DOES_NOT_EXIST" and is_from_mlflow(e):
            return True
        raise
    return False


def remake_run(folder: Path, sent: Sent) -> list[str]:
    """Make a new run for a folder whose run the store has lost, and have ``sent`` begin anew with it.

    The caller holds the folder, and then sends what the store lacks: all of it. A second call makes no second run.
    Returns the artifacts that are neither in the folder nor in the store.

    Raises: UserError if the store knows the run, or the journal holds nothing; what the store raises.
    """
    if not sent.run_id:
        raise UserError(f"no store has had the run of '{folder}' yet; leave out --as-new")
    if not is_forgotten(sent.run_id):
        _check_remade(folder, sent.run_id)
        return []
    events = list(read_events(folder))
    if not events:
        raise UserError(f"the journal in '{folder}' holds nothing that can be read, so no run can be made of it")
    gone = _put_files_back(folder, events)
    replayer = Replayer(mlflow.MlflowClient(), folder, "")
    replayer.make_run(_description(folder, events), Tags.REMADE_FROM)
    sent.run_id, sent.offset, sent.held, sent.uri = replayer.run_id, 0, [], shown_uri()
    sent.write(folder)
    return gone


def _check_remade(folder: Path, run_id: str) -> None:
    """Check that a run that the store knows is one that this command has made. Raises: UserError."""
    run = mlflow.MlflowClient().get_run(run_id)
    if run.info.lifecycle_stage == "deleted":
        raise UserError(
            f"run {run_id} was deleted from the store '{shown_uri()}', which can give it back; restore it: "
            f"mlflow runs restore --run-id {run_id}"
        )
    if run.data.tags.get(Tags.REMADE_FROM) != folder.name:
        raise UserError(f"the store '{shown_uri()}' knows run {run_id}, so it is not made again; leave out --as-new")


def _description(folder: Path, events: list[Event]) -> dict[str, Any]:
    """Return what the run was: name, experiment, first tags, start. Journals before version 0.3 say less."""
    described = next((event.record["make"] for event in events if "make" in event.record), None)
    if described is not None:
        return dict(described)
    tags = {key: value for event in events if event.kind == "tags" for key, value in event.record["tags"].items()}
    stage = tags.get(Tags.STAGE, "run")
    name = next((event.record["name"] for event in events if event.kind == "begin" and event.record.get("name")), "")
    return {
        "name": name or f"{stage}-{folder.name[:8]}",
        "experiment": _experiment(folder),
        "tags": {},
        "at_ms": events[0].at_ms,
    }


def _experiment(folder: Path) -> str:
    """Return the experiment that the run's configuration names."""
    try:
        found = read_preset(folder / Artifacts.CONFIG).get("tracking", {}).get("experiment", "")
    except UserError:  # a command without a configuration
        found = ""
    return str(found or DEFAULT_PROJECT)


def _put_files_back(folder: Path, events: list[Event]) -> list[str]:
    """Have files wait for the store again that the folder still holds. Return the names of those that it does not.

    A file was logged as it was at that moment, and the folder has its last state. So the last event of a name gets it.
    """
    last: dict[str, Event] = {}
    for event in events:
        if event.kind == "artifacts":
            last |= dict.fromkeys(event.record["names"], event)
        elif event.kind == "register" and not _is_registered(event.record["name"], event.record["key"]):
            last[f"{event.record['model']} as a version of {event.record['name']}"] = event
    gone = []
    for name, event in last.items():
        waiting = checked_waiting_folder(folder, event.record["key"])
        if waiting.is_dir():  # never sent, or put back by an attempt that failed
            continue
        source = event.record["model"] if event.kind == "register" else name
        if (held := _held(folder, source)) is None:
            gone.append(name)
        else:
            copy_into(waiting / source, held)
    return gone


def _held(folder: Path, name: str) -> Path | None:
    """Return the file or folder of a run's folder that an artifact was made from, None if there is none.

    The journal may come from anybody: it names no file outside of the folder, and none that is not an artifact.
    """
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or path.parts[0] in OWN:
        return None
    return folder / path if (folder / path).exists() else None


def _is_registered(name: str, key: str) -> bool:
    from moola_mlflow.tracking.registry.models import is_registered  # needs torch, and most runs register nothing

    return is_registered(name, key)
