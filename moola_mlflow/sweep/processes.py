"""Several workers on one machine: processes with one torch thread each. A pipe tells them to stop.

A pipe, not a shared event: a worker that is killed while it holds a lock would hang the others. A pipe also ends with
the process at its other end.
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

from moola_mlflow.core import (
    SweepKeys,
    TrainingError,
    UserError,
    configure_allocator,
    guard_console,
    printable,
    set_threads,
)
from moola_mlflow.sweep.queue import TrialQueue
from moola_mlflow.sweep.space import Space
from moola_mlflow.sweep.storage import Coordination, locate_storage
from moola_mlflow.sweep.worker import STORES, TrialObjective, Worker, build_pruner
from moola_mlflow.tracking import first_line

POLL_S = 0.3
STOP_LIMIT_S = 120.0
"""Seconds after which a worker that was asked to stop is killed."""


@dataclass(frozen=True)
class WorkerJob:
    """What a worker process needs to know."""

    config: SweepKeys
    study: str
    experiment: str
    parent: str
    make_objective: Callable[[SweepKeys], TrialObjective]
    """A function at the top of a module, so that it can be sent to another process."""


def run_workers(
    job: WorkerJob, num_workers: int, should_stop: Callable[[], str | None], log: Callable[[str], None]
) -> None:
    """Work on a study with several processes until it is done or they are asked to stop. Replace those that die.

    Raises: TrainingError with the message of a worker that gave up, or if too many died.
    """
    os.environ["OMP_NUM_THREADS"] = "1"  # inherited by the workers
    workers = [_start(job) for _ in range(num_workers)]
    num_died, failure, stop_sent_at = 0, "", 0.0
    while workers:
        wait([process.sentinel for process, _ in workers], POLL_S)
        if (reason := should_stop() or failure) and not stop_sent_at:
            stop_sent_at = time.monotonic()
            for _, pipe in workers:
                _send(pipe, reason)
        if stop_sent_at and time.monotonic() - stop_sent_at > STOP_LIMIT_S:
            for process, _ in workers:
                process.kill()
        for process, pipe in [one for one in workers if not one[0].is_alive()]:
            workers.remove((process, pipe))
            process.join()
            if message := _received(pipe):
                failure = failure or message
            elif process.exitcode and not stop_sent_at:
                num_died += 1
                log(f"A worker died (exit code {process.exitcode}); its trial is tried again.")
                if num_died <= job.config.sweep.max_failures + num_workers:
                    workers.append(_start(job))
                elif not workers:
                    failure = f"{num_died} workers died, most likely for lack of memory; lower sweep.workers"
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


def _received(pipe: Connection) -> str:
    try:
        return str(pipe.recv()) if pipe.poll() else ""
    except (EOFError, OSError):
        return ""


def _main(job: WorkerJob, pipe: Connection) -> None:
    """Run one worker. The parent handles Ctrl-C and sends the stop; SIGTERM stops this worker alone."""
    guard_console()
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    reasons: list[str] = []

    def on_signal(signum: int, frame: FrameType | None) -> None:
        reasons.append(signal.Signals(signum).name)

    signal.signal(signal.SIGTERM, on_signal)

    def should_stop() -> str | None:
        if not reasons:
            try:
                if pipe.poll():
                    reasons.append(pipe.recv())
            except (EOFError, OSError):
                reasons.append("the process that started this worker is gone")
        return reasons[0] if reasons else None

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
        Worker(config, space, queue, job.experiment, job.parent, objective, should_stop, _print).run()
    except (UserError, TrainingError) as e:
        _send(pipe, printable(str(e)))
        raise SystemExit(1) from None
    except Exception as e:  # print it here: multiprocessing's own message may show a password
        if not isinstance(e, STORES):
            print(printable(traceback.format_exc()), file=sys.stderr, end="", flush=True)
        _send(pipe, f"{type(e).__name__}: {first_line(e)}")
        raise SystemExit(1) from None


def _print(line: str) -> None:
    print(line, flush=True)
