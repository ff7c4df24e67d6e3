"""The run of a sweep for a process that did not begin it: several such may log to it at once."""

from __future__ import annotations

import time

import mlflow

from moola_mlflow.core import UserError
from moola_mlflow.tracking import MAX_NOTE, NOTE, RUNS, STORE_FAILURES, Run, first_line, make_run_folder


class SharedRun(Run):
    """Another process's run as a context manager. A folder on disk it has too, but neither journal nor lock."""

    def __init__(self, run_id: str) -> None:
        """Set the run to RUNNING. Raises: UserError where the store does not work."""
        self._adopted, self._lock, self._journal, self._note, self.id = False, None, None, "", run_id
        self.client, self.started_at = mlflow.MlflowClient(), time.time()
        try:
            self.client.update_run(run_id, status="RUNNING")
            run = self.client.get_run(run_id)
        except STORE_FAILURES as e:
            raise UserError(f"the sweep's run '{run_id}' cannot be reached: {first_line(e)}") from e
        self.experiment_id, self._known_params = run.info.experiment_id, set(run.data.params)
        self.folder = RUNS / run_id
        make_run_folder(self.folder)

    def finish(self, status: str, note: str | None = None) -> None:
        """Set the final status and, where given, the note."""
        try:
            if note is not None:
                self.client.set_tag(self.id, NOTE, note[:MAX_NOTE])
            self.client.set_terminated(self.id, status)
        except STORE_FAILURES as e:
            print(f"moola: the status {status} of run {self.id} could not be stored: {first_line(e)}", flush=True)
        print(self.signpost(), flush=True)
