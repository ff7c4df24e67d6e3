"""What a store's errors mean: whether to wait for it, and what of them may be shown."""

from __future__ import annotations

import contextlib
import http.server
import re
import sqlite3
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import mlflow
import psycopg
import pytest
import requests
import sqlalchemy
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, TEMPORARILY_UNAVAILABLE

from moola_mlflow.cli import main
from moola_mlflow.core import UserError, printable
from moola_mlflow.tracking import store
from moola_mlflow.tracking.delivery import Sent
from moola_mlflow.tracking.delivery.refusals import is_refusal
from moola_mlflow.tracking.run import Run


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
    assert printable(text) == expected


def test_a_password_that_is_no_word_is_left_out_where_it_stands_alone_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:v%2Fx/y!@h/db")
    assert printable("no host v/x/y!, nor v%2Fx/y!") == "no host ***, nor ***"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://moola:moola@h/db")
    assert printable("moola sync") == "moola sync"


def test_a_database_that_is_down_at_the_start_is_an_outage_that_is_known_at_once(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = "postgresql+psycopg://me:v/x@127.0.0.1:9/nobody"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    monkeypatch.setattr(mlflow, "MlflowClient", lambda *_: pytest.fail("MLflow would try for minutes"))
    with pytest.raises(store.Outage, match="Connection refused"):
        Run.start("promote", "needs the store")
    with Run.start("pretrain", "away") as active:
        active.metrics({"a": 1.0})
    assert active.id.startswith("offline-")
    assert main.run_cli(["sync", str(active.folder)]) == 2
    said = "".join(capsys.readouterr())
    assert "v/x" not in said
    monkeypatch.undo()
    monkeypatch.chdir(workdir)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workdir}/mlflow.db")
    mlflow.set_tracking_uri(None)
    assert main.run_cli(["sync", str(active.folder)]) == 0
    run_id = (Sent.read(active.folder) or Sent()).run_id
    assert mlflow.MlflowClient().get_run(run_id).data.metrics["a"] == 1.0


def test_a_run_that_has_ended_stays_ended_after_it_was_active(workdir: Path) -> None:
    client = mlflow.MlflowClient()
    run_id = client.create_run("0").info.run_id
    client.set_terminated(run_id, "KILLED", 5000)
    with store.active_run(run_id):
        assert mlflow.active_run().info.run_id == run_id
    info = client.get_run(run_id).info
    assert (info.status, info.end_time) == ("KILLED", 5000)


def test_the_experiment_of_the_environment_is_taken_unless_another_is_named(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = mlflow.MlflowClient()
    ours, other = client.create_experiment("of the team"), client.create_experiment("other")
    with monkeypatch.context() as patched:
        patched.setattr(store, "GIVEN_EXPERIMENT", ours)
        for given, expected in (("moola", ours), ("other", other)):
            with Run.start("label", "a", given) as active:
                assert active.experiment_id == expected
    with Run.start("label", "a", "moola") as active:  # MLflow has set the variable itself, to `other`
        assert client.get_experiment(active.experiment_id).name == "moola"


class Plain(http.server.BaseHTTPRequestHandler):
    """A web server that is no MLflow."""

    def do_GET(self) -> None:
        self.send_error(404)

    do_POST = do_GET

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def plain_server(context: ssl.SSLContext | None = None) -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Plain) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def refusal_of(uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri(uri)
    with pytest.raises(UserError) as caught:
        store.open_run("a", "b", adopt=False)
    return str(caught.value)


def test_a_server_that_speaks_plain_http_or_is_no_mlflow_is_named_as_such(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with plain_server() as port:
        said = refusal_of(f"https://127.0.0.1:{port}", monkeypatch)
        assert re.search(r"TLS with the tracking server .* failed: .*\. If it speaks plain http, write http://", said)
        assert "answers, but not as an MLflow server" in refusal_of(f"http://127.0.0.1:{port}", monkeypatch)


def test_a_certificate_that_nobody_knows_is_named_as_such(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem",
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("cert.pem", "key.pem")
    with plain_server(context) as port:
        said = refusal_of(f"https://localhost:{port}", monkeypatch)
    assert "failed: certificate verify failed: self" in said
    assert "MLFLOW_TRACKING_SERVER_CERT_PATH" in said


@pytest.mark.parametrize("there", [True, False])
def test_a_run_id_of_the_environment_that_no_run_has_is_named_and_makes_no_store(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    if not there:
        (workdir / "mlflow.db").unlink()
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(UserError, match=r"MLFLOW_RUN_ID=0{32} names no run of the store .*; unset MLFLOW_RUN_ID"):
        Run.start("data", "a")
    assert (workdir / "mlflow.db").exists() == there


@pytest.mark.parametrize("others", [0, 1])
def test_a_store_that_the_launcher_has_just_made_is_closed_to_other_users_and_a_shared_one_stays(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    client = mlflow.MlflowClient()
    for _ in range(others):
        client.create_run("0")
    monkeypatch.setenv("MLFLOW_RUN_ID", client.create_run("0").info.run_id)
    (workdir / "mlruns").mkdir(exist_ok=True)
    (workdir / "mlruns").chmod(0o755)
    (workdir / "mlflow.db").chmod(0o644)
    with Run.start("data", "a"):
        pass
    modes = [oct((workdir / name).stat().st_mode & 0o777) for name in ("mlflow.db", "mlruns")]
    assert modes == (["0o644", "0o755"] if others else ["0o600", "0o700"])
