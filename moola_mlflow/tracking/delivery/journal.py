"""A run's journal on disk: one JSON line an event, in the order in which they happened, each with its checksum."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moola_mlflow.core import no_links, read_bytes, read_tail, sync_path
from moola_mlflow.tracking.delivery.schema import CHECKSUM, event_line, parse_event
from moola_mlflow.tracking.names import Tags

JOURNAL_FILE = "journal.jsonl"
CHUNK = 65_536
CLOCK_TOLERANCE_S = 60.0
"""By how much the clock may be set forward within a command."""


@dataclass(frozen=True)
class Event:
    """One line of a journal. ``start`` and ``end`` are its offsets in bytes; ``end`` lies behind the line break."""

    record: dict[str, Any]
    start: int
    end: int

    @property
    def kind(self) -> str:
        return str(self.record.get("kind", ""))

    @property
    def at_ms(self) -> int:
        """Time of the event in milliseconds since 1970, as MLflow counts."""
        return int(self.record.get("at", 0) * 1000)


class Journal:
    """The journal of a run that is being worked on. Only the process that holds the run's folder appends to it."""

    def __init__(self, folder: Path) -> None:
        """Open the journal behind its last whole line, and remove a line that a crash cut short. Raises: OSError."""
        self.folder, path = folder, folder / JOURNAL_FILE
        is_new = not path.exists()
        self._file = open(path, "ab", opener=no_links)  # noqa: SIM115
        self._lock = threading.Lock()
        self.size = _whole_size(path, self._file.tell())
        if self.size < self._file.tell():
            self._file.truncate(self.size)
        if is_new:
            sync_path(folder)
        self.opened_at = self.size
        """Offset at which the events of this process begin."""
        self._last_at = _last_time(folder / JOURNAL_FILE)
        self._began: tuple[float, float] | None = None
        """Time of this process's first event: of day, and since the machine was started."""

    def append(self, record: dict[str, Any]) -> int:
        """Append an event with its checksum and return the offset of its end. From then on it survives this process.

        Times never go back within a journal. A clock that is set back would otherwise end a run before it began. They
        never go forward faster than the time that has passed: a clock that is set to next year would otherwise decide
        every later time of this journal.
        """
        with self._lock:
            self._last_at = self._now()
            self._put(event_line({"at": self._last_at, **record}))
            return self.size

    def _now(self) -> float:
        """Return the time of the next event."""
        now, passed = time.time(), time_since_boot()
        if self._began is None:
            self._began = (max(now, self._last_at), passed)
        latest = self._began[0] + (passed - self._began[1]) + CLOCK_TOLERANCE_S
        return max(min(now, latest), self._last_at)

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()
        self.size += len(data)

    def sync(self) -> None:
        """Make what was appended survive a power cut too."""
        if not self._file.closed:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def time_since_boot() -> float:
    """Return the seconds since the machine was started, with those in which it slept if the system counts them."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)  # Linux
    return time.clock_gettime(clock) if clock is not None else time.monotonic()


def read_events(folder: Path, start: int = 0) -> Iterator[Event]:
    """Yield the events from an offset on. Damaged lines, and a last line without its end, are left out."""
    try:
        file = open(folder / JOURNAL_FILE, "rb", opener=no_links)  # noqa: SIM115
    except OSError:
        return
    with file:
        file.seek(start)
        end = start
        for line in file:
            begin, end = end, end + len(line)
            if not line.endswith(b"\n"):
                return
            if (record := parse_event(line)) is not None:
                yield Event(record, begin, end)


def damaged_lines(folder: Path) -> list[int]:
    """Return the numbers, from 1, of the lines of a journal that are no whole event. An unfinished last line is not.

    Raises: OSError if the journal cannot be read.
    """
    lines = read_bytes(folder / JOURNAL_FILE).split(b"\n")[:-1]
    return [number for number, line in enumerate(lines, 1) if line.strip() and parse_event(line) is None]


def is_line_start(folder: Path, offset: int) -> bool:
    """Return whether an offset is the start of a line of a run's journal, or lies behind its last whole line."""
    try:
        with open(folder / JOURNAL_FILE, "rb", opener=no_links) as file:
            file.seek(max(0, min(offset, file.seek(0, 2)) - 1))
            return offset == 0 or file.read(1) == b"\n"
    except OSError:
        return offset == 0


def has_checksums(folder: Path) -> bool:
    """Return whether a version that writes checksums made a journal."""
    try:
        with open(folder / JOURNAL_FILE, "rb", opener=no_links) as file:
            return CHECKSUM.search(file.readline().rstrip()) is not None
    except OSError:
        return False


def logged_steps(folder: Path, metric: str) -> set[int]:
    """Return the steps at which a run's journal has a metric, whether the store has them or not."""
    return {
        event.record["step"]
        for event in read_events(folder)
        if event.kind == "metrics" and metric in event.record["metrics"]
    }


@dataclass(frozen=True)
class History:
    """How a run ended, by its journal (empty while it is at work), and which data it was trained on."""

    status: str = ""
    data_sha256: str = ""


def read_history(folder: Path) -> History:
    """Return the last status and the data of a run, by its journal. Damaged lines are left out."""
    status = data = ""
    try:
        lines = read_bytes(folder / JOURNAL_FILE).splitlines()
    except OSError:
        return History()
    for line in lines:
        record = parse_event(line)
        if record is None:
            continue
        if record.get("kind") == "begin":
            status = ""
        elif record.get("kind") == "status":
            status = record["status"]
        elif record.get("kind") == "tags":
            data = record["tags"].get(Tags.DATA_SHA256, data)
    return History(status, data)


def lacks_status(folder: Path) -> bool:
    """Return whether a run's journal has no status after its last beginning."""
    return '"kind": "status"' not in read_tail(folder / JOURNAL_FILE).rpartition('"kind": "begin"')[2]


def append_status(folder: Path, status: str, note: str) -> None:
    """Append the status and note of a run whose process is gone. The caller holds the folder."""
    book = Journal(folder)
    try:
        book.append({"kind": "status", "status": status, "note": note})
        book.sync()
    finally:
        book.close()


def _last_time(path: Path) -> float:
    """Return the time of the last whole event that has one, else 0."""
    for line in reversed(read_tail(path).splitlines()):
        record = parse_event(line.encode())
        if record is not None and "at" in record:
            return float(record["at"])
    return 0.0


def _whole_size(path: Path, size: int) -> int:
    """Return how many bytes of a journal are whole lines."""
    with open(path, "rb", opener=no_links) as file:
        end = size
        while end > 0:
            start = max(0, end - CHUNK)
            file.seek(start)
            if (found := file.read(end - start).rfind(b"\n")) >= 0:
                return start + found + 1
            end = start
    return 0
