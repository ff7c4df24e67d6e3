"""Detect in one call: bars and a detector of any kind in, a table of hits or events out. No store is needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from moola_mlflow.bars import Bars, bars_from_table, read_bars
from moola_mlflow.core import BarsConfig, DetectConfig, DetectKeys, UserError, make_config
from moola_mlflow.models.detector import PatternDetector
from moola_mlflow.models.events.event_detector import EventDetector
from moola_mlflow.models.events.event_scan import EventScan, scan_events
from moola_mlflow.models.files.event_detector import load_any_detector_folder
from moola_mlflow.models.scanning import scan

EVENT_KEYS = ("detect.min_score", "detect.precision", "detect.max_per_day")
SPAN_KEYS = ("detect.min_probability", "detect.min_span_score", "detect.margin")


def detect(
    bars: Bars | pd.DataFrame | str | Path,
    detector: PatternDetector | EventDetector | str | Path,
    *,
    min_probability: float | None = None,
    min_span_score: float | None = None,
    margin: int | None = None,
    stride: int | None = None,
    min_score: float | None = None,
    max_gap_minutes: int = 5,
) -> pd.DataFrame:
    """Scan bars with a detector and return one row for each pattern found. No tracking store is needed.

    Parameters
    ----------
    bars
        Bars of ``read_bars``, a table with times and prices, or the path of a file of one instrument.
    detector
        A detector of ``load_detector``, or a folder with ``detector.json``.
    min_probability
        Span detectors: least calibrated probability of a hit; None: the default of the command ``detect``.
    min_span_score
        Span detectors: least probability that the span head gives to spans near a hit's; None: the command's default.
    margin
        Span detectors: least number of bars in the window before and after a hit's span; None: the command's default.
    stride
        Bars between two windows that are read; None: the command's default.
    min_score
        Event detectors: least calibrated score of an event; None: the detector's own threshold. For an expected
        precision, take all events with ``min_score=0.0``: the precision to expect at and above a score is the mean of
        the scores there.
    max_gap_minutes
        A longer step between two bars ends a segment.

    Returns
    -------
    pandas.DataFrame
        One row for each hit or event, in order of time. ``attrs`` counts ``windows`` and, for a span detector,
        ``windows_above`` the thresholds. An event detector's ``attrs`` have the ``threshold`` of the score.

    Raises
    ------
    UserError
        If the bars, the folder or a threshold cannot be used. A threshold of the other kind of detector is one.

    Examples
    --------
    >>> from moola_mlflow import BarsConfig, read_bars
    >>> from moola_mlflow.models import Detector, PatternDetector
    >>> head = Detector("span", num_inputs=56, num_classes=2, lengths=(5, 12))  # not fitted: its hits mean nothing
    >>> detector = PatternDetector(head.eval(), None, "price_path", ("consolidation", "retracement"), 1.0, card={})
    >>> hits = detect(read_bars(BarsConfig(sample_bars=2000)), detector, min_probability=0.5, min_span_score=0.0)
    >>> list(hits.columns[:5])
    ['instrument', 'start', 'end', 'label', 'probability']
    >>> hits.attrs["windows"]
    88
    """
    thresholds = {"min_probability": min_probability, "min_span_score": min_span_score, "margin": margin}
    thresholds["min_score"] = min_score
    options = detect_options({**thresholds, "stride": stride})
    if isinstance(detector, str | Path):
        if str(detector).startswith(("models:/", "runs:/")):
            raise UserError(f"detector '{detector}' is in a store; give moola_mlflow.load_detector('{detector}')")
        detector = load_any_detector_folder(Path(detector))
    check_thresholds({f"detect.{key}": value for key, value in thresholds.items() if value is not None}, detector)
    if isinstance(bars, pd.DataFrame):
        bars = bars_from_table(bars, detector.length, config=BarsConfig(minutes=learned_minutes(detector.card)))
    elif isinstance(bars, str | Path):
        bars = read_bars(BarsConfig(path=str(bars), minutes=learned_minutes(detector.card)), detector.length)
    if isinstance(detector, EventDetector):
        events = find_events(bars, detector, options, max_gap_minutes)
        table = events.table()
        table.attrs = {"windows": len(events.windows), "threshold": events.threshold}
        return table
    found = scan(bars, detector, options, max_gap_minutes)
    table = found.table()
    table.attrs = {"windows": len(found.windows), "windows_above": int(found.above.sum())}
    return table


def learned_minutes(card: Mapping[str, Any]) -> Literal[1, 5, 15]:
    """Return the length of the bars that a detector learned from, in minutes. Cards of earlier versions mean 1."""
    found: Literal[1, 5, 15] = (card.get("labels") or {}).get("bar_minutes", 1)
    return found


def detect_options(given: dict[str, object]) -> DetectConfig:
    """Return thresholds and stride; None stands for the default. Raises: UserError that names what is allowed."""
    return make_config(DetectKeys, {}, {f"detect.{key}": value for key, value in given.items()}).detect


def check_thresholds(given: Mapping[str, object], detector: PatternDetector | EventDetector) -> None:
    """Check that a detector reads the given keys. Raises: UserError for thresholds of the other kind of detector."""
    is_event = isinstance(detector, EventDetector)
    own, other = (EVENT_KEYS, SPAN_KEYS) if is_event else (SPAN_KEYS, EVENT_KEYS)
    for key, value in given.items():
        if key in other:
            kind = "event" if is_event else "span"
            raise UserError(f"{key}={value} has no meaning for {kind} detectors; their keys: {', '.join(own)}")


def find_events(bars: Bars, detector: EventDetector, options: DetectConfig, max_gap_minutes: int = 5) -> EventScan:
    """Scan bars with an event detector; return the events at or above the threshold that the options ask for."""
    every = scan_events(bars, detector, 0.0, options.stride, max_gap_minutes)
    return every.at(chosen_threshold(every, detector, options))


def chosen_threshold(every: EventScan, detector: EventDetector, options: DetectConfig) -> float:
    """Return the score that an event needs: given, for an expected precision, for a count a day, or the detector's.

    Raises: UserError if more than one of them is asked for.
    """
    asked = {name: getattr(options, name) for name in ("min_score", "precision", "max_per_day")}
    given = [f"detect.{name}={value:g}" for name, value in asked.items() if value is not None]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} each choose a threshold; give one of them")
    if options.min_score is not None:
        return options.min_score
    if options.precision is not None:
        return every.threshold_for_precision(options.precision)
    if options.max_per_day is not None:
        return every.threshold_for_count(options.max_per_day)
    return detector.threshold
