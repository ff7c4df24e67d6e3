"""The addresses of the page, asked in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_sessions import Client, opened, said

from moola_mlflow.annotate.app import build_app
from moola_mlflow.annotate.server import PageServer


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with opened(tmp_path) as session:
        server = PageServer("127.0.0.1", 0)
        server.start(build_app(session.desk, session.reached))
        yield Client(server.link)
        server.stop()


def test_a_window_is_decided_and_the_next_one_answered(client: Client) -> None:
    first = client.window()
    answer = client.decide(first, ("retracement", 30, 40))
    assert (answer.status, answer.body["number"]) == (200, 2)
    assert client.window() == answer.body
    assert client.ask("/api/progress").body == answer.body["progress"]
    assert set(first) == {
        "ticket", "window_id", "number", "instrument", "bars", "suggestion", "blind", "decided", "review", "progress",
    }  # fmt: skip


def test_a_second_decision_about_a_window_is_answered_with_the_current_one(client: Client) -> None:
    first = client.window()
    second = client.decide(first).body
    again = client.decide(first, ("retracement", 30, 40))
    assert again.status == 409
    assert again.body["window"] == second


def test_what_is_malformed_is_refused_with_what_is_allowed(client: Client) -> None:
    window = client.window()
    answer = client.decide(window, ("pennant", 30, 40))
    assert (answer.status, answer.body["allowed"]) == (422, "consolidation, retracement")
    assert (answer.body["error"], answer.body["value"]) == ("unknown class", "pennant")
    for raw in (b"", b"{", b"[" * 50_000, b"\xff", json.dumps([said(window)]).encode()):
        assert client.ask("/api/decision", raw=raw).status == 422
    for query in ("before=-1", "before=x", "after=1e3", "before=1234567"):
        assert client.ask(f"/api/context?ticket={window['ticket']}&{query}").status == 422
    assert client.window()["progress"]["looked_at"] == 0


def test_context_and_undo_answer_for_the_current_window_alone(client: Client) -> None:
    window = client.window()
    assert client.ask("/api/undo", {}).status == 409
    around = client.ask(f"/api/context?ticket={window['ticket']}&before=3&after=2")
    assert [len(around.body[side]["close"]) for side in ("before", "after")] == [3, 2]
    assert client.ask("/api/context?ticket=old&before=3&after=2").status == 409
    client.decide(window)
    assert client.ask("/api/undo", {}).body["window_id"] == window["window_id"]


def test_only_files_of_the_page_and_the_charting_library_are_handed_out(client: Client) -> None:
    library = client.ask("/page/plotly.min.js")
    assert library.status == 200
    assert library.headers["content-type"].startswith("text/javascript")
    assert len(library.body) > 1_000_000
    for name in ("..%2fapp.py", "app.py", "%2e%2e/app.py", "none.js", ".hidden.js", "a.js%00", "/etc/passwd"):
        assert client.ask(f"/page/{name}").status in (400, 404), name
    assert client.ask("/docs").status == 404
    assert client.ask("/openapi.json").status == 404
    assert client.ask("/").status == 200


def test_finish_answers_what_was_reached(client: Client) -> None:
    client.decide(client.window(), ("retracement", 30, 40))
    body = client.ask("/api/finish", {}).body
    assert (body["looked_at"], body["kept"]) == (1, 1)
    assert body["labels"].endswith("mine.parquet")
