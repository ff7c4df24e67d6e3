"""A run's folder on disk: which process holds it, when that process was last alive, and whether it died."""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from moola_mlflow.core import UserError, no_links, printable, read_bytes, remove_temporaries, write_whole
from moola_mlflow.tracking.delivery import JOURNAL_FILE, SENT_FILE, is_time, lacks_status, read_history
from moola_mlflow.tracking.names import Artifacts
from moola_mlflow.tracking.origin import RUNS

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK, HEARTBEAT = "lock", "heartbeat.json"
READ = (JOURNAL_FILE, SENT_FILE, HEARTBEAT, LOCK)
"""Files of a run's folder that other commands read."""
FRESH_S = 900
"""A heartbeat of another machine that is younger means that its process works: one is written each epoch or fold."""
DIED = "The process died without setting a status."


def make_run_folder(folder: Path) -> None:
    """Make a run's folder. Others on this machine cannot read into it."""
    RUNS.parent.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


def check_no_links(folder: Path) -> None:
    """Refuse a run's folder that is a link, or holds one: this program never makes one, and would write through it.

    Raises: UserError; OSError if the folder cannot be read.
    """
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        if place.is_symlink():
            raise UserError(
                f"'{place}' is a link, and this program never makes one there; nothing is read or written through it. "
                "Put the files themselves there, or remove it"
            )
        if place.is_dir():
            with suppress(FileNotFoundError):  # its own process has removed it meanwhile
                waiting += place.iterdir()


def problem_of(folder: Path) -> str:
    """Return why a run's folder cannot be read, empty if it can."""
    try:
        check_no_links(folder)
        for path in (folder / name for name in READ):
            if path.exists():
                open(path, "rb", opener=no_links).close()
    except (OSError, UserError) as e:
        return printable(str(e))
    return ""


def unreadable_folders(root: Path | None = None) -> dict[Path, str]:
    """Return the run folders that cannot be read, each with the reason."""
    found = {folder: problem_of(folder) for folder in _entries(root or RUNS)}
    return {folder: problem for folder, problem in found.items() if problem}


def run_folders(root: Path | None = None) -> Iterator[Path]:
    """Yield the run folders. One that cannot be read is left out with a warning: it must not stop a command."""
    for folder in _entries(root or RUNS):
        if not (problem := problem_of(folder)):
            if folder.is_dir():
                yield folder
        elif folder not in _warned:
            _warned.add(folder)
            print(f"Warning: the run folder {folder} is left out: {problem}", file=sys.stderr, flush=True)


_warned: set[Path] = set()
"""Folders that a warning has named: one a process is enough."""


def _entries(root: Path) -> list[Path]:
    try:
        return sorted(root.iterdir())
    except FileNotFoundError:
        return []
    except OSError as e:
        if root not in _warned:
            _warned.add(root)
            print(f"Warning: {root} cannot be read: {e}", file=sys.stderr, flush=True)
        return []


def hold_run_folder(folder: Path) -> IO[str]:
    """Lock a run's folder for this process. The lock ends when the returned file is closed or the process dies.

    Raises: UserError if another process holds it, or the folder holds a link.
    """
    check_no_links(folder)
    lock = open(folder / LOCK, "a", encoding="utf-8", opener=no_links)  # noqa: SIM115
    if fcntl is not None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise UserError(_in_use(folder, _holder(folder))) from None
    remove_temporaries(folder)
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
        beat = json.loads(read_bytes(folder / HEARTBEAT))
    except (OSError, ValueError, RecursionError):
        return {}
    return beat if isinstance(beat, dict) and is_time(beat.get("beat_at", 0)) else {}


def stale_folders(root: Path | None = None) -> list[str]:
    """Return the names of the run folders whose process died without setting a status."""
    return [folder.name for folder in run_folders(root) if is_stale(folder)]


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


def resume_command(folder: Path, launched: bool = False) -> str:
    """Return the command that goes on with the interrupted training of a folder, with the keys it was begun with.

    ``launched``: the command for ``mlflow run``.

    >>> resume_command(Path(".moola/runs/12ab"))
    'moola pretrain --config .moola/runs/12ab/config.yaml --resume 12ab'
    """
    config = folder / Artifacts.CONFIG
    if launched:
        return f"mlflow run . -e pretrain -P config={shlex.quote(str(config))} -P resume={folder.name}"
    return f"moola pretrain --config {shlex.quote(str(config))} --resume {folder.name}"


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
