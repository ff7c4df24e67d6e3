"""Who may ask: the token, a known Host, no foreign Origin, a small body."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moola_mlflow.annotate.security import HEADERS, MAX_BODY, Guard, Message, Receive, Send, new_token

TOKEN = "a-token"
HOST = "127.0.0.1:8765"


async def app(scope: Message, receive: Receive, send: Send) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"%d" % len(body)})


def ask(
    path: str = "/api/window", headers: dict[str, str] | None = None, host: str = "127.0.0.1", query: str = "",
    method: str = "GET", chunks: tuple[bytes, ...] = (b"",),
) -> tuple[int, dict[str, str], bytes]:  # fmt: skip
    """Ask a guarded app and return status, headers and body."""
    given = {"host": HOST, **(headers or {})}
    pairs = [(name.encode(), value.encode()) for name, value in given.items() if value]
    scope: dict[str, Any] = {
        "type": "http", "path": path, "method": method, "headers": pairs, "query_string": query.encode(),
    }  # fmt: skip
    waiting, sent = list(chunks), list[Message]()

    async def receive() -> Message:
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(Guard(app, TOKEN, host, 8765)(scope, receive, send))
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, sent[1]["body"]


BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    "shown",
    [BEARER, {"cookie": f"moola_annotate_8765={TOKEN}"}, {"cookie": f"a=b; moola_annotate_8765={TOKEN}; c=d"}],
)
def test_the_token_lets_in_by_header_or_cookie(shown: dict[str, str]) -> None:
    status, headers, _ = ask(headers=shown)
    assert status == 200
    assert headers.items() >= HEADERS.items()
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "shown",
    [{}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}, {"authorization": "Bearer tökén"},
     {"cookie": f"moola_annotate_1={TOKEN}"}, {"cookie": "moola_annotate_8765=wrong"}],
)  # fmt: skip
def test_without_the_token_nothing_is_answered(shown: dict[str, str]) -> None:
    assert ask(headers=shown)[0] == 401


@pytest.mark.parametrize("host", ["evil.example:8765", "127.0.0.1:80", "127.0.0.1", "", "127.0.0.1.evil.example:8765"])
def test_an_unknown_host_is_refused_although_the_token_is_right(host: str) -> None:
    assert ask(headers={**BEARER, "host": host})[0] == 403


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:8765", "LOCALHOST:8765", "[::1]:8765"])
def test_names_of_this_machine_are_known(host: str) -> None:
    assert ask(headers={**BEARER, "host": host})[0] == 200


def test_another_address_is_known_only_if_it_was_asked_for() -> None:
    there = {**BEARER, "host": "10.0.0.7:8765"}
    assert ask(headers=there)[0] == 403
    assert ask(headers=there, host="10.0.0.7")[0] == 200
    assert ask(headers=there, host="0.0.0.0")[0] == 200
    assert ask(headers={**BEARER, "host": "evil.example:8765"}, host="0.0.0.0")[0] == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:80", f"https://{HOST}"])
def test_a_page_of_another_origin_is_refused(origin: str) -> None:
    assert ask(headers={**BEARER, "origin": origin})[0] == 403
    assert ask(headers={**BEARER, "origin": f"http://{HOST}"})[0] == 200
    assert ask(headers={**BEARER, "sec-fetch-site": "cross-site"})[0] == 403


def test_the_link_sets_a_cookie_that_no_script_and_no_other_site_can_use() -> None:
    status, headers, _ = ask("/", query=f"token={TOKEN}")
    assert (status, headers["location"]) == (303, "/")
    assert headers["set-cookie"] == f"moola_annotate_8765={TOKEN}; HttpOnly; SameSite=Strict; Path=/"
    for query in ("token=wrong", "token=", "token=t%C3%B6"):
        status, headers, _ = ask("/", query=query)
        assert (status, "set-cookie" in headers) == (401, False)


def test_a_large_body_is_refused_with_and_without_its_length() -> None:
    assert ask(headers={**BEARER, "content-length": str(MAX_BODY + 1)}, method="POST")[0] == 413
    assert ask(headers={**BEARER, "content-length": "many"}, method="POST")[0] == 413
    chunks = (b"x" * MAX_BODY, b"x" * 9, b"x" * MAX_BODY)
    status, _, body = ask(headers=BEARER, method="POST", chunks=chunks)
    assert (status, int(body)) == (200, MAX_BODY + 1)  # cut, and no JSON
    assert ask(headers=BEARER, query="x" * 5000)[0] == 414


def test_tokens_are_long_and_differ() -> None:
    assert len({new_token() for _ in range(50)}) == 50
    assert min(len(new_token()) for _ in range(50)) >= 32
