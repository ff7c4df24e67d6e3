"""The labels file of a session: decisions as labelled windows, written whole in the background.

The journal is the truth. The file is made from it again after a kill.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from moola_mlflow.annotate.candidates import Candidates
from moola_mlflow.annotate.decisions import Decision
from moola_mlflow.core import UserError
from moola_mlflow.labels import EventLabels, join_labels, read_event_labels, write_labels_in_parts

PAUSE_S = 0.5
"""Least time between two writings."""
PART = 500
"""Windows that are written at a time."""
SHARE = 0.05
"""Largest share of the time that is spent on writing: a large file is written less often."""


def labels_of(decisions: Sequence[tuple[int, Decision]], candidates: Candidates, bars_sha256: str) -> EventLabels:
    """Return decided windows as labelled windows, in order of time. Each decision comes with its window's first row.

    Skipped windows are left out.
    """
    kept = sorted((pair for pair in decisions if pair[1].action == "label"), key=lambda pair: pair[0])
    rows = np.array([row for row, _ in kept], np.int64)
    said = [decision for _, decision in kept]
    classes = tuple(sorted({event.label for one in said for event in one.events}))
    place = {name: k for k, name in enumerate(classes)}
    events = [(i, event) for i, one in enumerate(said) for event in one.events]
    start_ns, end_ns = candidates.times(rows)
    labels = EventLabels(
        np.array([one.window_id for one in said], dtype=str),
        candidates.prices(rows),
        classes,
        np.array([i for i, _ in events], np.int64),
        np.array([place[event.label] for _, event in events], np.int64),
        np.array([event.start for _, event in events], np.int64),
        np.array([event.end for _, event in events], np.int64),
        start_ns,
        end_ns,
        candidates.instruments(rows),
        np.array([one.drawn for one in said], dtype=str),
        bars_sha256=bars_sha256,
    )
    by_row = [said[i] for i in labels.row_window().tolist()]
    extra = {
        "grade": pa.array([one.grade or None for one in by_row], pa.string()),
        "annotator": pa.array([one.annotator for one in by_row], pa.string()),
        "labelled_at": pa.array([one.labelled_at for one in by_row], pa.string()),
        "seconds": pa.array([one.seconds for one in by_row], pa.float64()),
        "notes": pa.array([one.notes or None for one in by_row], pa.string()),
        "source": pa.array([one.source for one in by_row], pa.string()),
        "suggested": pa.array([one.suggested for one in by_row], pa.bool_()),
    }
    return replace(labels, extra=pa.table(extra))


def with_earlier(labels: EventLabels, earlier: EventLabels | None) -> EventLabels:
    """Return decided windows behind the labels that were there before and that nobody has decided anew."""
    if earlier is None or not len(earlier):
        return labels
    return join_labels([earlier, labels], earlier.path, "newest") if len(labels) else earlier


def parts_of(
    decisions: Sequence[tuple[int, Decision]], candidates: Candidates, earlier: EventLabels | None
) -> Iterator[EventLabels]:
    """Yield what a labels file holds, part by part, in order of time; all at once if there are earlier labels.

    Their other columns, and those of decisions, are then joined.
    """
    sha256 = candidates.bars.sha256
    if earlier is not None and len(earlier):
        yield with_earlier(labels_of(decisions, candidates, sha256), earlier)
        return
    kept = sorted((pair for pair in decisions if pair[1].action == "label"), key=lambda pair: pair[0])
    for lo in range(0, len(kept), PART):
        yield labels_of(kept[lo : lo + PART], candidates, sha256)


def read_earlier(path: Path, length: int) -> EventLabels | None:
    """Return the labels that a file holds already, None if there is no file.

    Raises: UserError if it is no labels file, or if it does not say which windows it holds.
    """
    if not path.exists():
        return None
    labels = read_event_labels(path, length)
    if labels.start_ns is None or labels.instrument is None:
        missing = "start_time and end_time" if labels.start_ns is None else "instrument"
        raise UserError(
            f"labels '{path}' has no column {missing}, so which bars were looked at is not known; add the column, or "
            "give a new file"
        )
    return labels


class LabelsFile:
    """Writes the labels file whole, in a thread, some time after each decision.

    ``parts`` gives what to write, part by part: memory does not grow with the file.
    """

    def __init__(self, path: Path, parts: Callable[[], Iterator[EventLabels]]) -> None:
        self.path, self._parts = path, parts
        self._backup, self._has_written = path.exists(), False
        self._is_due, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="moola-labels", daemon=True)
        self.problem: str | None = None
        """Why the file could not be written the last time."""

    def start(self) -> None:
        self._thread.start()

    def changed(self) -> None:
        """Ask for the file to be written."""
        self._is_due.set()

    def close(self) -> None:
        """Write what is still to be written. Raises: UserError or OSError if that fails."""
        self._stopping.set()
        self._is_due.set()
        if self._thread.is_alive():
            self._thread.join()
        self._write()

    def _work(self) -> None:
        while not self._stopping.is_set():
            self._is_due.wait()
            if self._stopping.is_set():
                return
            self._is_due.clear()
            started = time.monotonic()
            try:
                self._write()
                self.problem = None
            except Exception as e:
                self.problem = f"{self.path} cannot be written: {e}"
                print(f"Warning: {self.problem}; decisions are in the journal", file=sys.stderr, flush=True)
                self._is_due.set()
            self._stopping.wait(max(PAUSE_S, (time.monotonic() - started) / SHARE))

    def _write(self) -> None:
        parts = self._parts()
        if (first := next(parts, None)) is not None:
            write_labels_in_parts(itertools.chain([first], parts), self.path, backup=self._backup)
            self._has_written = True
        elif self._has_written:  # the last label was taken back, and a file without labels would be refused
            self.path.unlink(missing_ok=True)
