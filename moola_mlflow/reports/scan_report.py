"""Scan bars with a detector of either kind, and report what was found."""

from __future__ import annotations

from collections.abc import Callable

from moola_mlflow.bars import Bars
from moola_mlflow.core import DetectKeys
from moola_mlflow.models import EventDetector, PatternDetector, check_thresholds, scan, scan_events
from moola_mlflow.reports.detections import DetectionsReport
from moola_mlflow.reports.event_detections import EventDetectionsReport


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
    check_thresholds(config.given(), detector)
    gap = config.bars.max_gap_minutes
    if isinstance(detector, EventDetector):
        every = scan_events(bars, detector, 0.0, config.detect.stride, gap, precision, on_windows)
        return EventDetectionsReport.of(every, detector, uri, config)
    return DetectionsReport.of(scan(bars, detector, config.detect, gap, on_windows, precision), detector, uri, config)
