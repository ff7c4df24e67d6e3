"""What every request must show: a known Host, no foreign Origin, the token, and a small body.

The server is on the loopback address by default. A page of another site must not reach it through the user's browser,
so the names in Host and Origin are checked, and no answer allows another origin.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

MAX_BODY = 64 * 1024
MAX_QUERY = 4096
HEADERS = {
    "content-security-policy": "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; font-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Of every answer. Charts of plotly set styles of their elements, so styles may be inline; scripts may not."""


def new_token() -> str:
    """Return a token that nobody can guess."""
    return secrets.token_urlsafe(24)


class Guard:
    """Lets a request through to the app only if it may ask."""

    def __init__(self, app: App, token: str, host: str, port: int) -> None:
        self._app, self._token, self._port = app, token, port
        self._cookie = f"moola_annotate_{port}"  # cookies of all ports of a host are sent to each of them
        self._is_open = host in ("0.0.0.0", "::", "")
        self._hosts = {host.lower().strip("[]"), "127.0.0.1", "localhost", "::1"}
        if self._is_open:
            self._hosts |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return None  # no websockets
        headers = _headers(scope["headers"])
        said = self._refusal(scope, headers)
        if said is None and self._is_link(scope):
            return await self._enter(scope, send)
        if said is None and not self._knows_token(headers):
            said = 401, "open the link that moola annotate has printed: it holds the token"
        if said is not None:
            return await _answer(send, *said)
        return await self._app(scope, _limited(receive), _with_headers(send))

    def _refusal(self, scope: Message, headers: dict[str, list[str]]) -> tuple[int, str] | None:
        """Return status and reason if a request is refused whatever token it shows."""
        hosts, origins = headers.get("host", []), headers.get("origin", [])
        if len(hosts) != 1 or not self._is_known(hosts[0]):
            return 403, "unknown Host"
        if any(origin.lower() != f"http://{hosts[0].lower()}" for origin in origins):
            return 403, "a page of another origin may not ask"
        if headers.get("sec-fetch-site", ["none"])[0] not in ("none", "same-origin") and scope["path"] != "/":
            return 403, "a page of another origin may not ask"
        length = headers.get("content-length", ["0"])[0]
        if not length.isdigit() or int(length) > MAX_BODY:
            return 413, f"the body is larger than {MAX_BODY // 1024} kB"
        if len(scope.get("query_string", b"")) > MAX_QUERY:
            return 414, "the query is too long"
        return None

    def _is_known(self, host: str) -> bool:
        name, _, port = host.lower().rpartition(":")
        if not name or port != str(self._port):
            return False
        name = name.strip("[]")
        return name in self._hosts or (self._is_open and _is_address(name))

    def _is_link(self, scope: Message) -> bool:
        return scope["path"] == "/" and scope["method"] in ("GET", "HEAD") and b"token=" in scope["query_string"]

    async def _enter(self, scope: Message, send: Send) -> None:
        """Turn the token of the link into a cookie, so that it does not stay in the address."""
        token = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            return await _answer(send, 401, "this token is not that of the running moola annotate; open its new link")
        cookie = f"{self._cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/"
        await _answer(send, 303, "", [("location", "/"), ("set-cookie", cookie)])

    def _knows_token(self, headers: dict[str, list[str]]) -> bool:
        shown = [text[7:] for text in headers.get("authorization", []) if text[:7].lower() == "bearer "]
        for text in headers.get("cookie", []):
            try:
                morsel = SimpleCookie(text).get(self._cookie)
            except CookieError:
                continue
            shown += [morsel.value] if morsel else []
        return any(hmac.compare_digest(one.encode(), self._token.encode()) for one in shown)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def _limited(receive: Receive) -> Receive:
    """Cut a body off that is longer than its header says it may be: a chunked one has no length."""
    size = 0

    async def limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MAX_BODY:
            return {"type": "http.request", "body": b"\x00", "more_body": False}  # no JSON: refused as such
        return message

    return limited


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name for name, _ in message["headers"]}
            more = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in own]
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return sending


async def _answer(send: Send, status: int, error: str, more: Iterable[tuple[str, str]] = ()) -> None:
    body = json.dumps({"error": error}).encode() if error else b""
    headers = [("content-type", "application/json"), ("content-length", str(len(body))), *more, *HEADERS.items()]
    pairs = [(name.encode(), value.encode()) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
