"""How much of a run's journal the store has acknowledged: the file ``sent.json`` beside the journal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from moola_mlflow.tracking.delivery.journal import Event, read_events
from moola_mlflow.tracking.disk import write_whole

SENT_FILE = "sent.json"
OFFLINE = "offline-"
"""Beginning of the id, and so of the folder name, of a run whose store did not answer when it started."""


@dataclass
class Sent:
    """What the store has of a run: the journal up to an offset. ``uri`` is the store's address without passwords."""

    offset: int = 0
    run_id: str = ""
    """The run's id in the store, empty until the store has made the run."""
    uri: str = ""
    held: list[int] = field(default_factory=list)
    """Starts of events before the offset that the store did not take. They were set aside to be tried again."""

    @classmethod
    def read(cls, folder: Path) -> Sent | None:
        """Return what was last written, or None without a sound file, as in folders of early versions."""
        try:
            found = json.loads((folder / SENT_FILE).read_text(encoding="utf-8"))
            sent = cls(found["offset"], found["run_id"], found["uri"], found.get("held", []))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        places = [sent.offset, *sent.held] if isinstance(sent.held, list) else [None]
        sound = all(isinstance(place, int) and place >= 0 for place in places)
        return sent if sound and isinstance(sent.run_id, str) and isinstance(sent.uri, str) else None

    def write(self, folder: Path) -> None:
        """Write the file in one step. After a power cut it may be older, and events are sent again: that is safe."""
        write_whole(folder / SENT_FILE, json.dumps(asdict(self)))


def unsent_events(folder: Path) -> Iterator[Event]:
    """Yield the events of a run's journal that no store has been sent yet, without those set aside."""
    if sent := Sent.read(folder):
        yield from read_events(folder, sent.offset)


def count_unsent(folder: Path) -> int:
    """Return how many events of a run's journal the store has not acknowledged."""
    sent = Sent.read(folder)
    return len(sent.held) + sum(1 for _ in unsent_events(folder)) if sent else 0


def id_in_store(folder: Path) -> str:
    """Return the id that the store gave the run of a folder, empty if the store does not know the run yet."""
    if not folder.name.startswith(OFFLINE):
        return folder.name
    sent = Sent.read(folder)
    return sent.run_id if sent else ""
