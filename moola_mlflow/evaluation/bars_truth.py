"""What is true in bars, by the classes of the detector that is scored: from a rule, or from labels.

Shape legend: L bars, E events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from moola_mlflow.bars import Bars
from moola_mlflow.core import UserError
from moola_mlflow.evaluation.rule_truth import margins_of, true_by_rule
from moola_mlflow.labels import Rule
from moola_mlflow.models import EventTable


@dataclass(frozen=True)
class BarsTruth:
    """The true events of bars, and where in the bars they are known.

    Shapes: the events' starts and ends are rows of the bars, their labels number ``classes``; judged bool [L].
    """

    true: EventTable
    unclear: EventTable
    """Events that are neither right nor wrong to find."""
    classes: tuple[str, ...]
    """Those of the detector."""
    source: str
    """Who says so, in words: a rule or a labels file."""
    judged: np.ndarray | None = None
    """Bars in which a found event counts; None: all of them."""
    notes: tuple[str, ...] = ()
    """What was left out, and why."""

    def counts(self) -> dict[str, int]:
        """Return the number of true events of each class."""
        num = np.bincount(self.true.label, minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, num, strict=True))


def truth_of_rule(
    bars: Bars,
    rule: Rule,
    classes: tuple[str, ...],
    length: int = 105,
    max_gap_minutes: int = 5,
    on_windows: Callable[[int, int], None] | None = None,
) -> BarsTruth:
    """Return the events that a rule names in bars, by the classes of a detector.

    Raises: UserError if the rule names none, or one of a class that the detector does not know.
    """
    found = true_by_rule(bars, rule, margins_of(rule), length, max_gap_minutes, on_windows)
    source = f"the rule {rule.name}"
    true = renumbered(found.true, found.classes, classes, source)
    if not len(true):
        raise UserError(
            f"evaluate.rule={rule.name}: no event of {len(bars):,} bars is named by half of the windows that hold it; "
            "give more bars, or another rule"
        )
    known = np.isin(found.unclear.label, [k for k, name in enumerate(found.classes) if name in classes])
    unclear = renumbered(found.unclear.select(np.flatnonzero(known)), found.classes, classes, source)
    return BarsTruth(true, unclear, classes, source)


def renumbered(events: EventTable, own: Sequence[str], classes: Sequence[str], source: str) -> EventTable:
    """Return events with their labels as numbers of the detector's classes.

    Raises: UserError if an event has a class that the detector does not know.
    """
    unknown = sorted({own[k] for k in np.unique(events.label).tolist()} - set(classes))
    if unknown:
        raise UserError(
            f"{source} names events of class {', '.join(unknown)}, and the detector knows {', '.join(classes)}; give "
            "a detector that was fitted on all of these classes, or another truth"
        )
    number = np.array([classes.index(name) if name in classes else -1 for name in own], np.int64)
    return EventTable(number[events.label], events.start, events.end, events.score)
