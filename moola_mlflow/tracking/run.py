"""A run as commands see it: adopt or make it, log to it, and end it truthfully.

Everything goes through the run's journal on disk (``journal.py``) and from there to the store (``outbox.py``).
"""

from __future__ import annotations

import datetime as dt
import os
import re
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

import mlflow
from mlflow.tracking.context import registry as context

from moola_mlflow.core import (
    GateError,
    Interrupted,
    TrainingError,
    UserError,
    is_launched,
    markdown_lines,
    markdown_text,
    printable,
    undisturbed,
)
from moola_mlflow.tracking import run_folder, system_metrics, ui
from moola_mlflow.tracking.delivery import journal
from moola_mlflow.tracking.delivery.journal import OFFLINE, Journal, Sent
from moola_mlflow.tracking.delivery.outbox import Outbox
from moola_mlflow.tracking.delivery.replay import MAX_NOTE, NOTE, PARENT, Replayer
from moola_mlflow.tracking.names import Tags
from moola_mlflow.tracking.recovery import launcher_status
from moola_mlflow.tracking.recovery.stale_runs import close_abandoned, id_in_store
from moola_mlflow.tracking.run_folder import RUNS
from moola_mlflow.tracking.runlog import RunLog
from moola_mlflow.tracking.store import STORE_FAILURES, Outage, first_line, let_go, open_run, shown_uri, store_client

__all__ = ["MAX_NOTE", "NOTE", "PARENT", "Run", "record_failure", "run_name", "with_failure_recorded"]

T = TypeVar("T")
# What MLflow calls a run that nobody named, such as `gifted-fox-12`.
GENERATED_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")
AWAY = ("data", "features", "label", "pretrain", "finetune")
"""Stages that can do their work while the store does not answer; the others are about what is in it."""
KILLED_LIMIT_S = 3.0
"""An interrupted run ends within five seconds; what is not sent by then is kept."""


class Run(RunLog):
    """One MLflow run as a context manager, with a folder of its own on disk.

    Leaving the context sets the status: FINISHED, KILLED where the process was interrupted, else FAILED with the
    message in the run's note. A server that does not answer holds nothing up: what it lacks is kept in the folder.
    """

    _adopted = False
    _lock: IO[str] | None = None
    _watch: system_metrics.Watch | None = None
    experiment_id = ""

    def __init__(
        self, stage: str, name: str, experiment: str = "moola", resume: str | None = None, *,
        away: bool | None = None, quiet: bool = False,
    ) -> None:  # fmt: skip
        """Go on with a run, or adopt the launcher's, or make one in an experiment.

        A run that the launcher made for a process that goes on with another ends FINISHED and names the other.
        ``away``: whether to begin although a server does not answer; None asks the stage. ``quiet``: where it is seen
        is said at its end alone.

        Raises: UserError where the store does not work, or the run to go on with is not there or is held.
        """
        self._adopted = is_launched() and resume is None
        away = stage in AWAY if away is None else away
        begin: dict[str, Any] = {"kind": "begin", "show": True}
        run, down, handed = None, "", ""
        own = os.environ.get("MLFLOW_RUN_ID", "") if self._adopted else ""  # MLflow forgets it even where it fails
        try:
            with undisturbed():
                if resume is not None:
                    self._hold(RUNS / resume)  # before the store is told that it runs
                    handed = os.environ.pop("MLFLOW_RUN_ID", "")
                    begin["running"] = True
                if resume is None or id_in_store(resume):
                    try:
                        run = open_run(name, experiment, self._adopted, id_in_store(resume) if resume else None)
                        self.id = resume or run.info.run_id
                    except Outage as e:
                        if not away:
                            raise
                        down = str(e)
                if run is None:
                    os.environ.pop("MLFLOW_RUN_ID", None)
                    begin |= self._begin_away(name, experiment, resume or own)
                else:
                    begin |= self._begin_with(run, name)
            self._set_up(stage, run, away, down, [begin, *([{"kind": "handover", "run_id": handed}] * bool(handed))])
            if not quiet:
                print(self.signpost(), flush=True)
        except BaseException as e:
            if self.id:
                self.__exit__(type(e), e, None)
            raise

    def _begin_away(self, name: str, experiment: str, run_id: str) -> dict[str, Any]:
        """Begin on disk alone, under an id that is known or one of its own; return what the store is to be told."""
        self.id = run_id or f"{OFFLINE}{uuid.uuid4().hex}"
        if run_id:  # an experiment of the launcher's choice is left as it is
            return {"running": True, "show": False}
        tags = {**context.resolve_tags({}), Tags.RUN_NAME: name}
        return {"make": {"name": name, "experiment": experiment, "tags": tags, "at_ms": int(time.time() * 1000)}}

    def _begin_with(self, run: mlflow.entities.Run, name: str) -> dict[str, Any]:
        self.experiment_id = run.info.experiment_id
        renamed = self._adopted and GENERATED_NAME.fullmatch(run.info.run_name or "")
        # A shared server's Default experiment, where launchers put their runs, is left as it is.
        show = not (self._adopted and mlflow.get_tracking_uri().startswith("http"))
        return {"show": show, **({"name": name} if renamed else {})}

    def _set_up(
        self, stage: str, run: mlflow.entities.Run | None, away: bool, down: str, first: list[dict[str, Any]]
    ) -> None:
        self.client = store_client(bool(down))
        self.folder = RUNS / self.id
        self.started_at = time.time()
        try:
            if not self._lock:
                self._hold(self.folder)
            self._journal = Journal(self.folder)
            known = "" if self.id.startswith(OFFLINE) else self.id
            # A run of a version that sent everything at once, or a new one, has nothing to send from before.
            sent = Sent.read(self.folder) or Sent(self._journal.size, known)
            sent.uri, sent.offset = shown_uri(), min(sent.offset, self._journal.size)
            sent.write(self.folder)
        except OSError as e:
            raise UserError(f"cannot write {self.folder} in {Path.cwd()}: {e}; run in a folder you may write to") from e
        replayer = Replayer(self.client, self.folder, sent.run_id, run)
        background = away and not mlflow.get_tracking_uri().startswith("sqlite:")
        self._outbox = Outbox(
            self._journal, replayer, sent, background=background, strict=not away and not down, down=down
        )
        for record in first:
            self._write(record)
        if not down:
            close_abandoned()
        self.tags({Tags.STAGE: stage})
        self.beat()
        if stage in system_metrics.STAGES:
            self._watch = system_metrics.Watch(self._journal)

    def _hold(self, folder: Path) -> None:
        run_folder.make_run_folder(folder)
        self._lock = run_folder.hold_run_folder(folder)

    def __enter__(self) -> Run:
        return self

    def signpost(self) -> str:
        """Return the run's id and, where the store has it, its address in MLflow's UI."""
        return f"Run {self.id}" + (f": {ui.run_address(self.experiment_id, self.id)}" if self.experiment_id else "")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is None:
            self.finish("FINISHED")
            self._tell_of_gone()
        elif isinstance(error, Interrupted | KeyboardInterrupt):
            self.finish("KILLED", f"Interrupted ({error or 'SIGINT'}).")
        elif isinstance(error, UserError | TrainingError | GateError):
            reason = markdown_lines(printable(str(error)))  # in which a symbol or a label may be called anything
            self.finish("FAILED", f"**Failed:** {reason}" + (f"\n\n{self._note}" if self._note else ""))
        else:
            self.finish("FAILED", f"**Failed:** {type(error).__name__}: {markdown_text(first_line(error))}")

    def finish(self, status: str, note: str | None = None) -> None:
        """Set the final status and, where given, the note; a store that fails now is told, not raised."""
        with undisturbed():
            if self._watch:
                self._watch.stop()
            written = self._attempted(status, lambda: self._write_last(status, note))
            sent = bool(written and self._outbox and self._attempted(status, lambda: self._send_last(status)))
            if not written:
                self._attempted(status, lambda: self._end_directly(status, note))
            self._attempted(status, lambda: let_go(self.id))
            told = not written or (self._outbox is not None and not self._outbox.pending)
            if status == "KILLED" and self._adopted and told:
                self._attempted(status, lambda: launcher_status.restore_status_later(self.id, status))
            for held in (self._journal, self._lock):
                if held:
                    self._attempted(status, held.close)
        print(self.signpost(), flush=True)
        if written and self._outbox:
            for error in self._outbox.refused:
                print(f"moola: the store refused a part of run {self.id}: {first_line(error)}", file=sys.stderr)
            if not sent:
                print(_follow_up(self.folder), flush=True)

    def _attempted(self, status: str, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except STORE_FAILURES as e:
            said = f"the status {status} of run {self.id} could not be stored whole: {first_line(e)}"
            print(f"moola: {said}", file=sys.stderr)
        return None

    def _write_last(self, status: str, note: str | None) -> bool:
        if self._journal is None or self._outbox is None:
            return False
        self._write({"kind": "status", "status": status, "note": note}, False)
        self._journal.sync()
        return True

    def _send_last(self, status: str) -> bool:
        assert self._outbox is not None
        return self._outbox.close(KILLED_LIMIT_S if status == "KILLED" else float("inf"))

    def _end_directly(self, status: str, note: str | None) -> None:
        """End a run whose journal cannot be written."""
        if self._outbox is not None:
            self._outbox.stop()
        if self.id.startswith(OFFLINE):
            return
        client = mlflow.MlflowClient()
        client.set_terminated(self.id, status)
        if note is not None:
            client.set_tag(self.id, NOTE, note[:MAX_NOTE])

    def _tell_of_gone(self) -> None:
        """Raises: TrainingError where the run was deleted from the store: to wait for it to come back is of no use."""
        if self._outbox is not None and self._outbox.gone:
            raise TrainingError(
                f"run {self.id} was deleted from the store '{shown_uri()}' while it was at work. All of it is in "
                f"{self.folder}: restore it (mlflow runs restore --run-id {self._outbox.run_id}), then "
                f"moola sync {self.folder}"
            )

    def beat(self) -> None:
        """Say on disk that this process is alive and which it is."""
        run_folder.write_beat(self.folder, self.started_at)
        if self._journal:
            self._journal.sync()


def _follow_up(folder: Path) -> str:
    return (
        f"Not in the store yet: {journal.count_unsent(folder)} events of {folder}. When the store answers again:\n"
        f"moola sync {folder}"
    )


def record_failure(stage: str, error: BaseException) -> None:
    """Leave a run that says how a command ended before its own run began."""
    run = Run(stage, run_name(stage, "invalid", 0), away=False, quiet=True)
    run.__exit__(type(error), error, None)


def with_failure_recorded(stage: str, step: Callable[[], T]) -> T:
    """Do what comes before a run begins; where that fails, a run says why."""
    try:
        return step()
    except UserError as e:
        record_failure(stage, e)
        raise


def run_name(stage: str, preset: str, seed: int) -> str:
    """Return ``stage-preset-seed-utc time``."""
    return f"{stage}-{preset}-{seed}-{dt.datetime.now(dt.UTC):%Y%m%d-%H%M%S}"
