"""The desk of one annotator: the window that is shown, decisions, undo. One thread at a time is let in.

A window has a ticket until it is decided. A second tab, a reload or the back button hold the same ticket or an old one,
so no decision counts twice.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from moola_mlflow.annotate.candidates import Candidates
from moola_mlflow.annotate.decided import Decided
from moola_mlflow.annotate.decisions import Decision, Given, MarkedEvent, RefusedDecision
from moola_mlflow.annotate.journal import DecisionJournal
from moola_mlflow.annotate.review import HIT
from moola_mlflow.annotate.suggestions import Suggestions
from moola_mlflow.annotate.tally import SessionTally
from moola_mlflow.annotate.window_queue import NextWindow, WindowQueue
from moola_mlflow.core import AnnotateConfig


class DecidedAlready(Exception):
    """The ticket is not that of the window that is shown: the window was decided, maybe in another tab."""


class NothingToUndo(Exception):
    """No earlier decision of this annotator is in the file."""


@dataclass
class Shown:
    """The window that is on the screen."""

    draw: NextWindow
    number: int
    ticket: str
    suggestion: list[dict[str, Any]] | None
    review: dict[str, Any] | None = None
    decided: Decision | None = None
    context_shown: bool = False


class Desk:
    """What the page asks and tells: the current window, decisions, undo, progress."""

    def __init__(
        self,
        config: AnnotateConfig,
        candidates: Candidates,
        classes: tuple[str, ...],
        journal: DecisionJournal,
        decided: Decided,
        queue: WindowQueue,
        suggestions: Suggestions,
    ) -> None:
        self.config, self.candidates, self.classes = config, candidates, classes
        self.journal, self.decided, self.queue, self.suggestions = journal, decided, queue, suggestions
        self.on_decision: Callable[[], None] = lambda: None
        self.refit_state: Callable[[], dict[str, Any]] = lambda: {"running": False, "at": None, "failed": None}
        self.agreement: Callable[[], dict[str, Any] | None] = lambda: None
        self.review: dict[int, dict[str, Any]] = {}
        """What a review says about each window, by its first row."""
        self.curve: list[list[float]] = []
        self.lock = threading.RLock()
        self.mine = decided.of_annotator(config.annotator)
        self.tally = SessionTally(classes)
        for decision in self.mine.values():
            self.tally.replace(None, decision)
        self.num_decisions = sum(line.get("kind") == "decision" for line in journal.lines)
        self._undone: list[int] = []
        self._shown: Shown | None = None
        self._pending: Shown | None = None
        """The window that was on the screen before an undo."""

    def session(self) -> dict[str, Any]:
        """Return what does not change: who labels what, and how."""
        bars, config = self.candidates.bars, self.config
        names = sorted(set(bars.symbols.values()))
        return {
            "annotator": config.annotator,
            "bars": ", ".join(str(file.path) for file in bars.files[:3]) or "bars",
            "instrument": ", ".join(names[:4]) + (" ..." if len(names) > 4 else ""),
            "zone": config.zone,
            "length": self.candidates.length,
            "classes": list(self.classes),
            "suggestions": config.suggestions,
            "review": config.review,
            "order": config.order,
            "max_context": config.context_bars,
        }

    def window(self) -> dict[str, Any]:
        """Return the current window, the same one until it is decided."""
        with self.lock:
            shown = self._current()
            return {"done": True, "progress": self.progress()} if shown is None else self._as_json(shown)

    def decide(self, body: Any) -> dict[str, Any]:
        """Record a decision and return the next window.

        Raises: RefusedDecision for a malformed one; DecidedAlready for an old ticket; OSError if it cannot be kept.
        """
        given = Given.of(body, self.classes, self.candidates.length)
        with self.lock:
            shown = self._current()
            if shown is None or given.ticket != shown.ticket:
                raise DecidedAlready
            decision = self._decision(shown, given)
            self.journal.append("decision", {"decision": decision.as_json()})
            self.num_decisions += 1
            old = self.decided.add(shown.draw.row, decision)
            self.tally.replace(old, decision)
            self._undone.clear()
            self._shown, self._pending = self._pending, None
            if self._shown is not None:
                self._shown = replace(self._shown, ticket=self._ticket(self._shown.draw.row))
        self.on_decision()
        return self.window()

    def undo(self) -> dict[str, Any]:
        """Return the window of the last decision, to decide it again. Asked again, it goes one further back.

        Raises: NothingToUndo.
        """
        with self.lock:
            rows = [row for row in self.mine if row not in self._undone]
            if not rows:
                raise NothingToUndo
            row, decision = rows[-1], self.mine[rows[-1]]
            if self._pending is None:
                self._pending = self._current()
            self._undone.append(row)
            draw = NextWindow(row, decision.drawn, not decision.suggested)
            suggestion = self.suggestions.of(row) if decision.suggested else None
            self._shown = Shown(
                draw, decision.number, self._ticket(row), suggestion, self.review.get(row), decision,
                decision.context_shown,
            )  # fmt: skip
            return self._as_json(self._shown)

    def context(self, ticket: str, before: int, after: int) -> dict[str, Any]:
        """Return bars around the current window, and note that they were shown. Raises: DecidedAlready."""
        with self.lock:
            shown = self._current()
            if shown is None or ticket != shown.ticket:
                raise DecidedAlready
            shown.context_shown = True
            most = self.config.context_bars
            return self.candidates.context(shown.draw.row, min(before, most), min(after, most))

    def progress(self) -> dict[str, Any]:
        with self.lock:
            return {
                **self.tally.as_json(),
                "map": list(self.curve),
                "refit": self.refit_state(),
                "agreement": self.agreement(),
            }

    def _current(self) -> Shown | None:
        if self._shown is None:
            seen = self.decided.reviewed if self.config.review else self.mine
            draw = self.queue.draw(len(seen), seen, self.decided)
            if draw is None:
                return None
            suggestion = None  # of a review, what was predicted is a part of it
            if self.config.suggestions and not draw.blind and not self.config.review:
                suggestion = self.suggestions.of(draw.row)
            review = self.review.get(draw.row)
            self._shown = Shown(draw, len(seen) + 1, self._ticket(draw.row), suggestion, review)
        return self._shown

    def _ticket(self, row: int) -> str:
        """Return the ticket of a window: the same after a restart, another one after a decision."""
        (name,) = self.candidates.names([row])
        text = f"{self.config.annotator}\n{name}\n{self.num_decisions}"
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def _as_json(self, shown: Shown) -> dict[str, Any]:
        row, decided = shown.draw.row, shown.decided
        return {
            "ticket": shown.ticket,
            "window_id": self.candidates.names([row])[0],
            "number": shown.number,
            "instrument": str(self.candidates.instruments([row])[0]),
            "bars": self.candidates.shown(row),
            "suggestion": shown.suggestion,
            "blind": shown.draw.blind,
            "decided": None if decided is None else {
                "events": [_event_json(event) for event in decided.events],
                "grade": decided.grade or None,
                "notes": decided.notes,
            },
            "review": shown.review,
            "progress": self.progress(),
        }  # fmt: skip

    def _decision(self, shown: Shown, given: Given) -> Decision:
        row, events, action = shown.draw.row, given.events, given.action
        if action in ("accept", "reject") and shown.review is None and shown.suggestion is None:
            raise RefusedDecision("nothing is suggested that could be accepted or rejected", action, "label, skip")
        before = self.decided.events_before(row)
        if action in ("accept", "reject"):
            events, action = self._judged(shown, given), "label"
        if action == "skip" and shown.review is not None and shown.review["kind"] != HIT:
            action = "pass"
            if shown.decided is not None and before is not None:  # it was changed: give it back
                events, action = before, "label"
        (name,), (instrument,) = self.candidates.names([row]), self.candidates.instruments([row])
        start_ns, _ = self.candidates.times([row])
        return Decision(
            window_id=name,
            instrument=str(instrument),
            start_ns=int(start_ns[0]),
            annotator=self.config.annotator,
            number=shown.number,
            action=action,
            events=events if action == "label" else (),
            grade=given.grade,
            notes=given.notes,
            seconds=given.seconds,
            labelled_at=dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            source="corrected" if shown.review is not None else "human",
            drawn=self.decided.drawn_of(row) or shown.draw.drawn,
            suggested=_saw_events(shown),
            context_shown=given.context_shown or shown.context_shown,
            given=before,
        )

    def _judged(self, shown: Shown, given: Given) -> tuple[MarkedEvent, ...]:
        """Return the events of a window whose suggestion or review was accepted or rejected.

        Events that the page sends with it are taken as they are. Without any, accepting means what was predicted, and
        for a label what was given; rejecting means the rest: the label without the events in question.
        """
        if given.events:
            return given.events
        review, length = shown.review, self.candidates.length
        if review is None:
            said = shown.suggestion or []
            return _events_of(said, length) if given.action == "accept" else ()
        if review["kind"] == "label":
            return _events_of(review["given"] if given.action == "accept" else review["predicted"], length)
        if review["kind"] == "miss":
            return _events_of(review["given"], length) if given.action == "accept" else ()
        return _events_of(review["predicted"] if given.action == "accept" else review["given"], length)


def _saw_events(shown: Shown) -> bool:
    """Return whether events of a detector were shown with a window, now or when it was decided before an undo."""
    before = shown.decided is not None and shown.decided.suggested
    return before or shown.suggestion is not None or bool(shown.review and shown.review["predicted"])


def _event_json(event: MarkedEvent) -> dict[str, Any]:
    return {"label": event.label, "start": event.start, "end": event.end}


def _events_of(values: list[dict[str, Any]], length: int) -> tuple[MarkedEvent, ...]:
    """Return suggested events as they can be recorded: in order, without those that share bars with a better one."""
    kept: list[MarkedEvent] = []
    for value in sorted(values, key=lambda value: -value.get("score", 1)):
        event = MarkedEvent(value["label"], max(0, int(value["start"])), min(length - 1, int(value["end"])))
        if event.start < event.end and all(event.end < other.start or other.end < event.start for other in kept):
            kept.append(event)
    return tuple(sorted(kept, key=lambda event: event.start))
