"""All decisions about the windows of a labels file: who decided which window, and which decision is its label.

The first annotator of a window who does not skip it gives its label. Others who look at it only measure agreement,
unless they review it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moola_mlflow.annotate.candidates import Candidates
from moola_mlflow.annotate.decisions import Decision, MarkedEvent
from moola_mlflow.core import UserError
from moola_mlflow.labels import EventLabels


@dataclass
class Decided:
    """The last decision of each annotator about each window, known by the row of its first bar."""

    earlier: EventLabels | None = None
    """Labels that the file held before."""
    earlier_rows: dict[int, int] = field(default_factory=dict)
    """The windows of these labels: row of the first bar, and place in the labels."""
    by_annotator: dict[str, dict[int, Decision]] = field(default_factory=dict)
    first: dict[int, str] = field(default_factory=dict)
    """The annotator whose decision gives each window's label."""
    reviewed: set[int] = field(default_factory=set)
    """Windows whose label was reviewed, changed or not."""

    @classmethod
    def of(cls, earlier: EventLabels | None, candidates: Candidates, lines: Sequence[dict[str, Any]]) -> Decided:
        """Return what a labels file and its journal hold.

        Raises: UserError if the journal's windows are not in the bars.
        """
        made = cls(earlier)
        if earlier is not None:
            assert earlier.instrument is not None
            assert earlier.start_ns is not None
            rows = candidates.find(earlier.instrument.tolist(), earlier.start_ns)
            made.earlier_rows = {row: i for i, row in enumerate(rows.tolist()) if row >= 0}
        try:
            said = [Decision.from_json(line["decision"]) for line in lines if line.get("kind") == "decision"]
        except (TypeError, KeyError, ValueError, AttributeError) as e:
            raise UserError(
                f"the journal of decisions is of another version ({type(e).__name__}: {e}); rename it"
            ) from e
        found = candidates.find([one.instrument for one in said], np.array([one.start_ns for one in said], np.int64))
        for row, one in zip(found.tolist(), said, strict=True):
            if row < 0:
                raise UserError(
                    f"the journal holds a decision about {one.window_id}, which is no window of these bars; give the "
                    "bars and windows.length that it was made with, or another labels file"
                )
            made.add(row, one)
        if lines and (rest := made.untouched()) is not None:
            kept = {str(name): i for i, name in enumerate(rest.window_id.tolist())}
            names = made.earlier.window_id.tolist() if made.earlier is not None else []
            made.earlier, rows_of = rest, made.earlier_rows
            made.earlier_rows = {row: kept[names[i]] for row, i in rows_of.items() if names[i] in kept}
        return made

    def add(self, row: int, decision: Decision) -> Decision | None:
        """Record a decision and return the one that it replaces."""
        if decision.source == "corrected":
            self.reviewed.add(row)
        if decision.action == "pass":
            return None
        own = self.by_annotator.setdefault(decision.annotator, {})
        old = own.pop(row, None)  # so that the last one decided is the last one of the dictionary
        own[row] = decision
        if decision.source == "corrected":
            self.first[row] = decision.annotator
        self.first.setdefault(row, decision.annotator)
        given = self.by_annotator[self.first[row]][row]
        if given.action == "skip" and given.source != "corrected":  # somebody else may have a label
            said = (name for name, all_own in self.by_annotator.items() if row in all_own)
            labelled = (name for name in said if self.by_annotator[name][row].action == "label")
            self.first[row] = next(labelled, self.first[row])
        return old

    def of_annotator(self, name: str) -> dict[int, Decision]:
        return self.by_annotator.setdefault(name, {})

    def is_decided(self, row: int) -> bool:
        """Return whether somebody has decided a window, or the file held a label of it before."""
        return row in self.first or row in self.earlier_rows

    def __contains__(self, row: object) -> bool:
        return isinstance(row, int) and self.is_decided(row)

    def labels(self) -> Iterator[tuple[int, Decision]]:
        """Yield the window and the decision that gives its label. A skipped label that was reviewed is not changed."""
        for row, name in list(self.first.items()):
            decision = self.by_annotator[name][row]
            if decision.action == "label":
                yield row, decision

    def untouched(self) -> EventLabels | None:
        """Return the earlier labels without those that were decided anew, or that only this journal has made."""
        if self.earlier is None:
            return None
        gone = set()
        for row, name in list(self.first.items()):
            decision = self.by_annotator[name][row]
            if row in self.earlier_rows and (decision.action == "label" or decision.given is None):
                gone.add(self.earlier_rows[row])
        return self.earlier.select([i for i in range(len(self.earlier)) if i not in gone])

    def drawn_of(self, row: int) -> str:
        """Return how a window was chosen when it was decided first: a review or an undo chooses it by no new rule.

        Empty if it was not decided; ``listed`` if the file held it and does not say.
        """
        if row in self.first:
            return self.by_annotator[self.first[row]][row].drawn
        place = self.earlier_rows.get(row)
        if place is None or self.earlier is None:
            return ""
        return "listed" if self.earlier.drawn is None else str(self.earlier.drawn[place]) or "listed"

    def events_before(self, row: int) -> tuple[MarkedEvent, ...] | None:
        """Return the events that the file held for a window before it was decided, None if it held no label of it."""
        if row in self.first:
            return self.by_annotator[self.first[row]][row].given
        place = self.earlier_rows.get(row)
        if place is None or self.earlier is None:
            return None
        at = np.flatnonzero(self.earlier.window == place)
        names = [self.earlier.classes[k] for k in self.earlier.label[at].tolist()]
        starts, ends = self.earlier.start[at].tolist(), self.earlier.end[at].tolist()
        return tuple(MarkedEvent(*one) for one in zip(names, starts, ends, strict=True))
