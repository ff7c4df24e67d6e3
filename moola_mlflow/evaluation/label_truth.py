"""What is true in bars if windows that somebody looked at say so: their events, and only where they were looked at.

Shape legend: N windows of T bars, L bars, E events.
"""

from __future__ import annotations

import numpy as np

from moola_mlflow.bars import Bars
from moola_mlflow.core import UserError
from moola_mlflow.evaluation.bars_truth import BarsTruth, renumbered
from moola_mlflow.labels import EventLabels
from moola_mlflow.models import HIT_BARS, EventTable, instrument_names

AT_RANDOM = ("random", "listed", "")
"""Values of ``drawn`` of windows that no query chose; the empty one is unknown."""
PRICE_TOLERANCE = 1e-6
"""Relative difference of two prices that count as equal: files may hold them as float32."""


def truth_of_labels(bars: Bars, labels: EventLabels, classes: tuple[str, ...], margin: int = 20) -> BarsTruth:
    """Find labelled windows in bars and return their events, by the classes of a detector.

    A bar counts as looked at if a window holds it with ``margin`` bars before and after it: what lies at a window's
    edge, the annotator has seen in part. Labelled events whose centre lies there are neither right nor wrong. Windows
    that a query chose are left out: they are no fair sample. Of windows that overlap, each event counts once.

    Raises: UserError if the labels have no times, no window lies in the bars, no event is left, or one has a class that
    the detector does not know.
    """
    length = labels.ohlc.shape[1]
    if 2 * margin >= length:
        raise UserError(f"evaluate.margin={margin} leaves nothing of windows of {length} bars; lower it")
    at_random = np.ones(len(labels), bool) if labels.drawn is None else np.isin(labels.drawn, AT_RANDOM)
    if not at_random.any():
        raise UserError(
            f"labels '{labels.path}': a query chose all {len(labels):,} windows, and scores of them say nothing about "
            "other bars; look at windows drawn at random"
        )
    row_N = np.where(at_random, rows_of_windows(bars, labels), -1)
    found = row_N >= 0
    if not found.any():
        raise UserError(
            f"labels '{labels.path}': no window has the times and prices of these bars; give the bars that the windows "
            "were cut from"
        )
    judged = np.zeros(len(bars), bool)
    for first in row_N[found].tolist():
        judged[first + margin : first + length - margin] = True
    source = f"the labels {labels.path}"
    events = renumbered(_events(labels, row_N), labels.classes, classes, source)
    inside = judged[np.floor(events.centre).astype(np.int64)]
    true = events.select(np.flatnonzero(inside))
    if not len(true):
        raise UserError(
            f"labels '{labels.path}': no event lies in these bars with {margin} bars of its window before and after "
            "it; give more windows, or lower evaluate.margin"
        )
    notes = _notes(labels, at_random, int((at_random & ~found).sum()), len(events) - len(true))
    num = f"{found.sum():,} windows looked at"
    return BarsTruth(true, events.select(np.flatnonzero(~inside)), classes, f"{source}, {num}", judged, notes)


def rows_of_windows(bars: Bars, labels: EventLabels) -> np.ndarray:
    """Return the row of each window's first bar, -1 if the bars do not hold its times and prices one after another.

    Where the bars have one instrument, its name need not be that of the labels: the prices decide.

    Shapes: int64 [N]. Raises: UserError if the labels have no times.
    """
    if labels.start_ns is None or labels.end_ns is None:
        raise UserError(
            f"labels '{labels.path}' have no times, so their windows cannot be found in bars; add start_time and "
            "end_time"
        )
    length, row_N = labels.ohlc.shape[1], np.full(len(labels), -1, np.int64)
    keys, names = np.unique(bars.instrument).tolist(), instrument_names(bars)
    for key in keys:
        own = np.flatnonzero(bars.instrument == key)
        if len(own) < length:
            continue
        order = own[np.argsort(bars.time_ns[own], kind="stable")]
        at = np.searchsorted(bars.time_ns[order], labels.start_ns).clip(0, len(order) - length)
        rows_NT = order[at[:, None] + np.arange(length)]
        fits = (bars.time_ns[rows_NT[:, 0]] == labels.start_ns) & (bars.time_ns[rows_NT[:, -1]] == labels.end_ns)
        fits &= rows_NT[:, -1] - rows_NT[:, 0] == length - 1
        if len(keys) > 1 and labels.instrument is not None:
            fits &= labels.instrument.astype(str) == names[key]
        near = np.flatnonzero(fits)
        prices, own_prices = bars.ohlc[rows_NT[near]], labels.ohlc[near]
        equal = np.isclose(prices, own_prices, rtol=PRICE_TOLERANCE, atol=0).all(axis=(1, 2))
        row_N[near[equal]] = rows_NT[near[equal], 0]
    return row_N


def _events(labels: EventLabels, row_N: np.ndarray) -> EventTable:
    """Return the events of the windows that were found, in order of time, those of overlapping windows once."""
    first_E = row_N[labels.window]
    kept = np.flatnonzero(first_E >= 0)
    rows = np.unique(
        np.stack([first_E[kept] + labels.start[kept], first_E[kept] + labels.end[kept], labels.label[kept]], 1), axis=0
    )
    start, end, label = rows.T
    centre = (start + end) / 2
    alone = np.ones(len(rows), bool)
    for k in np.unique(label).tolist():
        last = -np.inf
        for i in np.flatnonzero(label == k)[np.argsort(centre[label == k], kind="stable")].tolist():
            alone[i] = centre[i] > last + HIT_BARS
            last = centre[i] if alone[i] else last
    events = EventTable(label, start, end, np.ones(len(rows)))
    return events.select(np.flatnonzero(alone))


def _notes(labels: EventLabels, at_random: np.ndarray, num_missing: int, num_at_edges: int) -> tuple[str, ...]:
    notes = []
    if num := int((~at_random).sum()):
        notes.append(f"{num:,} of {len(labels):,} windows were chosen by a query and are left out: no fair sample.")
    if num_missing:
        notes.append(f"{num_missing:,} windows do not lie in these bars or have other prices; they are left out.")
    if num_at_edges:
        notes.append(f"{num_at_edges:,} labelled events lie at the edge of their window and count neither way.")
    return tuple(notes)
