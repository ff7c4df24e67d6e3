"""The journal of decisions: a file that only grows. A decision is on disk before the next window is shown.

Each line is JSON with a checksum. A line that a kill or a power cut has torn is the last one and has no line end: it
was never answered, and is left out. Any other damaged line was a decision: nothing is removed, and the file is refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from moola_mlflow.core import UserError, no_links, sync_path

try:
    import fcntl
except ImportError:  # Windows: nothing holds the file there
    fcntl = None  # type: ignore[assignment]

SUFFIX = ".decisions.jsonl"


def journal_path(labels: Path) -> Path:
    """Return the place of the journal of a labels file."""
    return labels.with_name(labels.stem + SUFFIX)


class DecisionJournal:
    """The open journal of a labels file, held by this process alone.

    Raises: UserError if another process holds it, or if a line that was written whole is damaged.
    """

    def __init__(self, labels: Path) -> None:
        self.path = journal_path(labels)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "a+b", buffering=0, opener=no_links)  # noqa: SIM115
        except OSError as e:
            raise UserError(f"labels '{labels}': {self.path} cannot be written: {e}; give another file") from e
        try:
            self._hold(labels)
            self.lines, self._size = self._read()
            self._file.truncate(self._size)  # a torn line would spoil the next one
            sync_path(self.path.parent)
        except BaseException:
            self._file.close()
            raise

    def append(self, kind: str, values: Mapping[str, Any]) -> None:
        """Add a line and wait until it is on disk. Raises: OSError; the journal then ends where it did before."""
        line = _line({"kind": kind, **values})
        try:
            rest = memoryview(line)
            while len(rest):
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self._size)
            raise
        self._size += len(line)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __enter__(self) -> DecisionJournal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _hold(self, labels: Path) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"labels '{labels}': another moola annotate adds to this file; finish it first, or give another file"
            ) from None

    def _read(self) -> tuple[list[dict[str, Any]], int]:
        """Return the lines, and the size in bytes up to the last whole one."""
        self._file.seek(0)
        lines, size = [], 0
        for number, raw in enumerate(io.BytesIO(self._file.readall()), 1):
            if not raw.endswith(b"\n"):
                break
            values = _parsed(raw)
            if values is None:
                raise UserError(
                    f"{self.path}: line {number} is damaged, and nothing was removed; restore the file from a backup, "
                    "or remove the line"
                )
            lines.append(values)
            size += len(raw)
        return lines, size


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the sound lines of a journal that another process may hold."""
    with open(path, "rb", opener=no_links) as file:
        for raw in file:
            if (values := _parsed(raw)) is not None:
                yield values


def _line(values: dict[str, Any]) -> bytes:
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return f'{{"sha256":"{_checksum(text)}","line":{text}}}\n'.encode()


def _parsed(raw: bytes) -> dict[str, Any] | None:
    """Return what a line says, None if it is torn or was changed."""
    try:
        outer = json.loads(raw.decode()) if raw.endswith(b"\n") else None
        text = json.dumps(outer["line"], ensure_ascii=False, separators=(",", ":")) if outer else ""
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    if outer is None or not isinstance(outer["line"], dict) or outer.get("sha256") != _checksum(text):
        return None
    return dict(outer["line"])


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
