"""A CSV of times: a row with start, end and label for each event; a row with label none for a window without one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from moola_mlflow.bars import MINUTE_NS, Bars
from moola_mlflow.core import UserError
from moola_mlflow.labels.bar_length import bar_minutes
from moola_mlflow.labels.columns import NONE
from moola_mlflow.labels.event_labels import EventLabels


def read_time_table(path: Path) -> pd.DataFrame:
    """Read a CSV whose separator is a comma, a semicolon or a tab. Raises: UserError if it cannot be read."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline()
        separator = max(",;\t", key=header.count)
        return pd.read_csv(path, sep=separator, keep_default_na=False, na_values=[""], encoding="utf-8-sig")
    except (OSError, ValueError, pd.errors.ParserError) as e:
        raise UserError(f"labels: '{path}' cannot be read as CSV: {' '.join(str(e).split())[:200]}") from None


def time_table(labels: EventLabels, load_bars: Callable[[], Bars]) -> pd.DataFrame:
    """Return a row for each event and for each window without one, with the times of its first and last bar.

    The columns window_start and window_id keep the window. Bars are read only if a window has a gap.

    Raises: UserError if the windows have no times, or if the bars do not hold them.
    """
    if labels.start_ns is None or labels.end_ns is None:
        raise UserError("out: a CSV of times needs windows with start_time and end_time; write .parquet or .json")
    window_R, event_R = labels.row_window(), labels.row_event()
    length, empty_R = labels.ohlc.shape[1], labels.row_event() < 0
    at = np.maximum(event_R, 0)
    start = np.where(empty_R, 0, labels.start[at] if labels.num_events else 0)
    end = np.where(empty_R, length - 1, labels.end[at] if labels.num_events else 0)
    bar_ns = _times_of_bars(labels, load_bars)
    columns = {
        "start": _iso(bar_ns[window_R, start]),
        "end": _iso(bar_ns[window_R, end]),
        "label": [NONE if k < 0 else labels.classes[labels.label[k]] for k in event_R.tolist()],
        "window_start": _iso(labels.start_ns[window_R]),
        "window_id": labels.window_id[window_R],
    }
    for name, values in (("instrument", labels.instrument), ("drawn", labels.drawn)):
        if values is not None:
            columns[name] = values[window_R]
    frame = pd.DataFrame(columns)
    if labels.weak:
        frame["weak"] = True
    if labels.extra is not None:
        for name in labels.extra.column_names:
            if name not in frame:
                frame[name] = labels.extra[name].to_pandas().to_numpy()
    return frame


def _times_of_bars(labels: EventLabels, load_bars: Callable[[], Bars]) -> np.ndarray:
    """Return the start of each bar of each window. Shapes: int64 [N, T]. Units: ns since 1970 UTC."""
    assert labels.start_ns is not None
    assert labels.end_ns is not None
    length = labels.ohlc.shape[1]
    steps = np.arange(length)
    even = labels.start_ns[:, None] + steps * bar_minutes(labels) * MINUTE_NS
    gaps = np.flatnonzero(labels.end_ns != even[:, -1])
    if not len(gaps):
        return even
    bars = load_bars()
    for i in gaps.tolist():
        rows = np.flatnonzero(bars.time_ns == labels.start_ns[i])
        fits = [r for r in rows.tolist() if np.array_equal(bars.ohlc[r : r + length], labels.ohlc[i])]
        if not fits:
            raise UserError(
                f"out: window '{labels.window_id[i]}' has a gap, and the bars that it was cut from are not in "
                "bars.path. Their times are needed: give the bars with bars=, or write .parquet or .json"
            )
        even[i] = bars.time_ns[fits[0] : fits[0] + length]
    return even


def _iso(time_ns: np.ndarray) -> list[str]:
    return [pd.Timestamp(ns, tz="UTC").isoformat() for ns in time_ns.tolist()]
