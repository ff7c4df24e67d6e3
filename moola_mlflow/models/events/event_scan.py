"""Scan bars with an event detector: average the maps of all windows, and report the peaks above a threshold.

Shape legend: N windows, C classes, L bars, E events.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from moola_mlflow.bars import MINUTE_NS, Bars, segments
from moola_mlflow.core import UserError, allowed_cores
from moola_mlflow.models.detector import CHUNK, evaluating
from moola_mlflow.models.events.belief import MASS
from moola_mlflow.models.events.event_detector import EventDetector
from moola_mlflow.models.events.matching import EventTable
from moola_mlflow.models.events.peaks import MARGIN, MeanMaps, events_of, first_open, known_rows, may_change
from moola_mlflow.models.scanning import instrument_names
from moola_mlflow.windows import Windows, make_windows

DAY_NS = 86_400_000_000_000
EVENT_STRIDE = 21
EVENT_COLUMNS = ("instrument", "start", "end", "label", "score", "known_at", "num_windows", "final")
"""Columns of the table of events. ``start`` and ``end`` are starts of bars: of the event's first and last one.
``known_at`` is the first moment at which no later bar can change the event. An event that is not ``final`` lies so near
to the end of the bars that later bars may change or remove it; its ``known_at`` is then the end of the last bar."""


@dataclass(frozen=True)
class EventScan:
    """The events that a detector found in bars, in order of time within each instrument.

    Shapes: events over the E events, whose starts and ends are rows of the bars and whose scores are calibrated;
    known_ns int64 [E], when an event is known; final bool [E], whether later bars cannot change it; support int64 [E],
    the windows that hold its peak; probability float32 [C, L], the calibrated map of each class, 0 where no window was
    read. Units: ns since 1970 UTC.
    """

    windows: Windows
    classes: tuple[str, ...]
    events: EventTable
    known_ns: np.ndarray
    final: np.ndarray
    support: np.ndarray
    probability: np.ndarray
    threshold: float

    def at(self, threshold: float) -> EventScan:
        """Return the events at or above a calibrated score."""
        kept = np.flatnonzero(self.events.score >= threshold)
        return replace(
            self, events=self.events.select(kept), known_ns=self.known_ns[kept], final=self.final[kept],
            support=self.support[kept], threshold=threshold,
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
            "known_at": _utc(self.known_ns),
            "num_windows": self.support,
            "final": self.final,
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
    check_stride(stride, detector.length)
    # No further window at a segment's end: it would go when more bars come, and take what it found with it.
    windows = make_windows(bars, detector.length, stride, max_gap_minutes)
    maps = MeanMaps(len(detector.classes), len(bars))
    for index, maps_N3CT in _read_in_order(windows, detector, precision):
        maps.add(maps_N3CT, windows.starts[index])
        if on_windows is not None:
            on_windows(int(index[-1]) + 1, len(windows))
    every = _every_event(maps, windows, detector, stride, max_gap_minutes)
    return every.at(detector.threshold if threshold is None else threshold)


def _read_in_order(
    windows: Windows, detector: EventDetector, precision: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the maps of some windows at a time, in order. On a CPU each core that may be used reads windows.

    Shapes: int64 [N], float32 [N, 3, C, T].
    """
    chunks = [np.arange(lo, min(lo + CHUNK, len(windows))) for lo in range(0, len(windows), CHUNK)]
    torch_threads = torch.get_num_threads()
    readers = max(1, allowed_cores() // torch_threads) if detector.device.type == "cpu" else 1

    def read(index: np.ndarray) -> np.ndarray:
        return detector.read(windows.gather(index), precision).maps

    if min(readers, len(chunks)) <= 1:
        yield from ((index, read(index)) for index in chunks)
        return
    models = [] if detector.encoder is None else [detector.encoder]  # in this mode before the threads share it
    start = ThreadPoolExecutor(readers, "scan", lambda: torch.set_num_threads(torch_threads))
    with evaluating(models), start as threads:
        waiting: deque[tuple[np.ndarray, Future[np.ndarray]]] = deque()
        try:
            for index in chunks:
                waiting.append((index, threads.submit(read, index)))
                if len(waiting) > readers:  # the next chunk is computed while this one is added
                    done, maps = waiting.popleft()
                    yield done, maps.result()
            while waiting:
                done, maps = waiting.popleft()
                yield done, maps.result()
        finally:
            threads.shutdown(cancel_futures=True)


def check_stride(stride: int, length: int) -> None:
    """Check that windows of a length, a stride apart, read every bar. Raises: UserError."""
    inner = length - 2 * MARGIN
    if not 1 <= stride <= inner:
        raise UserError(
            f"detect.stride={stride}; an event detector uses the middle {inner} bars of each window: give 1 to {inner}"
        )


def _every_event(
    maps: MeanMaps, windows: Windows, detector: EventDetector, stride: int, max_gap_minutes: int
) -> EventScan:
    """Return the events of averaged maps, whatever their score.

    An event near the end of a segment depends on bars that further windows would hold. It is known once no bar can
    come: when the longest gap that a segment may have has passed.
    """
    max_gap_minutes = max(max_gap_minutes, windows.bars.minutes)
    bars, mean_3CL, apply = windows.bars, maps.mean(), detector.calibration.apply
    found, peak = events_of(mean_3CL)
    of_segment, open_L = segments(bars, max_gap_minutes), np.zeros(len(bars), bool)
    for first, end in of_segment.tolist():
        open_L[first + first_open(end - first, windows.length, stride) : end] = True
    waits = may_change(mean_3CL, open_L, found, peak)
    last = of_segment[np.searchsorted(of_segment[:, 0], peak, side="right") - 1, 1] - 1
    ended = bars.time_ns[last] + max_gap_minutes * MINUTE_NS < bars.time_ns.max(initial=0)
    known = np.where(waits, last, known_rows(mean_3CL, maps.known, found, peak))
    known_ns = bars.time_ns[known] + bars.length_ns + MINUTE_NS * max_gap_minutes * (waits & ended)
    events = replace(found, score=apply(found.score))
    probability = np.where(maps.count > 0, apply(mean_3CL[MASS]), 0.0).astype(np.float32)
    return EventScan(
        windows, detector.classes, events, known_ns, ~waits | ended, maps.count[peak], probability, 0.0
    )  # fmt: skip


def _utc(time_ns: np.ndarray) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(time_ns.view("datetime64[ns]"), tz="UTC")
