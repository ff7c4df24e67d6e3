"""A run's journal on disk: every event of the run, one JSON line each, and how much of it the store has acknowledged.

Beside the journal lie ``sent.json``, written atomically, and ``outbox/``, where files wait until the store has them.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from moola_mlflow.tracking.delivery.schema import KEY, record_in
from moola_mlflow.tracking.run_folder import JOURNAL_FILE, tail, write_whole

SENT_FILE, OUTBOX = "sent.json", "outbox"
OFFLINE = "offline-"
"""How the id of a run begins whose store did not answer when it started; its folder keeps that name."""


@dataclass(frozen=True)
class Event:
    """One line of a journal; ``start`` and ``end`` are its offsets in bytes, ``end`` behind the line's end."""

    record: dict[str, Any]
    start: int
    end: int

    @property
    def kind(self) -> str:
        return str(self.record.get("kind", ""))

    @property
    def at_ms(self) -> int:
        """When it happened, as MLflow counts time."""
        return int(self.record.get("at", 0) * 1000)


@dataclass
class Sent:
    """What the store has of a run: the journal up to an offset, under an id; ``uri`` is the store's, less passwords."""

    offset: int = 0
    run_id: str = ""
    uri: str = ""
    held: list[int] = field(default_factory=list)
    """Where events before the offset begin that the store did not take: they were set aside, and are tried again."""

    @classmethod
    def read(cls, folder: Path) -> Sent | None:
        """Return what was last written, None where there is nothing (a run of a version that sent at once)."""
        try:
            found = json.loads((folder / SENT_FILE).read_text(encoding="utf-8"))
            sent = cls(found["offset"], found["run_id"], found["uri"], found.get("held", []))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        places = [sent.offset, *sent.held] if isinstance(sent.held, list) else [None]
        sound = all(isinstance(place, int) and place >= 0 for place in places)
        return sent if sound and isinstance(sent.run_id, str) and isinstance(sent.uri, str) else None

    def write(self, folder: Path) -> None:
        """Write atomically. A power cut may bring an older state back: to send events twice changes nothing."""
        write_whole(folder / SENT_FILE, json.dumps(asdict(self)))


class Journal:
    """The journal of a run that is at work: appended to by one process, which holds the run's folder."""

    def __init__(self, folder: Path) -> None:
        """Open it behind its last whole line. Raises: OSError."""
        self.folder = folder
        self._file = open(folder / JOURNAL_FILE, "ab")  # noqa: SIM115
        self._lock = threading.Lock()
        self.size = self._file.tell()
        if (
            self.size and _last_byte(folder / JOURNAL_FILE) != b"\n"
        ):  # cut short by a crash: what follows must not be glued
            self._put(b"\n")
        self.opened_at = self.size
        """Events behind this offset are this process's own."""
        self._last_at = _last_time(folder / JOURNAL_FILE)

    def append(self, record: dict[str, Any]) -> int:
        """Append an event and return the offset of its end; it is then safe from this process's death.

        Times never go back within a journal: a clock that is set back would end a run before it began.
        """
        with self._lock:
            self._last_at = max(time.time(), self._last_at)
            self._put((json.dumps({"at": self._last_at, **record}) + "\n").encode())
            return self.size

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()
        self.size += len(data)

    def sync(self) -> None:
        """Make what was appended safe from a power cut too."""
        if not self._file.closed:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_events(folder: Path, start: int = 0) -> Iterator[Event]:
    """Yield the events from an offset on; a line that is damaged, or cut short at the end, is passed over."""
    try:
        file = open(folder / JOURNAL_FILE, "rb")  # noqa: SIM115
    except OSError:
        return
    with file:
        file.seek(start)
        end = start
        for line in file:
            begin, end = end, end + len(line)
            if not line.endswith(b"\n"):
                return
            if (record := record_in(line)) is not None:
                yield Event(record, begin, end)


def logged_steps(folder: Path, metric: str) -> set[int]:
    """Return the steps at which the run has logged a metric, sent or not."""
    return {
        event.record["step"]
        for event in read_events(folder)
        if event.kind == "metrics" and metric in event.record["metrics"]
    }


def count_unsent(folder: Path) -> int:
    """Return how many events the store has not acknowledged."""
    sent = Sent.read(folder)
    return len(sent.held) + sum(1 for _ in read_events(folder, sent.offset)) if sent else 0


def stage_files(folder: Path, source: Path, name: str, key: str = "") -> str:
    """Put a file, or a folder's files, into the outbox under a name; return the key of the place.

    What becomes of the source later does not change what is sent. A checkpoint is only ever replaced, never written
    into, and is large: it is linked where the disk can.
    """
    key = key or uuid.uuid4().hex
    for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
        if path.is_dir():
            continue
        target = (
            outbox_folder(folder, key) / name / path.relative_to(source)
            if source.is_dir()
            else outbox_folder(folder, key) / name
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or not (path.suffix == ".pt" and _linked(path, target)):
            shutil.copyfile(path, target)
    return key


def outbox_folder(folder: Path, key: str) -> Path:
    """Return where the files of an event wait."""
    if not KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no key of an event")
    return folder / OUTBOX / key


def _linked(path: Path, target: Path) -> bool:
    try:
        os.link(path, target)
    except OSError:
        return False
    return True


def _last_time(path: Path) -> float:
    """Return when the last whole event happened, 0 where there is none that says so."""
    for line in reversed(tail(path).splitlines()):
        record = record_in(line.encode())
        if record is not None and "at" in record:
            return float(record["at"])
    return 0.0


def _last_byte(path: Path) -> bytes:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)


def dumps(value: Any, indent: int | None = None) -> str:
    """Return any logged value as JSON: null for what is not finite, plain numbers and lists for NumPy's."""
    return json.dumps(without_nan(value), indent=indent, default=_plain)


def without_nan(value: Any) -> Any:
    """Return the value with null for figures that are not finite, which JSON does not know."""
    if isinstance(value, Mapping):
        return {key: without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(part) for part in value]
    if isinstance(value, float | np.floating) and not math.isfinite(value):
        return None
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
