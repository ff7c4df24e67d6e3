"""Scan bars with a detector: read every window once, keep hits above thresholds, and of overlapping hits the best.

A detector names a class and a span in every window, even if there is no pattern. It was trained on windows that hold
one, and it has no class "nothing here" unless the labels had it. Only the thresholds keep such hits out. The class is
read from the bars around the span, so a span at the edge of a window is left to the next window.

Shape legend: N windows, H hits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from moola_mlflow.bars import Bars, segments
from moola_mlflow.core import DetectConfig, UserError
from moola_mlflow.models.detector import CHUNK, Found, PatternDetector
from moola_mlflow.windows import Windows, make_windows

COLUMNS = (
    "instrument", "start", "end", "label", "probability", "span_score", "num_windows", "window_start", "window_end",
    "expansion_start", "expansion_end",
)  # fmt: skip
"""Columns of the table of hits. Times are starts of the first and last bar; pointers count bars within the window."""

SCAN_PARAMETERS = ("min_probability", "min_span_score", "margin", "stride")
"""Keys of the section ``detect`` that decide which hits are found."""


@dataclass(frozen=True)
class Scan:
    """What a detector found in bars.

    Shapes: found over the N windows; above bool [N]; kept int64 [H], the windows of the kept hits in order of time;
    support int64 [H], how many windows have a hit on the same bars, this one included.
    """

    windows: Windows
    found: Found
    above: np.ndarray
    """Whether a window's hit passes the thresholds and has its margin."""
    kept: np.ndarray
    support: np.ndarray
    num_bars_seen: int
    """Bars that lie in a window; the segments of the other bars are too short."""

    def table(self) -> pd.DataFrame:
        """Return one row for each hit, in order of time, with the columns ``COLUMNS``."""
        bars, found, kept = self.windows.bars, self.found, self.kept
        first, last = self.rows(kept)
        starts = self.windows.starts[kept]
        names = instrument_names(bars)
        columns = {
            "instrument": np.array([names[key] for key in bars.instrument[first].tolist()], dtype=object),
            "start": _utc(bars.time_ns[first]),
            "end": _utc(bars.time_ns[last]),
            "label": found.label[kept].astype(object),
            "probability": self.confidence()[kept],
            "span_score": found.span_score[kept],
            "num_windows": self.support,
            "window_start": _utc(bars.time_ns[starts]),
            "window_end": _utc(bars.time_ns[starts + self.windows.length - 1]),
            "expansion_start": found.start[kept],
            "expansion_end": found.end[kept],
        }
        return pd.DataFrame(columns, columns=list(COLUMNS))

    def confidence(self) -> np.ndarray:
        """Return the calibrated probability of each window's class. Shapes: float64 [N]."""
        return self.found.probability.max(1)

    def rows(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of the bars where the spans of some windows begin and end. Shapes: int64 [M] each."""
        starts = self.windows.starts[index]
        return starts + self.found.start[index], starts + self.found.end[index]


def scan(
    bars: Bars,
    detector: PatternDetector,
    options: DetectConfig,
    max_gap_minutes: int = 5,
    on_windows: Callable[[int, int], None] | None = None,
    precision: str = "fp32",
) -> Scan:
    """Read every window of the bars once and keep the best of overlapping hits.

    ``on_windows`` is called with the number of windows done and of all windows. ``precision`` is that of
    ``PatternDetector.predict``.

    Raises: UserError if no window fits.
    """
    if 2 * options.margin + detector.head.head.lengths[0] > detector.length:
        raise UserError(
            f"detect.margin={options.margin} on both sides leaves no room for a span in windows of {detector.length} "
            "bars; lower it"
        )
    windows = scan_windows(bars, detector.length, options.stride, max_gap_minutes)
    parts = []
    for lo in range(0, len(windows), CHUNK):
        index = np.arange(lo, min(lo + CHUNK, len(windows)))
        parts.append(detector.predict(windows.gather(index), precision))
        if on_windows is not None:
            on_windows(lo + len(index), len(windows))
    names = ("label", "probability", "start", "end", "span_score")
    found = Found(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
    confidence = found.probability.max(1)
    inside = (found.start >= options.margin) & (found.end < detector.length - options.margin)
    # Without a span score the probability alone decides.
    above = inside & (confidence >= options.min_probability) & ~(found.span_score < options.min_span_score)
    candidates = np.flatnonzero(above)
    kept, support = merge_overlaps(
        windows.starts[candidates] + found.start[candidates],
        windows.starts[candidates] + found.end[candidates],
        confidence[candidates],
        found.span_score[candidates],
    )
    seen = sum(int(hi - lo) for lo, hi in segments(bars, max_gap_minutes) if hi - lo >= detector.length)
    order = np.argsort(bars.time_ns[windows.starts[candidates[kept]] + found.start[candidates[kept]]], kind="stable")
    return Scan(windows, found, above, candidates[kept][order], support[order], seen)


def scan_windows(bars: Bars, length: int, stride: int, max_gap_minutes: int = 5) -> Windows:
    """Cut a window every ``stride`` bars of each segment, and one that ends at the segment's last bar.

    Raises: UserError with the arithmetic if no segment is long enough.
    """
    windows = make_windows(bars, length, stride, max_gap_minutes)
    last = [hi - length for lo, hi in segments(bars, max_gap_minutes) if hi - lo >= length]
    starts = np.union1d(windows.starts, np.array(last, np.int64))
    return Windows(bars, length, starts[np.argsort(bars.time_ns[starts], kind="stable")])


def merge_overlaps(
    first_H: np.ndarray, last_H: np.ndarray, confidence_H: np.ndarray, span_score_H: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Keep hits from the most to the least probable, if they share no bar with a hit that is kept already.

    Equally probable hits are ordered by span score, then by time. Classes do not matter: a bar belongs to at most one
    hit. Bars are counted by row, so hits of two segments never overlap.

    Shapes: rows of the first and last bar, confidence, span score [H] -> positions of the kept hits [K], and for
    each how many hits it replaces, itself included [K].
    """
    score_H = np.where(np.isnan(span_score_H), -1.0, span_score_H)
    order = np.lexsort((first_H, -score_H, -confidence_H))
    if len(order) == 0:
        return order, order.copy()
    origin = int(first_H.min())
    owner = np.full(int(last_H.max()) - origin + 1, -1, np.int64)
    kept: list[int] = []
    support: list[int] = []
    for hit in order.tolist():
        bars = owner[first_H[hit] - origin : last_H[hit] - origin + 1]
        taken = bars[bars >= 0]
        if len(taken):
            support[int(taken.min())] += 1  # the most probable of the hits that it overlaps
            continue
        bars[:] = len(kept)
        kept.append(hit)
        support.append(1)
    return np.array(kept, np.int64), np.array(support, np.int64)


def instrument_names(bars: Bars) -> dict[int, str]:
    """Return a name for each instrument key: its symbol, followed by the key if several keys share the symbol."""
    shared = {symbol for symbol, count in Counter(bars.symbols.values()).items() if count > 1}
    return {key: f"{name}.{key}" if name in shared else name for key, name in bars.symbols.items()}


def _utc(time_ns: np.ndarray) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(time_ns.view("datetime64[ns]"), tz="UTC")
