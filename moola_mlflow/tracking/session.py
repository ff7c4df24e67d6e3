"""What a process holds while it works on a run: the run in the store, the run's folder and lock, the delivery."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import mlflow
from mlflow.entities import Run as StoredRun
from mlflow.tracking.context import registry as context

from moola_mlflow.core import UserError, git_commit, is_launched, printable
from moola_mlflow.tracking import origin, run_folder
from moola_mlflow.tracking.delivery import (
    JOURNAL_FILE,
    MAX_NOTE,
    NO_LIMIT,
    Delivery,
    DirectDelivery,
    JournalDelivery,
    SendPolicy,
    count_unsent,
    id_in_store,
    logged_steps,
)
from moola_mlflow.tracking.names import Tags
from moola_mlflow.tracking.origin import OFFLINE
from moola_mlflow.tracking.recovery import launcher_status
from moola_mlflow.tracking.recovery.stale_runs import close_stale_runs
from moola_mlflow.tracking.run_folder import RUNS
from moola_mlflow.tracking.store import STORE_FAILURES, Outage, first_line, open_run, release_run, store_client
from moola_mlflow.tracking.system_metrics import SAMPLED_COMMANDS, SystemMetrics

GENERATED_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")
"""Name that MLflow gives a run without one, such as `gifted-fox-12`."""
WORK_OFFLINE = ("data", "features", "label", "annotate", "pretrain", "finetune")
"""Commands that can work while the store does not answer. The others are about what the store holds."""
KILLED_LIMIT_S = 3.0
"""An interrupted run ends within five seconds. What is not sent by then stays in the run's folder."""


class RunSession:
    """Opens a run, keeps it open, and ends it."""

    tracked = True
    """Whether a store knows the run, or will."""
    id = ""
    """The run's id, and the name of its folder."""
    _stored_id = ""
    """The id in the store, if it answered at the start. A run that was made again there has another than before."""
    experiment_id = ""
    client: mlflow.MlflowClient
    folder: Path
    delivery: Delivery | None = None
    _started_at = 0.0
    _adopted = False
    """Whether the run is the one that the launcher made."""
    _joined = False
    """Whether the run is another process's."""
    _resumed = False
    _gathers = False
    """Whether events wait for the end of a block."""
    _lock: IO[str] | None = None
    _system_metrics: SystemMetrics | None = None

    def begin(self, stage: str, name: str, experiment: str, resume: str, offline: bool) -> None:
        """Resume a run, adopt the launcher's, or make one in an experiment.

        If the launcher made a run but this process resumes another one, the launcher's run ends FINISHED with a link.
        ``offline``: go on if a server does not answer.

        Raises: UserError if the store does not work, or the run to resume is not there or in use.
        """
        self._adopted, self._resumed = is_launched() and not resume, bool(resume)
        launcher_run = os.environ.get("MLFLOW_RUN_ID", "")  # MLflow removes it, even if it then fails
        begin: dict[str, Any] = {"kind": "begin", "show": True}
        stored, problem = None, ""
        if resume:
            self._hold(RUNS / resume)  # before the store says RUNNING
            os.environ.pop("MLFLOW_RUN_ID", None)
            begin["running"] = True
        known = id_in_store(RUNS / resume) if resume else ""
        if known or not resume:
            try:
                stored = open_run(name, experiment, self._adopted, known or None, RUNS / resume if resume else None)
                self._stored_id = stored.info.run_id
                self.id = resume or self._stored_id
            except Outage as e:
                if not offline:
                    raise
                problem = str(e)
        if stored is None:
            os.environ.pop("MLFLOW_RUN_ID", None)
            begin |= self._begin_offline(name, experiment, resume or launcher_run)
        else:
            begin |= self._begin_online(name, stored)
            if not resume:
                begin |= _description(stored)
        self._open_delivery(stored, offline, problem)
        self.write(begin)
        if self._adopted and stored is not None and stored.data.params:
            params = {key: printable(value) for key, value in stored.data.params.items()}
            self.write({"kind": "params", "params": params})  # the launcher has logged them: the run has them already
        if resume and launcher_run:
            self.write({"kind": "handover", "run_id": launcher_run})
        if not problem:
            close_stale_runs()
        found = {Tags.FOLDER: origin.tag_of(self.folder), Tags.COMMIT: git_commit()}
        self.write({"kind": "tags", "tags": {Tags.STAGE: stage, **{key: tag for key, tag in found.items() if tag}}})
        self.beat()
        if stage in SAMPLED_COMMANDS and self.delivery is not None:
            self._system_metrics = SystemMetrics(self.delivery, self.folder)

    def _begin_offline(self, name: str, experiment: str, run_id: str) -> dict[str, Any]:
        """Begin on disk alone, under a known id or a new one. Return the event that tells the store later."""
        self.id = run_id or f"{OFFLINE}{uuid.uuid4().hex}"
        if run_id:  # the experiment is the launcher's choice: leave its settings
            return {"running": True, "show": False}
        tags = {**context.resolve_tags({}), Tags.RUN_NAME: name}
        return {"make": {"name": name, "experiment": experiment, "tags": tags, "at_ms": int(time.time() * 1000)}}

    def _begin_online(self, name: str, stored: StoredRun) -> dict[str, Any]:
        self.experiment_id = stored.info.experiment_id
        renamed = self._adopted and GENERATED_NAME.fullmatch(stored.info.run_name or "")
        # Launchers put their runs into a shared server's Default experiment: leave its settings.
        show = not (self._adopted and mlflow.get_tracking_uri().startswith("http"))
        return {"show": show, **({"name": name} if renamed else {})}

    def _open_delivery(self, stored: StoredRun | None, offline: bool, problem: str) -> None:
        self.client = store_client(bool(problem))
        self.folder = RUNS / self.id
        self._started_at = time.time()
        # A database on this machine answers at once; a server may not.
        background = offline and not mlflow.get_tracking_uri().startswith("sqlite:")
        try:
            if not self._lock:
                self._hold(self.folder)
            if not (self.folder / JOURNAL_FILE).exists():
                origin.mark_folder(self.folder)
            policy = SendPolicy(background, strict=not offline, problem=problem)
            self.delivery = JournalDelivery(self.folder, self.client, id_in_store(self.folder), stored, policy)
        except OSError as e:
            raise UserError(f"cannot write {self.folder} in {Path.cwd()}: {e}; run in a folder you may write to") from e

    def join(self, run_id: str) -> None:
        """Log to a run that another process began, and set it to RUNNING. Several processes may do so at once.

        Raises: UserError if the store does not work.
        """
        self.client, self._started_at, self._joined = mlflow.MlflowClient(), time.time(), True
        try:
            self.client.update_run(run_id, status="RUNNING")
            stored = self.client.get_run(run_id)
        except STORE_FAILURES as e:
            raise UserError(f"the sweep's run '{run_id}' cannot be reached: {first_line(e)}") from e
        self.experiment_id, self.folder = stored.info.experiment_id, RUNS / run_id
        run_folder.make_run_folder(self.folder)
        run_folder.check_no_links(self.folder)
        self.delivery = DirectDelivery(self.folder, self.client, run_id)
        self.id = run_id

    def write(self, event: dict[str, Any], send: bool = True) -> None:
        """Deliver one event. Raises: the error of an event that the store refused."""
        assert self.delivery is not None
        self.delivery.write(event, send and not self._gathers)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Send the events of this block at its end, in few requests. They are in the journal before.

        Raises: the error of an event that the store refused.
        """
        before, self._gathers = self._gathers, True
        try:
            yield
        finally:
            self._gathers = before
        if self.delivery is not None and not before:
            self.delivery.send()

    def beat(self) -> None:
        """Write the heartbeat, and make what was logged survive a power cut."""
        run_folder.write_beat(self.folder, self._started_at)
        if self.delivery is not None:
            self.delivery.sync()

    def logged_steps(self, metric: str) -> set[int]:
        """Return the steps at which the run has, or will have, a value of a metric."""
        assert self.delivery is not None
        steps, state = logged_steps(self.folder, metric), self.delivery.state
        if not state.continued or state.problem:  # a new run has logged nothing but its journal
            return steps
        try:
            return steps | {point.step for point in self.client.get_metric_history(state.run_id or self.id, metric)}
        except STORE_FAILURES:
            return steps

    def end(self, status: str, note: str | None) -> list[str]:
        """Set the final status and the note, and let go of the run. Return what to print of it.

        A store that fails now is reported on stderr, not raised.
        """
        if self._system_metrics:
            self._system_metrics.stop()
        written = self._try(status, lambda: self._write_status(status, note))
        complete = written and self._try(status, lambda: self._send_rest(status))
        if not written and not self._joined:
            self._try(status, lambda: self._end_without_journal(status, note))
        if not self._joined:
            self._try(status, lambda: release_run(self._stored_id or self.id))
        if status == "KILLED" and self._adopted and not (written and self.delivery and self.delivery.state.pending):
            self._try(status, lambda: launcher_status.restore_status_later(self.id, status))
        if self._lock:
            self._try(status, self._lock.close)
        if not written or self.delivery is None:
            return []
        for error in self.delivery.state.refused:
            print(f"moola: the store refused a part of run {self.id}: {first_line(error)}", file=sys.stderr)
        return [] if complete else [_how_to_sync(self.folder)]

    def mark_refused(self) -> None:
        """Tag a run that began with this command: its input was refused."""
        if self.delivery is not None and not (self._joined or self._resumed):
            event = {"kind": "tags", "tags": {Tags.REFUSED: "true"}}
            self._try("FAILED", lambda: self.write(event, send=False))

    def discard(self) -> bool:
        """Move a run that has ended to the store's bin, and remove its folder. Return whether that was done.

        A run that this process did not make stays, and one whose store does not answer.
        """
        if self._adopted or self._joined or self._resumed or self.delivery is None or self.delivery.state.pending:
            return False
        if run_id := self.delivery.state.run_id:
            try:
                self.client.delete_run(run_id)
            except STORE_FAILURES:
                return False
        shutil.rmtree(self.folder, ignore_errors=True)
        return True

    def _try(self, status: str, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except STORE_FAILURES as e:
            text = f"the status {status} of run {self.id} could not be stored completely: {first_line(e)}"
            print(f"moola: {text}", file=sys.stderr)
        return None

    def _write_status(self, status: str, note: str | None) -> bool:
        if self.delivery is None:
            return False
        self.delivery.write({"kind": "status", "status": status, "note": note}, send=False)
        self.delivery.sync()
        return True

    def _send_rest(self, status: str) -> bool:
        assert self.delivery is not None
        return self.delivery.close(KILLED_LIMIT_S if status == "KILLED" else NO_LIMIT)

    def _end_without_journal(self, status: str, note: str | None) -> None:
        """End a run whose journal cannot be written. On a full disk what is sent cannot be noted either."""
        if (delivery := self.delivery) is not None:
            self._try(status, lambda: delivery.close(0))
        run_id = self._stored_id or self.id
        if run_id.startswith(OFFLINE):
            return
        client = mlflow.MlflowClient()
        client.set_terminated(run_id, status)
        if note is not None:
            client.set_tag(run_id, Tags.NOTE, note[:MAX_NOTE])

    def _hold(self, folder: Path) -> None:
        run_folder.make_run_folder(folder)
        self._lock = run_folder.hold_run_folder(folder)


def _description(stored: StoredRun) -> dict[str, Any]:
    """Return what a store needs to make a run again that it has lost. Empty if the store fails just now."""
    try:
        experiment = mlflow.MlflowClient().get_experiment(stored.info.experiment_id).name
    except STORE_FAILURES:
        return {}
    tags = {key: printable(value) for key, value in stored.data.tags.items()}
    made = {"name": stored.info.run_name or "", "experiment": experiment, "tags": tags}
    return {"make": {**made, "at_ms": stored.info.start_time}}


def _how_to_sync(folder: Path) -> str:
    return (
        f"Not in the store yet: {count_unsent(folder)} events of {folder}. When the store answers again:\n"
        f"moola sync {folder}"
    )
