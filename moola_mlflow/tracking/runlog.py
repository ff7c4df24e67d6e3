"""What a run is told: configuration, figures, files and models, each an event of its journal.

Everything goes through the journal on disk (``journal.py``) and from there to the store (``outbox.py``).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow

from moola_mlflow.bars import Bars
from moola_mlflow.core import CommandKeys, environment_text, git_diff
from moola_mlflow.labels import LabelledSet
from moola_mlflow.tracking.delivery import journal
from moola_mlflow.tracking.delivery.journal import Event, Journal
from moola_mlflow.tracking.delivery.outbox import Outbox
from moola_mlflow.tracking.delivery.replay import MAX_NOTE, NOTE, Replayer
from moola_mlflow.tracking.names import Artifacts, Tags
from moola_mlflow.tracking.run_folder import write_whole
from moola_mlflow.tracking.store import STORE_FAILURES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class RunLog:
    """A run as the rest of the program logs to it; ``Run`` begins and ends it."""

    client: mlflow.MlflowClient
    folder: Path
    _journal: Journal | None = None
    _outbox: Outbox | None = None
    _direct: Replayer | None = None
    _waiting: tuple[tuple[Callable[[], Figure], str], ...] = ()
    _note = ""
    id = ""

    def _write(self, record: dict[str, Any], push: bool = True) -> None:
        """Append one event to the journal, and have it sent."""
        if self._journal is None:  # of a run that is another process's
            self._direct = self._direct or Replayer(self.client, self.folder, self.id)
            self._direct.apply([Event({"at": time.time(), **record}, 0, 0)], fresh=True)
            return
        self._journal.append(record)
        if push and self._outbox is not None:
            self._outbox.push()

    def config(self, config: CommandKeys, unread: tuple[str, ...] = ()) -> None:
        """Log the resolved configuration: as parameters, as a file, as a hash; and what it ran on.

        ``unread``: keys, or sections as ``name.``, that the command does not read: they are in the file and the hash
        alone, for a parameter that had no effect misleads.
        """
        text = config.to_yaml()
        # Whole or not at all: an interrupted run is found again by what stands here.
        write_whole(self.folder / Artifacts.CONFIG, text, durable=True)
        self.text(text, Artifacts.CONFIG)
        self.text(environment_text(), Artifacts.ENVIRONMENT)
        if diff := git_diff():
            self.text(diff, Artifacts.GIT_DIFF)
        self.params({key: value for key, value in config.flat().items() if not key.startswith(unread)})
        self.tags({Tags.CONFIG_SHA256: config.sha256()})

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
        logged = journal.logged_steps(self.folder, metric)
        if self._journal is None or not self._journal.opened_at or (self._outbox and self._outbox.trouble):
            return logged  # a run of this process's own has nothing that its journal has not
        try:
            run_id = self._outbox.run_id if self._outbox else self.id
            return logged | {point.step for point in self.client.get_metric_history(run_id, metric)}
        except STORE_FAILURES:
            return logged

    def bars(self, bars: Bars, context: str) -> None:
        """Log every data file as an input of the run."""
        self._inputs([(str(file.path), file.sha256, int(file.rows)) for file in bars.files], context)
        self.tags({Tags.DATA_SHA256: bars.sha256})

    def labels(self, labels: LabelledSet, context: str) -> None:
        """Log a labelled set as an input of the run."""
        name = "sample labels" if str(labels.path) == "sample" else str(labels.path)
        self._inputs([(name, labels.sha256, len(labels))], context)
        self.tags({Tags.DATA_SHA256: labels.sha256, Tags.WEAK_LABELS: str(labels.weak).lower()})

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

    def figure_later(self, draw: Callable[[], Figure], name: str) -> None:
        """Log a picture once there is time to draw it: at the next :meth:`draw_waiting`."""
        self._waiting = (*self._waiting, (draw, name))

    def draw_waiting(self) -> None:
        """Draw and log the pictures that wait."""
        waiting, self._waiting = self._waiting, ()
        for draw, name in waiting:
            self.figure(draw(), name)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Log a file or the content of a folder."""
        name = (folder or "") if path.is_dir() else str(Path(folder or "") / path.name)
        self._write({"kind": "artifacts", "key": journal.stage_files(self.folder, path, name), "names": [name]})

    def _file(self, name: str, write: Callable[[Path], object], tables: Sequence[str] = ()) -> None:
        """Log a file that is made where it waits for the store."""
        key = uuid.uuid4().hex
        path = journal.outbox_folder(self.folder, key) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
        self._write({"kind": "artifacts", "key": key, "names": [name], **({"tables": list(tables)} if tables else {})})

    def register(self, kind: str, name: str, folder: Path, tags: Mapping[str, str]) -> str:
        """Register an ``encoder`` or ``detector`` folder as a new version of a name, with alias ``candidate``.

        Returns the version; empty where the store does not take it now, which is told and follows by ``moola sync``.
        Raises: UserError where the name holds models of another kind.
        """
        key = journal.stage_files(self.folder, folder, kind)
        self._write({"kind": "register", "key": key, "model": kind, "name": name, "tags": _texts(tags)})
        assert self._outbox is not None
        self._outbox.drain()
        if self._outbox.refused:
            raise self._outbox.refused.pop(0)
        version = self._outbox.version(key)
        if not version:
            print(f"{name}: a version of this {kind} will be registered when the store takes it", flush=True)
        return version


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in values.items()}
