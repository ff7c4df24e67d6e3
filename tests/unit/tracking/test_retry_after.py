"""A server that says when to ask again is asked then, and no command waits for hours."""

from __future__ import annotations

import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.service_pb2 import GetRun
from mlflow.utils import request_utils
from mlflow.utils.proto_json_utils import message_to_json
from urllib3 import HTTPResponse

from moola_mlflow.tracking import retry_after, shown_uri
from moola_mlflow.tracking.retry_after import LONGEST_S, BoundedRetry
from moola_mlflow.tracking.store import is_outage


def told(text: str) -> float | None:
    return BoundedRetry().get_retry_after(HTTPResponse(headers={"Retry-After": text}))


def test_a_wait_is_as_told_up_to_the_limit_and_what_is_no_time_counts_for_nothing() -> None:
    assert (told("0"), told("7"), told("86400")) == (0, 7, LONGEST_S)
    assert told(formatdate(time.time() + 9 * 86400, usegmt=True)) == LONGEST_S
    assert told(formatdate(0, usegmt=True)) == 0
    assert told("soon") is None
    assert BoundedRetry().get_retry_after(HTTPResponse()) is None
    assert isinstance(BoundedRetry().new(total=1), BoundedRetry)


class Busy(BaseHTTPRequestHandler):
    """A server that knows a run, and asks for patience a few times before it says so."""

    code, num_refused, asked = 429, 2, 0
    run = b""

    def do_GET(self) -> None:
        type(self).asked += 1
        refused = self.asked <= self.num_refused
        body = b"<html>slow down" if refused else self.run
        self.send_response(self.code if refused else 200)
        self.send_header("Content-Length", str(len(body)))
        if refused:
            self.send_header("Retry-After", "86400")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_request_comes_through_after_the_wait_and_a_server_that_stays_busy_counts_as_away(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(retry_after, "LONGEST_S", 0.01)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    request_utils._cached_get_request_session.cache_clear()
    assert shown_uri()
    found = mlflow.MlflowClient(f"sqlite:///{workdir}/mlflow.db").create_run("0")
    answer = message_to_json(GetRun.Response(run=found.to_proto())).encode()
    handler = type("Busy", (Busy,), {"code": code, "run": answer, "asked": 0})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = mlflow.MlflowClient(f"http://127.0.0.1:{server.server_port}")
        assert client.get_run(found.info.run_id).info.run_id == found.info.run_id
        assert handler.asked == 3
        handler.num_refused = 1000
        with pytest.raises(MlflowException) as refused:
            client.get_run(found.info.run_id)
        assert is_outage(refused.value)
        server.shutdown()
