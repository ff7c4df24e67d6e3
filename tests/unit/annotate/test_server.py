"""The server takes a free port, or says that its port is taken."""

from __future__ import annotations

import pytest
from small_sessions import Client

from moola_mlflow.annotate.security import Message, Receive, Send
from moola_mlflow.annotate.server import PageServer
from moola_mlflow.core import UserError


async def app(scope: Message, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"3"})


def test_a_free_port_is_taken_and_let_go() -> None:
    server = PageServer("127.0.0.1", 0)
    assert server.port > 0
    server.start(app)
    assert Client(server.link).ask("/api/window").body == 3
    server.stop()
    again = PageServer("127.0.0.1", server.port)
    assert again.token != server.token
    again.stop()


def test_a_port_that_is_taken_is_refused_with_the_cure() -> None:
    server = PageServer("127.0.0.1", 0)
    server.start(app)
    with pytest.raises(UserError, match="port=0 takes a free one"):
        PageServer("127.0.0.1", server.port)
    server.stop()


def test_a_link_to_an_address_of_version_6_has_brackets() -> None:
    try:
        server = PageServer("::1", 0)
    except UserError:
        pytest.skip("this machine has no IPv6")
    assert server.link.startswith("http://[::1]:")
    server.stop()
