"""What a detector of either kind finds in bars, whatever the score: the events that a curve needs.

Shape legend: E events.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from moola_mlflow.bars import Bars
from moola_mlflow.core import DetectConfig
from moola_mlflow.labels import NONE
from moola_mlflow.models import (
    EventDetector,
    EventTable,
    PatternDetector,
    chosen_threshold,
    scan,
    scan_events,
)
from moola_mlflow.windows import Windows


@dataclass(frozen=True)
class FoundEvents:
    """The events that a detector found in bars, and the threshold at which it reports them.

    Shapes: events over the E events, whose starts and ends are rows of the bars; known_ns int64 [E], when an event is
    known, None for a span detector, which does not say.
    """

    windows: Windows
    classes: tuple[str, ...]
    events: EventTable
    known_ns: np.ndarray | None
    threshold: float

    @property
    def bars(self) -> Bars:
        return self.windows.bars

    @property
    def above(self) -> np.ndarray:
        """Whether an event is reported. Shapes: bool [E]."""
        return self.events.score >= self.threshold


def find_at_any_score(
    bars: Bars,
    detector: PatternDetector | EventDetector,
    options: DetectConfig,
    max_gap_minutes: int = 5,
    precision: str = "fp32",
    on_windows: Callable[[int, int], None] | None = None,
) -> FoundEvents:
    """Scan bars with a detector of either kind.

    The score of a span detector's hit is its probability. Its other thresholds, the span score and the margin, are kept
    as they are: they decide what is a hit at all.

    Raises: UserError if no window fits.
    """
    if isinstance(detector, EventDetector):
        every = scan_events(bars, detector, 0.0, options.stride, max_gap_minutes, precision, on_windows)
        threshold = chosen_threshold(every, detector, options)
        return FoundEvents(every.windows, detector.classes, every.events, every.known_ns, threshold)
    # Hits go from the most to the least probable, so a lower one never removes one above the threshold.
    all_scores = options.model_copy(update={"min_probability": 0.0})
    hits = scan(bars, detector, all_scores, max_gap_minutes, on_windows, precision)
    classes = tuple(name for name in detector.classes if name != NONE)
    kept = hits.kept[hits.found.label[hits.kept] != NONE]
    label = np.array([classes.index(name) for name in hits.found.label[kept].tolist()], np.int64)
    events = EventTable(label, *hits.rows(kept), hits.confidence()[kept])
    return FoundEvents(hits.windows, classes, events, None, options.min_probability)
