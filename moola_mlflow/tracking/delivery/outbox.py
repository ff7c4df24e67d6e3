"""Sends a run's journal to the store: from a thread to a server, at once to a database on this machine.

Training never waits for a server. If the store fails, the outbox pauses, for longer each time, and then tries one
request. If the store takes the run but not some of its events (files, or too much data), the outbox sets those aside.
It tries them again at the end of the run, and ``moola sync`` tries them too.
"""

from __future__ import annotations

import itertools
import logging
import shutil
import threading
import time
from dataclasses import replace

import mlflow
from mlflow.exceptions import MlflowException

from moola_mlflow.core import UserError
from moola_mlflow.tracking.delivery import journal
from moola_mlflow.tracking.delivery.batches import BATCHED, group_events
from moola_mlflow.tracking.delivery.files import OUTBOX
from moola_mlflow.tracking.delivery.journal import Event, Journal
from moola_mlflow.tracking.delivery.refusals import DELETED, is_denial, is_refusal, is_too_large
from moola_mlflow.tracking.delivery.replay import Replayer
from moola_mlflow.tracking.delivery.sent import Sent
from moola_mlflow.tracking.names import Tags
from moola_mlflow.tracking.store import STORE_FAILURES, first_line, is_outage, probe_store

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
LAST_TRY_S = 5.0
"""How long the end of a run waits for a store that did not answer before."""
NO_PROGRESS_S = 120.0
"""How long the end of a run waits without progress. A request to a hung server fails long before."""
READ_AT_ONCE = 500
"""Most events in memory: an outage can last days."""
SLOW_S = 2.0
"""MLflow may have repeated a request that took longer."""
WITH_FILES = ("artifacts", "register")
"""Kinds of events whose files wait on disk. The run is complete without them."""
LARGE = (*WITH_FILES, *BATCHED, "inputs", "child")
"""Kinds that a proxy may find too large. Its limit can be raised later."""
TRIES = 3
"""Equal failures after which files are set aside, if the store did not refuse them outright."""


class Outbox:
    """Brings the events of a journal to the store, in order. It notes on disk what the store has taken."""

    def __init__(
        self, book: Journal, replayer: Replayer, sent: Sent, *, background: bool = False, strict: bool = False,
        problem: str = "", tries: int = TRIES,
    ) -> None:  # fmt: skip
        """Start with what ``sent`` says.

        ``background``: send from a thread. ``strict``: :meth:`send` raises if the store fails. ``problem``: why the
        store did not answer just before. ``tries``: equal failures before files are set aside.
        """
        self._journal, self._replayer, self._sent, self._strict = book, replayer, sent, strict
        self._tries, self._last_failure, self._num_equal_failures = tries, "", 0
        self._retry_now: list[int] = []
        """Starts of events that were set aside and are to be tried now."""
        self._changed = threading.Condition()
        self._closed = False
        self._num_failures = 0
        self._try_at, self._pause_s = 0.0, FIRST_PAUSE_S
        self._error: Exception | None = None
        self._maybe_doubled: set[str] = set()
        """Keys of child runs that may have been made twice."""
        self.refused: list[Exception] = []
        """Errors of events that the store refused as they are. :meth:`send` raises the first."""
        self.set_aside: dict[int, str] = {}
        """Why events were set aside, by their starts."""
        self.problem = ""
        """Why the store takes nothing at the moment, empty if it does."""
        self.run_deleted = False
        """Whether the problem is that the run was deleted from the store."""
        self._thread: threading.Thread | None = None
        if problem:
            self._pause(UserError(problem))
        if background:
            # urllib3 warns at every retry. The outbox prints one warning instead.
            logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
            logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # the same, with a traceback
            self._thread = threading.Thread(target=self._work, name="moola-outbox", daemon=True)
            self._thread.start()

    @property
    def pending(self) -> bool:
        """Whether there are events that the store has not acknowledged."""
        return self._sent.offset < self._journal.size

    @property
    def held(self) -> int:
        """Number of events that are set aside."""
        return len(self._sent.held)

    def send(self) -> None:
        """Send what was appended, or have the thread do it.

        Raises: the error of an event that the store refused; if ``strict``, also why the store fails.
        """
        if self._thread is not None:
            with self._changed:
                self._changed.notify_all()
        elif self._strict or time.monotonic() >= self._try_at:
            self._attempt()
        if self.refused:
            raise self.refused.pop(0)
        if self._strict and self._error is not None:
            raise self._error

    def drain(self, limit_s: float = float("inf"), retry: bool = False) -> bool:
        """Wait until everything is sent, or the store fails. Return whether everything is sent.

        ``retry``: also try what was set aside.
        """
        with self._changed:
            self._retry_now = list(self._sent.held) if retry else []
        if self._thread is None:
            self._attempt()
            return not self.pending
        with self._changed:
            if self.problem:
                limit_s = min(limit_s, LAST_TRY_S)
            self._try_at = 0.0
            self._changed.notify_all()
            failures, target, last = self._num_failures, self._journal.size, (self._sent.offset, len(self._retry_now))
            started_at = moved_at = time.monotonic()
            while (
                (self._sent.offset < target or self._retry_now)
                and self._num_failures == failures
                and self._thread.is_alive()
            ):
                now, left = time.monotonic(), (self._sent.offset, len(self._retry_now))
                if left != last:
                    last, moved_at = left, now
                if now - started_at > limit_s or now - moved_at > NO_PROGRESS_S:
                    break
                self._changed.wait(0.1)
            return self._sent.offset >= target

    def close(self, limit_s: float = float("inf")) -> bool:
        """Send the rest, then stop. Return whether the store has everything.

        Without a time limit, what was set aside is tried once more.
        """
        try:
            return self.drain(limit_s, retry=limit_s == float("inf")) and not self._sent.held
        finally:
            self.stop()
            if not (self.pending or self._sent.held):
                shutil.rmtree(self._journal.folder / OUTBOX, ignore_errors=True)

    def stop(self) -> None:
        """Send nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not (self._has_work() and time.monotonic() >= self._try_at):
                    self._changed.wait(max(self._try_at - time.monotonic(), 0.01) if self._has_work() else None)
                if self._closed:
                    return
            try:
                self._attempt()
            except Exception as e:  # a full disk, for example: the thread must go on while there is something to send
                self._pause(e)

    def _has_work(self) -> bool:
        return self.pending or bool(self._retry_now)

    def _attempt(self) -> None:
        """Send until nothing is left or the store fails."""
        while self.pending and not self._closed:
            size = self._journal.size  # read it first: what is appended meanwhile has not been seen
            events = list(itertools.islice(journal.read_events(self._journal.folder, self._sent.offset), READ_AT_ONCE))
            if not events:  # damaged lines only
                self._acknowledge(size)
                continue
            if not all(self._send(group) for group in group_events(events)):
                return
        if self._retry_now:
            self._send_set_aside()
        if self._maybe_doubled and not self._closed:
            self._delete_duplicates()

    def _send(self, group: list[Event]) -> bool:
        """Send a group of events. If the store refuses it, send it in halves. Return whether to go on."""
        if self._closed:
            return False
        error = self._error = self._try(group)
        if error is None:
            self._acknowledge(group[-1].end)
            self._recover()
            self._last_failure = "" if group[0].kind in WITH_FILES else self._last_failure
            return True
        if len(group) == 1 and self._must_be_set_aside(group[0], error):
            self._error = None
            self._set_aside(group[0], error)
            return True
        too_large = group[0].kind not in WITH_FILES and is_too_large(error)
        # The event that makes the run may be refused too (deleted experiment). Everything else depends on it: wait.
        if not (is_refusal(error) or too_large) or not self._replayer.run_id or self._is_run_deleted(error):
            self._pause(error)
            return False
        if len(group) > 1:
            half = len(group) // 2
            return self._send(group[:half]) and self._send(group[half:])
        self._error = None
        self.refused.append(error)
        self._hold(group[0], first_line(error))  # a retry at once would block everything behind it for ever
        return True

    def _must_be_set_aside(self, event: Event, error: Exception) -> bool:
        """Return whether a store that works does not take this event: the events behind it must not wait."""
        if self._strict:
            return False
        if is_too_large(error) and event.kind in LARGE:
            return self._run_exists()
        if event.kind not in WITH_FILES or is_outage(error) or is_refusal(error):
            return False
        failure = f"{type(error).__name__} {getattr(error, 'error_code', '')} {getattr(error, 'errno', '')}"
        self._num_equal_failures = self._num_equal_failures + 1 if failure == self._last_failure else 1
        self._last_failure = failure
        return (is_denial(error) or self._num_equal_failures >= self._tries) and self._run_exists()

    def _set_aside(self, event: Event, error: Exception) -> None:
        text = first_line(error)
        if not self.set_aside:
            print(
                f"Warning: the tracking store takes the run, but not its {_describe(event)}: {text}. The run goes on. "
                f"{self._journal.folder} keeps what is missing, and it is tried again at the end",
                flush=True,
            )
        self._hold(event, text)

    def _hold(self, event: Event, text: str) -> None:
        """Go on behind an event, and note on disk that the store lacks it."""
        self.set_aside[event.start] = text
        with self._changed:
            self._sent.held = [*self._sent.held, event.start]
        self._acknowledge(event.end)

    def _send_set_aside(self) -> None:
        """Try each event that was set aside once, without what later events have replaced."""
        for start in list(self._retry_now):
            event = next(journal.read_events(self._journal.folder, start), None)
            error = None
            if event is not None and event.start == start and (event := self._without_replaced(event)):
                error = self._try([event])
            if self._closed:
                return
            with self._changed:
                self._retry_now.remove(start)
                if error is None:
                    self._sent.held = [other for other in self._sent.held if other != start]
            if error is not None:
                self.set_aside[start] = first_line(error)
                self.refused += [error] if is_refusal(error) else []
            self._acknowledge(self._sent.offset)

    def _without_replaced(self, event: Event) -> Event | None:
        """Return an event without the tags that later events set, or None if a later event has the same files."""
        names, tags = set(event.record.get("names", [])), dict(event.record.get("tags", {}))
        for later in journal.read_events(self._journal.folder, event.end):
            if later.start in self._sent.held:
                continue
            if later.kind == "artifacts" and names & set(later.record["names"]):
                return None
            replaced = {Tags.NOTE} if later.record.get("note") else set()
            if later.kind == "tags":
                replaced = set(later.record["tags"])
            tags = {key: value for key, value in tags.items() if key not in replaced}
        return replace(event, record={**event.record, "tags": tags}) if event.kind == "tags" else event

    def _try(self, group: list[Event]) -> Exception | None:
        started_at = time.monotonic()
        try:
            if self.problem:
                probe_store(mlflow.get_tracking_uri())
            self._replayer.apply(group, fresh=group[0].start >= self._journal.opened_at)
        except (*STORE_FAILURES, UserError) as e:
            self._note_possible_duplicates(group)
            return e
        except Exception as e:
            if self._thread is None and group[0].kind not in WITH_FILES:
                raise
            self._note_possible_duplicates(group)  # artifact stores raise errors of their own
            return e
        if time.monotonic() - started_at > SLOW_S:
            self._note_possible_duplicates(group)
        return None

    def _note_possible_duplicates(self, group: list[Event]) -> None:
        self._maybe_doubled |= {event.record["key"] for event in group if event.kind == "child"}

    def _delete_duplicates(self) -> None:
        try:
            self._replayer.delete_duplicate_children(self._maybe_doubled)
            self._maybe_doubled.clear()
        except STORE_FAILURES:
            pass  # the next attempt, or `moola sync`, does it

    def _acknowledge(self, offset: int) -> None:
        with self._changed:
            if not self._closed:
                self._sent.offset, self._sent.run_id = offset, self._replayer.run_id
                self._sent.write(self._journal.folder)
            self._changed.notify_all()

    def _is_run_deleted(self, error: Exception) -> bool:
        """Return whether the store does not have the run, at least not now."""
        return isinstance(error, MlflowException) and bool(self._replayer.run_id) and not self._run_exists()

    def _run_exists(self) -> bool:
        try:
            return bool(self._replayer.run_id) and self._replayer.run_exists()
        except STORE_FAILURES:
            return False

    def _pause(self, error: Exception) -> None:
        """Leave the store alone for a while. Print one warning when this begins."""
        first, problem = not self.problem, first_line(error)
        deleted = getattr(error, "error_code", "") in DELETED and self._is_run_deleted(error)
        self.problem, self.run_deleted = problem, deleted
        with self._changed:
            self._pause_s = FIRST_PAUSE_S if first else min(2 * self._pause_s, LONGEST_PAUSE_S)
            self._num_failures += 1
            self._try_at = time.monotonic() + self._pause_s
            self._changed.notify_all()
        if first and not self._strict:
            until = "has the run again" if deleted else "answers"
            print(
                f"Warning: the tracking store does not take what is logged: {problem}. The run goes on. "
                f"{self._journal.folder} keeps everything, and it is sent when the store {until}",
                flush=True,
            )

    def _recover(self) -> None:
        if self.problem:
            print("The tracking store takes what is logged again. What is missing there is sent now", flush=True)
        self.problem, self.run_deleted = "", False


def _describe(event: Event) -> str:
    """Return what an event brings, in words."""
    record = event.record
    match event.kind:
        case "register":
            return f"{record['model']} as a version of {record['name']}"
        case "artifacts":
            return f"files ({', '.join(record['names'])})"
        case "child":
            return f"child run {record['name']}"
        case "inputs":
            return "inputs"
        case kind:
            return f"{kind} ({', '.join(record[kind])})"
