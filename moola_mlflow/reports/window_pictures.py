"""Pictures of windows of bars and of labelled windows, for charts that one can touch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from moola_mlflow.bars import Bars, market_zone
from moola_mlflow.labels import EventLabels, bar_times
from moola_mlflow.reports.plots.candles import class_color
from moola_mlflow.reports.plots.interactive import ShownSpan, WindowPicture, local_times


def picture_of(bars: Bars, first: int, length: int, title: str, spans: Sequence[ShownSpan]) -> WindowPicture:
    """Return ``length`` bars from row ``first`` on, on the clock of their exchange. Spans count from there."""
    zone = _zone_of(bars)
    rows = slice(first, first + length)
    return WindowPicture(title, bars.ohlc[rows], local_times(bars.time_ns[rows], zone), zone, tuple(spans))


@lru_cache(maxsize=1)
def _zone_of(bars: Bars) -> str:
    """Return the clock of the bars' exchange. Finding it reads all bars, so it is kept for the next picture."""
    return market_zone(bars.time_ns, bars.instrument, bars.minutes)


def window_times(labels: EventLabels, window: int) -> tuple[np.ndarray, str]:
    """Return the times of a labelled window's bars and their zone, or the numbers of the bars where no time is known.

    Shapes: datetime64[ns] [T] or int64 [T].
    """
    times = bar_times(labels, window)
    return (np.arange(labels.ohlc.shape[1]), "") if times is None else (local_times(times, "UTC"), "UTC")


def labelled_picture(labels: EventLabels, i: int, title: str, below: Sequence[ShownSpan] = ()) -> WindowPicture:
    """Return a labelled window, with its events in the colours of their classes. Other spans lie below them."""
    spans = [
        ShownSpan(int(labels.start[k]), int(labels.end[k]), name, class_color(labels.classes, name))
        for k in np.flatnonzero(labels.window == i).tolist()
        for name in [labels.classes[int(labels.label[k])]]
    ]
    return WindowPicture(title, labels.ohlc[i], *window_times(labels, i), (*below, *spans))
