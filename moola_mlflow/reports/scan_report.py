"""Scan bars with a detector of either kind, and report what was found."""

from __future__ import annotations

from collections.abc import Callable

from moola_mlflow.bars import Bars
from moola_mlflow.core import DetectKeys, UserError
from moola_mlflow.models import EventDetector, PatternDetector, scan, scan_events
from moola_mlflow.reports.detections import DetectionsReport
from moola_mlflow.reports.event_detections import EventDetectionsReport

EVENT_KEYS = ("detect.min_score", "detect.precision", "detect.max_per_day")
SPAN_KEYS = ("detect.min_probability", "detect.min_span_score", "detect.margin")


def report_scan(
    bars: Bars,
    detector: PatternDetector | EventDetector,
    uri: str,
    config: DetectKeys,
    precision: str,
    on_windows: Callable[[int, int], None],
) -> DetectionsReport | EventDetectionsReport:
    """Scan the bars and return the report. ``uri`` names the detector's version.

    Raises: UserError for thresholds of the other kind of detector, or if no window fits.
    """
    check_scan_keys(detector, config)
    gap = config.bars.max_gap_minutes
    if isinstance(detector, EventDetector):
        every = scan_events(bars, detector, 0.0, config.detect.stride, gap, precision, on_windows)
        return EventDetectionsReport.of(every, detector, uri, config)
    return DetectionsReport.of(scan(bars, detector, config.detect, gap, on_windows, precision), detector, uri, config)


def check_scan_keys(detector: PatternDetector | EventDetector, config: DetectKeys) -> None:
    """Refuse thresholds of the other kind of detector. Raises: UserError."""
    is_event = isinstance(detector, EventDetector)
    own, other = (EVENT_KEYS, SPAN_KEYS) if is_event else (SPAN_KEYS, EVENT_KEYS)
    for key, value in config.given().items():
        if key in other:
            kind = "event" if is_event else "span"
            raise UserError(f"{key}={value} has no meaning for {kind} detectors; their keys: {', '.join(own)}")
