"""How much of a run's journal the store has acknowledged: the file ``sent.json`` beside the journal."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from moola_mlflow.core import read_bytes, write_whole
from moola_mlflow.tracking.delivery.journal import Event, has_checksums, is_line_start, read_events
from moola_mlflow.tracking.origin import OFFLINE

SENT_FILE = "sent.json"


@dataclass
class Sent:
    """What the store has of a run: the journal up to an offset. ``uri`` is the store's address without passwords."""

    offset: int = 0
    run_id: str = ""
    """The run's id in the store, empty until the store has made the run."""
    uri: str = ""
    held: list[int] = field(default_factory=list)
    """Starts of events before the offset that the store did not take, or refused. They are tried again."""

    @classmethod
    def read(cls, folder: Path) -> Sent | None:
        """Return what was last written, or None in folders of early versions, which have no such file.

        If the file is damaged or lost, nothing counts as sent: all events are sent again, which doubles nothing.
        """
        try:
            found = json.loads(read_bytes(folder / SENT_FILE))
            sent = cls(found["offset"], found["run_id"], found["uri"], found.get("held", []))
        except FileNotFoundError:
            return cls(0, _given_id(folder)) if has_checksums(folder) else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return cls(0, _given_id(folder))
        places = [sent.offset, *sent.held] if isinstance(sent.held, list) else [None]
        sound = all(isinstance(place, int) and place >= 0 for place in places)
        if not (sound and isinstance(sent.run_id, str) and isinstance(sent.uri, str)):
            return cls(0, _given_id(folder))
        return sent if is_line_start(folder, sent.offset) else replace(sent, offset=0, held=[])

    def write(self, folder: Path) -> None:
        """Write the file in one step, so that it survives a power cut."""
        write_whole(folder / SENT_FILE, json.dumps(asdict(self)), durable=True)


def unsent_events(folder: Path) -> Iterator[Event]:
    """Yield the events of a run's journal that no store has been sent yet, without those set aside."""
    if sent := Sent.read(folder):
        yield from read_events(folder, sent.offset)


def count_unsent(folder: Path) -> int:
    """Return how many events of a run's journal the store has not acknowledged."""
    sent = Sent.read(folder)
    return len(sent.held) + sum(1 for _ in unsent_events(folder)) if sent else 0


def held_events(folder: Path) -> Iterator[Event]:
    """Yield the events of a run's journal that were set aside, because the store did not take them."""
    sent = Sent.read(folder)
    for start in sent.held if sent else []:
        yield from itertools.islice(read_events(folder, start), 1)


def _given_id(folder: Path) -> str:
    return "" if folder.name.startswith(OFFLINE) else folder.name


def id_in_store(folder: Path) -> str:
    """Return the id that the store gave the run of a folder, empty if the store does not know the run yet.

    It is not the folder's name if the run began offline, or was made again after the store had lost it. The folder may
    come from anybody: check that the run belongs to it (:func:`origin.belongs`) before the run is changed.
    """
    sent = Sent.read(folder)
    return (sent.run_id if sent else "") or _given_id(folder)
