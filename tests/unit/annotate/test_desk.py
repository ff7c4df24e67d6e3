"""The desk: a window stays until it is decided, no decision counts twice, undo goes back and loses nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_sessions import opened, said

from moola_mlflow.annotate.decisions import RefusedDecision
from moola_mlflow.annotate.desk import DecidedAlready, NothingToUndo
from moola_mlflow.annotate.journal import journal_path, read_journal
from moola_mlflow.annotate.suggestions import Suggestions
from moola_mlflow.labels import read_event_labels


def decisions(folder: Path) -> list[dict[str, Any]]:
    return [line["decision"] for line in read_journal(journal_path(folder / "mine.parquet")) if "decision" in line]


def test_a_window_stays_until_it_is_decided(tmp_path: Path) -> None:
    with opened(tmp_path) as session:
        first = session.desk.window()
        assert session.desk.window() == first
        second = session.desk.decide(said(first))
        assert second["window_id"] != first["window_id"]
        assert (first["number"], second["number"]) == (1, 2)
        assert second["progress"]["looked_at"] == 1


def test_an_old_ticket_decides_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as session:
        first = session.desk.window()
        session.desk.decide(said(first))
        for body in (said(first), said(first, ("retracement", 3, 9)), said({"ticket": "made up"})):
            with pytest.raises(DecidedAlready):
                session.desk.decide(body)
    assert len(decisions(tmp_path)) == 1


def test_a_refused_decision_leaves_the_window(tmp_path: Path) -> None:
    with opened(tmp_path) as session:
        first = session.desk.window()
        for body in (said(first, ("retracement", 9, 3)), said(first, action="accept"), said(first, action="reject")):
            with pytest.raises(RefusedDecision):
                session.desk.decide(body)
        assert session.desk.window() == first
    assert decisions(tmp_path) == []


def test_undo_shows_the_last_window_again_and_the_new_decision_replaces_the_old_one(tmp_path: Path) -> None:
    with opened(tmp_path) as session:
        first = session.desk.window()
        second = session.desk.decide(said(first, ("retracement", 3, 9), grade="C", notes="hm"))
        back = session.desk.undo()
        assert (back["window_id"], back["number"]) == (first["window_id"], 1)
        assert back["decided"] == {
            "events": [{"label": "retracement", "start": 3, "end": 9}], "grade": "C", "notes": "hm",
        }  # fmt: skip
        assert session.desk.window() == back
        after = session.desk.decide(said(back))
        assert after["window_id"] == second["window_id"]
        assert after["progress"]["by_class"] == {"consolidation": 0, "retracement": 0, "none": 1}
        assert after["progress"]["looked_at"] == 1
        with pytest.raises(DecidedAlready):
            session.desk.decide(said(second))  # its ticket is from before the undo
    assert [one["window_id"] for one in decisions(tmp_path)] == [first["window_id"]] * 2


def test_undo_again_goes_one_further_back_and_ends_at_the_first(tmp_path: Path) -> None:
    with opened(tmp_path) as session:
        windows = [session.desk.window()]
        for _ in range(3):
            windows.append(session.desk.decide(said(windows[-1])))
        for window in (windows[2], windows[1], windows[0]):
            assert session.desk.undo()["window_id"] == window["window_id"]
        with pytest.raises(NothingToUndo):
            session.desk.undo()
        after = session.desk.decide(said(session.desk.window(), ("retracement", 3, 9)))
        assert after["window_id"] == windows[3]["window_id"]
        assert after["progress"]["kept"] == 1


def test_undo_reaches_windows_of_the_session_before(tmp_path: Path) -> None:
    with opened(tmp_path) as session:
        first = session.desk.window()
        session.desk.decide(said(first))
    with opened(tmp_path) as session:
        assert session.desk.undo()["window_id"] == first["window_id"]


def test_a_restart_shows_the_same_window_with_the_same_ticket(tmp_path: Path) -> None:
    with opened(tmp_path) as session:
        second = session.desk.decide(said(session.desk.window(), ("consolidation", 3, 9)))
    with opened(tmp_path) as session:
        again = session.desk.window()
        assert (again["ticket"], again["window_id"]) == (second["ticket"], second["window_id"])
        assert again["progress"]["looked_at"] == 1
        assert session.desk.classes == ("consolidation", "retracement")


def test_context_is_cut_at_its_limit_and_recorded(tmp_path: Path) -> None:
    with opened(tmp_path, context_bars=10) as session:
        window = session.desk.window()
        around = session.desk.context(window["ticket"], 500, 4)
        assert (len(around["before"]["time"]), len(around["after"]["time"])) == (10, 4)
        with pytest.raises(DecidedAlready):
            session.desk.context("old", 5, 5)
        session.desk.decide(said(window))
    assert decisions(tmp_path)[0]["context_shown"]


def test_blind_windows_show_no_suggestion_and_others_record_that_they_did(tmp_path: Path) -> None:
    with opened(tmp_path, first_random=0, blind_share=0.5, overlap=0) as session:
        event = {"label": "retracement", "start": 20, "end": 31, "score": 0.7}
        session.desk.suggestions = Suggestions({int(row): [event] for row in session.candidates.starts})
        session.desk.queue.reorder(session.candidates.starts.tolist())
        window, seen = session.desk.window(), []
        for _ in range(10):
            seen.append((window["blind"], window["suggestion"]))
            action = "label" if window["blind"] else "accept"
            window = session.desk.decide(said(window, action=action))
    assert [blind for blind, _ in seen].count(True) == 5
    assert all(suggestion == (None if blind else [event]) for blind, suggestion in seen)
    made = decisions(tmp_path)
    assert [one["suggested"] for one in made] == [not blind for blind, _ in seen]
    accepted = [{"label": "retracement", "start": 20, "end": 31}]
    assert [one["events"] for one in made] == [[] if blind else accepted for blind, _ in seen]
    assert {one["drawn"] for one in made if one["suggested"]} == {"uncertain"}


def test_a_window_that_was_shown_with_a_suggestion_never_becomes_blind_by_an_undo_after_a_refit(tmp_path: Path) -> None:
    with opened(tmp_path, first_random=0, blind_share=0, ordered_share=0, overlap=0) as session:
        session.desk.suggestions = Suggestions({int(row): [] for row in session.candidates.starts})
        window = session.desk.window()
        assert window["suggestion"] == []
        session.desk.decide(said(window))
        session.desk.suggestions = Suggestions()  # a refit reads windows that nobody has decided
        session.desk.decide(said(session.desk.undo(), ("retracement", 3, 9)))
    made = decisions(tmp_path)
    assert [(one["drawn"], one["suggested"]) for one in made] == [("random", True)] * 2


def test_a_window_of_a_query_that_the_random_order_has_passed_is_a_random_one_in_the_file(tmp_path: Path) -> None:
    with opened(tmp_path, first_random=0, blind_share=0, overlap=0) as session:
        passed, later = session.desk.queue.own[1], session.desk.queue.own[60]
        session.desk.queue.reorder([passed, later])
        for _ in range(5):
            session.desk.decide(said(session.desk.window()))
        last = session.desk.queue.own[2]
        assert {passed, later, last} <= set(session.desk.mine)
        names = dict(zip((passed, later, last), session.candidates.names([passed, later, last]), strict=True))
    labels = read_event_labels(tmp_path / "mine.parquet")
    assert labels.drawn is not None
    drawn = dict(zip(labels.window_id.tolist(), labels.drawn.tolist(), strict=True))
    assert [drawn[names[row]] for row in (passed, later, last)] == ["random", "uncertain", "random"]
    assert [one["drawn"] for one in decisions(tmp_path)].count("uncertain") == 2


def test_suggestions_can_be_turned_off(tmp_path: Path) -> None:
    with opened(tmp_path, first_random=0, blind_share=0, overlap=0, suggestions=False) as session:
        session.desk.suggestions = Suggestions({int(row): [] for row in session.candidates.starts})
        assert session.desk.window()["suggestion"] is None


def test_at_the_end_there_is_no_window(tmp_path: Path) -> None:
    with opened(tmp_path) as session:
        window = session.desk.window()
        while "ticket" in window:
            window = session.desk.decide(said(window))
        assert window["done"] is True
        assert window["progress"]["looked_at"] == len(session.candidates)
        assert session.desk.undo()["number"] == len(session.candidates)
