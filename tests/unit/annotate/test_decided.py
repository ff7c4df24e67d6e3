"""Whose decision is a window's label: the first annotator's last one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small_sessions import opened, said, sample

from moola_mlflow.annotate.candidates import Candidates
from moola_mlflow.annotate.decided import Decided
from moola_mlflow.annotate.decisions import Decision, MarkedEvent
from moola_mlflow.annotate.labels_file import labels_of
from moola_mlflow.core import UserError
from moola_mlflow.labels import read_event_labels

FOUND = Candidates.of(sample(), 105, 105, 5, "UTC")


def decision(place: int, annotator: str = "ann", *events: MarkedEvent) -> tuple[int, Decision]:
    row = int(FOUND.starts[place])
    (name,), (instrument,), (start_ns,) = FOUND.names([row]), FOUND.instruments([row]), FOUND.times([row])[0]
    return row, Decision(
        name, str(instrument), int(start_ns), annotator, 1, "label", events, "", "", 1.0, "2026-01-01T00:00:00Z",
        "human", "random", False, False,
    )  # fmt: skip


def test_the_first_annotator_gives_the_label_and_the_last_decision_counts() -> None:
    made = Decided()
    row, first = decision(3, "ann")
    made.add(row, first)
    made.add(*decision(3, "bob", MarkedEvent("flag", 1, 5)))
    assert list(made.labels()) == [(row, first)]
    _, again = decision(3, "ann", MarkedEvent("flag", 8, 9))
    assert made.add(row, again) == first
    assert list(made.labels()) == [(row, again)]


def test_a_window_that_one_person_skips_has_the_label_of_the_next_who_does_not() -> None:
    made = Decided()
    row, one = decision(3, "ann")
    made.add(row, replace(one, action="skip"))
    _, other = decision(3, "bob", MarkedEvent("flag", 1, 5))
    made.add(row, other)
    assert list(made.labels()) == [(row, other)]
    made.add(row, one)  # she comes back to it: his label stays
    assert list(made.labels()) == [(row, other)]
    made.add(row, replace(other, action="skip"))
    assert list(made.labels()) == [(row, one)]


def test_how_a_window_was_drawn_is_known_from_its_first_decision_or_from_the_file() -> None:
    made = Decided()
    row, one = decision(3)
    assert made.drawn_of(row) == ""
    made.add(row, replace(one, drawn="uncertain"))
    assert made.drawn_of(row) == "uncertain"
    made = Decided.of(labels_of([(row, replace(one, drawn="top"))], FOUND, "a"), FOUND, [])
    assert made.drawn_of(row) == "top"


def test_a_skipped_window_has_no_label_but_is_decided() -> None:
    made = Decided()
    row, one = decision(3)
    made.add(row, replace(one, action="skip"))
    assert list(made.labels()) == []
    assert row in made


def test_a_journal_of_other_bars_is_refused_and_one_of_another_version_too() -> None:
    _, one = decision(3)
    lines = [{"kind": "decision", "decision": {**one.as_json(), "start_ns": 12345}}]
    with pytest.raises(UserError, match="no window of these bars"):
        Decided.of(None, FOUND, lines)
    with pytest.raises(UserError, match="another version"):
        Decided.of(None, FOUND, [{"kind": "decision", "decision": {"what": 1}}])


def test_a_window_that_was_skipped_after_it_had_a_label_leaves_the_file(tmp_path: Path) -> None:
    with opened(tmp_path) as session:
        second = session.desk.decide(said(session.desk.window(), ("retracement", 3, 9)))
        session.desk.decide(said(second, ("retracement", 3, 9)))
    with opened(tmp_path) as session:
        session.desk.decide(said(session.desk.undo(), action="skip"))
    assert len(read_event_labels(tmp_path / "mine.parquet")) == 1
