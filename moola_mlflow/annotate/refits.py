"""Refits in the background: a process of its own fits the detector, so the page never waits for it.

A fit that fails, or a process that dies, is reported. The queue then keeps the order of the fit before.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from moola_mlflow.annotate.learning import Learned, LearningTask, learn
from moola_mlflow.core import UserError

POLL_S = 0.2
NICENESS = 5
"""How much the process gives way to the server of the page."""


class Learner:
    """A process that learns. It is started at the first task, and again if it has died."""

    def __init__(self) -> None:
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._stopping, self._lock = threading.Event(), threading.Lock()

    def ask(self, task: LearningTask) -> Learned:
        """Hand a task over and wait for what is learned. Raises: UserError if it fails or the process dies."""
        process, pipe = self._running()
        try:
            pipe.send(task)
            while not pipe.poll(POLL_S):
                if self._stopping.is_set():
                    raise UserError("the session ends")
                if not process.is_alive() and not pipe.poll():
                    raise EOFError
            answer = pipe.recv()
        except (EOFError, OSError):
            code = process.exitcode
            self._end()
            raise UserError(f"the process that fits the detector has died (exit code {code})") from None
        if isinstance(answer, str):
            raise UserError(answer)
        assert isinstance(answer, Learned)
        return answer

    def stop(self) -> None:
        """End the process, also in the middle of a fit."""
        self._stopping.set()
        self._end()

    def _running(self) -> tuple[BaseProcess, Connection]:
        if self._process is None or not self._process.is_alive() or self._pipe is None:
            self._end()
            context = multiprocessing.get_context("spawn")
            mine, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs,), daemon=True, name="moola-refits")
            with self._lock:  # a process that is being started cannot be ended
                if self._stopping.is_set():
                    raise UserError("the session ends")
                process.start()
                self._process, self._pipe = process, mine
            theirs.close()
            return process, mine
        return self._process, self._pipe

    def _end(self) -> None:
        with self._lock:
            process, pipe = self._process, self._pipe
            self._process = self._pipe = None
        if process is not None:
            process.kill()
            process.join()
        if pipe is not None:
            pipe.close()


class Refits:
    """Fits again after each so many decisions. ``state`` says how it stands.

    ``make_task`` gives what to learn from and the count of decisions; ``apply`` takes over what was learned.
    """

    def __init__(
        self, make_task: Callable[[], tuple[LearningTask, int]], apply: Callable[[Learned, int], None]
    ) -> None:
        self._make_task, self._apply = make_task, apply
        self.learner = Learner()
        self._is_due, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="moola-refits", daemon=True)
        self._running = False
        self.at: int | None = None
        """Count of windows looked at that the detector in use was fitted on."""
        self.failed: str | None = None

    @property
    def state(self) -> dict[str, Any]:
        return {"running": self._running or self._is_due.is_set(), "at": self.at, "failed": self.failed}

    def start(self) -> None:
        self._thread.start()

    def due(self) -> None:
        """Ask for a fit. One that is running is finished first."""
        self._is_due.set()

    def close(self) -> None:
        """End, also in the middle of a fit."""
        self._stopping.set()
        self._is_due.set()
        self.learner.stop()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        while True:
            self._is_due.wait()
            if self._stopping.is_set():
                return
            self._running = True
            self._is_due.clear()
            try:
                task, count = self._make_task()
                self._apply(self.learner.ask(task), count)
                self.at, self.failed = count, None
            except Exception as e:
                if not self._stopping.is_set():
                    self.failed = str(e) if isinstance(e, UserError) else f"{type(e).__name__}: {e}"
            finally:
                self._running = False


def _work(pipe: Connection) -> None:
    """Learn from each task that comes. Ctrl-C is the server's business."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        os.nice(NICENESS)
    from moola_mlflow.core import set_threads

    set_threads(1)
    with contextlib.suppress(EOFError, OSError, BrokenPipeError):
        while True:
            task = pipe.recv()
            try:
                answer: Learned | str = learn(task)
            except (UserError, ValueError) as e:
                answer = str(e)
            except Exception as e:
                answer = f"{type(e).__name__}: {e}"
            pipe.send(answer)
