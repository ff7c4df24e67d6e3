"""A run as commands see it: start, resume or join it, log to it, and end it with the right status."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import mlflow

from moola_mlflow.bars import Bars
from moola_mlflow.core import (
    CommandKeys,
    GateError,
    Interrupted,
    TrainingError,
    UserError,
    environment_text,
    git_diff,
    is_launched,
    markdown_lines,
    markdown_text,
    printable,
    undisturbed,
    wake_collector,
    write_whole,
)
from moola_mlflow.labels import EventLabels, LabelledSet
from moola_mlflow.tracking import ui
from moola_mlflow.tracking.delivery import MAX_NOTE, Delivery, copy_into
from moola_mlflow.tracking.names import Artifacts, Metrics, Tags
from moola_mlflow.tracking.plain_json import to_json, without_nan
from moola_mlflow.tracking.session import WORK_OFFLINE, RunSession
from moola_mlflow.tracking.store import first_line, shown_uri
from moola_mlflow.tracking.storeless import new_session

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")


class Run:
    """One MLflow run as a context manager, with a folder of its own on disk.

    Make one with :meth:`start`, :meth:`resume` or :meth:`join`. Leaving the context sets the status: FINISHED, KILLED
    after an interruption, else FAILED with the error in the run's note. A run that was refused (:class:`UserError`)
    before it had results goes to the store's bin, so that typing errors do not fill MLflow's table. A server that does
    not answer never stops the command: the run's folder keeps what the server lacks.
    """

    def __init__(self, session: RunSession) -> None:
        """Log to an open session; use the constructors below instead."""
        self._session = session
        self._waiting: list[tuple[Callable[[], Figure], str]] = []
        self._note = ""
        self._has_results = False
        self._metrics: dict[str, float] = {}
        self._names: list[str] = []

    @classmethod
    def start(
        cls, stage: str, name: str, experiment: str = "moola", *, offline: bool | None = None, quiet: bool = False
    ) -> Run:
        """Adopt the run that the launcher made, or make one in an experiment.

        ``offline``: whether the command may start if a server does not answer; by default ``stage`` decides.
        ``quiet``: print the run's address at the end only.

        Raises: UserError if the store does not work.
        """
        allowed = stage in WORK_OFFLINE if offline is None else offline
        return cls._open(lambda session: session.begin(stage, name, experiment, "", allowed), quiet)

    @classmethod
    def resume(cls, run_id: str, stage: str, name: str, experiment: str = "moola") -> Run:
        """Go on with an interrupted run.

        If the launcher has made a run for this command, it is set to FINISHED and linked to the resumed one.

        Raises: UserError if the store does not work, or the run is not there or in use.
        """
        return cls._open(lambda session: session.begin(stage, name, experiment, run_id, stage in WORK_OFFLINE))

    @classmethod
    def join(cls, run_id: str) -> Run:
        """Log to a run that another process began, as the workers of a sweep do. Raises: UserError."""
        return cls._open(lambda session: session.join(run_id), quiet=True)

    @classmethod
    def _open(cls, begin: Callable[[RunSession], None], quiet: bool = False) -> Run:
        run = cls(new_session())
        try:
            with undisturbed():
                begin(run._session)
            wake_collector()  # most imports are done
            if not quiet:
                print(run.address(), flush=True)
        except BaseException as e:
            if run.id:
                run.__exit__(type(e), e, None)
            raise
        return run

    @property
    def id(self) -> str:
        """MLflow's id of the run, or one that begins with ``offline-`` until the store has made the run."""
        return self._session.id

    @property
    def folder(self) -> Path:
        """The run's folder on disk."""
        return self._session.folder

    @property
    def tracked(self) -> bool:
        """Whether a store knows the run, or will. If not, its files are in its folder under their artifacts' names."""
        return self._session.tracked

    @property
    def last_metrics(self) -> dict[str, float]:
        """The last value of every metric that this process logged."""
        return dict(self._metrics)

    @property
    def noted(self) -> str:
        """The note that was set last, empty without one."""
        return self._note

    def paths(self) -> dict[str, Path]:
        """Return the artifacts that are on disk, in the run's folder, by their names."""
        return {name: self.folder / name for name in self._names if (self.folder / name).exists()}

    def uri(self, artifact: str) -> str:
        """Return the address of an artifact: of the run, or its path if no store knows the run."""
        return f"runs:/{self.id}/{artifact}" if self.tracked else str(self.folder / artifact)

    @property
    def client(self) -> mlflow.MlflowClient:
        """The client of the run's store."""
        return self._session.client

    @property
    def experiment_id(self) -> str:
        """The id of the run's experiment, empty until the store has made the run."""
        return self._session.experiment_id

    @property
    def delivery(self) -> Delivery:
        """The run's events on their way to the store."""
        assert self._session.delivery is not None
        return self._session.delivery

    def address(self) -> str:
        """Return the run's id and, if the store has it, its address in MLflow's UI; untracked: its folder."""
        if not self.tracked:
            return f"Folder {self.folder}"
        shown = f": {ui.run_address(self.experiment_id, self.id)}" if self.experiment_id else ""
        return f"Run {self.id}{shown}"

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is None:
            self.finish("FINISHED")
            self._check_not_deleted()
        elif isinstance(error, Interrupted | KeyboardInterrupt):
            self.finish("KILLED", f"Interrupted ({str(error) or 'SIGINT'}).")
        elif isinstance(error, UserError | TrainingError | GateError):
            reason = markdown_lines(printable(str(error)))  # it may quote any symbol or label
            refused = isinstance(error, UserError) and not self._has_results
            self.finish("FAILED", f"**Failed:** {reason}" + (f"\n\n{self._note}" if self._note else ""), refused)
        else:
            self.finish("FAILED", f"**Failed:** {type(error).__name__}: {markdown_text(first_line(error))}")

    def keep(self) -> None:
        """Say that the run holds results which are not artifacts of its own: it stays if input is refused later."""
        self._has_results = True

    def finish(self, status: str, note: str | None = None, refused: bool = False) -> None:
        """Set the final status and, if given, the note. A store that fails now is reported, not raised.

        ``refused``: the input was refused, so there is nothing to keep. The run goes to the store's bin. A run that the
        launcher made stays FAILED, with a tag.
        """
        with undisturbed():
            if refused:
                self._session.mark_refused()
            lines = self._session.end(status, note)
            if refused and self._session.discard():
                print(f"Run {self.id} is removed, because its input was refused", flush=True)
                return
        print("\n".join([self.address(), *lines]), flush=True)

    def _check_not_deleted(self) -> None:
        """Raises: TrainingError if the run was deleted from the store, because waiting will not bring it back."""
        state = self.delivery.state
        if state.run_deleted:
            raise TrainingError(
                f"run {self.id} was deleted from the store '{shown_uri()}' during the command. All of it is in "
                f"{self.folder}: restore it (mlflow runs restore --run-id {state.run_id}), then "
                f"moola sync {self.folder}; if the store has lost it for good: moola sync {self.folder} --as-new"
            )

    def beat(self) -> None:
        """Write to disk that this process is alive."""
        self._session.beat()

    def together(self) -> AbstractContextManager[None]:
        """Return a block whose events are sent at its end: on SQLite each request costs tens of milliseconds."""
        return self._session.together()

    def config(self, config: CommandKeys) -> None:
        """Log the command's configuration as parameters, file and hash, and the environment."""
        text = config.to_yaml()
        # Whole or not at all: `resume=auto` finds an interrupted run by this file.
        write_whole(self.folder / Artifacts.CONFIG, text, durable=True)
        with self.together():
            self.text(text, Artifacts.CONFIG)
            self.text(environment_text(), Artifacts.ENVIRONMENT)
            if diff := git_diff():
                self.text(diff, Artifacts.GIT_DIFF)
            self.params(config.logged())
            self.tags({Tags.CONFIG_SHA256: config.sha256()})

    def params(self, params: Mapping[str, Any]) -> None:
        """Log parameters. A key that the run has is left as it is: the launcher logs short keys as raw text."""
        self._session.write({"kind": "params", "params": _texts(params)})

    def tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags."""
        self._session.write({"kind": "tags", "tags": _texts(tags)})

    def note(self, markdown: str) -> None:
        """Set the Markdown note that the UI shows first."""
        self._note = markdown
        self.tags({Tags.NOTE: markdown[:MAX_NOTE]})

    def metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log metrics in one batch: on SQLite each call costs tens of milliseconds, whatever it carries."""
        figures = {key: float(value) for key, value in metrics.items()}
        self._has_results |= any(key.startswith(Metrics.TRAIN) for key in figures)
        self._metrics |= figures
        self._session.write({"kind": "metrics", "step": step, "metrics": figures})

    def steps(self, metric: str) -> set[int]:
        """Return the steps at which the run has, or will have, a value of a metric."""
        return self._session.logged_steps(metric)

    def bars(self, bars: Bars, context: str) -> None:
        """Log every file of the bars as an input of the run."""
        self._inputs([[str(file.path), file.sha256, int(file.rows)] for file in bars.files], context)
        self.tags({Tags.DATA_SHA256: bars.sha256})

    def labels(self, labels: LabelledSet | EventLabels, context: str) -> None:
        """Log a labelled set as an input of the run."""
        name = "sample labels" if str(labels.path) == "sample" else str(labels.path)
        self._inputs([[name, labels.sha256, len(labels)]], context)
        self.tags({Tags.DATA_SHA256: labels.sha256, Tags.WEAK_LABELS: str(labels.weak).lower()})

    def _inputs(self, files: list[list[str | int]], context: str) -> None:
        """Log inputs by path, SHA-256 and rows."""
        self._session.write({"kind": "inputs", "files": files, "context": context})

    def child(
        self,
        name: str,
        tags: Mapping[str, Any],
        series: Sequence[Mapping[str, float]],
        final: Mapping[str, float],
        params: Mapping[str, Any] | None = None,
        seconds: float = 0.0,
    ) -> None:
        """Log a finished part of this run, such as a fold, as a child run: curves by epoch and final figures.

        The child is made, filled and ended together, so that an interruption leaves none RUNNING. It started
        ``seconds`` ago.
        """
        self._has_results = True
        record = {"kind": "child", "key": uuid.uuid4().hex, "name": name, "seconds": seconds}
        record |= {"tags": _texts(tags), "params": _texts(params or {}), "series": list(series), "final": dict(final)}
        self._session.write(without_nan(record))

    def text(self, text: str, name: str) -> None:
        """Log text as an artifact."""
        self._file(name, lambda path: path.write_text(text, encoding="utf-8"))

    def json(self, value: Any, name: str) -> None:
        """Log a JSON artifact."""
        self.text(to_json(value, indent=2) + "\n", name)

    def table(self, rows: list[dict[str, Any]], name: str) -> None:
        """Log rows as a table that the UI can show. It replaces a table of the same name."""
        columns = list(rows[0])
        split = {"columns": columns, "data": [[row[key] for key in columns] for row in rows]}
        self._file(name, lambda path: path.write_text(to_json(split), encoding="utf-8"), tables=[name])

    def figure(self, figure: Figure, name: str) -> None:
        """Log a picture as a PNG artifact."""
        self._file(name, lambda path: figure.savefig(path, dpi=110))

    def png(self, picture: Callable[[], bytes], name: str) -> None:
        """Log a picture as a PNG artifact. ``picture`` returns the file's bytes."""
        self._file(name, lambda path: path.write_bytes(picture()))

    def figure_later(self, draw: Callable[[], Figure], name: str) -> None:
        """Log a picture at the next :meth:`draw_waiting`, when there is time to draw it."""
        self._waiting.append((draw, name))

    def draw_waiting(self) -> None:
        """Draw and log the pictures that wait."""
        waiting, self._waiting = self._waiting, []
        for draw, name in waiting:
            self.figure(draw(), name)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Log a file, or the files of a folder."""
        name = (folder or "") if path.is_dir() else str(Path(folder or "") / path.name)
        self._file(name, lambda place: copy_into(place, path))

    def _file(self, name: str, write: Callable[[Path], object], tables: Sequence[str] = ()) -> None:
        """Log an artifact that ``write`` makes where it waits for the store."""
        self._has_results |= name not in (Artifacts.CONFIG, Artifacts.ENVIRONMENT, Artifacts.GIT_DIFF)
        key = self.delivery.add_files(name, write)
        self._names += [name] if name not in self._names else []
        event = {"kind": "artifacts", "key": key, "names": [name]}
        self._session.write({**event, "tables": list(tables)} if tables else event)

    def register(self, kind: str, name: str, folder: Path, tags: Mapping[str, str]) -> str:
        """Register an ``encoder`` or ``detector`` folder as a new version of a name, with alias ``candidate``.

        Returns the version. It is empty if the store does not take the model now: ``moola sync`` then registers it.
        Raises: UserError if the name holds models of another kind.
        """
        self._has_results = True
        key = self.delivery.add_files(kind, lambda place: copy_into(place, folder))
        self._session.write({"kind": "register", "key": key, "model": kind, "name": name, "tags": _texts(tags)})
        self.delivery.flush()
        version = self.delivery.state.versions.get(key, "")
        if not version:
            print(f"{name}: a version of this {kind} will be registered when the store takes it", flush=True)
        return version


def record_failure(stage: str, error: BaseException) -> None:
    """Have the launcher's run say how a command failed before its own run began. Without a launcher no run is made."""
    if not is_launched():
        return
    run = Run.start(stage, run_name(stage, "invalid", 0), offline=False, quiet=True)
    run.__exit__(type(error), error, None)


def with_failure_recorded(stage: str, step: Callable[[], T]) -> T:
    """Do a step that comes before the run begins. If it fails, the launcher's run says why."""
    try:
        return step()
    except UserError as e:
        record_failure(stage, e)
        raise


def run_name(stage: str, preset: str, seed: int, project: str = "") -> str:
    """Return what ran, for which project, and when: ``stage-project-preset-seed-utc time``."""
    what = "-".join(part for part in (stage, project, preset, str(seed)) if part)
    return f"{what}-{dt.datetime.now(dt.UTC):%Y%m%d-%H%M%S}"


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in values.items()}
