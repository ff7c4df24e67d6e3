"""Pictures of windows of bars, on the clock of their exchange, for charts that one can touch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from moola_mlflow.bars import Bars, market_zone
from moola_mlflow.reports.plots.interactive import ShownSpan, WindowPicture, local_times


def picture_of(bars: Bars, first: int, length: int, title: str, spans: Sequence[ShownSpan]) -> WindowPicture:
    """Return the picture of ``length`` bars from row ``first`` on. Spans count from there."""
    zone = _zone_of(bars)
    rows = slice(first, first + length)
    return WindowPicture(title, bars.ohlc[rows], local_times(bars.time_ns[rows], zone), zone, tuple(spans))


@lru_cache(maxsize=1)
def _zone_of(bars: Bars) -> str:
    """Return the clock of the bars' exchange. Finding it reads all bars, so it is kept for the next picture."""
    return market_zone(bars.time_ns, bars.instrument)
