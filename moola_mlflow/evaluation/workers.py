"""Run independent tasks in worker processes that share large tensors and end with their parent.

joblib's loky was tried instead (joblib 1.6.0). Its workers outlive a killed parent, each holds its own copy of every
tensor, and a switch would save ten lines.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
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
class TensorFile:
    """A tensor that was written to a file, for workers to map into their memory."""

    path: str


_work: Callable[[Any, Any], Any]
_context: Any


def num_processes(workers: int, num_tasks: int) -> int:
    """Return how many processes work on some tasks; 1 is the calling process itself."""
    return max(1, min(workers, num_tasks))


def run_tasks(
    work: Callable[[Any, Any], Any],
    context: Any,
    tasks: Sequence[Any],
    workers: int,
    on_result: Callable[[int, Any], None],
    should_stop: Callable[[], str | None] = lambda: None,
    tuned: bool = True,
) -> None:
    """Call ``work(context, task)`` for every task, and ``on_result(position, result)`` as results come.

    With one worker everything happens in this process, in order. With more, each worker process has one torch thread.
    ``context`` is made of lists, tuples and dataclasses; workers map its tensors from files. ``work`` must be a
    function of a module. ``tuned`` says whether worker processes tune their allocator.

    Raises: what ``work`` raises; TrainingError if a worker dies.
    """
    if num_processes(workers, len(tasks)) == 1:
        for i, task in enumerate(tasks):
            if should_stop():
                return
            on_result(i, work(context, task))
        return
    with tempfile.TemporaryDirectory(prefix="moola-") as folder:
        pool = ProcessPoolExecutor(
            min(workers, len(tasks)), multiprocessing.get_context("spawn"), _start_worker,
            (work, _write_context(_to_files(context, Path(folder), {}), Path(folder)), os.getpid(), tuned),
        )  # fmt: skip
        try:
            _collect(pool, tasks, on_result, should_stop)
        except BrokenProcessPool as e:
            raise TrainingError(
                "a worker process died, most likely because memory ran out; lower cv.workers or add memory"
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
    on_result: Callable[[int, Any], None],
    should_stop: Callable[[], str | None],
) -> None:
    with _interrupts_blocked(), _without_main():  # the first submission starts the workers
        waiting: dict[Future[Any], int] = {pool.submit(_run_task, task): i for i, task in enumerate(tasks)}
    while waiting and not should_stop():
        done, _ = wait(waiting, POLL_S, FIRST_COMPLETED)
        for future in sorted(done, key=waiting.__getitem__):
            on_result(waiting.pop(future), future.result())


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Start workers with SIGINT blocked: a Ctrl-C would kill one that is still importing, and its parent would wait."""
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
    """Start workers that do not run the caller's script again. Their work is a function of a module.

    ``multiprocessing`` would import the script in each of them, and a script that fine-tunes at its top level would
    then fine-tune there.
    """
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), main.__dict__.pop("__file__", None)
    main.__spec__ = None
    try:
        yield
    finally:
        main.__spec__ = spec
        if file is not None:
            main.__file__ = file


def _write_context(context: Any, folder: Path) -> str:
    """Write a context to a file in the private temporary folder and return the file's path.

    Sent through the pipe to a worker, it would block the parent for ever if the worker dies before it reads.
    """
    path = folder / "context"
    path.write_bytes(pickle.dumps(context))
    return str(path)


def _start_worker(work: Callable[[Any, Any], Any], context: str, parent: int, tuned: bool) -> None:
    """Set up a worker: it leaves Ctrl-C to its parent and ends when its parent is gone."""
    global _work, _context
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    if tuned:
        tune_allocator()
    # Safe to unpickle: the parent wrote it a moment ago, into a folder that only its user may enter.
    _work, _context = work, _from_files(pickle.loads(Path(context).read_bytes()))  # noqa: S301


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _run_task(task: Any) -> Any:
    return _work(_context, task)


def _to_files(value: Any, folder: Path, seen: dict[int, TensorFile]) -> Any:
    """Return the value with its tensors replaced by files; a tensor that occurs twice is written once."""
    if isinstance(value, Tensor):
        if id(value) not in seen:
            path = folder / f"{len(seen)}.npy"
            np.save(path, value.numpy(force=True))
            seen[id(value)] = TensorFile(str(path))
        return seen[id(value)]
    if isinstance(value, list | tuple):
        return type(value)(_to_files(part, folder, seen) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _to_files(getattr(value, f.name), folder, seen) for f in fields(value)})
    return value


def _from_files(value: Any) -> Any:
    if isinstance(value, TensorFile):
        return torch.from_numpy(np.load(value.path, mmap_mode="c"))  # pages are shared until written to
    if isinstance(value, list | tuple):
        return type(value)(map(_from_files, value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _from_files(getattr(value, f.name)) for f in fields(value)})
    return value
