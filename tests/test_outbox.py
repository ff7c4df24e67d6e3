"""Journal and outbox without a server: what is kept on disk, and what is made of errors."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler as HttpServer
from http.server import HTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import mlflow
import psycopg
import pytest
import requests
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, PERMISSION_DENIED, TEMPORARILY_UNAVAILABLE
from mlflow.utils.request_utils import augmented_raise_for_status

from moola_mlflow import cli, journal, outbox, runfolder, store
from moola_mlflow.journal import Event, Journal, Sent
from moola_mlflow.replay import MAX_BATCH, MAX_METRICS, Replayer, groups, is_refusal
from moola_mlflow.tracking import Run


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


def caused(text: str, cause: Exception, code: int = 1) -> MlflowException:
    error = MlflowException(text, error_code=code)
    error.__context__ = cause
    return error


def database(cause: Exception) -> sqlalchemy.exc.OperationalError:
    return sqlalchemy.exc.OperationalError("SELECT 'does not exist'", {}, cause)


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
        (database(psycopg.OperationalError("connection failed: Connection refused")), True),
        (database(psycopg.OperationalError("FATAL: the database system is starting up")), True),
        (database(psycopg.OperationalError('FATAL: password authentication failed for user "me"')), False),
        (database(psycopg.OperationalError('FATAL: database "x" does not exist')), False),
        (database(sqlite3.OperationalError("disk I/O error")), False),
        (caused("x", database(psycopg.OperationalError("server closed")), TEMPORARILY_UNAVAILABLE), True),
        (caused("x", database(sqlite3.OperationalError("locked")), TEMPORARILY_UNAVAILABLE), False),
        (caused("x", sqlalchemy.exc.TimeoutError("QueuePool limit"), BAD_REQUEST), True),
    ],
)
def test_only_a_store_that_cannot_be_reached_or_cannot_answer_now_is_an_outage(
    error: Exception, expected: bool
) -> None:
    assert store.is_outage(error) is expected
    assert not (expected and is_refusal(error))


def test_no_password_is_in_what_is_said_of_an_error() -> None:
    text = f"{CALL} exception HTTPConnectionPool(host='host'): (Caused by X('y: [Errno 111] Connection refused'))"
    assert store.first_line(MlflowException(text)) == "http://host:5000 does not answer: [Errno 111] Connection refused"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql+psycopg://moola:pa%40ss@db/x and s3://b/a@b", "postgresql+psycopg://db/x and s3://b/a@b"),
        ("postgresql://me:pa/ss@h:5432/db", "postgresql://h:5432/db"),
        ("postgresql://me:it's\"@h/db", "postgresql://h/db"),
        ("http://me:p@ss@h/api", "http://h/api"),
        ("https://token@h/x@y", "https://h/x@y"),
        ("postgresql://h/db?user=me&password=a/b&sslmode=require", "postgresql://h/db?user=***&password=***&sslmode=require"),
        ("http://h:5000/#/models/x@champion", "http://h:5000/#/models/x@champion"),
        ("models:/x@champion in sqlite:///a@b.db", "models:/x@champion in sqlite:///a@b.db"),
    ],
)  # fmt: skip
def test_users_and_passwords_of_any_address_are_left_out(text: str, expected: str) -> None:
    assert store.shown(text) == expected


def test_a_password_that_is_no_word_is_left_out_where_it_stands_alone_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:v%2Fx/y!@h/db")
    assert store.shown("no host v/x/y!, nor v%2Fx/y!") == "no host ***, nor ***"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://moola:moola@h/db")
    assert store.shown("moola sync") == "moola sync"


@pytest.fixture
def away(workdir: Path) -> Iterator[tuple[Path, mlflow.MlflowClient, str]]:
    """A run's folder, and its run in a store."""
    folder = workdir / "run"
    folder.mkdir()
    mlflow.set_tracking_uri(f"sqlite:///{workdir}/mlflow.db")
    client = mlflow.MlflowClient()
    yield folder, client, client.create_run("0").info.run_id
    mlflow.set_tracking_uri(None)


def test_what_is_appended_while_damaged_lines_are_passed_over_is_sent(
    away: tuple[Path, mlflow.MlflowClient, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, client, run_id = away
    (folder / "journal.jsonl").write_text('{"kind": "metrics", "st')  # a crash
    book, read = Journal(folder), journal.read

    def slow(folder: Path, start: int = 0) -> Iterator[Event]:
        found = list(read(folder, start))
        if not found and book.size < 100:
            book.append({"kind": "tags", "tags": {"late": "yes"}})  # another thread, between reading and acknowledging
        return iter(found)

    monkeypatch.setattr(journal, "read", slow)
    box = outbox.Outbox(book, Replayer(client, folder, run_id), Sent(0, run_id, "here"))
    assert box.close()
    assert client.get_run(run_id).data.tags["late"] == "yes"


GOOD: list[dict[str, Any]] = [
    {"kind": "begin", "show": True, "make": {"name": "a", "experiment": "b", "tags": {}, "at_ms": 1}},
    {"kind": "begin", "show": False, "running": True},
    {"kind": "handover", "run_id": "abc"},
    {"kind": "params", "params": {"a": "1"}},
    {"kind": "tags", "tags": {"a": "1"}},
    {"kind": "metrics", "step": 3, "metrics": {"a": 1.0, "b": float("nan"), "c": None}},
    {"kind": "inputs", "files": [["a.csv", "00", 3]], "context": "training"},
    {"kind": "child", "key": "0" * 32, "name": "fold 1", "seconds": 1.5, "tags": {}, "params": {},
     "series": [{"a": 1, "b": None}], "final": {}},
    {"kind": "artifacts", "key": "0" * 32, "names": ["a"], "tables": ["a"]},
    {"kind": "register", "key": "0" * 32, "model": "encoder", "name": "a", "tags": {}},
    {"kind": "status", "status": "FINISHED", "note": None},
    {"kind": "of a later version", "key": "../.."},
]  # fmt: skip
JUNK = [None, 1, -1e300, "x", "../../home", "/etc", [], {}, [1], {"a": {}}, [["a"]], True, 10**40]


def test_every_event_that_is_written_is_read_again(tmp_path: Path) -> None:
    book = Journal(tmp_path)
    for record in GOOD:
        book.append(record)
    assert [event.record["kind"] for event in journal.read(tmp_path)] == [record["kind"] for record in GOOD]


@given(st.sampled_from(GOOD[:-1]), st.data())
def test_an_event_of_another_shape_is_passed_over_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, record: dict[str, Any], data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from(["at", *record]))
    value = data.draw(st.sampled_from([*JUNK, "missing"]))
    hurt = {**record, key: value}
    if value == "missing":
        del hurt[key]
    folder = tmp_path_factory.mktemp("run")
    (folder / "journal.jsonl").write_text(json.dumps(hurt) + "\n")
    client = MagicMock()
    client.search_runs.return_value = []
    replayer = Replayer(client, folder, "abc", None)
    replayer.experiment_id, replayer._known_params = "0", set()
    for event in journal.read(folder):
        if event.kind in ("artifacts", "register"):
            assert journal.outbox(folder, event.record["key"]).parent == folder / journal.OUTBOX
        elif event.kind in GOOD_KINDS:
            replayer.apply([event], fresh=False)
    runfolder.read_journal(folder)
    journal.steps(folder, "a")


GOOD_KINDS = {record["kind"] for record in GOOD} - {"begin"}


@pytest.mark.parametrize("content", ['{"pid": 1, "host": "x", "beat_at": "now"}', "[" * 100_000, "7"])
def test_a_beat_that_is_none_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / runfolder.HEARTBEAT).write_text(content)
    (tmp_path / runfolder.JOURNAL).write_text("[" * 100_000 + "\n7\n")
    assert runfolder.read_beat(tmp_path) == {}
    runfolder.check_free(tmp_path)


class Closed(HttpServer):
    """A server of artifacts that takes none: too large, or not from this user."""

    code = 413

    def do_PUT(self) -> None:
        self.send_response(self.code)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def put(address: str, *_: object) -> None:
    augmented_raise_for_status(requests.put(f"{address}/api", data=b"x", timeout=10))


@pytest.mark.parametrize(
    ("error", "tries"),
    [(413, 1), (403, 1), (PERMISSION_DENIED, 1), (PermissionError(13, "Permission denied"), 3), (503, 3)],
    ids=["too large", "forbidden", "denied", "unwritable", "unavailable"],
)
def test_files_that_a_store_does_not_take_are_set_aside_and_everything_else_is_sent(
    away: tuple[Path, mlflow.MlflowClient, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    error: object, tries: int,
) -> None:  # fmt: skip
    folder, client, run_id = away
    handler = type("Answering", (Closed,), {"code": error})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def refuse(*_: object) -> None:
            if isinstance(error, int) and error < 600 and error != PERMISSION_DENIED:
                put(f"http://127.0.0.1:{server.server_port}")
            raise error if isinstance(error, Exception) else MlflowException("no", error_code=PERMISSION_DENIED)

        book, sent = Journal(folder), Sent(0, run_id, "here")
        replayer = Replayer(client, folder, run_id)
        take = client.log_artifacts
        monkeypatch.setattr(client, "log_artifacts", refuse)
        box = outbox.Outbox(book, replayer, sent)
        (folder / "large.txt").write_text("x")
        key = journal.stage(folder, folder / "large.txt", "large.txt")
        book.append({"kind": "artifacts", "key": key, "names": ["large.txt"]})
        book.append({"kind": "metrics", "step": 0, "metrics": {"a": 1.0}})
        book.append({"kind": "status", "status": "FINISHED", "note": None})
        for _ in range(tries):
            assert box.pending
            box._try_at = 0.0
            box.push()
        server.shutdown()
    assert not box.pending
    assert not box.close()
    run = client.get_run(run_id)
    assert (run.info.status, run.data.metrics, box.refused) == ("FINISHED", {"a": 1.0}, [])
    assert (journal.unsent(folder), len(box.set_aside)) == (1, 1)
    assert capsys.readouterr().out.count("takes the run, but not its files (large.txt)") == 1
    monkeypatch.setattr(client, "log_artifacts", take)
    again = outbox.Outbox(book, replayer, Sent.read(folder) or Sent(), tries=1)  # as sync does
    assert again.close()
    assert [file.path for file in client.list_artifacts(run_id)] == ["large.txt"]
    assert (journal.unsent(folder), (folder / journal.OUTBOX).exists()) == (0, False)


def test_a_version_that_may_not_be_registered_is_kept_and_a_figure_that_may_not_be_logged_is_refused(
    away: tuple[Path, mlflow.MlflowClient, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, client, run_id = away

    def denied(*_: object, **__: object) -> None:
        raise MlflowException("no", error_code=PERMISSION_DENIED)

    monkeypatch.setattr(client, "log_batch", denied)
    monkeypatch.setattr(Replayer, "_register", denied)
    book = Journal(folder)
    box = outbox.Outbox(book, Replayer(client, folder, run_id), Sent(0, run_id, "here"))
    book.append({"kind": "register", "key": "0" * 32, "model": "encoder", "name": "a", "tags": {}})
    book.append({"kind": "metrics", "step": 0, "metrics": {"a": 1.0}})
    assert not box.close()
    assert [error.error_code for error in box.refused if isinstance(error, MlflowException)] == ["PERMISSION_DENIED"]
    assert list(box.set_aside.values()) == ["no"]
    assert not box.pending


def test_a_file_set_aside_is_not_sent_over_a_later_one_of_its_name(
    away: tuple[Path, mlflow.MlflowClient, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, client, run_id = away
    book, sent, take = Journal(folder), Sent(0, run_id, "here"), client.log_artifacts

    def once(*given: object) -> None:
        monkeypatch.setattr(client, "log_artifacts", take)
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(client, "log_artifacts", once)
    box = outbox.Outbox(book, Replayer(client, folder, run_id), sent, tries=1)
    for text in ("old", "new"):
        (folder / "a.txt").write_text(text)
        book.append({"kind": "artifacts", "key": journal.stage(folder, folder / "a.txt", "a.txt"), "names": ["a.txt"]})
    box.push()
    assert sent.held == [0]
    assert box.close()
    assert Path(client.download_artifacts(run_id, "a.txt")).read_text() == "new"


def test_a_thread_that_meets_an_error_of_its_own_goes_on(
    away: tuple[Path, mlflow.MlflowClient, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, client, run_id = away
    write, failures = Sent.write, [OSError(28, "No space left on device")]

    def full(sent: Sent, folder: Path) -> None:
        if failures:
            raise failures.pop()
        write(sent, folder)

    monkeypatch.setattr(Sent, "write", full)
    monkeypatch.setattr(outbox, "FIRST_PAUSE_S", 0.0)
    book = Journal(folder)
    book.append({"kind": "tags", "tags": {"a": "b"}})
    box = outbox.Outbox(book, Replayer(client, folder, run_id), Sent(0, run_id, "here"), background=True)
    while box.pending or failures:
        box.push()
    assert box.close()
    assert client.get_run(run_id).data.tags["a"] == "b"


def test_a_database_that_is_down_at_the_start_is_an_outage_that_is_known_at_once(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = "postgresql+psycopg://me:v/x@127.0.0.1:9/nobody"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    monkeypatch.setattr(mlflow, "MlflowClient", lambda *_: pytest.fail("MLflow would try for minutes"))
    with pytest.raises(store.Outage, match="Connection refused"):
        Run("promote", "needs the store")
    with Run("pretrain", "away") as active:
        active.metrics({"a": 1.0})
    assert active.id.startswith("offline-")
    assert cli.main(["sync", str(active.folder)]) == 2
    said = "".join(capsys.readouterr())
    assert "v/x" not in said
    monkeypatch.undo()
    monkeypatch.chdir(workdir)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workdir}/mlflow.db")
    mlflow.set_tracking_uri(None)
    assert cli.main(["sync", str(active.folder)]) == 0
    run_id = (Sent.read(active.folder) or Sent()).run_id
    assert mlflow.MlflowClient().get_run(run_id).data.metrics["a"] == 1.0


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
