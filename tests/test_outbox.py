"""Journal and outbox without a server: what is kept on disk, and what is made of errors."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException

from moola_mlflow import journal, outbox, store
from moola_mlflow.journal import Event, Journal, Sent
from moola_mlflow.replay import MAX_BATCH, MAX_METRICS, Replayer, groups


def test_what_a_crash_cut_short_is_passed_over_and_what_follows_is_whole(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    first.append({"kind": "metrics", "step": 0, "metrics": {"a": 1.0}})
    first.close()
    with open(tmp_path / "journal.jsonl", "ab") as f:
        f.write(b'{"kind": "metrics", "st')
    assert [event.record["step"] for event in journal.read(tmp_path)] == [0]
    second = Journal(tmp_path)
    end = second.append({"kind": "metrics", "step": 2, "metrics": {"a": 3.0}})
    second.close()
    events = list(journal.read(tmp_path))
    assert [event.record["step"] for event in events] == [0, 2]
    assert events[-1].end == end == (tmp_path / "journal.jsonl").stat().st_size
    assert [event.record["step"] for event in journal.read(tmp_path, events[0].end)] == [2]
    assert journal.steps(tmp_path, "a") == {0, 2}
    assert journal.steps(tmp_path, "b") == set()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"offset": 3}', '{"offset": null, "uri": 1}'])
def test_a_damaged_acknowledgement_is_none_and_a_written_one_comes_back(tmp_path: Path, content: str) -> None:
    (tmp_path / journal.SENT).write_text(content)
    assert Sent.read(tmp_path) is None
    Sent(12, "abc", "http://here").write(tmp_path)
    assert Sent.read(tmp_path) == Sent(12, "abc", "http://here")


def test_what_becomes_of_a_staged_file_later_does_not_change_what_is_sent(tmp_path: Path) -> None:
    source = tmp_path / "model"
    (source / "deep").mkdir(parents=True)
    (source / "card.json").write_text("1")
    (source / "deep" / "a.pt").write_bytes(b"weights")
    key = journal.stage(tmp_path, source, "encoder")
    (source / "card.json").write_text("2")
    staged = journal.outbox(tmp_path, key)
    assert (staged / "encoder" / "card.json").read_text() == "1"
    assert (staged / "encoder" / "deep" / "a.pt").samefile(source / "deep" / "a.pt")  # no second copy of a checkpoint


KINDS = st.sampled_from(["metrics", "params", "tags", "inputs", "artifacts"])


@given(st.lists(st.tuples(KINDS, st.integers(1, 120)), max_size=40))
def test_neighbours_go_together_in_their_order_within_what_a_request_may_hold(kinds: list[tuple[str, int]]) -> None:
    events = [
        Event({"kind": kind, kind: dict.fromkeys(map(str, range(num)), 1.0)}, i, i + 1)
        for i, (kind, num) in enumerate(kinds)
    ]
    made = list(groups(events))
    assert [event for group in made for event in group] == events
    for group in made:
        assert len(group) == 1 or all(event.kind in ("metrics", "params", "tags") for event in group)
        for kind, most in (("params", MAX_BATCH), ("tags", MAX_BATCH), ("metrics", MAX_METRICS)):
            sizes = [len(event.record[kind]) for event in group if event.kind == kind]
            assert sum(sizes) <= most or len(sizes) == 1  # which is cut when it is sent


def caused(text: str, cause: Exception) -> MlflowException:
    error = MlflowException(text)
    error.__context__ = cause
    return error


CALL = "API request to http://me:pw@host:5000/api/2.0/mlflow/runs/create failed with"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (caused(f"{CALL} exception x", requests.exceptions.ConnectionError()), True),
        (caused(f"{CALL} timeout exception x", requests.exceptions.ReadTimeout()), True),
        (caused(f"{CALL} exception too many 503", requests.exceptions.RetryError()), True),
        (caused(f"{CALL} exception certificate verify failed", requests.exceptions.SSLError()), False),
        (caused(f"{CALL} exception No host", requests.exceptions.InvalidURL()), False),
        (MlflowException("API request to endpoint /x failed with error code 502 != 200. Response body: ''"), True),
        (MlflowException("API request to endpoint /x failed with error code 404 != 200. Response body: ''"), False),
        (MlflowException("API request to endpoint /x failed with error code 401 != 200. Response body: ''"), False),
        (MlflowException("Cannot start run with ID 1 because it is in the deleted state."), False),
        (ConnectionResetError(), True),
        (PermissionError(), False),
    ],
)
def test_only_a_store_that_cannot_be_reached_or_cannot_answer_now_is_an_outage(
    error: Exception, expected: bool
) -> None:
    assert store.is_outage(error) is expected


def test_no_password_is_in_what_is_said_of_an_error() -> None:
    text = f"{CALL} exception HTTPConnectionPool(host='host'): (Caused by X('y: [Errno 111] Connection refused'))"
    assert store.first_line(MlflowException(text)) == "http://host:5000 does not answer: [Errno 111] Connection refused"
    assert store.shown("postgresql+psycopg://moola:pa%40ss@db/x and s3://bucket/a@b") == (
        "postgresql+psycopg://db/x and s3://bucket/a@b"
    )


def test_a_failing_store_is_left_alone_for_growing_pauses_and_then_gets_everything(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = workdir / "run"
    folder.mkdir()
    client = mlflow.MlflowClient(f"sqlite:///{workdir}/mlflow.db")
    run = client.create_run("0")
    broken, book, sent = True, Journal(folder), Sent(0, run.info.run_id, "here")

    class Flaky(Replayer):
        calls = 0

        def apply(self, events: list[Event], fresh: bool) -> None:
            Flaky.calls += 1
            if broken:
                raise MlflowException("database is locked")
            super().apply(events, fresh)

    box = outbox.Outbox(book, Flaky(client, folder, run.info.run_id), sent)
    pauses = []
    for step in range(4):
        book.append({"kind": "metrics", "step": step, "metrics": {"a": 1.0}})
        box._try_at = 0.0  # the pause is over
        box.push()
        pauses.append(box._pause_s)
    assert pauses == [1.0, 2.0, 4.0, 8.0]
    calls = Flaky.calls
    box.push()
    assert Flaky.calls == calls  # in the pause it is left alone
    assert box.trouble == "database is locked"
    broken = False
    assert box.close()
    assert capsys.readouterr().out.count("\n") == 2  # one line when it failed, one when it was back
    assert [p.step for p in client.get_metric_history(run.info.run_id, "a")] == [0, 1, 2, 3]
    assert json.loads((folder / journal.SENT).read_text())["offset"] == book.size
