"""A session of labelling: bars, labels file, journal, queue, desk and refits, opened together and closed together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import numpy as np

from moola_mlflow.annotate.agreement import agreement_of
from moola_mlflow.annotate.candidates import Candidates
from moola_mlflow.annotate.decided import Decided
from moola_mlflow.annotate.decisions import Decision
from moola_mlflow.annotate.desk import Desk
from moola_mlflow.annotate.journal import DecisionJournal
from moola_mlflow.annotate.labels_file import LabelsFile, labels_of, parts_of, read_earlier, with_earlier
from moola_mlflow.annotate.learning import MOST_FITTED, Learned, LearningTask
from moola_mlflow.annotate.listed import ListedWindows, read_listed
from moola_mlflow.annotate.refits import Refits
from moola_mlflow.annotate.review import review_windows
from moola_mlflow.annotate.suggestions import Suggestions, ordered
from moola_mlflow.annotate.window_queue import RANDOM, WindowQueue
from moola_mlflow.bars import Bars
from moola_mlflow.core import AnnotateKeys, UserError
from moola_mlflow.labels import EventLabels, labels_target

DEFAULT_CLASSES = ("consolidation", "retracement")
MOST_READ = 1500
"""Random windows that each refit reads, to find those that help most."""


@dataclass
class AnnotateSession:
    """An open session. Close it with ``with``: the labels file is then whole, and other processes may add to it."""

    config: AnnotateKeys
    candidates: Candidates
    desk: Desk
    file: LabelsFile
    refits: Refits
    _agreed: tuple[int, dict[str, Any] | None] = (-1, None)

    @classmethod
    def open(cls, config: AnnotateKeys, bars: Bars, detector_classes: tuple[str, ...] = ()) -> AnnotateSession:
        """Open a labels file to add to, or begin a new one.

        Raises: UserError if another process adds to it, or if it holds labels that cannot be gone on with.
        """
        path, options = labels_target(config.labels.path), config.annotate
        candidates = Candidates.of(
            bars, config.windows.length, options.stride, config.bars.max_gap_minutes, options.zone
        )
        listed = read_listed(options.list, candidates) if options.list else ListedWindows()
        if options.order == "list" and not options.list and not options.review:
            raise UserError("annotate.order=list needs annotate.list: a file of window names or a detections.parquet")
        journal = DecisionJournal(path)
        try:
            earlier = read_earlier(path, config.windows.length)
            decided = Decided.of(earlier, candidates, journal.lines)
            queue = WindowQueue.of(options, candidates.starts, listed.rows, listed.hits)
            classes = _classes(config, earlier, journal, detector_classes)
            desk = Desk(options, candidates, classes, journal, decided, queue, Suggestions(listed.hits))
            session = cls(
                config, candidates, desk, LabelsFile(path, lambda: session.parts()),
                Refits(lambda: session.make_task(), lambda learned, at: session.take_over(learned, at)),
            )  # fmt: skip
        except BaseException:
            journal.close()
            raise
        desk.curve = [[line["at"], line["map"]] for line in journal.lines if line.get("map") is not None]
        desk.on_decision = session._decided
        desk.refit_state = lambda: session.refits.state
        desk.agreement = session._agreement
        said = {"annotator": options.annotator, "classes": classes, "bars_sha256": bars.sha256}
        journal.append("session", {**said, "length": config.windows.length})
        return session

    def parts(self) -> Iterator[EventLabels]:
        """Return all labels of the file as they are now, earlier ones and decisions, part by part."""
        mine, earlier = self._labels()
        return parts_of(mine, self.candidates, earlier)

    def labels(self, most: int | None = None) -> EventLabels:
        """Return all labels of the file as they are now, or a random part of the decisions."""
        options, (mine, earlier) = self.config.annotate, self._labels()
        if most is not None and len(mine) > most:
            chosen = np.random.default_rng([options.seed, len(mine)]).permutation(len(mine))[:most]
            mine = [mine[i] for i in chosen.tolist()]
        return with_earlier(labels_of(mine, self.candidates, self.candidates.bars.sha256), earlier)

    def _labels(self) -> tuple[list[tuple[int, Decision]], EventLabels | None]:
        """Return the decisions that give labels, and the earlier labels that none of them replaces.

        ``drawn`` says which windows are a fair sample. So it is ``random`` for a window that a query took and that the
        random order has passed since.
        """
        desk, decided = self.desk, self.desk.decided
        with desk.lock:
            mine, earlier = list(decided.labels()), decided.untouched()
            at_random = {row for row, one in desk.mine.items() if one.drawn == RANDOM}
            fair = desk.queue.fair(at_random, decided)
        return [(row, replace(one, drawn=RANDOM) if row in fair else one) for row, one in mine], earlier

    def __enter__(self) -> AnnotateSession:
        try:
            if self.config.annotate.review:
                review_windows(self)
            self.file.start()
            self.refits.start()
        except BaseException:
            self.refits.close()
            self.desk.journal.close()
            raise
        if self.desk.num_decisions:
            self.file.changed()  # the process before may have been killed before it wrote the file
        options = self.config.annotate
        least = min(options.refit_every, options.first_random or 1)
        if self.desk.tally.looked_at >= least or self.config.detect.detector:
            self.refits.due()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.refits.close()
        try:
            self.file.close()
        finally:
            self.desk.journal.close()

    def reached(self) -> dict[str, Any]:
        """Return the file and what was reached, for the page's last answer."""
        tally = self.desk.tally
        return {"labels": str(self.file.path), "looked_at": tally.looked_at, "kept": tally.kept}

    def make_task(self, review: bool = False) -> tuple[LearningTask, int]:
        """Return what a refit learns from and reads, and the count of windows that this annotator has looked at."""
        options, desk = self.config.annotate, self.desk
        with desk.lock:
            count = desk.tally.looked_at
            ahead = desk.queue.ahead(desk.decided)
            rest = np.array([*desk.queue.undecided(desk.decided)], np.int64)
        labels = self.labels(None if review else MOST_FITTED)
        chosen = np.random.default_rng([options.seed, count]).permutation(rest)[:MOST_READ]
        rows = np.array([] if review else [*dict.fromkeys([*ahead, *chosen.tolist()])], np.int64)
        first = not len(labels) or not labels.num_events
        uri = self.config.detect.detector
        task = LearningTask(
            None if first and uri else labels,
            _blind(labels),
            rows,
            self.candidates.prices(rows),
            options.seed,
            options.encoder,
            uri,
            review,
        )
        return task, count

    def take_over(self, learned: Learned, at: int) -> None:
        """Order the queue by what was learned, and suggest the events that were found."""
        rows, desk, order = learned.rows.tolist(), self.desk, self.config.annotate.order
        events = dict(zip(rows, learned.events, strict=True))
        with desk.lock:
            listed = {row: desk.suggestions.events[row] for row in desk.queue.listed if row in desk.suggestions.events}
            desk.suggestions = Suggestions({**events, **listed})
            if order in ("uncertain", "top"):
                desk.queue.reorder(ordered(learned.rows, learned.top, order).tolist())
            if learned.map is not None:
                desk.curve.append([at, learned.map])
            desk.journal.append("refit", {"at": at, "map": learned.map})

    def _agreement(self) -> dict[str, Any] | None:
        """Return the agreement of the annotators, computed once for each decision."""
        decided, num = self.desk.decided, self.desk.num_decisions
        if len(decided.by_annotator) > 1 and self._agreed[0] != num:
            self._agreed = num, agreement_of(decided.by_annotator)
        return self._agreed[1]

    def _decided(self) -> None:
        self.file.changed()
        options, desk = self.config.annotate, self.desk
        if desk.num_decisions % options.refit_every == 0 or len(desk.mine) == options.first_random:
            self.refits.due()


def _blind(labels: EventLabels) -> np.ndarray:
    """Return which windows were drawn at random and shown without suggestions. Shapes: bool [N]."""
    if labels.drawn is None or labels.extra is None or "suggested" not in labels.extra.column_names:
        return np.zeros(len(labels), bool)
    blind = labels.drawn == "random"
    shown = np.array([value is not False for value in labels.extra["suggested"].to_pylist()], bool)
    blind[labels.row_window()[shown]] = False  # of labels from elsewhere it is not known
    return blind


def _classes(
    config: AnnotateKeys, earlier: EventLabels | None, journal: DecisionJournal, of_detector: tuple[str, ...]
) -> tuple[str, ...]:
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
    return asked or tuple(dict.fromkeys([*before, *sorted(known)])) or of_detector or DEFAULT_CLASSES
