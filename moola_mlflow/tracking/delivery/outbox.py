"""Sends a run's journal to the store: in the background to a server, at once to a database on this machine.

Training never waits for a server. One that fails is left alone for growing pauses, then tried with one request. What
the store does not take, though it takes the rest (files, or what is too large), is set aside and tried again at the
end and by ``sync``.
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
from moola_mlflow.tracking.delivery.journal import Event, Journal, Sent
from moola_mlflow.tracking.delivery.replay import BATCHED, NOTE, Replayer, groups, is_denial, is_refusal, is_too_large
from moola_mlflow.tracking.store import STORE_FAILURES, first_line, is_outage, probe_store

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
LAST_TRY_S = 5.0
"""How long the end of a run waits for a store that did not answer before."""
QUIET_S = 120.0
"""How long it waits for one that did while nothing gets through: a hung server fails a request long before."""
MOST_EVENTS = 500
"""Read at a time: an outage of days must not fill the memory."""
SLOW_S = 2.0
"""MLflow may have repeated a request that took longer."""
HOLDABLE = ("artifacts", "register")
"""Kinds of events without which the rest is whole: their files wait on disk."""
BULKY = (*HOLDABLE, *BATCHED, "inputs", "child")
"""Kinds that may be larger than what a proxy on the way to the store takes, which somebody may change."""
TRIES = 3
"""Failures of one kind before files are set aside that the store has not refused in so many words."""
GONE = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
"""What a store says of a run that was deleted."""


class Outbox:
    """Brings the events of a journal to the store, in order, each acknowledged on disk before the next."""

    def __init__(
        self, book: Journal, replayer: Replayer, sent: Sent, *, background: bool = False, strict: bool = False,
        down: str = "", tries: int = TRIES,
    ) -> None:  # fmt: skip
        """``background``: in a thread. ``strict``: ``push`` raises where the store fails. ``down``: how it just did.

        ``tries``: failures of one kind before files are set aside.
        """
        self._book, self._replayer, self._sent, self._strict = book, replayer, sent, strict
        self._tries, self._failing, self._times = tries, "", 0
        self._again: list[int] = []
        """What was set aside and is to be tried now."""
        self._changed = threading.Condition()
        self._closed = False
        self._failures = 0
        self._try_at, self._pause_s = 0.0, FIRST_PAUSE_S
        self._error: Exception | None = None
        self._doubtful: set[str] = set()
        """Keys of child runs whose making may have been repeated."""
        self.refused: list[Exception] = []
        """What the store will never take of this run; ``push`` raises the first."""
        self.set_aside: dict[int, str] = {}
        """Why events were set aside, by where they begin."""
        self.trouble = ""
        """Why the store takes nothing at the moment; empty where it does."""
        self.gone = False
        """Whether that is because the run was deleted from it."""
        self._thread: threading.Thread | None = None
        if down:
            self._fail(UserError(down))
        if background:
            # urllib3 warns of every repeated request; that the server does not answer is said once, below.
            logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
            logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # of a database, with a traceback
            self._thread = threading.Thread(target=self._work, name="moola-outbox", daemon=True)
            self._thread.start()

    @property
    def pending(self) -> bool:
        """Whether there is something that the store has not acknowledged."""
        return self._sent.offset < self._book.size

    @property
    def run_id(self) -> str:
        """The run's id in the store, empty where it has none yet."""
        return self._replayer.run_id

    def version(self, key: str) -> str:
        """Return the version that an event has registered, empty where it has not yet."""
        return self._replayer.versions.get(key, "")

    def push(self) -> None:
        """Have sent what was appended. Raises: what the store has said against an event; a failure where ``strict``."""
        if self._thread is not None:
            with self._changed:
                self._changed.notify_all()
        elif self._strict or time.monotonic() >= self._try_at:
            self._attempt()
        if self.refused:
            raise self.refused.pop(0)
        if self._strict and self._error is not None:
            raise self._error

    def drain(self, limit_s: float = float("inf"), again: bool = False) -> bool:
        """Wait until all is sent, and return whether it is; where the store fails, return as soon as that is known.

        ``again``: try what was set aside too.
        """
        with self._changed:
            self._again = list(self._sent.held) if again else []
        if self._thread is None:
            self._attempt()
            return not self.pending
        with self._changed:
            if self.trouble:
                limit_s = min(limit_s, LAST_TRY_S)
            self._try_at = 0.0
            self._changed.notify_all()
            failures, target, last = self._failures, self._book.size, (self._sent.offset, len(self._again))
            begun = moved = time.monotonic()
            while (
                (self._sent.offset < target or self._again) and self._failures == failures and self._thread.is_alive()
            ):
                now, left = time.monotonic(), (self._sent.offset, len(self._again))
                if left != last:
                    last, moved = left, now
                if now - begun > limit_s or now - moved > QUIET_S:
                    break
                self._changed.wait(0.1)
            return self._sent.offset >= target

    def close(self, limit_s: float = float("inf")) -> bool:
        """Send the rest, as ``drain`` does, and then nothing more; return whether the store has it all.

        What was set aside is tried once more, unless time is short.
        """
        try:
            return self.drain(limit_s, again=limit_s == float("inf")) and not self._sent.held
        finally:
            self.stop()
            if not (self.pending or self._sent.held):
                shutil.rmtree(self._book.folder / journal.OUTBOX, ignore_errors=True)

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
            except Exception as e:  # a full disk; the thread must not end while there is something to send
                self._fail(e)

    def _has_work(self) -> bool:
        return self.pending or bool(self._again)

    def _attempt(self) -> None:
        """Send until there is nothing more, or the store fails."""
        while self.pending and not self._closed:
            size = self._book.size  # before it is read: what is appended meanwhile has not been seen
            events = list(itertools.islice(journal.read_events(self._book.folder, self._sent.offset), MOST_EVENTS))
            if not events:  # nothing but damaged lines
                self._acknowledge(size)
                continue
            if not all(self._send(group) for group in groups(events)):
                return
        if self._again:
            self._send_again()
        if self._doubtful and not self._closed:
            self._remove_doubles()

    def _send(self, group: list[Event]) -> bool:
        """Send events together and, where the store finds fault with them, in halves; return whether to go on."""
        if self._closed:
            return False
        error = self._error = self._try(group)
        if error is None:
            self._acknowledge(group[-1].end)
            self._recover()
            self._failing = "" if group[0].kind in HOLDABLE else self._failing
            return True
        if len(group) == 1 and self._is_stuck(group[0], error):
            self._error = None
            self._set_aside(group[0], error)
            return True
        refused = is_refusal(error)
        refused |= group[0].kind not in HOLDABLE and (is_denial(error) or is_too_large(error))
        # A run that could not be made (its experiment was deleted) must not be left out: all else is part of it.
        if not refused or not self._replayer.run_id or self._is_gone(error):
            self._fail(error)
            return False
        if len(group) > 1:
            half = len(group) // 2
            return self._send(group[:half]) and self._send(group[half:])
        self._error = None
        self.refused.append(error)  # to send it again would keep everything behind it waiting for ever
        self._acknowledge(group[-1].end)
        return True

    def _is_stuck(self, event: Event, error: Exception) -> bool:
        """Return whether a store that works does not take an event as it is: what is behind it must not wait."""
        if self._strict:
            return False
        if is_too_large(error) and event.kind in BULKY:
            return self._is_there()
        if event.kind not in HOLDABLE or is_outage(error) or is_refusal(error):
            return False
        failing = f"{type(error).__name__} {getattr(error, 'error_code', '')} {getattr(error, 'errno', '')}"
        self._failing, self._times = failing, self._times + 1 if failing == self._failing else 1
        return (is_denial(error) or self._times >= self._tries) and self._is_there()

    def _set_aside(self, event: Event, error: Exception) -> None:
        text = first_line(error)
        if not self.set_aside:
            print(
                f"Warning: the tracking store takes the run, but not its {_what(event)}: {text}. The run goes on; what "
                f"is not taken is kept in {self._book.folder} and tried again at the end",
                flush=True,
            )
        self.set_aside[event.start] = text
        with self._changed:
            self._sent.held = [*self._sent.held, event.start]
        self._acknowledge(event.end)

    def _send_again(self) -> None:
        """Try once what was set aside; what is older than a later event of its name is left out."""
        for start in list(self._again):
            event = next(journal.read_events(self._book.folder, start), None)
            error = None
            if event is not None and event.start == start and (event := self._less_outdated(event)):
                error = self._try([event])
            if self._closed:
                return
            with self._changed:
                self._again.remove(start)
                if error is None or is_refusal(error):
                    self._sent.held = [other for other in self._sent.held if other != start]
            if error is not None:
                self.set_aside[start] = first_line(error)
                self.refused += [error] if is_refusal(error) else []
            self._acknowledge(self._sent.offset)

    def _less_outdated(self, event: Event) -> Event | None:
        """Return an event without the tags that later ones have set; None where a later one has its files."""
        names, tags = set(event.record.get("names", [])), dict(event.record.get("tags", {}))
        for later in journal.read_events(self._book.folder, event.end):
            if later.start in self._sent.held:
                continue
            if later.kind == "artifacts" and names & set(later.record["names"]):
                return None
            said = {*later.record["tags"]} if later.kind == "tags" else {NOTE} if later.record.get("note") else set()
            tags = {key: value for key, value in tags.items() if key not in said}
        return replace(event, record={**event.record, "tags": tags}) if event.kind == "tags" else event

    def _try(self, group: list[Event]) -> Exception | None:
        begun = time.monotonic()
        try:
            if self.trouble:
                probe_store(mlflow.get_tracking_uri())
            self._replayer.apply(group, fresh=group[0].start >= self._book.opened_at)
        except (*STORE_FAILURES, UserError) as e:
            self._doubt(group)
            return e
        except Exception as e:
            if self._thread is None and group[0].kind not in HOLDABLE:
                raise
            self._doubt(group)  # an artifact store has errors of its own
            return e
        if time.monotonic() - begun > SLOW_S:
            self._doubt(group)
        return None

    def _doubt(self, group: list[Event]) -> None:
        self._doubtful |= {event.record["key"] for event in group if event.kind == "child"}

    def _remove_doubles(self) -> None:
        try:
            self._replayer.remove_doubles(self._doubtful)
            self._doubtful.clear()
        except STORE_FAILURES:
            pass  # the next attempt, or `moola sync`, does it

    def _acknowledge(self, offset: int) -> None:
        with self._changed:
            if not self._closed:
                self._sent.offset, self._sent.run_id = offset, self._replayer.run_id
                self._sent.write(self._book.folder)
            self._changed.notify_all()

    def _is_gone(self, error: Exception) -> bool:
        """Return whether the store does not have the run any more, or not now."""
        return isinstance(error, MlflowException) and bool(self._replayer.run_id) and not self._is_there()

    def _is_there(self) -> bool:
        try:
            return bool(self._replayer.run_id) and self._replayer.is_there()
        except STORE_FAILURES:
            return False

    def _fail(self, error: Exception) -> None:
        """Leave the store alone for a while; say so once."""
        first, text = not self.trouble, first_line(error)
        self.trouble, self.gone = text, getattr(error, "error_code", "") in GONE and self._is_gone(error)
        with self._changed:
            self._pause_s = FIRST_PAUSE_S if first else min(2 * self._pause_s, LONGEST_PAUSE_S)
            self._failures += 1
            self._try_at = time.monotonic() + self._pause_s
            self._changed.notify_all()
        if first and not self._strict:
            until = "has the run again" if self.gone else "answers"
            print(
                f"Warning: the tracking store does not take what is logged: {text}. The run goes on; everything is "
                f"kept in {self._book.folder} and follows when the store {until}",
                flush=True,
            )

    def _recover(self) -> None:
        if self.trouble:
            print("The tracking store takes what is logged again; what was kept follows", flush=True)
        self.trouble, self.gone = "", False


def _what(event: Event) -> str:
    """Return the word for what an event brings."""
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
