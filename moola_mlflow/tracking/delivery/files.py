"""Files that wait on disk until the store has them: one folder an event, named by the event's key."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from moola_mlflow.core import UserError
from moola_mlflow.tracking.delivery.schema import KEY

OUTBOX = "outbox"


def waiting_folder(folder: Path, key: str) -> Path:
    """Return where the files of an event wait."""
    if not KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no key of an event")
    return folder / OUTBOX / key


def checked_waiting_folder(folder: Path, key: str) -> Path:
    """Return where the files of an event wait. Raises: UserError if a link leads from there to other files."""
    place = waiting_folder(folder, key)
    for path in (place.parent, place, *place.rglob("*")):
        if path.is_symlink():
            raise UserError(f"'{path}' is a link, and this program never makes one there; nothing of it is sent")
    return place


def copy_into(place: Path, source: Path) -> None:
    """Copy a file, or all files of a folder, unless it is there.

    Later changes of the source do not change what is sent. A checkpoint is large and only ever
    replaced, never written into: it is linked where the disk can do that.
    """
    for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
        if path.is_dir():
            continue
        target = place / path.relative_to(source) if source.is_dir() else place
        if target.exists() and target.samefile(path):  # a run without a store keeps files where it makes them
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or not (path.suffix == ".pt" and _linked(path, target)):
            shutil.copyfile(path, target)


def _linked(path: Path, target: Path) -> bool:
    try:
        os.link(path, target)
    except OSError:
        return False
    return True
