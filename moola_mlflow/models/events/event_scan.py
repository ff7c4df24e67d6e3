"""Scan bars with an event detector: average the maps of all windows, and report the peaks above a threshold.

Shape legend: N windows, C classes, L bars, E events.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from moola_mlflow.bars import Bars
from moola_mlflow.core import UserError
from moola_mlflow.models.detector import CHUNK
from moola_mlflow.models.events.belief import MASS
from moola_mlflow.models.events.event_detector import EventDetector
from moola_mlflow.models.events.matching import EventTable
from moola_mlflow.models.events.peaks import MARGIN, MeanMaps, events_of, known_rows
from moola_mlflow.models.scanning import instrument_names
from moola_mlflow.windows import Windows, make_windows

MINUTE_NS = 60_000_000_000
DAY_NS = 86_400_000_000_000
EVENT_STRIDE = 21
EVENT_COLUMNS = ("instrument", "start", "end", "label", "score", "known_at", "num_windows")
"""Columns of the table of events. ``start`` and ``end`` are starts of bars: of the event's first and last one.
``known_at`` is the end of the last bar that the detector read for the event, the first moment at which it is known."""


@dataclass(frozen=True)
class EventScan:
    """The events that a detector found in bars, in order of time within each instrument.

    Shapes: events over the E events, whose starts and ends are rows of the bars and whose scores are calibrated; known
    int64 [E], the row of the bar at whose end an event is known; support int64 [E], the windows that hold its peak;
    probability float32 [C, L], the calibrated map of each class, 0 where no window was read.
    """

    windows: Windows
    classes: tuple[str, ...]
    events: EventTable
    known: np.ndarray
    support: np.ndarray
    probability: np.ndarray
    threshold: float

    def at(self, threshold: float) -> EventScan:
        """Return the events at or above a calibrated score."""
        kept = np.flatnonzero(self.events.score >= threshold)
        return replace(
            self, events=self.events.select(kept), known=self.known[kept], support=self.support[kept],
            threshold=threshold,
        )  # fmt: skip

    def threshold_for_precision(self, precision: float) -> float:
        """Return the lowest threshold at which the mean score of the events is ``precision`` or more.

        If no event has such a score, the threshold is ``precision`` itself.
        """
        ordered = np.sort(self.events.score)[::-1]
        enough = np.flatnonzero(np.cumsum(ordered) / np.arange(1, len(ordered) + 1) >= precision)
        return float(ordered[enough[-1]]) if len(enough) else precision

    def threshold_for_count(self, per_day: float) -> float:
        """Return the lowest threshold with at most ``per_day`` events a day, over the days that have bars."""
        num_days = len(np.unique(self.windows.bars.time_ns // DAY_NS))
        most = int(per_day * num_days)
        ordered = np.sort(self.events.score)[::-1]
        return float(np.nextafter(ordered[most], 1)) if most < len(ordered) else 0.0

    def table(self) -> pd.DataFrame:
        """Return one row for each event, with the columns ``EVENT_COLUMNS``."""
        bars, events = self.windows.bars, self.events
        names = instrument_names(bars)
        columns = {
            "instrument": np.array([names[key] for key in bars.instrument[events.start].tolist()], dtype=object),
            "start": _utc(bars.time_ns[events.start]),
            "end": _utc(bars.time_ns[events.end]),
            "label": np.array(self.classes, dtype=object)[events.label],
            "score": events.score,
            "known_at": _utc(bars.time_ns[self.known] + MINUTE_NS),
            "num_windows": self.support,
        }
        return pd.DataFrame(columns, columns=list(EVENT_COLUMNS))


def scan_events(
    bars: Bars,
    detector: EventDetector,
    threshold: float | None = None,
    stride: int = EVENT_STRIDE,
    max_gap_minutes: int = 5,
    precision: str = "fp32",
    on_windows: Callable[[int, int], None] | None = None,
) -> EventScan:
    """Read a window every ``stride`` bars, average their maps, and return the events at or above a calibrated score.

    By default the threshold is the detector's. ``on_windows`` is called with the number of windows done and of all
    windows.

    Raises: UserError if no window fits, or if the stride leaves bars that no window reads.
    """
    inner = detector.length - 2 * MARGIN
    if not 1 <= stride <= inner:
        raise UserError(
            f"detect.stride={stride}; an event detector uses the middle {inner} bars of each window: give 1 to {inner}"
        )
    # No further window at a segment's end: it would go when more bars come, and take what it found with it.
    windows = make_windows(bars, detector.length, stride, max_gap_minutes)
    maps = MeanMaps(len(detector.classes), len(bars))
    for lo in range(0, len(windows), CHUNK):
        index = np.arange(lo, min(lo + CHUNK, len(windows)))
        maps.add(detector.read(windows.gather(index), precision).maps, windows.starts[index])
        if on_windows is not None:
            on_windows(lo + len(index), len(windows))
    return found_in(maps, windows, detector, detector.threshold if threshold is None else threshold)


def found_in(maps: MeanMaps, windows: Windows, detector: EventDetector, threshold: float) -> EventScan:
    """Return the events of averaged maps at or above a calibrated score."""
    mean_3CL = maps.mean()
    every, peak = events_of(mean_3CL)
    known = known_rows(mean_3CL, maps.known, every, peak)
    score = detector.calibration.apply(every.score)
    kept = np.flatnonzero(score >= threshold)
    events = EventTable(every.label[kept], every.start[kept], every.end[kept], score[kept])
    probability = np.where(maps.count > 0, detector.calibration.apply(mean_3CL[MASS]), 0.0).astype(np.float32)
    support = maps.count[peak[kept]]
    return EventScan(windows, detector.classes, events, known[kept], support, probability, threshold)


def _utc(time_ns: np.ndarray) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(time_ns.view("datetime64[ns]"), tz="UTC")
