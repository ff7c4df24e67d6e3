"""Ctrl-C and SIGTERM: finish the step, save, and leave with the right exit code."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# One Ctrl-C at the launcher reaches the child as SIGINT and, a quarter of a second later, SIGTERM.
SAME_PRESS_S = 1.0


class Interrupted(BaseException):
    """The process was asked to stop; ``exit_code`` is 128 plus the signal's number.

    A BaseException like KeyboardInterrupt, so that no ``except Exception`` on the way swallows it.
    """

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(signal.Signals(signum).name)

    @property
    def exit_code(self) -> int:
        return 128 + self.signum


class Interrupts:
    """Turns the first SIGINT or SIGTERM into ``Interrupted``, at once or, inside ``deferred``, when it is asked.

    A second SIGINT more than a second after the first leaves at once.
    """

    def __init__(self, *, watch_parent: bool = False) -> None:
        self.first: int | None = None
        self._first_at = 0.0
        self._deferred = False
        self._parent = os.getppid() if watch_parent else None

    def install(self) -> None:
        """Handle SIGINT and SIGTERM from now on; outside the main thread, where Python cannot, do nothing."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._handle)
            signal.signal(signal.SIGTERM, self._handle)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only note a signal while inside; the loop asks ``reason`` after each step."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def reason(self) -> str | None:
        """Return why to stop, or None: a signal came, or the launcher that waits for this process is gone."""
        if self.first is None and self._parent is not None and os.getppid() != self._parent:
            self.first = signal.SIGTERM
        return None if self.first is None else signal.Signals(self.first).name

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first, self._first_at = signum, now
            if not self._deferred:
                raise Interrupted(signum)
        elif signum == signal.SIGINT and now - self._first_at > SAME_PRESS_S:
            os._exit(128 + signum)
