"""Ctrl-C and SIGTERM: finish the step, save, and leave with the right exit code."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType

# One Ctrl-C at the launcher reaches the child as SIGINT and, a quarter of a second later, SIGTERM.
SAME_PRESS_S = 1.0
# A closed terminal sends SIGHUP. Windows does not have it.
HANDLED = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interrupted(BaseException):
    """A signal asked the process to stop. ``exit_code`` is 128 plus the signal's number.

    It is a BaseException like KeyboardInterrupt, so that no ``except Exception`` catches it.
    """

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(signal.Signals(signum).name)

    @property
    def exit_code(self) -> int:
        return 128 + self.signum


class Interrupts:
    """Turns the first signal into ``Interrupted``: at once, or at the end of ``deferred``.

    A second SIGINT more than a second after the first leaves at once.
    """

    current: Interrupts | None = None
    """The object whose handlers are installed."""

    def __init__(self, *, watch_parent: bool = False) -> None:
        self.first: int | None = None
        self._pending: int | None = None
        self._depth = 0
        self.parent = os.getppid() if watch_parent else None
        """The process that waits for this one, if it is watched."""

    def install(self) -> None:
        """Handle the signals from now on. Outside the main thread do nothing, because Python cannot."""
        if threading.current_thread() is not threading.main_thread():
            return
        Interrupts.current = self
        for signum in HANDLED:
            if signal.getsignal(signum) is not signal.SIG_IGN:  # nohup ignores SIGHUP on purpose
                signal.signal(signum, self._handle)
        reader, tell = socket.socketpair()
        tell.setblocking(False)
        signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._leave_at_second, args=(reader, tell), name="moola-signals", daemon=True).start()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside this block only note a signal, for ``reason``. Raise ``Interrupted`` at the end of the block."""
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
        if self.first is None and self.orphaned:
            self.first = self._pending = signal.SIGTERM
        return None if self.first is None else signal.Signals(self.first).name

    @property
    def orphaned(self) -> bool:
        """Whether the process that waited for this one is gone."""
        return self.parent is not None and os.getppid() != self.parent

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.first is None:
            self.first = signum
            if not self._depth:
                raise Interrupted(signum)
            self._pending = signum

    def _leave_at_second(self, reader: socket.socket, tell: socket.socket) -> None:
        """Exit at a second SIGINT.

        This runs in a thread. The main thread handles no signal while it waits in C, for example for a dead file system
        or peer. ``tell`` stays open as long as Python writes signals to it.
        """
        first_at = None
        while byte := reader.recv(1):
            signum, now = byte[0], time.monotonic()
            if first_at is None:
                first_at = now if signum in HANDLED else None
            elif signum == signal.SIGINT and now - first_at > SAME_PRESS_S and Interrupts.current is self:
                os._exit(128 + signum)


def undisturbed() -> AbstractContextManager[None]:
    """Defer a first signal while a run is opened or ended, so that its status is never half written.

    Signals reach the main thread alone. In another thread there is nothing to defer.
    """
    main = threading.current_thread() is threading.main_thread()
    return Interrupts.current.deferred() if Interrupts.current and main else nullcontext()
