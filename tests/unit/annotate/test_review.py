"""Review: labels that are there are gone through once; accept, correct, reject and skip change what they should."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_sessions import opened, said, sample

from moola_mlflow.annotate.review import hit_review
from moola_mlflow.core import UserError
from moola_mlflow.labels import EventLabels, RuleWindows, find_rule, read_event_labels, write_labels
from moola_mlflow.windows import make_windows


def by_rule(num: int = 40) -> EventLabels:
    """Windows of the sample bars as a rule labels them: somebody's hand-made labels, in these tests."""
    windows, rule = make_windows(sample(), 105, 105).select(np.arange(num)), find_rule("surge-1")
    ohlc = windows.gather(np.arange(num))
    marked = rule.apply(RuleWindows(ohlc))
    kept = np.flatnonzero(marked.labelled)
    bars = windows.bars
    names = np.array([bars.symbols[int(key)] for key in bars.instrument[windows.starts]])
    columns = (kept, marked.outcome[kept], marked.start[kept], marked.end[kept])
    ids = np.array([f"hand-{i}" for i in range(num)])
    return EventLabels(ids, ohlc, rule.classes, *columns, windows.start_ns, windows.end_ns, names)


def events_at(labels: EventLabels, close: list[float]) -> list[tuple[str, int, int]]:
    """The events of the window with these closes."""
    (i,) = [k for k in range(len(labels)) if labels.ohlc[k, :, 3].tolist() == close]
    at = np.flatnonzero(labels.window == i)
    return [(labels.classes[labels.label[k]], int(labels.start[k]), int(labels.end[k])) for k in at]


def triples(events: list[dict[str, Any]]) -> list[tuple[str, int, int]]:
    return [(event["label"], event["start"], event["end"]) for event in events]


def test_a_review_goes_through_every_label_once_and_changes_what_was_said(tmp_path: Path) -> None:
    mine, before = tmp_path / "mine.parquet", by_rule()
    write_labels(before, mine)
    wanted: dict[str, tuple[list[float], list[tuple[str, int, int]]]] = {}
    with opened(tmp_path, review=True, annotator="bob") as session:
        window, seen = session.desk.window(), []
        assert (window["suggestion"], window["number"]) == (None, 1)
        while "ticket" in window:
            review, close = window["review"], window["bars"]["close"]
            given = triples(review["given"])
            assert given == events_at(before, close)
            step = len(seen)
            seen.append(window["window_id"])
            if step == 0:  # correct
                wanted["corrected"] = (close, [("retracement", 30, 36)])
                window = session.desk.decide(said(window, ("retracement", 30, 36)))
            elif step == 1:  # skip: it stays
                wanted["skipped"] = (close, given)
                window = session.desk.decide(said(window, action="skip"))
            elif step == 2:  # correct it, go back, and skip: it stays too
                window = session.desk.decide(said(window, ("retracement", 30, 36)))
                window = session.desk.undo()
                wanted["given back"] = (close, given)
                window = session.desk.decide(said(window, action="skip"))
            else:
                window = session.desk.decide(said(window, action="skip"))
    assert len(set(seen)) == len(seen) == len(before)
    after = read_event_labels(mine)
    assert len(after) == len(before)
    for close, events in wanted.values():
        assert events_at(after, close) == events
    assert after.extra is not None
    assert set(after.extra["source"].to_pylist()) == {None, "corrected"}
    with opened(tmp_path, review=True, annotator="bob") as session:
        assert session.desk.window()["done"]


def test_accept_and_reject_follow_the_kind_of_the_review(tmp_path: Path) -> None:
    write_labels(by_rule(), tmp_path / "mine.parquet")
    found = {"label": "retracement", "start": 70, "end": 77, "score": 0.8}
    with opened(tmp_path, review=True) as session:
        for kind, action, wanted in (
            ("label", "accept", "given"), ("label", "reject", "predicted"), ("miss", "accept", "given"),
            ("miss", "reject", "nothing"), ("false hit", "accept", "predicted"), ("false hit", "reject", "given"),
        ):  # fmt: skip
            window = session.desk.window()
            review = session.desk._current().review  # type: ignore[union-attr]
            assert review is not None
            review |= {"kind": kind, "predicted": [found]}
            session.desk.decide(said(window, action=action))
            (decision,) = list(session.desk.mine.values())[-1:]
            events = [(event.label, event.start, event.end) for event in decision.events]
            assert events == {"given": triples(review["given"]), "predicted": triples([found]), "nothing": []}[wanted]
            assert decision.source == "corrected"


def test_a_review_keeps_how_a_window_was_drawn_and_says_that_predictions_were_seen(tmp_path: Path) -> None:
    before = by_rule()
    before = replace(before, drawn=np.array(["uncertain", "random"] * (len(before) // 2)))
    write_labels(before, tmp_path / "mine.parquet")
    with opened(tmp_path, review=True) as session:
        for _ in range(4):
            window = session.desk.window()
            session.desk._current().review |= {"predicted": [{"label": "retracement", "start": 70, "end": 77}]}  # type: ignore[union-attr, operator]
            session.desk.decide(said(window, ("retracement", 30, 36)))
    after = read_event_labels(tmp_path / "mine.parquet")
    assert after.drawn is not None
    assert (after.drawn == "listed").sum() == 0
    assert after.scored_windows().sum() == before.scored_windows().sum()
    assert after.extra is not None
    assert after.extra["suggested"].to_pylist().count(True) == 4


def test_there_must_be_something_to_review(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs labels in the file"), opened(tmp_path, review=True):
        pass
    write_labels(by_rule(3), tmp_path / "mine.parquet")
    with pytest.raises(UserError, match=r"folds|no window"), opened(tmp_path, review=True):
        pass
    with opened(tmp_path):  # the lock was let go
        pass


def test_a_hit_says_what_was_found() -> None:
    event = {"label": "flag", "start": 3, "end": 9, "score": 0.876}
    assert hit_review([event]) == {
        "kind": "hit", "given": [], "predicted": [event], "text": "The detector found 1 here (score 0.88).",
    }  # fmt: skip
    assert hit_review([{**event, "score": None}])["text"] == "The detector found 1 here."
