"""Counts of a session: a decision that replaces another takes its place."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from moola_mlflow.annotate.decisions import Decision, MarkedEvent
from moola_mlflow.annotate.tally import SessionTally

ONE = Decision(
    "w", "ES", 1, "ann", 1, "label", (MarkedEvent("flag", 3, 9),), "", "", 6.0, "2026-01-01T00:00:00Z", "human",
    "random", False, False,
)  # fmt: skip
NOTHING = replace(ONE, events=(), drawn="uncertain")
SKIPPED = replace(ONE, action="skip", events=())


def test_windows_events_and_time_are_counted() -> None:
    tally = SessionTally(("flag", "wedge"))
    for one in (ONE, NOTHING, SKIPPED, ONE):
        tally.replace(None, one)
    assert tally.as_json() == {
        "looked_at": 3, "kept": 2, "skipped": 1, "keeper_rate": 2 / 3, "by_class": {"flag": 2, "wedge": 0, "none": 1},
        "minutes": 0.4, "seconds_per_window": 6.0,
    }  # fmt: skip
    assert (tally.keeper_rate("random"), tally.keeper_rate("uncertain"), tally.keeper_rate("top")) == (1.0, 0.0, None)


def test_nothing_decided_has_no_rates() -> None:
    empty = SessionTally(()).as_json()
    assert (empty["keeper_rate"], empty["seconds_per_window"]) == (None, None)


@given(st.lists(st.sampled_from([ONE, NOTHING, SKIPPED]), min_size=1, max_size=6))
def test_only_the_last_decision_about_a_window_counts_and_all_time_does(series: list[Decision]) -> None:
    tally, last = SessionTally(("flag",)), SessionTally(("flag",))
    old = None
    for one in series:
        tally.replace(old, one)
        old = one
    last.replace(None, series[-1])
    assert {**tally.as_json(), "minutes": 0, "seconds_per_window": 0} == {
        **last.as_json(), "minutes": 0, "seconds_per_window": 0,
    }  # fmt: skip
    assert tally.seconds == 6.0 * len(series)
