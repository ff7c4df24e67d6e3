"""What may be said about a window, and what is refused with its reason."""

from __future__ import annotations

from typing import Any

import pytest

from moola_mlflow.annotate.decisions import Decision, Given, MarkedEvent, RefusedDecision

CLASSES = ("flag", "wedge")


def body(**changes: Any) -> dict[str, Any]:
    return {"ticket": "t", "action": "label", "events": [], "grade": None, "notes": "", "seconds": 2, **changes}


def event(start: Any, end: Any, label: Any = "flag") -> dict[str, Any]:
    return {"label": label, "start": start, "end": end}


def test_events_are_put_in_order_of_time() -> None:
    given = Given.of(body(events=[event(50, 60, "wedge"), event(3, 9)]), CLASSES, 105)
    assert given.events == (MarkedEvent("flag", 3, 9), MarkedEvent("wedge", 50, 60))


@pytest.mark.parametrize(
    ("changes", "error", "allowed"),
    [
        ({"events": [event(3, 9, "pennant")]}, "unknown class", "flag, wedge"),
        ({"events": [event(9, 9)]}, "start is not before end", "start < end"),
        ({"events": [event(3, 105)]}, "end is no bar", "0 to 104"),
        ({"events": [event(-1, 9)]}, "start is no bar", "0 to 104"),
        ({"events": [event(3.0, 9)]}, "start is no bar", "a whole number"),
        ({"events": [event(True, 9)]}, "start is no bar", "a whole number"),
        ({"events": [event(3, 9), event(9, 12)]}, "share bars", "share no bar"),
        ({"events": {"label": "flag"}}, "events is no list", "a list"),
        ({"events": [event(2 * i, 2 * i + 1) for i in range(53)]}, "too long", "at most 52"),
        ({"events": ["flag"]}, "lacks a field", "{label, start, end}"),
        ({"events": [event(3, 9, ["flag"])]}, "unknown class", "flag, wedge"),
        ({"action": "maybe"}, "unknown action", "label, skip"),
        ({"action": None}, "unknown action", "label, skip"),
        ({"ticket": 3}, "ticket is missing", "ticket of the window"),
        ({"grade": "E"}, "unknown grade", "A, B, C, D"),
        ({"grade": ["A"]}, "unknown grade", "A, B, C, D"),
        ({"notes": "x" * 2001}, "notes are too long", "2,000"),
        ({"notes": "half \ud800"}, "no text", "text"),
        ({"seconds": -1}, "seconds is no time", "from 0"),
        ({"seconds": float("nan")}, "seconds is no time", "from 0"),
        ({"seconds": "3"}, "seconds is no time", "from 0"),
        ({"seconds": float("inf")}, "seconds is no time", "from 0"),
        ({"context_shown": 1}, "context_shown", "true, false"),
        ({"annotator": "eve"}, "unknown field", "ticket"),
    ],
)
def test_a_malformed_decision_is_refused_with_what_is_allowed(
    changes: dict[str, Any], error: str, allowed: str
) -> None:
    with pytest.raises(RefusedDecision) as refused:
        Given.of(body(**changes), CLASSES, 105)
    assert error in refused.value.said["error"]
    assert allowed in refused.value.said["allowed"]
    assert len(str(refused.value.said["value"])) < 250


@pytest.mark.parametrize("value", [None, [], "label", 3])
def test_what_is_no_object_is_refused(value: Any) -> None:
    with pytest.raises(RefusedDecision, match="no JSON object"):
        Given.of(value, CLASSES, 105)


def test_a_skipped_window_has_no_events_and_a_long_time_is_a_day() -> None:
    given = Given.of(body(action="skip", events=[event(3, 9)], seconds=1e9), CLASSES, 105)
    assert (given.events, given.seconds) == ((), 86_400.0)
    assert Given.of(body(seconds=10**400), CLASSES, 105).seconds == 86_400.0


def test_a_decision_is_the_same_after_it_was_json() -> None:
    made = Decision(
        "ES-1", "ES", 17, "ann", 3, "label", (MarkedEvent("flag", 3, 9),), "A", "note", 2.5, "2026-01-01T00:00:00Z",
        "human", "random", False, True, (MarkedEvent("wedge", 1, 2),),
    )  # fmt: skip
    assert Decision.from_json(made.as_json()) == made
    assert made.is_kept
    assert made.is_blind
    with pytest.raises(TypeError):
        Decision.from_json({**made.as_json(), "unknown": 1})
