"""A run's folder on disk: which process holds it, when that process was last alive, and whether it died."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from moola_mlflow.core import UserError
from moola_mlflow.tracking.delivery import JOURNAL_FILE, is_time, lacks_status, read_history
from moola_mlflow.tracking.disk import write_whole

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

RUNS = Path(".moola/runs")
LOCK, HEARTBEAT = "lock", "heartbeat.json"
FRESH_S = 900
"""A heartbeat of another machine that is younger means that its process works: one is written each epoch or fold."""
DIED = "The process died without setting a status."


def make_run_folder(folder: Path) -> None:
    """Make a run's folder. Others on this machine cannot read into it."""
    RUNS.parent.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


def hold_run_folder(folder: Path) -> IO[str]:
    """Lock a run's folder for this process. The lock ends when the returned file is closed or the process dies.

    Raises: UserError if another process holds it.
    """
    lock = open(folder / LOCK, "a", encoding="utf-8")  # noqa: SIM115
    if fcntl is not None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise UserError(_in_use(folder, _holder(folder))) from None
    return lock


def check_run_folder_free(folder: Path) -> None:
    """Refuse a run that a process of this machine holds, or that another machine worked on just now.

    Raises: UserError.
    """
    if (folder / LOCK).exists():
        hold_run_folder(folder).close()
    age_s = _remote_beat_age_s(folder)
    if age_s is not None and read_history(folder).status == "":
        raise UserError(f"{_in_use(folder, _process(read_beat(folder)))} (its last heartbeat is {age_s:.0f} s old)")


def _remote_beat_age_s(folder: Path) -> float | None:
    """Return the age of the last heartbeat if another machine wrote it and it is fresh, else None."""
    beat = read_beat(folder)
    if beat.get("host") in (None, socket.gethostname()):
        return None
    age_s = time.time() - beat.get("beat_at", 0)
    # A heartbeat from the future comes from a clock that differs or was set back: it says nothing about now.
    return age_s if abs(age_s) < FRESH_S else None


def write_beat(folder: Path, started_at: float) -> None:
    """Write the heartbeat: this process is alive, and which it is."""
    beat = {"pid": os.getpid(), "host": socket.gethostname(), "started_at": started_at, "beat_at": time.time()}
    write_whole(folder / HEARTBEAT, json.dumps(beat))


def read_beat(folder: Path) -> dict[str, Any]:
    """Return the last heartbeat, empty if there is none or it is damaged."""
    try:
        beat = json.loads((folder / HEARTBEAT).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return beat if isinstance(beat, dict) and is_time(beat.get("beat_at", 0)) else {}


def stale_folders(root: Path = RUNS) -> list[str]:
    """Return the names of the run folders whose process died without setting a status."""
    return [folder.name for folder in sorted(root.glob("*")) if folder.is_dir() and is_stale(folder)]


def is_stale(folder: Path) -> bool:
    """Return whether a run's process died: no last status, no process holds the folder, no fresh remote heartbeat.

    A run with an old heartbeat of another machine counts too: a container that restarts has a new host name.
    """
    if not (folder / JOURNAL_FILE).exists() or _remote_beat_age_s(folder) is not None:
        return False
    if not lacks_status(folder):
        return False
    try:
        hold_run_folder(folder).close()
    except UserError:
        return False
    return True


def _in_use(folder: Path, process: str) -> str:
    return f"run {folder.name} is being trained by {process}; wait for it, or stop it first"


def _holder(folder: Path) -> str:
    """Return which process holds a run, if that is sure: the last heartbeat may come from an earlier process."""
    beat = read_beat(folder)
    here = beat.get("host") == socket.gethostname()
    return _process(beat) if here and _has_open(beat.get("pid"), folder / LOCK) else "another process"


def _process(beat: dict[str, Any]) -> str:
    return f"process {beat.get('pid')} on {beat.get('host')}"


def _has_open(pid: Any, path: Path) -> bool:
    """Return whether a process of this machine has a file open. False if the system does not tell."""
    try:
        links = list(Path(f"/proc/{pid}/fd").iterdir()) if isinstance(pid, int) else []
    except OSError:
        return False
    for link in links:
        with suppress(OSError):  # closed meanwhile
            if link.samefile(path):
                return True
    return False
