"""Found and true events on sample bars, placed by hand."""

from __future__ import annotations

import numpy as np
from small_events import sample

from moola_mlflow.evaluation.bars_truth import BarsTruth
from moola_mlflow.evaluation.found_events import FoundEvents
from moola_mlflow.models.events.matching import EventTable
from moola_mlflow.windows import make_windows

CLASSES = ("consolidation", "retracement")


def table(rows: list[tuple[int, int, int, float]]) -> EventTable:
    """Events (class, first and last row, score)."""
    columns = np.array(rows, np.float64).reshape(-1, 4).T
    return EventTable(*(column.astype(np.int64) for column in columns[:3]), columns[3])


def found(rows: list[tuple[int, int, int, float]], threshold: float = 0.5, known: bool = True) -> FoundEvents:
    windows, events = make_windows(sample(6000, 43), 105, 21), table(rows)
    known_ns = windows.bars.time_ns[np.minimum(events.end + 30, 5999)] if known else None
    return FoundEvents(windows, CLASSES, events, known_ns, threshold)


def truth(
    rows: list[tuple[int, int, int, float]],
    unclear: list[tuple[int, int, int, float]] | None = None,
    judged: slice | None = None,
) -> BarsTruth:
    looked_at = None
    if judged is not None:
        looked_at = np.zeros(6000, bool)
        looked_at[judged] = True
    return BarsTruth(table(rows), table(unclear or []), CLASSES, "the rule by-hand", looked_at)
