"""Place windows of bars around events, and over stretches where nothing is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moola_mlflow.labels.columns import LabelRows

MARGIN = 20
"""Bars of a window before and after an event, if they are there: what comes before and follows tells its class."""


def place_windows(
    parts: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    events: np.ndarray,
    length: int,
    seed: int,
    check: LabelRows,
) -> tuple[np.ndarray, np.ndarray]:
    """Return windows inside segments that hold the events whole: the first bar of each, and an event in it.

    A window with several events is there once for each. Each window is placed at random among the places that cut no
    other event, and that share no bar with the window before, if there are any.

    Shapes: segments int64 [S, 2], first and last bar of each row int64 [R], rows that are events int64 [E] -> first
    bars int64 [P] and rows int64 [P], in order of time.
    Raises: UserError by the row of an event that no window can hold.
    """
    order = events[np.argsort(start[events], kind="stable")]
    part = np.searchsorted(parts[:, 0], start, "right") - 1
    is_event = np.isin(np.arange(len(start)), events)
    check.refuse(
        is_event & (end >= parts[part, 1]),
        "the event crosses a gap in the bars, where a window ends; shorten it, or raise bars.max_gap_minutes",
    )
    check.refuse(
        is_event & (end - start >= length),
        lambda i: f"the event has {end[i] - start[i] + 1} bars, more than the {length} of a window; shorten it",
    )
    size = parts[part, 1] - parts[part, 0]
    check.refuse(
        is_event & (size < length),
        lambda i: (
            f"the event lies in a stretch of {size[i]} bars between two gaps, fewer than the {length} of a window; "
            "remove it, or give bars without the gap"
        ),
    )
    rng = np.random.default_rng(seed)
    first: list[int] = []
    for k in order.tolist():
        if first and start[k] >= first[-1] and end[k] < first[-1] + length:
            continue
        first.append(_place(parts[part[k]], int(start[k]), int(end[k]), (start[order], end[order]), length, first, rng))
    windows = np.array(first, np.int64)[:, None]
    at, which = np.nonzero((start[order] >= windows) & (end[order] < windows + length))
    return windows[at, 0], order[which]


def _place(
    part: np.ndarray,
    start: int,
    end: int,
    others: tuple[np.ndarray, np.ndarray],
    length: int,
    before: Sequence[int],
    rng: np.random.Generator,
) -> int:
    """Return the first bar of a window around one event."""
    margin = min(MARGIN, (length - (end - start + 1)) // 2)
    low, high = max(part[0], end + margin + 1 - length), min(part[1] - length, start - margin)
    if low > high:  # too near to an end of its segment
        low, high = max(part[0], end + 1 - length), min(part[1] - length, start)
    places = np.arange(low, high + 1)[:, None]
    meets = (others[0] < places + length) & (others[1] >= places)
    inside = (others[0] >= places) & (others[1] < places + length)
    cost = 2 * (meets & ~inside).sum(axis=1)
    if before:
        cost += places[:, 0] < before[-1] + length
    return int(rng.choice(places[cost == cost.min(), 0]))


def place_rest(
    parts: np.ndarray, first: np.ndarray, length: int, looked_at: Sequence[tuple[int, int]] | None
) -> np.ndarray:
    """Return the first bars of windows that lie side by side where no other window is.

    ``looked_at`` names the stretches to use, by first and last bar; None: all bars of the segments.

    Shapes: segments int64 [S, 2], first bars of the other windows int64 [P] -> int64 [M].
    """
    taken = np.unique(first)
    found: list[int] = []
    for a, b in parts.tolist():
        for low, high in [(a, b - 1)] if looked_at is None else looked_at:
            at, stop = max(a, low), min(b, high + 1)
            inside = taken[(taken > at - length) & (taken < stop)].tolist()
            for block in [*inside, stop]:
                while at + length <= block:
                    found.append(at)
                    at += length
                at = max(at, block + length)
    return np.unique(np.array(found, np.int64))
