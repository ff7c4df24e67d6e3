"""Files that a user names with ``out``: replaced only if a command wrote them, and nobody has changed them since.

What a command writes is noted in ``.moola/outputs`` of the working folder, with its kind and its hash. Any other file,
such as labels made by hand, is replaced only with ``overwrite=true``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from moola_mlflow.core.disk import read_bytes, replacing, write_whole
from moola_mlflow.core.errors import UserError

NOTES = Path(".moola/outputs")
BACKUP = ".bak"
"""End of the name under which the labels before are kept."""


def is_true(name: str, text: str) -> bool:
    """Return whether a parameter is true.

    Raises: UserError if it is neither ``true`` nor ``false``.

    >>> is_true("overwrite", "True")
    True
    """
    if text.lower() not in ("true", "false"):
        raise UserError(f"{name}='{text}'; allowed: true, false")
    return text.lower() == "true"


def check_outputs(paths: Iterable[Path], kind: str, overwrite: bool) -> None:
    """Refuse to replace files that no command has written as outputs of this kind, or that were changed since.

    ``overwrite``: the user wants them replaced all the same. Raises: UserError.
    """
    for path in paths:
        if overwrite or not (path.exists() or path.is_symlink()):
            continue
        noted = _noted(path)
        if noted is None:
            why = "no command of this folder has written it"
        elif noted.get("kind") != kind:
            why = f"it holds {noted.get('kind')}, not {kind}"
        elif noted.get("sha256") != _sha256(path):
            why = "it was changed since a command wrote it"
        else:
            continue
        raise UserError(
            f"'{path}' exists, and {why}; give another name, or replace it with overwrite=true; nothing was written"
        )


def note_outputs(paths: Iterable[Path], kind: str) -> None:
    """Note that a command has written files, so that the next one may replace them. Raises: OSError."""
    for path in paths:
        note = _note_file(path)
        note.parent.parent.mkdir(mode=0o700, exist_ok=True)
        note.parent.mkdir(exist_ok=True)
        write_whole(note, json.dumps({"path": str(path.resolve()), "kind": kind, "sha256": _sha256(path)}) + "\n")


def keep_backup(path: Path) -> Path | None:
    """Copy a file to ``NAME.bak``, once: a backup that is there stays. Return it, or None if nothing was copied.

    Raises: OSError.
    """
    backup = path.with_name(f"{path.name}{BACKUP}")
    if not path.is_file() or backup.exists():
        return None
    with replacing(backup) as temporary:
        shutil.copyfile(path, temporary)
    return backup


def _note_file(path: Path) -> Path:
    return NOTES / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]}.json"


def _noted(path: Path) -> dict[str, str] | None:
    try:
        noted = json.loads(read_bytes(_note_file(path)))
    except (OSError, ValueError, RecursionError):
        return None
    return noted if isinstance(noted, dict) else None


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
