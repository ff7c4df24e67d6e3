"""Ctrl-C and SIGTERM: finish the step, save, and leave with the right exit code."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType

# One Ctrl-C at the launcher reaches the child as SIGINT and, a quarter of a second later, SIGTERM.
SAME_PRESS_S = 1.0
# A closed terminal sends SIGHUP; Windows has none.
HANDLED = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


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
    """Turns the first signal into ``Interrupted``, at once or, inside ``deferred``, when its end is reached.

    A second SIGINT more than a second after the first leaves at once.
    """

    current: Interrupts | None = None
    """The one whose handlers are installed."""

    def __init__(self, *, watch_parent: bool = False) -> None:
        self.first: int | None = None
        self._first_at = 0.0
        self._pending: int | None = None
        self._depth = 0
        self._parent = os.getppid() if watch_parent else None

    def install(self) -> None:
        """Handle the signals from now on; outside the main thread, where Python cannot, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            return
        Interrupts.current = self
        for signum in HANDLED:
            if signal.getsignal(signum) is not signal.SIG_IGN:  # nohup ignores SIGHUP on purpose
                signal.signal(signum, self._handle)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only note a signal while inside; a loop asks ``reason`` after each step. Raises at the end what was noted."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
        if self._pending is not None and self._depth == 0:
            signum, self._pending = self._pending, None
            raise Interrupted(signum)

    def reason(self) -> str | None:
        """Return why to stop, or None: a signal came, or the launcher that waits for this process is gone."""
        if self.first is None and self._parent is not None and os.getppid() != self._parent:
            self.first = self._pending = signal.SIGTERM
        return None if self.first is None else signal.Signals(self.first).name

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first, self._first_at = signum, now
            if not self._depth:
                raise Interrupted(signum)
            self._pending = signum
        elif signum == signal.SIGINT and now - self._first_at > SAME_PRESS_S:
            os._exit(128 + signum)


def undisturbed() -> AbstractContextManager[None]:
    """Hold a first signal back while a run is opened or ended, so that its status is never left half written.

    Signals come to the main thread alone: in any other there is nothing to hold back, nor anybody to raise it to.
    """
    main = threading.current_thread() is threading.main_thread()
    return Interrupts.current.deferred() if Interrupts.current and main else nullcontext()
