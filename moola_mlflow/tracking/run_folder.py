"""A run's folder on disk: who holds it, and what its journal says of it."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from moola_mlflow.core import UserError
from moola_mlflow.tracking.delivery.schema import is_time, record_in
from moola_mlflow.tracking.names import Tags

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

RUNS = Path(".moola/runs")
LOCK, HEARTBEAT, JOURNAL_FILE = "lock", "heartbeat.json", "journal.jsonl"
FRESH_S = 900
"""A beat of another machine that is younger means that it is at work: one is written each epoch, fold or chunk."""
# More than a status line with the longest note.
TAIL = 16_384
DIED = "The process died without a word."


@dataclass(frozen=True)
class History:
    """What a journal says: the last status (empty while it ran), and the data it was trained on."""

    status: str = ""
    data_sha256: str = ""


def make_run_folder(folder: Path) -> None:
    """Make a run's folder; journals and checkpoints are their owner's business."""
    RUNS.parent.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


def hold_run_folder(folder: Path) -> IO[str]:
    """Take a run's folder for this process; keep the result open, for closing it, or dying, lets go.

    Raises: UserError where another process holds it.
    """
    lock = open(folder / LOCK, "a", encoding="utf-8")  # noqa: SIM115
    if fcntl is not None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise UserError(_held(folder, _holder(folder))) from None
    return lock


def check_run_folder_free(folder: Path) -> None:
    """Refuse a run that a process of this machine holds, or that another machine was just at work on.

    Raises: UserError.
    """
    if (folder / LOCK).exists():
        hold_run_folder(folder).close()
    age_s = _beat_elsewhere_s(folder)
    if age_s is not None and read_journal(folder).status == "":
        raise UserError(f"{_held(folder, _name(read_beat(folder)))} (its last beat is {age_s:.0f} s old)")


def _beat_elsewhere_s(folder: Path) -> float | None:
    """Return how old the last beat is where it is another machine's and fresh."""
    beat = read_beat(folder)
    if beat.get("host") in (None, socket.gethostname()):
        return None
    age_s = time.time() - beat.get("beat_at", 0)
    # A beat from the future is another clock's, or a clock's that was set back since: it says nothing of now.
    return age_s if abs(age_s) < FRESH_S else None


def write_beat(folder: Path, started_at: float) -> None:
    """Say that this process is alive and which it is."""
    beat = {"pid": os.getpid(), "host": socket.gethostname(), "started_at": started_at, "beat_at": time.time()}
    write_whole(folder / HEARTBEAT, json.dumps(beat))


def write_whole(path: Path, text: str, durable: bool = False) -> None:
    """Write a file of which whoever comes after a kill finds the old text or the new one, whole.

    ``durable``: after a power cut too. Raises: OSError.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(temporary, path)


def read_beat(folder: Path) -> dict[str, Any]:
    """Return the last heartbeat, empty where there is none."""
    try:
        beat = json.loads((folder / HEARTBEAT).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return beat if isinstance(beat, dict) and is_time(beat.get("beat_at", 0)) else {}


def read_journal(folder: Path) -> History:
    """Return what the journal says; a line that was cut short by a crash is passed over."""
    status = data = ""
    try:
        lines = (folder / JOURNAL_FILE).read_bytes().splitlines()
    except OSError:
        return History()
    for line in lines:
        record = record_in(line)
        if record is None:
            continue
        if record.get("kind") == "begin":
            status = ""
        elif record.get("kind") == "status":
            status = record["status"]
        elif record.get("kind") == "tags":
            data = record["tags"].get(Tags.DATA_SHA256, data)
    return History(status, data)


def stale_folders(root: Path = RUNS) -> list[str]:
    """Return the runs whose process died without a word: no last status, nobody holds them, no beat elsewhere.

    Of another machine it may have been as well, once its last beat is old: a container that is started again has
    another name.
    """
    return [folder.name for folder in sorted(root.glob("*")) if folder.is_dir() and is_stale(folder)]


def is_stale(folder: Path) -> bool:
    """Return whether a run's process died without a word."""
    if not (folder / JOURNAL_FILE).exists() or _beat_elsewhere_s(folder) is not None:
        return False
    if not lacks_status(folder):
        return False
    try:
        hold_run_folder(folder).close()
    except UserError:
        return False
    return True


def lacks_status(folder: Path) -> bool:
    """Return whether a run's journal does not say how it ended."""
    return '"kind": "status"' not in tail(folder / JOURNAL_FILE).rpartition('"kind": "begin"')[2]


def tail(path: Path) -> str:
    """Return the end of a journal: what counts is in the last of thousands of lines."""
    with open(path, "rb") as f:
        f.seek(max(0, f.seek(0, 2) - TAIL))
        return f.read().decode(errors="replace")


def close_run_folder(folder: Path, status: str, note: str = DIED) -> None:
    """Write the status of an abandoned run, and its note, into its journal."""
    with open(folder / JOURNAL_FILE, "a", encoding="utf-8") as f:
        f.write("\n" + json.dumps({"at": time.time(), "kind": "status", "status": status, "note": note}) + "\n")


def _held(folder: Path, who: str) -> str:
    return f"run {folder.name} is being trained by {who}; wait for it, or stop it first"


def _holder(folder: Path) -> str:
    """Return who holds a run, by name where that is sure: the last beat may be of a process that held it before."""
    beat = read_beat(folder)
    here = beat.get("host") == socket.gethostname()
    return _name(beat) if here and _has_open(beat.get("pid"), folder / LOCK) else "another process"


def _name(beat: dict[str, Any]) -> str:
    return f"process {beat.get('pid')} on {beat.get('host')}"


def _has_open(pid: Any, path: Path) -> bool:
    """Return whether a process of this machine has a file open; False where the system does not say."""
    try:
        links = list(Path(f"/proc/{pid}/fd").iterdir()) if isinstance(pid, int) else []
    except OSError:
        return False
    for link in links:
        with suppress(OSError):  # closed meanwhile
            if link.samefile(path):
                return True
    return False
