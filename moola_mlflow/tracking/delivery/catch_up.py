"""Bring a run's folder to the store after an outage, and check that the store then has everything once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow.entities import Run

from moola_mlflow.core import TrainingError
from moola_mlflow.tracking import origin
from moola_mlflow.tracking.delivery.journal import Journal, damaged_lines, read_events, read_history
from moola_mlflow.tracking.delivery.outbox import Outbox
from moola_mlflow.tracking.delivery.replay import Replayer
from moola_mlflow.tracking.delivery.sent import Sent, count_unsent
from moola_mlflow.tracking.store import STORE_FAILURES, first_line, shown_uri

SHOWN = 10
"""Numbers of damaged lines that a message names."""


@dataclass(frozen=True)
class CaughtUp:
    """A run that the store now has, with everything that may be sent."""

    run_id: str
    status: str
    num_missing: int
    """Events that the store did not have before."""
    left_out: tuple[str, ...] = ()
    """What was not sent, because the folder came from elsewhere."""


def send_missing(folder: Path, sent: Sent, stored: Run | None, died_note: str) -> CaughtUp:
    """Send what the store lacks of a run whose folder this process holds. Doing it again changes nothing.

    ``stored``: the run as the store has it, None if it has not been made yet. ``died_note``: note of a run whose
    journal does not say how it ended; it becomes KILLED.

    Raises: TrainingError if the store does not take everything, or lines of the journal are damaged; UserError if the
    stored run is not that of the folder.
    """
    if stored is not None:
        origin.check_belongs(stored, folder)
    num_missing, status = count_unsent(folder), read_history(folder).status
    journal = Journal(folder)
    try:
        if not status:
            status = "KILLED"
            journal.append({"kind": "status", "status": status, "note": died_note})
        sent.uri, sent.offset = shown_uri(), min(sent.offset, journal.size)
        replayer = Replayer(mlflow.MlflowClient(), folder, sent.run_id, stored)
        outbox = Outbox(journal, replayer, sent, tries=1)
        outbox.close()
    finally:
        journal.close()
    if outbox.pending:
        raise TrainingError(
            f"{count_unsent(folder)} of {num_missing} events of {folder} are still not in '{shown_uri()}': "
            f"{outbox.problem}. Try again later: moola sync {folder}"
        )
    try:
        _correct(folder, replayer)
    except STORE_FAILURES as e:
        raise TrainingError(f"all events are sent, then '{shown_uri()}' failed: {first_line(e)}. Try again") from e
    if outbox.held:
        reasons, does = (
            "; ".join(sorted(set(outbox.set_aside.values()))),
            "refuses" if outbox.refused else "does not take",
        )
        raise TrainingError(
            f"the store '{shown_uri()}' {does} {outbox.held} of {num_missing} events of {folder}: {reasons}. "
            f"It has the rest; when it takes these too, run: moola sync {folder}"
        )
    if damaged := damaged_lines(folder):
        raise TrainingError(
            f"run {replayer.run_id} is not whole in '{shown_uri()}': {describe_lines(damaged)} of the journal in "
            f"{folder} cannot be read, and what they said is lost. The store has the rest"
        )
    return CaughtUp(replayer.run_id, status, num_missing, tuple(sorted(replayer.left_out)))


def describe_lines(numbers: Sequence[int]) -> str:
    """Return numbers of lines in words.

    >>> describe_lines([3]), describe_lines([3, 17])
    ('line 3', 'lines 3, 17')
    """
    shown = ", ".join(map(str, numbers[:SHOWN])) + (f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else "")
    return f"line{'s' if len(numbers) > 1 else ''} {shown}"


def _correct(folder: Path, replayer: Replayer) -> None:
    """Delete what was made twice, and restore the status if another program has changed it."""
    events = list(read_events(folder))
    replayer.delete_duplicate_children(event.record["key"] for event in events if event.kind == "child")
    last = [event for event in events if event.kind == "status"][-1]
    if replayer.client.get_run(replayer.run_id).info.status != last.record["status"]:
        replayer.client.set_terminated(replayer.run_id, last.record["status"], last.at_ms)
