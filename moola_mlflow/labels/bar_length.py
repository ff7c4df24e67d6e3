"""The length of a bar of labelled windows, from the times of their first and last bars."""

from __future__ import annotations

import numpy as np

from moola_mlflow.bars import LENGTHS, MINUTE_NS
from moola_mlflow.labels.event_labels import EventLabels
from moola_mlflow.labels.labelled_set import LabelledSet


def bar_minutes(labels: LabelledSet | EventLabels) -> int:
    """Return the length of a bar in minutes: the longest of those that fit every window; 1 where no times are known.

    Breaks and minutes without a trade only make a window last longer. A time may lie anywhere in its minute.
    """
    if labels.start_ns is None or labels.end_ns is None or not len(labels):
        return 1
    shortest = int(np.min(labels.end_ns - labels.start_ns)) + MINUTE_NS
    num_steps = labels.ohlc.shape[1] - 1
    return max(minutes for minutes in LENGTHS if minutes == 1 or minutes * MINUTE_NS * num_steps <= shortest)


def bar_times(labels: LabelledSet | EventLabels, window: int) -> np.ndarray | None:
    """Return the start of each bar of a window; None where it is not known, as in a window with a gap.

    Shapes: int64 [T]. Units: ns since 1970 UTC.
    """
    if labels.start_ns is None or labels.end_ns is None:
        return None
    times = int(labels.start_ns[window]) + bar_minutes(labels) * MINUTE_NS * np.arange(labels.ohlc.shape[1])
    return times if times[-1] == labels.end_ns[window] else None
