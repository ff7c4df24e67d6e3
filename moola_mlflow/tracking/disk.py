"""Files that must survive a crash: written whole, or read from their end."""

from __future__ import annotations

import os
from pathlib import Path

TAIL_BYTES = 16_384
"""More than a journal's status line with the longest note."""


def write_whole(path: Path, text: str, durable: bool = False) -> None:
    """Replace a file in one step: after a kill it holds the old text or the new one.

    ``durable``: this holds after a power cut too. Raises: OSError.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(temporary, path)


def read_tail(path: Path) -> str:
    """Return the last 16 kB of a file. A journal has thousands of lines, and its state is in the last ones."""
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
        return file.read().decode(errors="replace")
