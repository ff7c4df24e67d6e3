"""A decision about a window: what a person may say, how it is checked, and how it is kept as a line of JSON."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

GRADES = ("A", "B", "C", "D")
ACTIONS = ("label", "skip", "accept", "reject")
MAX_NOTES = 2000
MAX_SECONDS = 86_400.0
FIELDS = ("ticket", "action", "events", "grade", "notes", "seconds", "context_shown")


class RefusedDecision(ValueError):
    """A decision that cannot be recorded: what is wrong, its value, and what is allowed."""

    def __init__(self, error: str, value: Any, allowed: str) -> None:
        super().__init__(f"{error}: {value!r}; allowed: {allowed}")
        self.said = {"error": error, "value": _short(value), "allowed": allowed}


@dataclass(frozen=True)
class MarkedEvent:
    """An event of a window: class, first and last bar, both inclusive and counted from 0."""

    label: str
    start: int
    end: int


@dataclass(frozen=True)
class Given:
    """What a person said about a window, as it came from the page. It is checked."""

    ticket: str
    action: str
    events: tuple[MarkedEvent, ...]
    grade: str
    notes: str
    seconds: float
    context_shown: bool

    @classmethod
    def of(cls, body: Any, classes: Sequence[str], length: int) -> Given:
        """Check what the page sent. Raises: RefusedDecision."""
        if not isinstance(body, Mapping):
            raise RefusedDecision("the body is no JSON object", type(body).__name__, "an object")
        if unknown := sorted(set(map(str, body)) - set(FIELDS)):
            raise RefusedDecision("unknown field", unknown[0], ", ".join(FIELDS))
        ticket, action = body.get("ticket"), body.get("action")
        if not isinstance(ticket, str) or not ticket:
            raise RefusedDecision("ticket is missing", ticket, "the ticket of the window that is shown")
        if action not in ACTIONS:
            raise RefusedDecision("unknown action", action, ", ".join(ACTIONS))
        grade, notes = body.get("grade"), body.get("notes", "")
        if grade is not None and grade not in GRADES:
            raise RefusedDecision("unknown grade", grade, f"{', '.join(GRADES)}, or null")
        if not isinstance(notes, str) or len(notes) > MAX_NOTES or not _is_text(notes):
            raise RefusedDecision("notes are too long or no text", notes, f"text of at most {MAX_NOTES:,} characters")
        events = check_events(body.get("events", []), classes, length) if action in ("label", "accept") else ()
        shown = body.get("context_shown", False)
        if not isinstance(shown, bool):
            raise RefusedDecision("context_shown is no flag", shown, "true, false")
        return cls(ticket, action, events, grade or "", notes, _seconds(body.get("seconds", 0)), shown)


@dataclass(frozen=True)
class Decision:
    """A recorded decision: the window, what was said, by whom and when, and how the window had been chosen."""

    window_id: str
    instrument: str
    start_ns: int
    annotator: str
    number: int
    """Count of this annotator's windows, from 1."""
    action: str
    """label; skip: the window has no label; pass: a label was reviewed and stays as it is."""
    events: tuple[MarkedEvent, ...]
    grade: str
    notes: str
    seconds: float
    labelled_at: str
    source: str
    """human, or corrected if the decision is about a label or an event that was there."""
    drawn: str
    suggested: bool
    """Whether events of the detector were shown."""
    context_shown: bool
    given: tuple[MarkedEvent, ...] | None = None
    """Events of the label that was reviewed, None if there was none."""

    @property
    def is_kept(self) -> bool:
        """Whether the window holds an event."""
        return self.action == "label" and bool(self.events)

    @property
    def is_blind(self) -> bool:
        """Whether the window was drawn at random and shown without suggestions: scores are computed on these."""
        return self.drawn == "random" and not self.suggested

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Decision:
        """Raises: TypeError, KeyError or ValueError if a field is missing or unknown."""
        read = dict(values)
        read["events"] = tuple(MarkedEvent(**event) for event in read["events"])
        read["given"] = None if read.get("given") is None else tuple(MarkedEvent(**event) for event in read["given"])
        return cls(**read)


def check_events(values: Any, classes: Sequence[str], length: int) -> tuple[MarkedEvent, ...]:
    """Return the events in order of time. Raises: RefusedDecision if one is malformed, or if two share bars."""
    if not isinstance(values, list) or len(values) > length // 2:
        raise RefusedDecision("events is no list, or too long", values, f"a list of at most {length // 2} events")
    events = []
    for value in values:
        if not isinstance(value, Mapping) or not {"label", "start", "end"} <= set(value):
            raise RefusedDecision("an event lacks a field", value, "{label, start, end}")
        label, start, end = value["label"], value["start"], value["end"]
        if label not in classes:
            raise RefusedDecision("unknown class", label, ", ".join(classes))
        for name, bar in (("start", start), ("end", end)):
            if type(bar) is not int or not 0 <= bar < length:
                raise RefusedDecision(f"{name} is no bar of the window", bar, f"a whole number, 0 to {length - 1}")
        if start >= end:
            raise RefusedDecision("start is not before end", [start, end], "start < end, both inclusive")
        events.append(MarkedEvent(label, start, end))
    events.sort(key=lambda event: event.start)
    for a, b in itertools.pairwise(events):
        if b.start <= a.end:
            shared = [[a.start, a.end], [b.start, b.end]]
            raise RefusedDecision("two events share bars", shared, "events of one window that share no bar")
    return tuple(events)


def _is_text(value: str) -> bool:
    """Return whether a text can be written as UTF-8: JSON may hold halves of characters."""
    return not any(0xD800 <= ord(letter) <= 0xDFFF for letter in value)


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise RefusedDecision("seconds is no time", value, "a number from 0 on")
    return float(min(value, MAX_SECONDS))  # in this order: a whole number may be too large for a float


def _short(value: Any) -> Any:
    """Return a value as it may be quoted: JSON, and not long."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, list) and len(value) <= 4 and len(repr(value)) <= 200:
        return [_short(one) for one in value]
    text = value if isinstance(value, str) and _is_text(value) else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
