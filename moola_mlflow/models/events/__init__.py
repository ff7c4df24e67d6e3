"""The event detector: windows looked at may hold no event, one or several. Fit it, read windows, scan bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moola_mlflow.core import lazy_face

if TYPE_CHECKING:
    from moola_mlflow.models.events.cross_fit import EventFit, EventSource, fit_event_detector
    from moola_mlflow.models.events.event_detector import EventDetector, EventFound, Reading, read_inputs
    from moola_mlflow.models.events.event_scan import EVENT_COLUMNS, EVENT_STRIDE, EventScan, scan_events
    from moola_mlflow.models.events.event_targets import EventTargets
    from moola_mlflow.models.events.fitting import EventInputs, EventSettings
    from moola_mlflow.models.events.held_out import HeldOut, HeldOutFit, cross_read, one_hit_a_window
    from moola_mlflow.models.events.live import LateBarError, LiveEvent, LiveScan
    from moola_mlflow.models.events.matching import EventTable, match_events, near_any
    from moola_mlflow.models.events.peaks import window_events
    from moola_mlflow.models.events.scratch import ScratchSettings, fit_scratch
    from moola_mlflow.models.events.signals import event_signals
    from moola_mlflow.models.events.unlabelled import Unlabelled

__all__, __getattr__, __dir__ = lazy_face(
    __name__,
    {
        "cross_fit": ("EventFit", "EventSource", "fit_event_detector"),
        "event_detector": ("EventDetector", "EventFound", "Reading", "read_inputs"),
        "event_scan": ("EVENT_COLUMNS", "EVENT_STRIDE", "EventScan", "scan_events"),
        "event_targets": ("EventTargets",),
        "fitting": ("EventInputs", "EventSettings"),
        "held_out": ("HeldOut", "HeldOutFit", "cross_read", "one_hit_a_window"),
        "live": ("LateBarError", "LiveEvent", "LiveScan"),
        "matching": ("EventTable", "match_events", "near_any"),
        "peaks": ("window_events",),
        "scratch": ("ScratchSettings", "fit_scratch"),
        "signals": ("event_signals",),
        "unlabelled": ("Unlabelled",),
    },
)
