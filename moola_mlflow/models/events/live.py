"""Find events in bars that come one by one. Each is reported once no later bar can change it.

The events are those of a scan of the same bars (``scan_events``).

Shape legend: C classes, L bars that are kept, E events.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from moola_mlflow.bars import MINUTE_NS
from moola_mlflow.models.events.belief import MASS
from moola_mlflow.models.events.event_detector import EventDetector
from moola_mlflow.models.events.event_scan import EVENT_STRIDE, check_stride
from moola_mlflow.models.events.peaks import FLOOR, RADIUS, MeanMaps, events_of, first_open, known_rows, may_change

KEPT_BARS = 1024
"""Bars of a segment that are kept before old ones are dropped."""


class LiveEvent(NamedTuple):
    """An event, with the columns of a scan's table. Units: start, end and known_at in ns since 1970 UTC."""

    instrument: str
    start: int
    end: int
    label: str
    score: float
    known_at: int
    num_windows: int
    final: bool


class LateBarError(Exception):
    """A bar that cannot be used, because a later or an equal one has come before. The text says why."""


class LiveScan:
    """Reads bars one by one, of one instrument or several, and reports each event once.

    Parameters
    ----------
    detector
        An event detector.
    threshold
        Least calibrated score of an event; None: the detector's own threshold.
    stride
        Bars between two windows that are read.
    max_gap_minutes
        A longer step between two bars of an instrument ends a segment.
    precision
        ``fp32``, or ``bf16`` for a faster encoder.
    minutes
        Length of a bar in minutes.

    Raises
    ------
    UserError
        If the stride leaves bars that no window reads.
    """

    def __init__(
        self,
        detector: EventDetector,
        threshold: float | None = None,
        stride: int = EVENT_STRIDE,
        max_gap_minutes: int = 5,
        precision: str = "fp32",
        minutes: int = 1,
    ) -> None:
        check_stride(stride, detector.length)
        self.detector, self.stride, self.max_gap_minutes, self.precision = detector, stride, max_gap_minutes, precision
        self.minutes = minutes
        self.threshold = detector.threshold if threshold is None else threshold
        self._warm_up()
        self.num_bars = self.num_windows = 0
        self.segments: dict[str, _Segment] = {}
        self.last_ns: dict[str, int] = {}

    def _warm_up(self) -> None:
        """Read a window that stands still: the first one takes up to a second, for imports and for torch's memory."""
        maps = self.detector.read(np.ones((1, self.detector.length, 4)), self.precision).maps
        events_of(maps[0])

    def add(self, instrument: str, time_ns: int, ohlc_4: np.ndarray) -> list[LiveEvent]:
        """Take one bar, and return the events that are known now.

        A bar after a gap ends the segment before it, and with it the wait for further bars.

        Raises: LateBarError for a bar at the time of an earlier one or before it, or that belongs to a segment that
        another instrument's bars have ended.
        """
        last, gap_ns = self.last_ns.get(instrument), self.max_gap_minutes * MINUTE_NS
        if last is not None and time_ns <= last:
            raise LateBarError("its time has been read already" if time_ns == last else "a later bar has been read")
        if last is not None and instrument not in self.segments and time_ns - last <= gap_ns:
            raise LateBarError("bars of other instruments are so much later that its segment has ended")
        found = []
        for name, segment in list(self.segments.items()):
            if time_ns - self.last_ns[name] > gap_ns:
                found += segment.events(ended=True)
                del self.segments[name]
        segment = self.segments.setdefault(instrument, _Segment(self, instrument))
        self.last_ns[instrument] = time_ns
        self.num_bars += 1
        return found + segment.add(time_ns, ohlc_4)

    def open_events(self) -> list[LiveEvent]:
        """Return the events that later bars may still change or remove. They are not ``final``."""
        return [event for segment in self.segments.values() for event in segment.events(ended=False)]


class _Segment:
    """The last bars of a segment of one instrument, and their maps."""

    def __init__(self, scan: LiveScan, instrument: str) -> None:
        self.scan, self.instrument = scan, instrument
        self.dropped = 0
        """Bars of the segment that are not kept any more."""
        self.num = 0
        """Bars that are kept."""
        self.time_ns = np.zeros(KEPT_BARS, np.int64)
        self.ohlc_L4 = np.zeros((KEPT_BARS, 4))
        self.maps = MeanMaps(len(scan.detector.classes), KEPT_BARS)
        self.reported: set[tuple[int, int]] = set()
        """Class and bar of the peak of every reported event whose bars are kept."""

    def add(self, time_ns: int, ohlc_4: np.ndarray) -> list[LiveEvent]:
        if self.num == len(self.time_ns):
            self._make_room()
        self.time_ns[self.num], self.ohlc_L4[self.num] = time_ns, ohlc_4
        self.num += 1
        length = self.scan.detector.length
        if self.dropped + self.num < length or (self.dropped + self.num - length) % self.scan.stride:
            return []
        window = self.ohlc_L4[self.num - length : self.num]
        maps = self.scan.detector.read(window[None], self.scan.precision).maps
        self.maps.add(maps, np.array([self.num - length]))
        self.scan.num_windows += 1
        return self._found(ended=False, final=True)

    def events(self, ended: bool) -> list[LiveEvent]:
        """Return the events that were not reported: final ones if the segment has ended, open ones if not."""
        return self._found(ended, final=ended)

    def _found(self, ended: bool, final: bool) -> list[LiveEvent]:
        """Return the events above the threshold that were not reported, final or open."""
        scan, detector = self.scan, self.scan.detector
        mean_3CL = self.maps.mean()[..., : self.num]
        found, peak = events_of(mean_3CL)
        if not len(found):
            return []
        first = first_open(self.dropped + self.num, detector.length, scan.stride) - self.dropped
        waits = may_change(mean_3CL, np.arange(self.num) >= first, found, peak)
        known = np.where(waits, self.num - 1, known_rows(mean_3CL, self.maps.known[: self.num], found, peak))
        score = detector.calibration.apply(found.score)
        out = []
        for i in np.flatnonzero((score >= scan.threshold) & ((waits != final) | ended)).tolist():
            place = (int(found.label[i]), self.dropped + int(peak[i]))
            if place in self.reported:
                continue
            if final:
                self.reported.add(place)
            minutes = scan.minutes + (scan.max_gap_minutes if waits[i] and ended else 0)
            out.append(
                LiveEvent(
                    self.instrument, int(self.time_ns[found.start[i]]), int(self.time_ns[found.end[i]]),
                    detector.classes[place[0]], float(score[i]), int(self.time_ns[known[i]]) + minutes * MINUTE_NS,
                    int(self.maps.count[peak[i]]), final,
                )
            )  # fmt: skip
        return out

    def _make_room(self) -> None:
        """Drop old bars at a place where no event depends on bars of both sides, or keep twice as many.

        Such a place has no mass near it. So peaks on one side suppress none on the other.
        """
        length, reach = self.scan.detector.length, 2 * (RADIUS + 1)
        quiet_L = (self.maps.mean()[MASS] < FLOOR).all(0)
        run_L = np.convolve(quiet_L, np.ones(2 * reach + 1), "same") > 2 * reach
        # The last window and the next one must stay whole, and their maps are not settled.
        places = np.flatnonzero(run_L[: self.num - 2 * length])
        cut = int(places[-1]) if len(places) else 0
        kept = self.num - cut
        size = len(self.time_ns) if kept <= len(self.time_ns) // 2 else 2 * len(self.time_ns)
        maps = MeanMaps(len(self.scan.detector.classes), size)
        maps.total[..., :kept], maps.count[:kept] = self.maps.total[..., cut:], self.maps.count[cut:]
        maps.known[:kept] = np.maximum(self.maps.known[cut:] - cut, -1)
        time_ns, ohlc_L4 = np.zeros(size, np.int64), np.zeros((size, 4))
        time_ns[:kept], ohlc_L4[:kept] = self.time_ns[cut:], self.ohlc_L4[cut:]
        self.maps, self.time_ns, self.ohlc_L4, self.num = maps, time_ns, ohlc_L4, kept
        self.dropped += cut
        self.reported = {(label, bar) for label, bar in self.reported if bar >= self.dropped}
