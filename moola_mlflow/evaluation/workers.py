"""Run independent tasks in worker processes that share large tensors and end with their parent.

joblib's loky was tried instead (joblib 1.6.0). Its workers outlive a killed parent, each holds its own copy of every
tensor, and a switch would save ten lines.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moola_mlflow.core import TrainingError, WorkerPool, command_workers, tune_allocator

POLL_S = 0.2


@dataclass(frozen=True)
class TensorFile:
    """A tensor that was written to a file, for workers to map into their memory."""

    path: str


@dataclass(frozen=True)
class Work:
    """What tasks share: the function, the file of its context, and whether a worker tunes its allocator."""

    function: Callable[[Any, Any], Any]
    context: str
    tuned: bool


_loaded: tuple[str, Any] = "", None
"""The context that this worker holds, behind the path of its file."""


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
        shared = _write_context(_to_files(context, Path(folder), {}), Path(folder))
        num, early = num_processes(workers, len(tasks)), command_workers()
        pool = early if num <= early.num <= workers else WorkerPool(num)
        done = False
        try:
            done = _collect(pool, Work(work, shared, tuned), tasks, on_result, should_stop)
        except BrokenProcessPool as e:
            raise TrainingError(
                "a worker process died, most likely because memory ran out; lower cv.workers or add memory"
            ) from e
        finally:
            if pool is not early or not done:  # those of the command may have more tasks to come
                pool.close()


def _collect(
    pool: WorkerPool,
    work: Work,
    tasks: Sequence[Any],
    on_result: Callable[[int, Any], None],
    should_stop: Callable[[], str | None],
) -> bool:
    """Return whether all tasks are done. Some are not if the command was asked to stop."""
    waiting: dict[Future[Any], int] = {pool.submit(_run_task, work, task): i for i, task in enumerate(tasks)}
    while waiting and not should_stop():
        done, _ = wait(waiting, POLL_S, FIRST_COMPLETED)
        for future in sorted(done, key=waiting.__getitem__):
            on_result(waiting.pop(future), future.result())
    return not waiting


def _write_context(context: Any, folder: Path) -> str:
    """Write a context to a file in the private temporary folder and return the file's path.

    Sent through the pipe to a worker, it would block the parent for ever if the worker dies before it reads.
    """
    path = folder / "context"
    path.write_bytes(pickle.dumps(context))
    return str(path)


def _run_task(work: Work, task: Any) -> Any:
    global _loaded
    if _loaded[0] != work.context:
        torch.set_num_threads(1)
        if work.tuned:
            tune_allocator()
        # Safe to unpickle: the parent wrote it a moment ago, into a folder that only its user may enter.
        _loaded = work.context, _from_files(pickle.loads(Path(work.context).read_bytes()))  # noqa: S301
    return work.function(_loaded[1], task)


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
