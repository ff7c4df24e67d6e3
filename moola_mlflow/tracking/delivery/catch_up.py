"""Bring a run's folder to the store after an outage, and check that the store then has everything once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow.entities import Run

from moola_mlflow.core import TrainingError
from moola_mlflow.tracking.delivery.journal import Journal, read_events, read_history
from moola_mlflow.tracking.delivery.outbox import Outbox
from moola_mlflow.tracking.delivery.replay import Replayer
from moola_mlflow.tracking.delivery.sent import Sent, count_unsent
from moola_mlflow.tracking.store import STORE_FAILURES, first_line, shown_uri


@dataclass(frozen=True)
class CaughtUp:
    """A run that the store now has completely."""

    run_id: str
    status: str
    num_missing: int
    """Events that the store did not have before."""


def send_missing(folder: Path, sent: Sent, stored: Run | None, died_note: str) -> CaughtUp:
    """Send what the store lacks of a run whose folder this process holds. Doing it again changes nothing.

    ``stored``: the run as the store has it, None if it has not been made yet. ``died_note``: note of a run whose
    journal does not say how it ended; it becomes KILLED.

    Raises: TrainingError if the store does not take everything.
    """
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
        reasons = "; ".join(sorted(set(outbox.set_aside.values())))
        raise TrainingError(
            f"the store '{shown_uri()}' does not take {outbox.held} of {num_missing} events of {folder}: {reasons}. "
            f"It has the rest; when it takes these too, run: moola sync {folder}"
        )
    if outbox.refused:
        raise TrainingError(
            f"the store '{shown_uri()}' refuses {len(outbox.refused)} of {num_missing} events of {folder}: "
            f"{'; '.join(map(first_line, outbox.refused))}. It has the rest"
        )
    return CaughtUp(replayer.run_id, status, num_missing)


def _correct(folder: Path, replayer: Replayer) -> None:
    """Delete what was made twice, and restore the status if another program has changed it."""
    events = list(read_events(folder))
    replayer.delete_duplicate_children(event.record["key"] for event in events if event.kind == "child")
    last = [event for event in events if event.kind == "status"][-1]
    if replayer.client.get_run(replayer.run_id).info.status != last.record["status"]:
        replayer.client.set_terminated(replayer.run_id, last.record["status"], last.at_ms)
