"""Commands in processes of their own that need not import torch and MLflow again, which costs four seconds each.

Each is a copy of a process that has imported the libraries (`warm_server`). It has its own folder, environment,
output, signals and exit code, and it imports the package anew. A test of what happens while a process starts takes a
fresh interpreter instead. ``MOOLA_TESTS_FRESH=1`` makes all processes fresh.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

SERVER = Path(__file__).with_name("warm_server.py")


def run_python(
    words: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    """Run ``python`` with these words (``-m module ...`` or ``script ...``) in a folder to its end."""
    if _fresh():
        return subprocess.run(
            [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True,
            timeout=timeout, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = WarmProcess(words, folder, environment, out, err)
        try:
            code = process.wait(timeout)
        except BaseException:
            process.kill()
            raise
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(process.args, code, out.read(), err.read())


def start_python(
    words: Sequence[str], folder: Path, environment: Mapping[str, str], log: IO[str] | None = None
) -> subprocess.Popen[str]:
    """Start ``python`` in a process group of its own, as a terminal does.

    What it says, errors too, is its ``stdout``, or goes into the ``log``.
    """
    unbuffered = {**environment, "PYTHONUNBUFFERED": "1"}
    if _fresh():
        return subprocess.Popen(
            [sys.executable, *words], cwd=folder, env=unbuffered, stdout=log or subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    if log:
        return WarmProcess(words, folder, unbuffered, log, log)
    reading, writing = os.pipe()
    with open(writing, "w") as out:
        return WarmProcess(words, folder, unbuffered, out, out, open(reading))


def _fresh() -> bool:
    return bool(os.environ.get("MOOLA_TESTS_FRESH"))


class WarmProcess(subprocess.Popen[str]):
    """A copy that runs a command. It is no child of this process: the server's watcher tells how it ended."""

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        out: IO[str],
        err: IO[str],
        stdout: IO[str] | None = None,
    ) -> None:
        self.args, self.returncode = [sys.executable, *words], None
        self.stdin, self.stdout, self.stderr = None, stdout, None
        self.text_mode, self._communication_started, self._input = True, False, None
        self._waitpid_lock, self._sigint_wait_secs = threading.Lock(), 0.25
        self._answer, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        asked = json.dumps({"words": list(words), "folder": str(folder), "environment": dict(environment)})
        with theirs:
            socket.send_fds(_server(), [asked.encode()], [out.fileno(), err.fileno(), theirs.fileno()])
        self.pid = int(self._answer.recv(32))
        self._child_created = True

    def _internal_poll(self, _deadstate: int | None = None, **_: Any) -> int | None:
        """Read the exit code, where it is there."""
        with self._waitpid_lock:
            if self.returncode is None and self._answer.fileno() < 0:  # nobody waited, and the socket was collected
                self.returncode = _deadstate
            elif self.returncode is None and select.select([self._answer], [], [], 0)[0]:
                self.returncode = int(self._answer.recv(32))
                self._answer.close()
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        """Wait for the exit code. Raises: TimeoutExpired."""
        with contextlib.suppress(ValueError):  # read by another thread in the meantime
            select.select([self._answer], [], [], timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code


@functools.cache
def _server() -> socket.socket:
    """Start the server, once for each process of tests; it ends when this socket is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "PYTHONPATH"))}
    number = theirs.fileno()
    subprocess.Popen(
        [sys.executable, str(SERVER), str(number)],
        env={**kept, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}, cwd="/",
        pass_fds=[number], stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    theirs.close()
    return ours
