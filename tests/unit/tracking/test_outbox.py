"""From the journal to the store: what a store does not take is kept, and what follows it is not held up."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler as HttpServer
from http.server import HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import mlflow
import pytest
import requests
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from mlflow.protos.service_pb2 import GetRun
from mlflow.utils.proto_json_utils import message_to_json
from mlflow.utils.request_utils import augmented_raise_for_status

from moola_mlflow.tracking import Tags
from moola_mlflow.tracking.delivery import count_unsent, journal, outbox
from moola_mlflow.tracking.delivery.files import OUTBOX, copy_into, waiting_folder
from moola_mlflow.tracking.delivery.journal import Event, Journal
from moola_mlflow.tracking.delivery.replay import Replayer
from moola_mlflow.tracking.delivery.sent import SENT_FILE, Sent


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
    (folder / "journal.jsonl").write_text('{"kind": "metrics", "st\n')  # damage
    book, read = Journal(folder), journal.read_events

    def slow(folder: Path, start: int = 0) -> Iterator[Event]:
        found = list(read(folder, start))
        if not found and book.size < 100:
            book.append({"kind": "tags", "tags": {"late": "yes"}})  # another thread, between reading and acknowledging
        return iter(found)

    monkeypatch.setattr(journal, "read_events", slow)
    box = outbox.Outbox(book, Replayer(client, folder, run_id), Sent(0, run_id, "here"))
    assert box.close()
    assert client.get_run(run_id).data.tags["late"] == "yes"


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
        key = "a" * 32
        copy_into(waiting_folder(folder, key) / "large.txt", folder / "large.txt")
        book.append({"kind": "artifacts", "key": key, "names": ["large.txt"]})
        book.append({"kind": "metrics", "step": 0, "metrics": {"a": 1.0}})
        book.append({"kind": "status", "status": "FINISHED", "note": None})
        for _ in range(tries):
            assert box.pending
            box._try_at = 0.0
            box.send()
        server.shutdown()
    assert not box.pending
    assert not box.close()
    run = client.get_run(run_id)
    assert (run.info.status, run.data.metrics, box.refused) == ("FINISHED", {"a": 1.0}, [])
    assert (count_unsent(folder), len(box.set_aside)) == (1, 1)
    assert capsys.readouterr().out.count("takes the run, but not its files (large.txt)") == 1
    monkeypatch.setattr(client, "log_artifacts", take)
    again = outbox.Outbox(book, replayer, Sent.read(folder) or Sent(), tries=1)  # as sync does
    assert again.close()
    assert [file.path for file in client.list_artifacts(run_id)] == ["large.txt"]
    assert (count_unsent(folder), (folder / OUTBOX).exists()) == (0, False)


KINDS = {"params": Param, "tags": RunTag}


class Narrow(HttpServer):
    """The way to a store through a proxy that takes no large request."""

    store: mlflow.MlflowClient
    refusal = b""
    most_bytes = 2000

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if len(body) > self.most_bytes:
            self.answer(413, self.refusal)
            return
        asked = json.loads(body)
        points = [Metric(*map(row.get, ("key", "value", "timestamp", "step"))) for row in asked.get("metrics", [])]
        params, tags = ([kind(**row) for row in asked.get(name, [])] for name, kind in KINDS.items())
        self.store.log_batch(asked["run_id"], points, params, tags)
        self.answer(200, b"{}")

    def do_GET(self) -> None:
        (run_id,) = parse_qs(urlsplit(self.path).query)["run_id"]
        found = GetRun.Response(run=self.store.get_run(run_id).to_proto())
        self.answer(200, message_to_json(found).encode())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("refusal", [b"<html>Request Entity Too Large</html>", b'{"message": "Payload Too Large"}'])
def test_what_a_proxy_finds_too_large_is_sent_in_parts_and_set_aside_where_it_has_none(
    away: tuple[Path, mlflow.MlflowClient, str], capsys: pytest.CaptureFixture[str], refusal: bytes
) -> None:
    folder, client, run_id = away
    handler = type("Proxy", (Narrow,), {"store": client, "refusal": refusal})
    book, sent = Journal(folder), Sent(0, run_id, "here")
    for step in range(100):
        book.append({"kind": "metrics", "step": step, "metrics": {"a": float(step)}})
    book.append({"kind": "params", "params": {"small": "1", "large": "x" * 3000, "other": "2"}})
    book.append({"kind": "tags", "tags": {Tags.NOTE: "x" * 3000, "kept": "old"}})
    book.append({"kind": "tags", "tags": {"kept": "new"}})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        through = mlflow.MlflowClient(f"http://127.0.0.1:{server.server_port}")
        box = outbox.Outbox(book, Replayer(through, folder, run_id), sent)
        box.send()
        assert not box.pending
        assert box.drain(retry=True)
        assert [point.step for point in client.get_metric_history(run_id, "a")] == list(range(100))
        run = client.get_run(run_id)
        assert run.data.params == {"small": "1", "other": "2"}
        assert (run.data.tags["kept"], Tags.NOTE in run.data.tags) == ("new", False)
        assert (len(sent.held), box.refused, box.problem) == (2, [], "")
        assert capsys.readouterr().out.count("takes the run, but not its params (small, large, other)") == 1
        handler.most_bytes = 10_000
        assert box.close()
        server.shutdown()
    run = client.get_run(run_id)
    assert (run.data.params["large"], run.data.tags[Tags.NOTE]) == ("x" * 3000, "x" * 3000)
    assert run.data.tags["kept"] == "new"  # and not what the event that was set aside had said of it


class Guarded(Narrow):
    """The way to a store through a proxy that shows a page of its own for a while."""

    most_bytes = 10**9
    shown: tuple[int, bytes] | None = None

    def do_POST(self) -> None:
        if self.shown is None:
            super().do_POST()
        else:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(*self.shown)

    def do_GET(self) -> None:
        if self.shown is not None and self.shown[0] == 404:
            self.answer(*self.shown)
        else:
            super().do_GET()


@pytest.mark.parametrize(
    "shown",
    [(403, b"<html>Forbidden</html>"), (400, b"<html>Bad Request</html>"), (404, b"<html>Not here</html>"),
     (400, b'{"message": "Bad Request"}'), (400, b'{"error_code": 400, "message": "no"}')],
    ids=["403 page", "400 page", "404 page", "400 JSON", "400 coded JSON"],
)  # fmt: skip
def test_a_page_of_a_proxy_refuses_nothing_and_everything_is_sent_once_it_is_gone(
    away: tuple[Path, mlflow.MlflowClient, str], shown: tuple[int, bytes]
) -> None:
    folder, client, run_id = away
    handler = type("Proxy", (Guarded,), {"store": client, "shown": shown})
    book, sent = Journal(folder), Sent(0, run_id, "here")
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        through = mlflow.MlflowClient(f"http://127.0.0.1:{server.server_port}")
        box = outbox.Outbox(book, Replayer(through, folder, run_id), sent)
        for step in range(3):
            book.append({"kind": "metrics", "step": step, "metrics": {"a": float(step)}})
            box.send()  # nothing is raised: the training goes on
            box._try_at = 0.0
        assert (count_unsent(folder), box.refused, box.run_deleted) == (0 if sent.offset else 3, [], False)
        assert sent.offset == 0
        handler.shown = None
        assert box.close()
        server.shutdown()
    assert [point.step for point in client.get_metric_history(run_id, "a")] == [0, 1, 2]


def test_what_a_user_may_not_log_now_is_kept_and_tried_again(
    away: tuple[Path, mlflow.MlflowClient, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, client, run_id = away

    def denied(*_: object, **__: object) -> None:
        raise MlflowException("no", error_code=PERMISSION_DENIED)

    take = client.log_batch
    monkeypatch.setattr(client, "log_batch", denied)
    monkeypatch.setattr(Replayer, "_register", denied)
    book = Journal(folder)
    box = outbox.Outbox(book, Replayer(client, folder, run_id), Sent(0, run_id, "here"))
    book.append({"kind": "register", "key": "0" * 32, "model": "encoder", "name": "a", "tags": {}})
    book.append({"kind": "metrics", "step": 0, "metrics": {"a": 1.0}})
    assert not box.drain()
    assert (box.refused, box.problem) == ([], "no")
    assert list(box.set_aside.values()) == ["no"]
    assert count_unsent(folder) == 2
    monkeypatch.setattr(client, "log_batch", take)
    assert box.drain()
    assert client.get_run(run_id).data.metrics == {"a": 1.0}
    assert count_unsent(folder) == 1


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
    for text in ("before", "after"):
        (folder / "a.txt").write_text(text)
        key = text[0] * 32
        copy_into(waiting_folder(folder, key) / "a.txt", folder / "a.txt")
        book.append({"kind": "artifacts", "key": key, "names": ["a.txt"]})
    box.send()
    assert sent.held == [0]
    assert box.close()
    assert Path(client.download_artifacts(run_id, "a.txt")).read_text() == "after"


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
        box.send()
    assert box.close()
    assert client.get_run(run_id).data.tags["a"] == "b"


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
        box.send()
        pauses.append(box._pause_s)
    assert pauses == [1.0, 2.0, 4.0, 8.0]
    calls = Flaky.calls
    box.send()
    assert Flaky.calls == calls  # in the pause it is left alone
    assert box.problem == "database is locked"
    broken = False
    assert box.close()
    assert capsys.readouterr().out.count("\n") == 2  # one line when it failed, one when it was back
    assert [p.step for p in client.get_metric_history(run.info.run_id, "a")] == [0, 1, 2, 3]
    assert json.loads((folder / SENT_FILE).read_text())["offset"] == book.size
