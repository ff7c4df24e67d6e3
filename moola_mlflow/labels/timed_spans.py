"""Spans given by their times: read them from a table, and cut windows of bars around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from moola_mlflow.bars import Bars, localise, parse_times, segments, utc
from moola_mlflow.core import UserError, nearest_name
from moola_mlflow.labels.columns import NONE, LabelRows
from moola_mlflow.labels.event_labels import EventLabels
from moola_mlflow.labels.label_files import labels_of_table
from moola_mlflow.labels.label_table import LabelTable, features_of
from moola_mlflow.labels.labelled_set import LENGTH
from moola_mlflow.labels.placing import place_rest, place_windows
from moola_mlflow.labels.window_names import instrument_of_rows, window_ids

ROLES = {
    "start": ("start", "start_time", "begin", "from", "start time"),
    "end": ("end", "end_time", "stop", "to", "end time"),
    "label": ("label", "class", "type", "category", "pattern"),
    "instrument": ("instrument", "symbol", "ticker"),
    "window_start": ("window_start",),
    "window_id": ("window_id",),
}
"""The columns of a table of spans, and the names under which each is found, in any letter case."""
NEEDED = ("start", "end", "label")


@dataclass(frozen=True)
class TimedSpans:
    """Spans in the order of their table. A span of the class ``none`` was looked at and holds no event.

    Shapes: start_ns and end_ns int64 [R]: the starts of the first and the last bar, or times within them; first_ns
    int64 [R] or None: the start of the window that each span lies in. ids R names or None. extra [R rows] or None.
    Units: ns since 1970 UTC.
    """

    where: str
    start_ns: np.ndarray
    end_ns: np.ndarray
    label: Sequence[str]
    instrument: Sequence[str]
    first_ns: np.ndarray | None = None
    ids: Sequence[str] | None = None
    extra: pa.Table | None = None

    def check(self) -> LabelRows:
        """Return the rows, whose errors name a row and its start."""
        names = [utc(int(time_ns)) for time_ns in self.start_ns]
        return LabelRows(self.where, names, "start")

    @classmethod
    def of(cls, frame: pd.DataFrame, where: str, zone: str = "UTC") -> TimedSpans:
        """Read a table with the columns start, end and label; other columns are kept.

        Raises: UserError if a column is missing, or with the first row whose time does not parse.
        """
        found = _columns(frame, where)
        times = {
            role: _times(frame[name], f"{where}: {name}", zone)
            for role, name in found.items()
            if role in ("start", "end", "window_start")
        }
        rows = LabelRows(where, [str(value)[:40] for value in frame[found["start"]].tolist()], "start")
        for role, (_, bad) in times.items():
            rows.refuse(bad, f"{found[role]} is empty or no time; write yyyy-mm-dd hh:mm, with an offset or in {zone}")
        label = _texts(frame[found["label"]])
        rows.refuse(
            np.array([name == "" for name in label], bool),
            f"{found['label']} is empty; give a class, or {NONE} if nothing is there",
        )
        others = [name for name in frame.columns if name not in found.values()]
        return cls(
            where,
            times["start"][0],
            times["end"][0],
            label,
            _texts(frame[found["instrument"]]) if "instrument" in found else [""] * len(frame),
            times["window_start"][0] if "window_start" in times else None,
            _texts(frame[found["window_id"]]) if "window_id" in found else None,
            pa.Table.from_pandas(frame[others], preserve_index=False) if others else None,
        )


@dataclass(frozen=True)
class CutOptions:
    """How windows are cut around spans.

    ``rest`` says what bars outside all spans mean: unknown, no window is cut there; none, somebody looked and found
    nothing, so windows without an event are cut there.
    """

    length: int = LENGTH
    max_gap_minutes: int = 5
    rest: str = "unknown"
    seed: int = 17


def labels_from_spans(
    bars: Bars,
    spans: pd.DataFrame,
    *,
    length: int = LENGTH,
    max_gap_minutes: int = 5,
    rest: str = "unknown",
    seed: int = 17,
) -> EventLabels:
    """Cut windows of bars around events that are given by their times.

    A window is placed at random around each event, 20 bars before and after it if they are there, so that an event may
    lie anywhere in its window. It holds all events that lie in it whole.

    Parameters
    ----------
    bars
        The bars that the events lie in.
    spans
        One row an event: ``start``, ``end`` (times of its first and last bar) and ``label``. Where bars hold several
        instruments, ``instrument`` too. Other columns are kept. A row whose label is ``none`` was looked at and holds
        no event.
    length
        Bars in a window.
    max_gap_minutes
        A gap of more minutes between two bars ends a segment; no window crosses it.
    rest
        What bars outside all spans mean: ``unknown`` (default), or ``none``: somebody looked at them and found nothing.
    seed
        Seed of the places of the windows.

    Returns
    -------
    EventLabels
        The windows, in order of time, and the events in each.

    Raises
    ------
    UserError
        If an event does not lie in the bars, crosses a gap or is longer than a window.

    Examples
    --------
    >>> import pandas as pd
    >>> from moola_mlflow import BarsConfig, labels_from_spans, read_bars
    >>> bars = read_bars(BarsConfig(path="sample", sample_bars=2000))
    >>> spans = pd.DataFrame(
    ...     {"start": bars.time_ns[[300, 340]], "end": bars.time_ns[[310, 346]], "label": ["surge", "pause"]}
    ... )
    >>> labels = labels_from_spans(bars, spans)
    >>> labels.counts(), (labels.end - labels.start + 1).tolist()
    ({'pause': 1, 'surge': 1, 'none': 0}, [11, 7])
    """
    return labels_of_spans(
        bars, TimedSpans.of(spans, "spans"), CutOptions(length, max_gap_minutes, rest, seed), Path("spans")
    )


def labels_of_spans(bars: Bars, spans: TimedSpans, options: CutOptions, path: Path) -> EventLabels:
    """Return windows of bars with the events that spans name. Raises: UserError by the row of the span."""
    if options.rest not in ("unknown", NONE):
        raise UserError(f"rest='{options.rest}'; allowed: unknown or {NONE}")
    start, end = rows_in(bars, spans, spans.start_ns, after=True), rows_in(bars, spans, spans.end_ns, after=False)
    check, is_event = spans.check(), np.array([name != NONE for name in spans.label], bool)
    check.refuse(
        is_event & (end <= start),
        lambda i: (
            f"an event from {utc(int(spans.start_ns[i]))} to {utc(int(spans.end_ns[i]))} holds "
            f"{max(0, end[i] - start[i] + 1)} bars; it needs two or more: the end is the time of the last bar"
        ),
    )
    parts, looked_at = segments(bars, options.max_gap_minutes), []
    if spans.first_ns is not None:
        first, row = _given_windows(bars, spans, spans.first_ns, (start, end), options.length)
    else:
        first, row = place_windows(parts, start, end, np.flatnonzero(is_event), options.length, options.seed, check)
        looked_at = [(int(start[i]), int(end[i])) for i in np.flatnonzero(~is_event)]
    empty = place_rest(parts, first, options.length, None if options.rest == NONE else looked_at)
    pairs = np.concatenate([first, empty]), np.concatenate([row, np.full(len(empty), -1)])
    order = np.argsort(pairs[0], kind="stable")
    return _labels(bars, spans, options, path, (pairs[0][order], pairs[1][order]), (start, end))


def _given_windows(
    bars: Bars, spans: TimedSpans, first_ns: np.ndarray, ends: tuple[np.ndarray, np.ndarray], length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first bar of the window that each span names, and the span. Shapes: int64 [P] each."""
    first = rows_in(bars, spans, first_ns, after=True)
    spans.check().refuse(
        (first > ends[0]) | (ends[1] >= first + length),
        lambda i: (
            f"the event is not inside the window of {length} bars that begins at {utc(int(first_ns[i]))}; correct "
            "window_start"
        ),
    )
    is_event = np.array([name != NONE for name in spans.label], bool)
    rows = np.flatnonzero(is_event | ~np.isin(first, first[is_event]))
    return first[rows], rows


def _labels(
    bars: Bars,
    spans: TimedSpans,
    options: CutOptions,
    path: Path,
    rows: tuple[np.ndarray, np.ndarray],
    ends: tuple[np.ndarray, np.ndarray],
) -> EventLabels:
    """Return the labels of windows, by their first bar and the span in each, -1 for none."""
    first, span = rows
    label = [NONE if k < 0 else spans.label[k] for k in span.tolist()]
    empty = np.array([name == NONE for name in label], bool)
    if len(first) == 0:
        raise UserError(f"labels: {spans.where} holds no span; give start, end and label of some events")
    at = first[:, None] + np.arange(options.length)
    if at[:, -1].max() >= len(bars):
        raise UserError(
            f"labels: {spans.where}: a window of {options.length} bars ends after the last bar; give more bars"
        )
    names = instrument_of_rows(bars, first)
    ids = window_ids(names, bars.time_ns[first])
    if spans.ids is not None:
        ids = [spans.ids[k] if k >= 0 and spans.ids[k] else own for k, own in zip(span.tolist(), ids, strict=True)]
    columns: dict[str, Any] = {
        "window_id": ids,
        "label": label,
        "expansion_start": pa.array(ends[0][span] - first, pa.int64(), mask=empty),
        "expansion_end": pa.array(ends[1][span] - first, pa.int64(), mask=empty),
        "start_time": pa.array(bars.time_ns[first], pa.timestamp("ns", "UTC")),
        "end_time": pa.array(bars.time_ns[at[:, -1]], pa.timestamp("ns", "UTC")),
        "instrument": names,
        "features": features_of(bars.ohlc[at]),
    }
    extra = spans.extra.take(pa.array(span, mask=span < 0)) if spans.extra is not None else pa.table({})
    columns |= {name: extra[name] for name in extra.column_names if name not in columns}
    others = tuple(name for name in extra.column_names if name != "weak" and name != "drawn")
    file = LabelTable(path, pa.table(columns), {"bars_sha256": bars.sha256}, others)
    return labels_of_table(file, options.length, grouped=False)


def rows_in(bars: Bars, spans: TimedSpans, time_ns: np.ndarray, after: bool) -> np.ndarray:
    """Return the bar that holds each time; in a gap the next one, or the one before. Shapes: int64 [R] -> int64 [R]."""
    rows = np.zeros(len(time_ns), np.int64)
    keys = {name: key for key, name in bars.symbols.items()}
    in_order = bool((np.diff(bars.time_ns) >= 0).all())
    named = np.array(spans.instrument)
    if not in_order:
        spans.check().refuse(
            np.array([name not in keys for name in spans.instrument], bool),
            lambda i: (
                f"instrument '{spans.instrument[i]}' is not one of the bars: {', '.join(sorted(keys)[:8])}"
                f"{nearest_name(spans.instrument[i], keys)} Name it, or choose one with bars.instrument"
            ),
        )
    for name in np.unique(named).tolist():
        mine = np.flatnonzero(named == name)
        there = np.arange(len(bars)) if in_order else np.flatnonzero(bars.instrument == keys[name])
        times = bars.time_ns[there]
        k = np.searchsorted(times, time_ns[mine], "right") - 1
        held = (k >= 0) & (time_ns[mine] < times[np.maximum(k, 0)] + bars.length_ns)
        k = np.where(held | (not after), k, k + 1)
        outside = np.zeros(len(rows), bool)
        outside[mine] = (time_ns[mine] < times[0]) | (time_ns[mine] >= times[-1] + bars.length_ns)
        known = f"{utc(int(times[0]))} to {utc(int(times[-1]))}"
        spans.check().refuse(
            outside,
            lambda i, known=known: (  # type: ignore[misc]
                f"{utc(int(time_ns[i]))} is outside the bars, {known}; give the bars that the labels were made on, or "
                "correct the time zone"
            ),
        )
        rows[mine] = there[k]
    return rows


def _columns(frame: pd.DataFrame, where: str) -> dict[str, str]:
    names = {str(name).strip().casefold(): name for name in frame.columns}
    found = {}
    for role, known in ROLES.items():
        for name in known:
            if name in names:
                found[role] = names[name]
                break
        else:
            if role in NEEDED:
                raise UserError(
                    f"labels: {where} has no column '{role}'{nearest_name(role, names)} Needed: {', '.join(NEEDED)}; "
                    f"there are: {', '.join(map(str, frame.columns)) or 'none'}"
                )
    return found


def _texts(column: pd.Series) -> list[str]:
    return ["" if pd.isna(value) else str(value).strip() for value in column.tolist()]


def _times(column: pd.Series, where: str, zone: str) -> tuple[np.ndarray, np.ndarray]:
    """Return times in UTC, and which do not parse. Shapes: int64 [R], bool [R]. Units: ns since 1970."""
    if isinstance(column.dtype, pd.DatetimeTZDtype):  # pyarrow's own conversion causes a warning in pandas
        index = pd.DatetimeIndex(column).tz_convert("UTC").as_unit("ns")
        cells = pa.array(index.asi8, pa.timestamp("ns", "UTC"), mask=np.asarray(index.isna()))
    else:
        cells = pa.array(column.astype(str) if column.dtype == object else column)
    ns, bad, is_utc = parse_times(pa.chunked_array([cells]), where)
    if is_utc or zone == "UTC":
        return ns, bad
    local, ambiguous, skipped = localise(ns, np.zeros(len(ns), np.int64), zone)
    return local, bad | ambiguous | skipped
