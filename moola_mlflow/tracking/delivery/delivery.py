"""How a run's events reach the store: through the journal on disk, or directly for a run of another process."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import mlflow
from mlflow.entities import Run

from moola_mlflow.tracking.delivery.files import waiting_folder
from moola_mlflow.tracking.delivery.journal import Event, Journal
from moola_mlflow.tracking.delivery.outbox import Outbox
from moola_mlflow.tracking.delivery.replay import Replayer
from moola_mlflow.tracking.delivery.sent import Sent
from moola_mlflow.tracking.store import shown_uri

NO_LIMIT: float = float("inf")


@dataclass(frozen=True)
class DeliveryState:
    """What the store has of a run."""

    run_id: str
    """The run's id in the store, empty until the store has made the run."""
    pending: bool = False
    """Whether there are events that the store has not acknowledged."""
    problem: str = ""
    """Why the store takes nothing at the moment, empty if it does."""
    run_deleted: bool = False
    """Whether the problem is that the run was deleted from the store."""
    refused: tuple[Exception, ...] = ()
    """Errors of events that the store will never take."""
    continued: bool = False
    """Whether the journal held events before this process opened it."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Registered model versions by the keys of their events."""


class Delivery(Protocol):
    """Takes the events of one run and brings them to the store."""

    @property
    def state(self) -> DeliveryState:
        """What the store has so far."""
        ...

    def write(self, event: Mapping[str, Any], send: bool = True) -> None:
        """Take an event. Raises: the error of an event that the store refused."""
        ...

    def add_files(self, name: str, fill: Callable[[Path], object]) -> str:
        """Have ``fill`` write a file or folder called ``name``, and return the key for the event that sends it."""
        ...

    def send(self) -> None:
        """Send what was taken without being sent. Raises: the error of an event that the store refused."""
        ...

    def flush(self) -> bool:
        """Wait until the store has everything or fails. Return whether it has everything."""
        ...

    def sync(self) -> None:
        """Make what was written survive a power cut."""
        ...

    def close(self, limit_s: float = NO_LIMIT) -> bool:
        """Send the rest within a time limit, then stop. Return whether the store has everything.

        A limit of 0 sends nothing more.
        """
        ...


@dataclass(frozen=True)
class SendPolicy:
    """When events are sent, and what happens if the store fails."""

    background: bool = False
    """Send from a thread, so that the caller never waits."""
    strict: bool = False
    """Raise if the store fails: the command cannot work without it."""
    problem: str = ""
    """Why the store did not answer just before, empty if it did."""


class JournalDelivery:
    """Writes events to the journal in the run's folder, and sends them from there."""

    def __init__(
        self, folder: Path, client: mlflow.MlflowClient, run_id: str, run: Run | None, policy: SendPolicy
    ) -> None:
        """Open the journal of a run. ``run_id``: its id in the store, empty if the store does not know the run yet.

        Raises: OSError.
        """
        self._journal = Journal(folder)
        # Without sent.json the run is new, or of an early version that sent everything at once.
        sent = Sent.read(folder) or Sent(self._journal.size, run_id)
        sent.uri, sent.offset = shown_uri(), min(sent.offset, self._journal.size)
        sent.write(folder)
        self._replayer = Replayer(client, folder, sent.run_id, run, check=run is None and bool(sent.run_id))
        self._outbox = Outbox(
            self._journal, self._replayer, sent,
            background=policy.background, strict=policy.strict, problem=policy.problem,
        )  # fmt: skip

    @property
    def state(self) -> DeliveryState:
        """What the store has so far."""
        box = self._outbox
        return DeliveryState(
            self._replayer.run_id, box.pending, box.problem, box.run_deleted, tuple(box.refused),
            bool(self._journal.opened_at), self._replayer.versions,
        )  # fmt: skip

    def write(self, event: Mapping[str, Any], send: bool = True) -> None:
        """Append an event to the journal, and send it. Raises: the error of an event that the store refused."""
        self._journal.append(dict(event))
        if send:
            self.send()

    def send(self) -> None:
        """Send what was appended. Raises: the error of an event that the store refused."""
        self._outbox.send()

    def add_files(self, name: str, fill: Callable[[Path], object]) -> str:
        """Have ``fill`` write files to where they wait for the store, and return the key for their event."""
        return _add_files(self._journal.folder, name, fill)

    def flush(self) -> bool:
        """Wait until the store has everything or fails. Raises: the error of an event that the store refused."""
        complete = self._outbox.drain()
        if self._outbox.refused:
            raise self._outbox.refused.pop(0)
        return complete

    def sync(self) -> None:
        """Make what was written survive a power cut."""
        self._journal.sync()

    def close(self, limit_s: float = NO_LIMIT) -> bool:
        """Send the rest within a time limit, then stop. Return whether the store has everything."""
        try:
            if limit_s > 0:
                return self._outbox.close(limit_s)
            self._outbox.stop()
            return False
        finally:
            self._journal.close()


class DirectDelivery:
    """Sends the events of another process's run to the store at once. That process holds the run's journal."""

    def __init__(self, folder: Path, client: mlflow.MlflowClient, run_id: str) -> None:
        """Send to a run of the store. Files pass through ``folder``."""
        self._folder = folder
        self._replayer = Replayer(client, folder, run_id)

    @property
    def state(self) -> DeliveryState:
        """Everything that was written is in the store."""
        return DeliveryState(self._replayer.run_id, continued=True, versions=self._replayer.versions)

    def write(self, event: Mapping[str, Any], send: bool = True) -> None:
        """Send an event. Raises: what the store raises."""
        self._replayer.apply([Event({"at": time.time(), **event}, 0, 0)], fresh=True)

    def add_files(self, name: str, fill: Callable[[Path], object]) -> str:
        """Have ``fill`` write files to where their event takes them from, and return its key."""
        return _add_files(self._folder, name, fill)

    def send(self) -> None:
        """Do nothing: every event was sent at once."""

    def flush(self) -> bool:
        """Return True: nothing ever waits."""
        return True

    def sync(self) -> None:
        """Do nothing: nothing is on disk."""

    def close(self, limit_s: float = NO_LIMIT) -> bool:
        """Return True: nothing ever waits."""
        return True


def _add_files(folder: Path, name: str, fill: Callable[[Path], object]) -> str:
    key = uuid.uuid4().hex
    path = waiting_folder(folder, key) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    fill(path)
    return key
