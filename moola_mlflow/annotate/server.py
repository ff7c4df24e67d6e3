"""The server of the page: uvicorn in a thread, so that the main thread hears Ctrl-C and logs the run."""

from __future__ import annotations

import socket
import threading
import time

import uvicorn

from moola_mlflow.annotate.patience import PatientProtocol
from moola_mlflow.annotate.security import App, Guard, new_token
from moola_mlflow.core import UserError

START_LIMIT_S = 30.0


class PageServer:
    """Serves an app on one address, behind a token.

    Raises: UserError if the address cannot be listened on.
    """

    def __init__(self, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
        except OSError as e:
            self._socket.close()
            raise UserError(f"annotate.host={host}, port={port} cannot be used: {e}; port=0 takes a free one") from e
        self.host, self.port, self.token = host, int(self._socket.getsockname()[1]), new_token()
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def link(self) -> str:
        """The address to open, with the token."""
        name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(self.host, self.host)
        return f"http://{f'[{name}]' if ':' in name else name}:{self.port}/?token={self.token}"

    def start(self, app: App) -> None:
        """Serve in a thread, and return once requests are answered."""
        guarded = Guard(app, self.token, self.host, self.port)
        # PatientProtocol limits connections. A closed one still counts as a request until its task has ended.
        config = uvicorn.Config(
            guarded, log_level="warning", access_log=False, server_header=False, date_header=False, lifespan="off",
            timeout_graceful_shutdown=3, limit_concurrency=1024, ws="none", http=PatientProtocol,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="moola-page", daemon=True)
        self._thread.start()
        until = time.monotonic() + START_LIMIT_S
        while not self._server.started and time.monotonic() < until and self._thread.is_alive():
            time.sleep(0.01)

    def stop(self) -> None:
        """Answer the requests that are on their way, and end."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join()
        self._socket.close()
