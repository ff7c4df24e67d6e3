"""The manifest of a folder of checkpoints: which saved states are the latest, the one before and the top three.

A state is written once, under a name of its own, and then the manifest is replaced in one step. That is the only moment
at which anything changes: a process that is killed before leaves the old states, and after it the new ones. All other
files of the folder are links that can be made again from the manifest.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from moola_mlflow.core import read_bytes, write_whole

MANIFEST_FILE = "manifest.json"
STATES = "states"
"""Folder of the saved states."""


@dataclass(frozen=True)
class Manifest:
    """Names of the states, in the folder ``states`` beside the manifest."""

    latest: str
    previous: str = ""
    """The latest before, empty without one."""
    top: tuple[tuple[str, float], ...] = ()
    """States of the best epochs with their validation Hubers, best first."""

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """Return the manifest of a folder, or None if there is none or it is damaged."""
        try:
            written = json.loads(read_bytes(folder / MANIFEST_FILE))
            checksum = written.pop("sha256")
            if checksum != _checksum(written):
                return None
            names = [written["latest"], written["previous"], *(name for name, _ in written["top"])]
            if not all(isinstance(name, str) and Path(name).name == name for name in names):
                return None
            return cls(written["latest"], written["previous"], tuple((name, float(x)) for name, x in written["top"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def write(self, folder: Path) -> None:
        """Replace the manifest of a folder in one step, even if the power fails. Raises: OSError."""
        content = {**asdict(self), "top": [list(entry) for entry in self.top]}
        write_whole(folder / MANIFEST_FILE, json.dumps({**content, "sha256": _checksum(content)}) + "\n", durable=True)

    def names(self) -> set[str]:
        """Return the states that are kept."""
        return {name for name in (self.latest, self.previous, *(name for name, _ in self.top)) if name}


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
