"""The only module that talks to an MLflow run: adopt or make it, log to it, and end it truthfully.

Everything goes through the run's journal on disk (``journal.py``) and from there to the store (``outbox.py``).
"""

from __future__ import annotations

import datetime as dt
import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, TypeVar

import mlflow
from mlflow.tracking.context import registry as context

from moola_mlflow import journal, lastword, machine, runfolder, ui
from moola_mlflow.bars import Bars
from moola_mlflow.config import Config
from moola_mlflow.errors import GateError, TrainingError, UserError, shown
from moola_mlflow.journal import OFFLINE, Event, Journal, Sent
from moola_mlflow.labelfiles import LabelledSet
from moola_mlflow.outbox import Outbox
from moola_mlflow.replay import MAX_NOTE, NOTE, PARENT, Replayer
from moola_mlflow.runfolder import RUNS
from moola_mlflow.runtime import environment_text, git_diff, launched
from moola_mlflow.signals import Interrupted, undisturbed
from moola_mlflow.store import FAILURES, Outage, first_line, is_outage, let_go, open_run, shown_uri

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MAX_NOTE", "NOTE", "PARENT", "Run", "close_abandoned", "record", "recorded", "run_name"]

T = TypeVar("T")
# What MLflow calls a run that nobody named, such as `gifted-fox-12`.
GENERATED_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")
AWAY = ("data", "features", "label", "pretrain", "finetune")
"""Stages that can do their work while the store does not answer; the others are about what is in it."""
KILLED_LIMIT_S = 4.0
"""An interrupted run ends within five seconds; what is not sent by then is kept."""


class Run:
    """One MLflow run as a context manager, with a folder of its own on disk.

    Leaving the context sets the status: FINISHED, KILLED where the process was interrupted, else FAILED with the
    message in the run's note. A server that does not answer holds nothing up: what it lacks is kept in the folder.
    """

    _adopted = False
    _lock: IO[str] | None = None
    _journal: Journal | None = None
    _outbox: Outbox | None = None
    _direct: Replayer | None = None
    _watch: machine.Watch | None = None
    _note = ""
    id = ""
    experiment_id = ""

    def __init__(
        self, stage: str, name: str, experiment: str = "moola", resume: str | None = None, *, away: bool | None = None
    ) -> None:
        """Go on with a run, or adopt the launcher's, or make one in an experiment.

        A run that the launcher made for a process that goes on with another ends FINISHED and names the other.
        ``away``: whether to begin although a server does not answer; None asks the stage.

        Raises: UserError where the store does not work, or the run to go on with is not there or is held.
        """
        self._adopted = launched() and resume is None
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
                if resume is None or _known(resume):
                    try:
                        run = open_run(name, experiment, self._adopted, _known(resume) if resume else None)
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
        except BaseException as e:
            if self.id:
                self.__exit__(type(e), e, None)
            raise

    def _begin_away(self, name: str, experiment: str, run_id: str) -> dict[str, Any]:
        """Begin on disk alone, under an id that is known or one of its own; return what the store is to be told."""
        self.id = run_id or f"{OFFLINE}{uuid.uuid4().hex}"
        if run_id:  # an experiment of the launcher's choice is left as it is
            return {"running": True, "show": False}
        tags = {**context.resolve_tags({}), "mlflow.runName": name}
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
        self.client = mlflow.MlflowClient()
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
        self.tags({"moola.stage": stage})
        self.beat()
        if stage in machine.STAGES:
            self._watch = machine.Watch(self._journal)
            print(f"Run {self.id}" + (f": {ui.where(self.experiment_id, self.id)}" if self.experiment_id else ""))

    def _hold(self, folder: Path) -> None:
        RUNS.parent.mkdir(mode=0o700, exist_ok=True)  # journals and checkpoints are their owner's business
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = runfolder.hold(folder)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is None:
            self.finish("FINISHED")
            self._tell_of_gone()
        elif isinstance(error, Interrupted | KeyboardInterrupt):
            self.finish("KILLED", f"Interrupted ({error or 'SIGINT'}).")
        elif isinstance(error, UserError | TrainingError | GateError):
            self.finish("FAILED", f"**Failed:** {shown(str(error))}" + (f"\n\n{self._note}" if self._note else ""))
        else:
            self.finish("FAILED", f"**Failed:** {type(error).__name__}: {first_line(error)}")

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
            if status == "KILLED" and self._adopted and (sent or not written):
                self._attempted(status, lambda: lastword.leave(self.id, status))
            for held in (self._journal, self._lock):
                if held:
                    self._attempted(status, held.close)
        if written and self._outbox:
            for error in self._outbox.refused:
                print(f"moola: the store refused a part of run {self.id}: {first_line(error)}", file=sys.stderr)
            if not sent:
                print(_follow_up(self.folder), flush=True)

    def _attempted(self, status: str, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except FAILURES as e:
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

    def _write(self, record: dict[str, Any], push: bool = True) -> None:
        """Append one event to the journal, and have it sent."""
        if self._journal is None:  # of a run that is another process's
            self._direct = self._direct or Replayer(self.client, self.folder, self.id)
            self._direct.apply([Event({"at": time.time(), **record}, 0, 0)], fresh=True)
            return
        self._journal.append(record)
        if push and self._outbox is not None:
            self._outbox.push()

    def beat(self) -> None:
        """Say on disk that this process is alive and which it is."""
        runfolder.write_beat(self.folder, self.started_at)
        if self._journal:
            self._journal.sync()

    def config(self, config: Config, unread: tuple[str, ...] = ()) -> None:
        """Log the resolved configuration: as parameters, as a file, as a hash; and what it ran on.

        ``unread``: keys, or sections as ``name.``, that the command does not read: they are in the file and the hash
        alone, for a parameter that had no effect misleads.
        """
        text = config.to_yaml()
        (self.folder / "config.yaml").write_text(text, encoding="utf-8")
        self.text(text, "config.yaml")
        self.text(environment_text(), "environment.txt")
        if diff := git_diff():
            self.text(diff, "git.diff")
        self.params({key: value for key, value in config.flat().items() if not key.startswith(unread)})
        self.tags({"moola.config_sha256": config.sha256()})

    def params(self, params: Mapping[str, Any]) -> None:
        """Log parameters; a key that the run has is left as it is: the launcher logs short keys as raw text."""
        self._write({"kind": "params", "params": _texts(params)})

    def tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags."""
        self._write({"kind": "tags", "tags": _texts(tags)})

    def note(self, markdown: str) -> None:
        """Set the Markdown note that the UI shows first."""
        self._note = markdown
        self.tags({NOTE: markdown[:MAX_NOTE]})

    def metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log metrics in one batch: on SQLite each call costs tens of milliseconds whatever it carries."""
        figures = {key: float(value) for key, value in metrics.items()}
        self._write({"kind": "metrics", "step": step, "metrics": figures})

    def steps(self, metric: str) -> set[int]:
        """Return the steps at which the run has, or will have, a value of a metric."""
        logged = journal.steps(self.folder, metric)
        if self._journal is None or not self._journal.opened_at or (self._outbox and self._outbox.trouble):
            return logged  # a run of this process's own has nothing that its journal has not
        try:
            run_id = self._outbox.run_id if self._outbox else self.id
            return logged | {point.step for point in self.client.get_metric_history(run_id, metric)}
        except FAILURES:
            return logged

    def bars(self, bars: Bars, context: str) -> None:
        """Log every data file as an input of the run."""
        self._inputs([(str(file.path), file.sha256, int(file.rows)) for file in bars.files], context)
        self.tags({"moola.data_sha256": bars.sha256})

    def labels(self, labels: LabelledSet, context: str) -> None:
        """Log a labelled set as an input of the run."""
        name = "sample labels" if str(labels.path) == "sample" else str(labels.path)
        self._inputs([(name, labels.sha256, len(labels))], context)
        self.tags({"moola.data_sha256": labels.sha256, "moola.weak_labels": str(labels.weak).lower()})

    def _inputs(self, files: list[tuple[str, str, int]], context: str) -> None:
        """Log inputs by path, SHA-256 and rows."""
        self._write({"kind": "inputs", "files": [list(file) for file in files], "context": context})

    def child(
        self,
        name: str,
        tags: Mapping[str, Any],
        series: Sequence[Mapping[str, float]],
        final: Mapping[str, float],
        params: Mapping[str, Any] | None = None,
        seconds: float = 0.0,
    ) -> None:
        """Log a finished part of this run, such as a fold, as a run nested in it: curves by epoch and final figures.

        It is made, filled and ended in one go, so that an interruption leaves no child RUNNING; it began ``seconds``
        ago.
        """
        record = {"kind": "child", "key": uuid.uuid4().hex, "name": name, "seconds": seconds}
        record |= {"tags": _texts(tags), "params": _texts(params or {}), "series": list(series), "final": dict(final)}
        self._write(journal.without_nan(record))

    def text(self, text: str, name: str) -> None:
        """Log text as an artifact."""
        self._file(name, lambda path: path.write_text(text, encoding="utf-8"))

    def json(self, value: Any, name: str) -> None:
        """Log a JSON artifact."""
        self.text(journal.dumps(value, indent=2) + "\n", name)

    def table(self, rows: list[dict[str, Any]], name: str) -> None:
        """Log rows as a table that the UI can show, in the place of one that has the name."""
        columns = list(rows[0])
        split = {"columns": columns, "data": [[row[key] for key in columns] for row in rows]}
        text = journal.dumps(split)
        self._file(name, lambda path: path.write_text(text, encoding="utf-8"), tables=[name])

    def figure(self, figure: Figure, name: str) -> None:
        """Log a picture as a PNG artifact."""
        self._file(name, lambda path: figure.savefig(path, dpi=110))

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Log a file or the content of a folder."""
        name = (folder or "") if path.is_dir() else str(Path(folder or "") / path.name)
        self._write({"kind": "artifacts", "key": journal.stage(self.folder, path, name), "names": [name]})

    def _file(self, name: str, write: Callable[[Path], object], tables: Sequence[str] = ()) -> None:
        """Log a file that is made where it waits for the store."""
        key = uuid.uuid4().hex
        path = journal.outbox(self.folder, key) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
        self._write({"kind": "artifacts", "key": key, "names": [name], **({"tables": list(tables)} if tables else {})})

    def register(self, kind: str, name: str, folder: Path, tags: Mapping[str, str]) -> str:
        """Register an ``encoder`` or ``detector`` folder as a new version of a name, with alias ``candidate``.

        Returns the version; empty where the store does not answer, which is told and follows by ``moola sync``.
        Raises: UserError where the name holds models of another kind.
        """
        key = journal.stage(self.folder, folder, kind)
        self._write({"kind": "register", "key": key, "model": kind, "name": name, "tags": _texts(tags)})
        assert self._outbox is not None
        if not self._outbox.drain():
            print(f"{name}: a version of this {kind} will be registered when the store answers", flush=True)
        if self._outbox.refused:
            raise self._outbox.refused.pop(0)
        return self._outbox.version(key)


def _known(run_id: str) -> str:
    """Return the id of a run in the store, empty where the store has not heard of it yet."""
    if not run_id.startswith(OFFLINE):
        return run_id
    sent = Sent.read(RUNS / run_id)
    return sent.run_id if sent else ""


def _follow_up(folder: Path) -> str:
    return (
        f"Not in the store yet: {journal.unsent(folder)} events of {folder}. When the store answers again:\n"
        f"moola sync {folder}"
    )


def record(stage: str, error: BaseException) -> None:
    """Leave a run that says how a command ended before its own run began."""
    run = Run(stage, run_name(stage, "invalid", 0), away=False)
    run.__exit__(type(error), error, None)


def close_abandoned() -> list[str]:
    """Mark runs as KILLED whose process died without a word (kill -9, power, no memory); return their ids.

    Runs of another store are left alone. They can be resumed all the same.
    """
    client, closed = mlflow.MlflowClient(), []
    for folder in (RUNS / name for name in runfolder.abandoned()):
        run_id = _known(folder.name)
        try:
            if run_id and client.get_run(run_id).info.status == "RUNNING":
                note = "The process died without a word."
                if (folder / "checkpoints").is_dir():
                    note += f" Go on: `moola pretrain --resume {folder.name}`"
                client.set_tag(run_id, NOTE, note)
                client.set_terminated(run_id, "KILLED")
                closed.append(run_id)
            runfolder.close(folder, "KILLED")
        except FAILURES as e:
            if is_outage(e):
                break
    return closed


def recorded(stage: str, step: Callable[[], T]) -> T:
    """Do what comes before a run begins; where that fails, a run says why."""
    try:
        return step()
    except UserError as e:
        record(stage, e)
        raise


def run_name(stage: str, preset: str, seed: int) -> str:
    """Return ``stage-preset-seed-utc time``."""
    return f"{stage}-{preset}-{seed}-{dt.datetime.now(dt.UTC):%Y%m%d-%H%M%S}"


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in values.items()}
