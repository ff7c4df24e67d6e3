"""Worker processes: they import what a command will need while the command itself imports MLflow, then call functions.

Importing takes most of the time of a short command, and one process imports on one core only.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from typing import Any, ParamSpec, TypeVar

from moola_mlflow.core.collector import rest_collector, wake_collector
from moola_mlflow.core.errors import TrainingError

FIRST = 8
"""Processes that start with a pool. Others start as calls come."""
P = ParamSpec("P")
T = TypeVar("T")


class WorkerPool:
    """Processes that call functions. Without processes, this process calls them at once.

    Workers leave Ctrl-C to their parent, and end when it is gone.
    """

    current: WorkerPool | None = None
    """The pool of the command that runs in this process."""

    def __init__(self, num: int, modules: Sequence[str] = ()) -> None:
        """Start the first of ``num`` processes, others as calls come; each imports ``modules``. 0: start none."""
        self.num = num
        self.begun: Future[Any] | None = None
        """A call that began before the command was imported."""
        self._executor: ProcessPoolExecutor | None = None
        if num:
            self._executor = ProcessPoolExecutor(
                num, multiprocessing.get_context("spawn"), _start_worker, (os.getpid(), tuple(modules))
            )
            try:
                for _ in range(min(num, FIRST)):
                    self.submit(os.getpid)  # a call starts a worker if none is idle
            except BaseException:
                self.close()
                raise

    def submit(self, function: Callable[P, T], *values: P.args, **named: P.kwargs) -> Future[T]:
        """Have a worker call a function of a module. Values and result are pickled."""
        future: Future[T] = Future()
        try:
            if self._executor is not None:
                with _starting():
                    return self._executor.submit(function, *values, **named)
            future.set_result(function(*values, **named))
        except Exception as e:  # raised where the result is asked for, as from a worker
            future.set_exception(e)
        return future

    def close(self) -> None:
        """End the processes, also those that work."""
        if self._executor is None:
            return
        executor, self._executor, self.num = self._executor, None, 0
        processes = list((executor._processes or {}).values())
        executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:  # idle ones and, after a stop or an error, busy ones
            process.terminate()
        for process in processes:
            process.join()


@contextmanager
def early_workers(num: int, modules: Sequence[str]) -> Iterator[WorkerPool]:
    """Start the workers of a command before it imports anything slow. :func:`command_workers` returns them."""
    pool = WorkerPool(num, modules)
    before, WorkerPool.current = WorkerPool.current, pool
    try:
        yield pool
    finally:
        WorkerPool.current = before
        pool.close()


def command_workers() -> WorkerPool:
    """Return the workers that were started with the command, or a pool without processes."""
    return WorkerPool.current or WorkerPool(0)


def result_of(future: Future[T]) -> T:
    """Wait for a result. Raises: what the function raised; TrainingError if the worker has died."""
    try:
        return future.result()
    except BrokenProcessPool as e:
        raise TrainingError(
            "a worker process died, most likely because memory ran out; add memory, or set OMP_NUM_THREADS=1, with "
            "which the command works in one process"
        ) from e


@contextmanager
def _starting() -> Iterator[None]:
    """Start workers that do not run the caller's script again, with SIGINT blocked.

    A Ctrl-C would kill a worker that is still importing, and its parent would wait.
    """
    with _interrupts_blocked(), _without_main():
        yield


def _start_worker(parent: int, modules: Sequence[str] = ()) -> None:
    """Set up this worker: it leaves Ctrl-C to its parent and ends when its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    rest_collector()
    for module in modules:
        with suppress(Exception):  # the function that needs it says what is wrong
            importlib.import_module(module)
    wake_collector()


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _without_main() -> Iterator[None]:
    """Start workers without the caller's script. Their work is a function of a module.

    ``multiprocessing`` would import the script in each of them, and a script that fine-tunes at its top level would
    then fine-tune there.
    """
    main: Any = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), main.__dict__.pop("__file__", None)
    main.__spec__ = None
    try:
        yield
    finally:
        main.__spec__ = spec
        if file is not None:
            main.__file__ = file
