"""From maps to events: the peaks of each class, and the bar at whose end each event is known.

Shape legend: N windows, C classes, T steps of a window, L bars of the axis, E events.
"""

from __future__ import annotations

import numpy as np

from moola_mlflow.models.events.belief import END, MASS, START
from moola_mlflow.models.events.matching import EventTable

MARGIN = 20
"""Steps at each end of a window whose map is not used: a net needs the bars before and after an event."""
RADIUS = 8
"""Of two peaks of one class that are at most this many bars apart, the lower is dropped."""
FLOOR = 0.02
"""Least mass of a peak."""


class MeanMaps:
    """The maps of windows, averaged over all windows that hold a bar outside of their margins.

    Shapes: total float64 [3, C, L], count int64 [L]; known int64 [L], the last bar of the last window that was added to
    a bar's map, -1 if there is none.
    """

    def __init__(self, num_classes: int, num_bars: int) -> None:
        self.total = np.zeros((3, num_classes, num_bars))
        self.count = np.zeros(num_bars, np.int64)
        self.known = np.full(num_bars, -1, np.int64)

    def add(self, maps_N3CT: np.ndarray, starts_N: np.ndarray) -> None:
        """Add windows that begin at different bars. Shapes: float [N, 3, C, T], int64 [N]."""
        num_steps = maps_N3CT.shape[-1]
        step_N3CT = np.moveaxis(maps_N3CT, 0, -1)
        # Backwards, so that every bar adds its windows in order of time: a live scan, which adds them one by one, then
        # has the same sums.
        for step in reversed(range(MARGIN, num_steps - MARGIN)):
            bars = starts_N + step
            self.total[:, :, bars] += step_N3CT[:, :, step]
            self.count[bars] += 1
            self.known[bars] = np.maximum(self.known[bars], starts_N + num_steps - 1)

    def mean(self) -> np.ndarray:
        """Return the mean maps; 0 where no window was read. Shapes: float64 [3, C, L]."""
        return self.total / np.maximum(self.count, 1)


def events_of(maps_3CL: np.ndarray) -> tuple[EventTable, np.ndarray]:
    """Return the peaks of all classes in order of time, with their masses as scores, and the bar of each peak.

    An event's ends are the expected ends of the class's spans near the peak.

    Shapes: float [3, C, L] -> E events, int64 [E].
    """
    parts = []
    for k, mass_L in enumerate(maps_3CL[MASS]):
        peak_E = _peaks(mass_L, distance=RADIUS + 1)
        start_E, end_E = (peak_E + np.rint(maps_3CL[row, k, peak_E] / mass_L[peak_E]) for row in (START, END))
        parts.append((np.full(len(peak_E), k), start_E, np.maximum(start_E, end_E), mass_L[peak_E], peak_E))
    label, start, end, score, peak = (np.concatenate(column) for column in zip(*parts, strict=True))
    last = maps_3CL.shape[-1] - 1
    start, end = (ends.astype(np.int64).clip(0, last) for ends in (start, end))
    found = EventTable(label, start, end, score)
    order = np.lexsort((label, peak))
    return found.select(order), peak[order]


def known_rows(maps_3CL: np.ndarray, known_L: np.ndarray, found: EventTable, peak_E: np.ndarray) -> np.ndarray:
    """Return the bar at whose end each event is known: no later bar can change the event.

    An event depends on the windows that hold its peak, or a bar near enough to suppress it. If a higher peak nearby
    was itself suppressed, the event also depends on the peak that suppressed it.

    Shapes: int64 [L], peaks [E] -> int64 [E].
    """
    reach = RADIUS + 1
    near = np.lib.stride_tricks.sliding_window_view(np.pad(known_L, reach, constant_values=-1), 2 * reach + 1)
    known_E = near[peak_E].max(1)
    for label, mass_L in enumerate(maps_3CL[MASS]):
        own = np.flatnonzero(found.label == label)
        every = _peaks(mass_L)
        dropped = np.setdiff1d(every, peak_E[own])
        for i in own[np.argsort(-found.score[own], kind="stable")].tolist():
            lo, hi = np.searchsorted(dropped, (peak_E[i] - RADIUS, peak_E[i] + RADIUS + 1))
            for other in dropped[lo:hi][mass_L[dropped[lo:hi]] >= mass_L[peak_E[i]]].tolist():
                a, b = np.searchsorted(peak_E[own], (other - RADIUS, other + RADIUS + 1))
                known_E[i] = max(known_E[i], known_E[own[a:b]].max())
    return known_E


def may_change(maps_3CL: np.ndarray, open_L: np.ndarray, found: EventTable, peak_E: np.ndarray) -> np.ndarray:
    """Return whether an event depends on a bar whose map may still change. Shapes: bool [L], peaks [E] -> bool [E]."""
    return known_rows(maps_3CL, open_L.astype(np.int64), found, peak_E) > 0


def first_open(num_bars: int, length: int, stride: int) -> int:
    """Return the first bar of a segment whose map further windows of the segment would change.

    >>> first_open(104, 105, 21), first_open(105, 105, 21), first_open(126, 105, 21)
    (20, 41, 62)
    """
    num_windows = max((num_bars - length) // stride + 1, 0)
    return num_windows * stride + MARGIN


def window_events(maps_N3CT: np.ndarray) -> tuple[EventTable, np.ndarray]:
    """Return the peaks of single windows outside of their margins, and the window of each.

    Events lie on one axis, window after window: :func:`on_axis` gives the same place to labelled events.

    Shapes: [N, 3, C, T] -> E events, int64 [E].
    """
    num_windows, num_classes, num_steps = maps_N3CT.shape[0], *maps_N3CT.shape[2:]
    inner = np.zeros((3, num_classes, num_windows, num_steps))
    inside = slice(MARGIN, num_steps - MARGIN)
    inner[..., inside] = np.moveaxis(maps_N3CT[..., inside], 0, 2)
    found, peak = events_of(inner.reshape(3, num_classes, -1))
    return found, peak // num_steps


def on_axis(window_E: np.ndarray, step_E: np.ndarray, num_steps: int) -> np.ndarray:
    """Return the place of a step on the axis of :func:`window_events`."""
    return window_E * num_steps + step_E


def _peaks(mass_L: np.ndarray, distance: int | None = None) -> np.ndarray:
    """Return the bars of the peaks that count. Shapes: [L] -> int64 [E]."""
    from scipy.signal import find_peaks  # 0.8 s of CPU time, which other commands and worker processes do not need

    return find_peaks(np.pad(mass_L, 1), height=FLOOR, distance=distance)[0] - 1
