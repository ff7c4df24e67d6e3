"""A session of labelling: bars, labels file, journal, queue and desk, opened together and closed together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from moola_mlflow.annotate.candidates import Candidates
from moola_mlflow.annotate.decided import Decided
from moola_mlflow.annotate.desk import Desk
from moola_mlflow.annotate.journal import DecisionJournal
from moola_mlflow.annotate.labels_file import LabelsFile, labels_of, read_earlier, with_earlier
from moola_mlflow.annotate.suggestions import Suggestions
from moola_mlflow.annotate.window_queue import WindowQueue
from moola_mlflow.bars import Bars
from moola_mlflow.core import AnnotateKeys, UserError
from moola_mlflow.labels import EventLabels, labels_target

DEFAULT_CLASSES = ("consolidation", "retracement")


@dataclass
class AnnotateSession:
    """An open session. Close it with ``with``: the labels file is then whole, and other processes may add to it."""

    config: AnnotateKeys
    candidates: Candidates
    desk: Desk
    file: LabelsFile

    @classmethod
    def open(cls, config: AnnotateKeys, bars: Bars) -> AnnotateSession:
        """Open a labels file to add to, or begin a new one.

        Raises: UserError if another process adds to it, or if it holds labels that cannot be gone on with.
        """
        path, options = labels_target(config.labels.path), config.annotate
        candidates = Candidates.of(
            bars, config.windows.length, options.stride, config.bars.max_gap_minutes, options.zone
        )
        journal = DecisionJournal(path)
        try:
            earlier = read_earlier(path, config.windows.length)
            decided = Decided.of(earlier, candidates, journal.lines)
            queue = WindowQueue.of(options, candidates.starts)
            classes = _classes(config, earlier, journal)
            desk = Desk(options, candidates, classes, journal, decided, queue, Suggestions())
            session = cls(config, candidates, desk, LabelsFile(path, lambda: session.labels()))
        except BaseException:
            journal.close()
            raise
        desk.on_decision = session.file.changed
        said = {"annotator": options.annotator, "classes": classes, "bars_sha256": bars.sha256}
        journal.append("session", {**said, "length": config.windows.length})
        return session

    def labels(self) -> EventLabels:
        """Return all labels of the file as they are now: earlier ones and decisions."""
        decided, bars = self.desk.decided, self.candidates.bars
        with self.desk.lock:
            mine, earlier = list(decided.labels()), decided.untouched()
        return with_earlier(labels_of(mine, self.candidates, bars.sha256), earlier)

    def __enter__(self) -> AnnotateSession:
        self.file.start()
        if self.desk.num_decisions:
            self.file.changed()  # the process before may have been killed before it wrote the file
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            self.file.close()
        finally:
            self.desk.journal.close()

    def reached(self) -> dict[str, Any]:
        """Return the file and what was reached, for the page's last answer."""
        tally = self.desk.tally
        return {"labels": str(Path(self.file.path)), "looked_at": tally.looked_at, "kept": tally.kept}


def _classes(config: AnnotateKeys, earlier: EventLabels | None, journal: DecisionJournal) -> tuple[str, ...]:
    """Return the classes to choose from. Raises: UserError if a class of the file is spelled in another way."""
    known = {*(earlier.classes if earlier is not None else ())}
    before: list[str] = []
    for line in journal.lines:
        known |= {event["label"] for event in line.get("decision", {}).get("events", ())}
        before = line.get("classes", before)
    asked = config.annotate.class_names()
    for name in asked:
        usual = next((one for one in known if one.casefold() == name.casefold()), name)
        if usual != name:
            raise UserError(f"annotate.classes names '{name}', and the labels file has '{usual}'; write both the same")
    return asked or tuple(dict.fromkeys([*before, *sorted(known)])) or DEFAULT_CLASSES
