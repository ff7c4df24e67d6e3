"""How long the page's server waits for a client: connections without a whole request are closed.

uvicorn itself waits for ever for the rest of a request, and refuses everybody when it has too many connections. So a
few slow clients, or connections that a sleeping laptop has left, would stop the page.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_LIMIT_S = 20.0
"""Seconds in which a request must have come whole. The largest has 64 kB."""
MAX_CONNECTIONS = 48
"""With more, the connection that has waited longest for the rest of its request is closed."""


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, with a limit on the time that a client takes for a request, and on connections."""

    _limit: asyncio.TimerHandle | None = None
    _since = 0.0

    @property
    def is_waiting(self) -> bool:
        """Whether a whole request has not come yet."""
        cycle = self.cycle
        return cycle is None or bool(cycle.response_complete or cycle.more_body)

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request. Close the oldest connection that waits if there are too many."""
        super().connection_made(transport)
        self._begin_to_wait()
        if len(self.connections) > MAX_CONNECTIONS:
            others = (one for one in self.connections if isinstance(one, PatientProtocol) and one is not self)
            oldest = min((one for one in others if one.is_waiting), key=lambda one: one._since, default=None)
            if oldest is not None:
                oldest.transport.close()
                self.connections.discard(oldest)  # at once: several clients may come before it is gone

    def data_received(self, data: bytes) -> None:
        """Take what a client sends. The time for a request runs from its first byte to its last."""
        if self._limit is None and self.is_waiting:
            self._begin_to_wait()
        super().data_received(data)
        if not self.is_waiting:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _begin_to_wait(self) -> None:
        self._since = self.loop.time()
        self._limit = self.loop.call_later(REQUEST_LIMIT_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def _give_up(self) -> None:
        self._limit = None
        if self.is_waiting and not self.transport.is_closing():
            self.transport.close()
