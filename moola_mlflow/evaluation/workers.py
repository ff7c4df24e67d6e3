"""Independent tasks in worker processes: large tensors are mapped from files, and no worker is orphaned."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moola_mlflow.core import TrainingError, tune_allocator

POLL_S = 0.2


@dataclass(frozen=True)
class Mapped:
    """A tensor in a file, to be mapped by a worker."""

    path: str


_work: Callable[[Any, Any], Any]
_context: Any


def run_tasks(
    work: Callable[[Any, Any], Any],
    context: Any,
    tasks: Sequence[Any],
    workers: int,
    heard: Callable[[int, Any], None],
    should_stop: Callable[[], str | None] = lambda: None,
    tuned: bool = True,
) -> None:
    """Call ``work(context, task)`` for every task and ``heard(position, result)`` as results come.

    With one worker it all happens in this process, in order; with more each process has one torch thread. ``context``
    is made of lists, tuples and dataclasses, whose tensors workers map. ``work`` is a function of a module. ``tuned``:
    whether worker processes tune their allocator.

    Raises: what ``work`` raises; TrainingError where a worker dies.
    """
    if workers <= 1 or len(tasks) <= 1:
        for i, task in enumerate(tasks):
            if should_stop():
                return
            heard(i, work(context, task))
        return
    with tempfile.TemporaryDirectory(prefix="moola-") as folder:
        pool = ProcessPoolExecutor(
            min(workers, len(tasks)), multiprocessing.get_context("spawn"), _begin,
            (work, _written(_spilled(context, Path(folder), {}), Path(folder)), os.getpid(), tuned),
        )  # fmt: skip
        try:
            _collect(pool, tasks, heard, should_stop)
        except BrokenProcessPool as e:
            raise TrainingError(
                "a worker process died, most likely for want of memory; lower cv.workers, or give the machine more"
            ) from e
        finally:
            processes = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:  # idle ones and, after a stop or an error, busy ones
                process.terminate()
            for process in processes:
                process.join()


def _collect(
    pool: ProcessPoolExecutor,
    tasks: Sequence[Any],
    heard: Callable[[int, Any], None],
    should_stop: Callable[[], str | None],
) -> None:
    with _interrupts_blocked():  # the first submission starts the workers
        waiting: dict[Future[Any], int] = {pool.submit(_do, task): i for i, task in enumerate(tasks)}
    while waiting and not should_stop():
        done, _ = wait(waiting, POLL_S, FIRST_COMPLETED)
        for future in sorted(done, key=waiting.__getitem__):
            heard(waiting.pop(future), future.result())


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Start children with SIGINT blocked: one that is still importing would die of a Ctrl-C, and its parent wait."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _written(context: Any, folder: Path) -> str:
    """Write a context into the private temporary folder, for this program's own workers alone; return the path.

    Through the pipe to a worker it would block its parent for ever where the worker dies before it reads.
    """
    path = folder / "context"
    path.write_bytes(pickle.dumps(context))
    return str(path)


def _begin(work: Callable[[Any, Any], Any], context: str, parent: int, tuned: bool) -> None:
    """Set a worker up: Ctrl-C is the parent's business, and without a parent there is nothing to do."""
    global _work, _context
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    if tuned:
        tune_allocator()
    # The parent wrote it a moment ago, into a folder that its user alone may enter.
    _work, _context = work, _restored(pickle.loads(Path(context).read_bytes()))  # noqa: S301


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _do(task: Any) -> Any:
    return _work(_context, task)


def _spilled(value: Any, folder: Path, seen: dict[int, Mapped]) -> Any:
    """Return the value with its tensors written to files; one that occurs twice is written once."""
    if isinstance(value, Tensor):
        if id(value) not in seen:
            path = folder / f"{len(seen)}.npy"
            np.save(path, value.numpy(force=True))
            seen[id(value)] = Mapped(str(path))
        return seen[id(value)]
    if isinstance(value, list | tuple):
        return type(value)(_spilled(part, folder, seen) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _spilled(getattr(value, f.name), folder, seen) for f in fields(value)})
    return value


def _restored(value: Any) -> Any:
    if isinstance(value, Mapped):
        return torch.from_numpy(np.load(value.path, mmap_mode="c"))  # pages are shared until written to
    if isinstance(value, list | tuple):
        return type(value)(map(_restored, value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _restored(getattr(value, f.name)) for f in fields(value)})
    return value
