"""Huge, deep, slow and silent clients of the page's server: each is refused or closed, and the others are answered."""

from __future__ import annotations

import json
import resource
import socket
from collections.abc import Iterator
from urllib.parse import parse_qs, urlparse

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from small_sessions import Client

from moola_mlflow.annotate import patience
from moola_mlflow.annotate.app import _body
from moola_mlflow.annotate.decisions import RefusedDecision
from moola_mlflow.annotate.server import PageServer

HUNDRED_MB = 100_000_000


def small_app() -> FastAPI:
    """The part of the page's app that reads bodies."""
    app = FastAPI()

    @app.get("/api/window")
    async def window() -> Response:
        return JSONResponse(3)

    @app.post("/api/decision")
    async def decision(request: Request) -> Response:
        try:
            return JSONResponse(await _body(request))
        except RefusedDecision as e:
            return JSONResponse(e.said, 422)

    return app


@pytest.fixture
def server() -> Iterator[PageServer]:
    server = PageServer("127.0.0.1", 0)
    server.start(small_app())
    yield server
    server.stop()


def connect(server: PageServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=60)


def head(server: PageServer, *lines: str) -> bytes:
    token = parse_qs(urlparse(server.link).query)["token"][0]
    known = [f"Host: 127.0.0.1:{server.port}", f"Authorization: Bearer {token}"]
    return "\r\n".join(["POST /api/decision HTTP/1.1", *known, *lines, "", ""]).encode()


def answers(server: PageServer) -> bool:
    return bool(Client(server.link).ask("/api/window").body == 3)


def status_of(client: socket.socket) -> int:
    return int(client.recv(4096).split()[1])


def test_a_body_of_100_mb_is_refused_before_it_is_sent(server: PageServer) -> None:
    with connect(server) as client:
        client.sendall(head(server, f"Content-Length: {HUNDRED_MB}"))
        assert status_of(client) == 413
        assert answers(server)


def test_of_a_body_of_100_mb_without_a_length_nothing_is_kept(server: PageServer) -> None:
    assert answers(server)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with connect(server) as client:
        client.sendall(head(server, "Transfer-Encoding: chunked"))
        piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        for _ in range(HUNDRED_MB // 0x10000):
            client.sendall(piece)
        assert status_of(client) == 422
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB
    assert answers(server)


@pytest.mark.parametrize("body", ["[" * 60_000, "[" * 30_000 + "]" * 30_000, '{"a":' * 10_000 + "1" + "}" * 10_000])
def test_deep_json_is_no_decision(server: PageServer, body: str) -> None:
    with connect(server) as client:
        client.sendall(head(server, f"Content-Length: {len(body)}") + body.encode())
        assert status_of(client) == 422
    assert answers(server)


STARTS = [b"", b"POST /api/decision HTTP/1.1\r\nHost: ", b"GET / HTTP/1.1\r\nX: "]


def test_clients_that_keep_a_connection_stop_no_other(server: PageServer) -> None:
    slow = [connect(server) for _ in range(300)]
    for number, client in enumerate(slow):
        client.sendall(STARTS[number % 3])
        if number % 50 == 0:
            assert answers(server)
    body = head(server, "Content-Length: 10") + b"["
    for _ in range(100):
        slow.append(connect(server))
        slow[-1].sendall(body)
    assert answers(server)
    for client in slow:
        client.close()


def test_a_request_that_never_ends_is_closed(server: PageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "REQUEST_LIMIT_S", 0.05)
    for start in (*STARTS, head(server, "Content-Length: 10") + b"["):
        with connect(server) as client:
            client.sendall(start)
            assert client.recv(4096) == b""
    with connect(server) as client:  # a second request of a connection has its limit too
        text = json.dumps({"a": 1})
        client.sendall(head(server, f"Content-Length: {len(text)}") + text.encode())
        assert status_of(client) == 200
        client.sendall(b"POST")
        while client.recv(4096):  # the rest of the answer, and then the end
            pass


def test_a_request_that_is_being_answered_is_left_alone(server: PageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "MAX_CONNECTIONS", 1)
    with connect(server) as client:
        text = json.dumps({"a": 1})
        client.sendall(head(server, f"Content-Length: {len(text)}") + text.encode())
        assert status_of(client) == 200
        with connect(server) as other:
            other.sendall(head(server, f"Content-Length: {len(text)}") + text.encode())
            assert status_of(other) == 200
