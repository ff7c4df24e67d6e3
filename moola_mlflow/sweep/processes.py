"""Several workers on one machine: processes with one torch thread each, told to stop through a pipe.

A pipe and no shared event: a worker that is killed while it holds a lock would hang the others, and a pipe also ends
with the process that holds its other end.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType

import mlflow
import optuna

from moola_mlflow.core import SweepKeys, TrainingError, UserError, configure_allocator, printable, set_threads
from moola_mlflow.sweep.queue import TrialQueue
from moola_mlflow.sweep.space import Space
from moola_mlflow.sweep.storage import Coordination, locate_storage
from moola_mlflow.sweep.worker import STORES, TrialObjective, Worker, build_pruner
from moola_mlflow.tracking import first_line

POLL_S = 0.3
LEAVE_S = 120.0


@dataclass(frozen=True)
class WorkerJob:
    """What a worker process must know."""

    config: SweepKeys
    study: str
    experiment: str
    parent: str
    make_objective: Callable[[SweepKeys], TrialObjective]
    """A function of a module."""


def run_workers(
    job: WorkerJob, workers: int, should_stop: Callable[[], str | None], heard: Callable[[str], None]
) -> None:
    """Work on a study with several processes until it is done or they are asked to stop; replace those that die.

    Raises: TrainingError with the words of a worker that gave up, or where too many died.
    """
    os.environ["OMP_NUM_THREADS"] = "1"  # inherited
    crew = [_start(job) for _ in range(workers)]
    deaths, failure, told_at = 0, "", 0.0
    while crew:
        wait([process.sentinel for process, _ in crew], POLL_S)
        if (reason := should_stop() or failure) and not told_at:
            told_at = time.monotonic()
            for _, pipe in crew:
                _send(pipe, reason)
        if told_at and time.monotonic() - told_at > LEAVE_S:
            for process, _ in crew:
                process.kill()
        for process, pipe in [one for one in crew if not one[0].is_alive()]:
            crew.remove((process, pipe))
            process.join()
            said = _last_words(pipe)
            if said:
                failure = failure or said
            elif process.exitcode and not told_at:
                deaths += 1
                heard(f"A worker died (exit code {process.exitcode}); its trial is tried again.")
                if deaths <= job.config.sweep.max_failures + workers:
                    crew.append(_start(job))
                elif not crew:
                    failure = f"{deaths} workers died, most likely for want of memory; lower sweep.workers"
    if failure and not should_stop():
        raise TrainingError(failure)


def _start(job: WorkerJob) -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_main, args=(job, theirs), daemon=False)
    process.start()
    theirs.close()
    return process, mine


def _send(pipe: Connection, text: str) -> None:
    with contextlib.suppress(OSError):  # it has just ended
        pipe.send(text)


def _last_words(pipe: Connection) -> str:
    try:
        return str(pipe.recv()) if pipe.poll() else ""
    except (EOFError, OSError):
        return ""


def _main(job: WorkerJob, pipe: Connection) -> None:
    """Be a worker: Ctrl-C is the parent's business, which tells through the pipe; SIGTERM stops this worker alone."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    asked: list[str] = []

    def note(signum: int, frame: FrameType | None) -> None:
        asked.append(signal.Signals(signum).name)

    signal.signal(signal.SIGTERM, note)

    def should_stop() -> str | None:
        if not asked:
            try:
                if pipe.poll():
                    asked.append(pipe.recv())
            except (EOFError, OSError):
                asked.append("the process that started this worker is gone")
        return asked[0] if asked else None

    try:
        set_threads(1)
        config = job.config
        configure_allocator(config.runtime)
        space = Space.of(config)
        url, _ = locate_storage(config.sweep.storage, mlflow.get_tracking_uri())
        coordination = Coordination(url, config.sweep.heartbeat_s, config.sweep.grace_s)
        study = optuna.load_study(study_name=job.study, storage=coordination.rdb, pruner=build_pruner(config))
        queue = TrialQueue(study, coordination, config.sweep, space, mlflow.MlflowClient())
        objective = job.make_objective(config)
        Worker(config, space, queue, job.experiment, job.parent, objective, should_stop, _say).run()
    except (UserError, TrainingError) as e:
        _send(pipe, printable(str(e)))
        raise SystemExit(1) from None
    except Exception as e:  # told here: what multiprocessing prints of it may show a password
        if not isinstance(e, STORES):
            print(printable(traceback.format_exc()), file=sys.stderr, end="", flush=True)
        _send(pipe, f"{type(e).__name__}: {first_line(e)}")
        raise SystemExit(1) from None


def _say(line: str) -> None:
    print(line, flush=True)
