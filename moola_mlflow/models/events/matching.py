"""Match found events with true ones, by the collar method of sound event detection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moola_mlflow.models.heads import HIT_BARS


@dataclass(frozen=True)
class EventTable:
    """Events on one axis of bars: the rows of a bars table, or windows one behind another.

    Shapes: label int64 [E] (index into the classes), start and end int64 [E], both inclusive, score float64 [E].
    """

    label: np.ndarray
    start: np.ndarray
    end: np.ndarray
    score: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    @property
    def centre(self) -> np.ndarray:
        """The middle of each event. Shapes: float64 [E]."""
        return (self.start + self.end) / 2

    def select(self, index: np.ndarray) -> EventTable:
        """Return some of the events."""
        return EventTable(self.label[index], self.start[index], self.end[index], self.score[index])


def match_events(found: EventTable, true: EventTable, collar: float = HIT_BARS) -> np.ndarray:
    """Return the true event that each found one is matched with, or -1.

    Two events match if their classes are equal and their centres are at most ``collar`` bars apart. From the highest
    score to the lowest, each found event takes the nearest true one that is still free. If two are equally near, it
    takes the earlier one.

    Shapes: int64 [E], positions in ``true``.
    Source: A. Mesaros, T. Heittola, T. Virtanen, Metrics for Polyphonic Sound Event Detection, 2016, section 3.2
    (there the collar is on the onset; here it is on the centre).
    """
    matched = np.full(len(found), -1, np.int64)
    for label in np.unique(found.label):
        own = np.flatnonzero(true.label == label)
        own = own[np.argsort(true.centre[own], kind="stable")]
        centres, free = true.centre[own], np.ones(len(own), bool)
        mine = np.flatnonzero(found.label == label)
        first = np.searchsorted(centres, found.centre[mine] - collar - 1e-9)
        last = np.searchsorted(centres, found.centre[mine] + collar + 1e-9)
        for i in np.argsort(-found.score[mine], kind="stable").tolist():
            near = np.flatnonzero(free[first[i] : last[i]]) + first[i]
            if len(near):
                best = near[np.abs(centres[near] - found.centre[mine[i]]).argmin()]
                free[best] = False
                matched[mine[i]] = own[best]
    return matched


def near_any(found: EventTable, others: EventTable) -> np.ndarray:
    """Return whether an event of the same class has its centre within 3 bars. Shapes: bool [E]."""
    near = np.zeros(len(found), bool)
    for label in np.unique(found.label):
        centres = np.sort(others.centre[others.label == label])
        mine = np.flatnonzero(found.label == label)
        lo, hi = (np.searchsorted(centres, found.centre[mine] + sign * (HIT_BARS + 1e-9)) for sign in (-1, 1))
        near[mine] = hi > lo
    return near
