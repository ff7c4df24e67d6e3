"""Windows with two events in a third of them, made from halves of sample bars: the last question of events_study.py.

A half with an event holds 20 bars, the event, and at least 20 bars; a half without one holds no event that windows at
stride 1 agree on, nor one that some name. Two halves make a window: the second is scaled and moved so that it goes on
from the first. No half is used twice. So events are as strong in windows with two as in windows with one, and what a
detector loses in windows with two it loses because there are two.
"""

from __future__ import annotations

import numpy as np

from moola_mlflow.bars import Bars, segments
from moola_mlflow.evaluation import RuleTruth, score_held_out
from moola_mlflow.labels import EventLabels
from moola_mlflow.models import EventFit

HALVES = (52, 53)
LENGTH = sum(HALVES)
LEAD = WAIT = 20
Half = tuple[np.ndarray, tuple[int, int, int] | None]
"""Prices, and class, first and last bar of the event."""


def pair_labels(bars: Bars, truth: RuleTruth, num: int, seed: int) -> EventLabels:
    """Return ``num`` windows: a third without an event, a third with one and a third with two."""
    rng = np.random.default_rng(seed)
    with_event, empty = _halves(bars, truth, rng)
    rng.shuffle(with_event)
    rng.shuffle(empty)
    windows, rows = [], []
    for i in range(num):
        wanted = [(False, False), (True, False), (True, True), (False, False), (False, True), (True, True)][i % 6]
        halves = [(with_event if one else empty).pop() for one in wanted]
        windows.append(_joined(halves[0][0][: HALVES[0]], halves[1][0]))
        for first, (_, event) in zip((0, HALVES[0]), halves, strict=True):
            if event is not None:
                rows.append((i, event[0], first + event[1], first + event[2]))
    window, label, start, end = np.array(rows).T
    ids = np.array([f"pair-{i}" for i in range(num)])
    return EventLabels(ids, np.stack(windows), truth.classes, window, label, start, end, weak=True)


def _halves(bars: Bars, truth: RuleTruth, rng: np.random.Generator) -> tuple[list[Half], list[Half]]:
    """Return stretches of 53 bars with and without an event that share no bar."""
    size, taken, runs = HALVES[1], np.zeros(len(bars), bool), segments(bars)
    busy = np.zeros(len(bars), bool)
    for events in (truth.true, truth.unclear):
        for start, end in zip(events.start.tolist(), events.end.tolist(), strict=True):
            busy[start : end + 1] = True
    lasts = {int(row): int(hi) for lo, hi in runs for row in (lo,)}
    edges = np.array(sorted(lasts))
    with_event, empty = list[Half](), list[Half]()

    def free(first: int) -> bool:
        lo = int(edges[np.searchsorted(edges, first, side="right") - 1]) if first >= 0 else 0
        return first >= lo and first + size <= lasts[lo] and not taken[first : first + size].any()

    true = truth.true
    for k in rng.permutation(len(true)).tolist():
        start, end = int(true.start[k]), int(true.end[k])
        first = start - int(rng.integers(LEAD, HALVES[0] - WAIT - (end - start + 1) + 1))
        if free(first):
            taken[first : first + size] = True
            event = (int(true.label[k]), start - first, end - first)
            with_event.append((bars.ohlc[first : first + size], event))
    for first in rng.permutation(len(bars) - size).tolist():
        if free(first) and not busy[first : first + size].any():
            taken[first : first + size] = True
            empty.append((bars.ohlc[first : first + size], None))
    return with_event, empty


def _joined(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return one window: the right half has the left half's median range and opens where that closes."""
    ranges = [np.median(half[:, 1] - half[:, 2]) for half in (left, right)]
    scale = ranges[0] / ranges[1] if min(ranges) > 0 else 1.0
    return np.concatenate([left, left[-1, 3] + (right - right[0, 0]) * scale])


def pair_recalls(fit: EventFit, labels: EventLabels) -> dict[str, float]:
    """Return out-of-fold recall at the detector's threshold: events alone in their window, and those of pairs."""
    held, detector = fit.held, fit.detector
    above = detector.calibration.apply(held.found.score) >= detector.threshold
    found = np.zeros(labels.num_events, bool)
    found[held.matched[above & (held.matched >= 0)]] = True
    pairs = labels.events_per_window()[labels.window] == 2
    first, second = found[pairs].reshape(-1, 2).T
    scored = score_held_out(fit, labels).scores(detector.threshold)
    return {
        "alone": float(found[~pairs].mean()), "in_pairs": float(found[pairs].mean()), "first": float(first.mean()),
        "second": float(second.mean()), "both": float((first & second).mean()),
        "ratio": float(found[pairs].mean() / found[~pairs].mean()), "map": scored["map"],
        "precision": scored["precision"], "threshold": detector.threshold,
    }  # fmt: skip
