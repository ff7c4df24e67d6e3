"""The only module that talks to an MLflow run: adopt or make it, log to it, and end it truthfully."""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, TextIO, TypeVar

import mlflow
import numpy as np
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

from moola_mlflow import lastword, runfolder
from moola_mlflow.bars import Bars
from moola_mlflow.config import Config
from moola_mlflow.errors import GateError, TrainingError, UserError
from moola_mlflow.labelfiles import LabelledSet
from moola_mlflow.runfolder import RUNS
from moola_mlflow.runtime import environment_text, launched
from moola_mlflow.signals import Interrupted, undisturbed
from moola_mlflow.store import FAILURES, first_line, open_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# MLflow's limits: a longer parameter is cut, a longer note is refused by some stores.
MAX_PARAM, MAX_NOTE, MAX_BATCH, MAX_METRICS = 6000, 5000, 100, 1000
NOTE = "mlflow.note.content"
T = TypeVar("T")
PARENT = "mlflow.parentRunId"
EXPERIMENT_KIND = "mlflow.experimentKind"
# What MLflow calls a run that nobody named, such as `gifted-fox-12`.
GENERATED_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")


class Run:
    """One MLflow run as a context manager, with a folder of its own on disk.

    Leaving the context sets the status: FINISHED, KILLED where the process was interrupted, else FAILED with the
    message in the run's note.
    """

    def __init__(self, stage: str, name: str, experiment: str = "moola", resume: str | None = None) -> None:
        """Go on with a run, or adopt the launcher's, or make one in an experiment.

        A run that the launcher made for a process that goes on with another ends FINISHED and names the other.

        Raises: UserError where the store does not work, or the run to go on with is not there or is held.
        """
        self._adopted = launched() and resume is None
        self._lock: IO[str] | None = None
        self._journal: TextIO | None = None
        self._note = ""
        self.id = ""
        try:
            with undisturbed():
                if resume is not None:
                    self._hold(RUNS / resume)  # before the store is told that it runs
                    _hand_over(resume)
                run = open_run(name, experiment, self._adopted, resume)
                self.id = run.info.run_id
            self._set_up(run, stage, name)
        except BaseException as e:
            if self.id:
                self.__exit__(type(e), e, None)
            raise

    def _set_up(self, run: mlflow.entities.Run, stage: str, name: str) -> None:
        self.experiment_id: str = run.info.experiment_id
        self.client = mlflow.MlflowClient()
        self.folder = RUNS / self.id
        self.started_at = time.time()
        self._known_params = set(run.data.params)
        try:
            if not self._lock:
                self._hold(self.folder)
            self._journal = open(self.folder / "journal.jsonl", "a", encoding="utf-8")  # noqa: SIM115
        except OSError as e:
            raise UserError(f"cannot write {self.folder} in {Path.cwd()}: {e}; run in a folder you may write to") from e
        self._show_as_training()
        if self._adopted and GENERATED_NAME.fullmatch(run.info.run_name or ""):
            self.client.update_run(self.id, name=name)
        self._write({"kind": "begin"})
        close_abandoned()
        self.tags({"moola.stage": stage})
        self.beat()

    def _hold(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = runfolder.hold(folder)

    def _show_as_training(self) -> None:
        """Have the UI open the experiment as model training, not as GenAI; a shared server's Default is left alone."""
        if self._adopted and mlflow.get_tracking_uri().startswith("http"):
            return
        if EXPERIMENT_KIND not in self.client.get_experiment(self.experiment_id).tags:
            self.client.set_experiment_tag(self.experiment_id, EXPERIMENT_KIND, "custom_model_development")

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is None:
            self.finish("FINISHED")
        elif isinstance(error, Interrupted | KeyboardInterrupt):
            self.finish("KILLED", f"Interrupted ({error or 'SIGINT'}).")
        elif isinstance(error, UserError | TrainingError | GateError):
            self.finish("FAILED", f"**Failed:** {error}" + (f"\n\n{self._note}" if self._note else ""))
        else:
            self.finish("FAILED", f"**Failed:** {type(error).__name__}: {first_line(error)}")

    def finish(self, status: str, note: str | None = None) -> None:
        """Set the final status and, where given, the note; a store that fails now is told, not raised."""
        steps: list[Callable[[], object]] = [
            lambda: mlflow.end_run(status),  # first: MLflow would end a run that is left active as FINISHED
            lambda: lastword.leave(self.id, status) if status == "KILLED" and self._adopted else None,
            lambda: mlflow.MlflowClient().set_tag(self.id, NOTE, note[:MAX_NOTE]) if note is not None else None,
            lambda: self._write({"kind": "status", "status": status, "note": note}),
            *(held.close for held in (self._journal, self._lock) if held),
        ]
        with undisturbed():
            for step in steps:
                try:
                    step()
                except FAILURES as e:
                    said = f"the status {status} of run {self.id} could not be stored whole: {first_line(e)}"
                    print(f"moola: {said}", file=sys.stderr)

    def _write(self, record: dict[str, Any]) -> None:
        """Append one event to the journal before it is sent."""
        if self._journal:
            self._journal.write(json.dumps({"at": time.time(), **record}) + "\n")
            self._journal.flush()

    def beat(self) -> None:
        """Say on disk that this process is alive and which it is."""
        beat = {"pid": os.getpid(), "host": socket.gethostname(), "started_at": self.started_at, "beat_at": time.time()}
        temporary = self.folder / "heartbeat.tmp"
        temporary.write_text(json.dumps(beat), encoding="utf-8")
        os.replace(temporary, self.folder / "heartbeat.json")

    def config(self, config: Config) -> None:
        """Log the resolved configuration: as parameters, as a file, as a hash; and what it ran on."""
        text = config.to_yaml()
        (self.folder / "config.yaml").write_text(text, encoding="utf-8")
        self.text(text, "config.yaml")
        self.text(environment_text(), "environment.txt")
        if diff := _git_diff():
            self.text(diff, "git.diff")
        self.params(config.flat())
        self.tags({"moola.config_sha256": config.sha256()})

    def params(self, params: Mapping[str, Any]) -> None:
        """Log parameters, skipping keys that the run has: the launcher logs short keys as raw text, and MLflow
        forbids a second value."""
        new = {key: str(value)[:MAX_PARAM] for key, value in params.items() if key not in self._known_params}
        self._known_params |= set(new)
        self._write({"kind": "params", "params": new})
        rows = [Param(key, value) for key, value in new.items()]
        for i in range(0, len(rows), MAX_BATCH):
            self.client.log_batch(self.id, params=rows[i : i + MAX_BATCH])

    def tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags."""
        self._write({"kind": "tags", "tags": {key: str(value) for key, value in tags.items()}})
        self.client.log_batch(self.id, tags=[RunTag(key, str(value)) for key, value in tags.items()])

    def note(self, markdown: str) -> None:
        """Set the Markdown note that the UI shows first."""
        self._note = markdown
        self.tags({NOTE: markdown[:MAX_NOTE]})

    def metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log metrics in one batch: on SQLite each call costs tens of milliseconds whatever it carries."""
        now = int(time.time() * 1000)
        self._write({"kind": "metrics", "step": step, "metrics": dict(metrics)})
        rows = [Metric(key, float(value), now, step) for key, value in metrics.items()]
        self.client.log_batch(self.id, metrics=rows)

    def steps(self, metric: str) -> set[int]:
        """Return the steps at which the run has a value of a metric."""
        return {point.step for point in self.client.get_metric_history(self.id, metric)}

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
        """Log inputs by path, SHA-256 and rows. MLflow keeps 36 characters of a digest: the rest is a tag."""
        inputs = []
        for path, sha256, rows in files:
            source, profile = json.dumps({"uri": path}), json.dumps({"num_rows": rows})
            dataset = Dataset(Path(path).name, sha256[:36], "local", source, profile=profile)
            tags = [InputTag("mlflow.data.context", context), InputTag("sha256", sha256)]
            inputs.append(DatasetInput(dataset, tags))
        self._write({"kind": "inputs", "files": [list(file) for file in files]})
        self.client.log_inputs(self.id, inputs)

    def child(
        self, name: str, tags: Mapping[str, Any], series: Sequence[Mapping[str, float]], final: Mapping[str, float]
    ) -> None:
        """Log a finished part of this run, such as a fold, as a run nested in it: curves by epoch and final figures.

        It is made, filled and ended in one go, so that an interruption leaves no child RUNNING.
        """
        record = {"kind": "child", "name": name, "tags": dict(tags), "series": list(series), "final": dict(final)}
        self._write(_without_nan(record))
        now = int(time.time() * 1000)
        rows = [(key, value, step) for step, metrics in enumerate(series) for key, value in metrics.items()]
        rows += [(key, value, 0) for key, value in final.items()]
        metrics = [Metric(key, float(value), now, step) for key, value, step in rows if math.isfinite(value)]
        with undisturbed():
            all_tags = {PARENT: self.id, **{key: str(value) for key, value in tags.items()}}
            run = self.client.create_run(self.experiment_id, start_time=now, tags=all_tags, run_name=name)
            for i in range(0, len(metrics), MAX_METRICS):
                self.client.log_batch(run.info.run_id, metrics=metrics[i : i + MAX_METRICS])
            self.client.set_terminated(run.info.run_id)

    def text(self, text: str, name: str) -> None:
        """Log text as an artifact."""
        self.client.log_text(self.id, text, name)

    def json(self, value: Any, name: str) -> None:
        """Log a JSON artifact."""
        self.client.log_text(self.id, json.dumps(_without_nan(value), indent=2, default=_plain) + "\n", name)

    def table(self, rows: list[dict[str, Any]], name: str) -> None:
        """Log rows as a table that the UI can show."""
        columns = {key: [row[key] for row in rows] for key in rows[0]}
        self.client.log_table(self.id, columns, name)

    def figure(self, figure: Figure, name: str) -> None:
        """Log a picture as a PNG artifact."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            figure.savefig(path, dpi=110)
            self.client.log_artifact(self.id, str(path), str(Path(name).parent))

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Log a file or the content of a folder."""
        send = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
        send(self.id, str(path), folder)


def _hand_over(run_id: str) -> None:
    """End the launcher's run, if there is one: what follows belongs to the run that goes on."""
    if not launched():
        return
    own = mlflow.start_run()
    client = mlflow.MlflowClient()
    client.set_tag(own.info.run_id, "moola.resumed", run_id)
    client.set_tag(own.info.run_id, NOTE, f"Went on with run `{run_id}`, which holds everything.")
    mlflow.end_run("FINISHED")


def record(stage: str, error: BaseException) -> None:
    """Leave a run that says how a command ended before its own run began."""
    run = Run(stage, run_name(stage, "invalid", 0))
    run.__exit__(type(error), error, None)


def close_abandoned() -> list[str]:
    """Mark runs as KILLED whose process died without a word (kill -9, power, no memory); return their ids.

    Runs of another store are left alone. They can be resumed all the same.
    """
    client, closed = mlflow.MlflowClient(), []
    for run_id in runfolder.abandoned():
        try:
            if client.get_run(run_id).info.status == "RUNNING":
                note = "The process died without a word."
                if (RUNS / run_id / "checkpoints").is_dir():
                    note += f" Go on: `moola pretrain --resume {run_id}`"
                client.set_tag(run_id, NOTE, note)
                client.set_terminated(run_id, "KILLED")
                closed.append(run_id)
            runfolder.close(RUNS / run_id, "KILLED")
        except FAILURES:
            continue
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


def _git_diff() -> str:
    """Return what the checkout that holds this package changes against its commit; empty when clean or no checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return ""
    try:
        shown = subprocess.run(
            ["git", "-C", str(root), "diff", "HEAD"], capture_output=True, text=True, errors="replace", timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return shown.stdout if shown.returncode == 0 else ""


def _without_nan(value: Any) -> Any:
    """Return the value with null for figures that are not finite, which JSON does not know."""
    if isinstance(value, Mapping):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    if isinstance(value, float | np.floating) and not math.isfinite(value):
        return None
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
