"""Check who made a run's folder. Anybody may have made it, and its journal may name other people's runs.

A new run's folder gets a mark: a text that only this user can make, because it comes from a key in the home folder. The
run in the store carries the hash of the mark as a tag. So a folder can write only to its own run, on any machine. The
mark also shows which folders this user made.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

from mlflow.entities import Run

from moola_mlflow.core import UserError, read_bytes, replacing
from moola_mlflow.tracking.names import Tags

RUNS = Path(".moola/runs")
OFFLINE = "offline-"
"""Beginning of the id, and so of the folder name, of a run whose store did not answer when it started."""
MARK_FILE = "mark"
KEY_BYTES = 32


def key_file() -> Path:
    """Return the file that holds this user's key: in ``XDG_STATE_HOME``, or in the home folder."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "moola" / "key"


def mark_folder(folder: Path) -> None:
    """Mark the folder of a new run as this user's. If the home folder cannot be written, it stays unmarked."""
    if (key := _key(make=True)) and not (folder / MARK_FILE).exists():
        with replacing(folder / MARK_FILE) as temporary:
            temporary.write_text(_mark(key, folder), encoding="utf-8")


def tag_of(folder: Path) -> str:
    """Return the tag that links a run in the store to its folder. It is empty for a folder without a mark."""
    try:
        return hashlib.sha256(read_bytes(folder / MARK_FILE)).hexdigest()[:32]
    except OSError:
        return ""


def is_ours(folder: Path) -> bool:
    """Return whether this user's programs made a run's folder."""
    try:
        mark = read_bytes(folder / MARK_FILE)
    except OSError:
        return False
    key = _key(make=False)
    return key is not None and hmac.compare_digest(mark, _mark(key, folder).encode())


def belongs(run: Run, folder: Path) -> bool:
    """Return whether a run of the store belongs to a folder.

    Runs of version 0.2 have no tag. Such a run belongs to the folder of its name in this project's ``.moola/runs``.
    """
    tag = run.data.tags.get(Tags.FOLDER, "")
    if tag:
        return tag == tag_of(folder)
    first = run.data.tags.get(Tags.OFFLINE if folder.name.startswith(OFFLINE) else Tags.REMADE_FROM, run.info.run_id)
    return folder.name == first and folder.resolve().parent == RUNS.resolve()


def check_belongs(run: Run, folder: Path) -> None:
    """Check that a folder writes only to its own run. Raises: UserError."""
    if not belongs(run, folder):
        raise UserError(
            f"'{folder}' is not the folder of run {run.info.run_id} ({run.info.run_name}): the run does not have the "
            "tag of this folder, so nothing is sent. Use the run's own folder, unchanged, in the project where it ran"
        )


def _mark(key: bytes, folder: Path) -> str:
    return hmac.new(key, folder.name.encode(), hashlib.sha256).hexdigest()


def _key(make: bool) -> bytes | None:
    path = key_file()
    for _ in range(2):
        with suppress(OSError):
            key = read_bytes(path)
            return key if len(key) == KEY_BYTES else None
        if not make:
            return None
        with suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            whole = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
            with open(os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
            try:
                os.link(whole, path)  # fails if another process was faster
            except FileExistsError:
                pass
            except OSError:  # file systems without hard links
                os.replace(whole, path)
            whole.unlink(missing_ok=True)
    return None
