"""What prices do after an event is known, beside random moments of the same hours. It describes; it is no backtest.

A move begins at the first open at or after the moment at which the event is known, and ends at a later close of the
same segment. Its unit is the median bar range of the window that ends before this open (the mean range if that is 0).
So no figure needs a bar that was not there yet, and none crosses a gap.

Shape legend: L bars, M moments, E events, H horizons, G days.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from moola_mlflow.bars import Bars, segments, trade_date
from moola_mlflow.evaluation.bootstrap import bootstrap_many
from moola_mlflow.models import EventScan

HORIZONS = (5, 10, 20, 60)
"""Bars of a move."""
PER_EVENT, MOST_RANDOM = 20, 100_000
"""Random moments for each event, and at most in all."""
ALL = "all"
MEASURES = ("move", "size", "share_up")
"""Mean move, up is positive; mean size of the move, without its sign; share of the moves that go up."""
AFTER_COLUMNS = (
    "label", "hour", "bars", "measure", "num", "left_out", "value", "lo", "hi", "random", "random_lo", "random_hi",
    "difference", "difference_lo", "difference_hi",
)  # fmt: skip
"""Columns of the table: one row for each class or hour, horizon and measure."""


@dataclass(frozen=True)
class Moves:
    """Moves after some moments.

    Shapes: row int64 [M], the bar at whose open a move begins, -1 if no bar of the segment is left; unit float64 [M],
    the median bar range before it; move float64 [M, H] in this unit, NaN if it would leave the segment.
    """

    row: np.ndarray
    unit: np.ndarray
    move: np.ndarray


def first_rows(bars: Bars, start: np.ndarray, known_ns: np.ndarray, max_gap_minutes: int = 5) -> np.ndarray:
    """Return the first bar of the segment that begins when an event is known, or later; -1 if there is none.

    Shapes: start int64 [E], a row of each event; known_ns int64 [E] -> int64 [E].
    """
    bounds = segments(bars, max_gap_minutes)
    own = bounds[np.searchsorted(bounds[:, 0], start, side="right") - 1]
    rows = np.array(
        [
            first + np.searchsorted(bars.time_ns[first:last], known)
            for (first, last), known in zip(own.tolist(), known_ns.tolist(), strict=True)
        ],
        np.int64,
    )
    return np.where(rows < own[:, 1], rows, -1) if len(rows) else rows


def moves_after(bars: Bars, row: np.ndarray, length: int, max_gap_minutes: int = 5) -> Moves:
    """Return the moves that begin at the open of some bars. ``length`` is the number of bars before it of the unit.

    Shapes: row int64 [M], -1 for none.
    """
    bounds = segments(bars, max_gap_minutes)
    first, last = bounds[np.searchsorted(bounds[:, 0], np.maximum(row, 0), side="right") - 1].T
    move, unit = np.full((len(row), len(HORIZONS)), np.nan), np.full(len(row), np.nan)
    usable = np.flatnonzero((row >= 0) & (row - first >= length))
    for part in np.array_split(usable, max(len(usable) // 20_000, 1)):
        before = bars.ohlc[row[part][:, None] - np.arange(1, length + 1)]
        ranges = before[..., 1] - before[..., 2]
        middle = np.median(ranges, axis=1)
        unit[part] = np.where(middle > 0, middle, ranges.mean(1))
    unit[unit <= 0] = np.nan
    for k, horizon in enumerate(HORIZONS):
        whole = usable[row[usable] + horizon <= last[usable]]
        begin, end = bars.ohlc[row[whole], 0], bars.ohlc[row[whole] + horizon - 1, 3]
        move[whole, k] = (end - begin) / unit[whole]
    return Moves(row, unit, move)


@dataclass(frozen=True)
class AfterEvents:
    """Moves after the events of a scan and after random moments.

    Shapes: label int64 [E]; hour and day int64, [E] and [M].
    """

    classes: tuple[str, ...]
    label: np.ndarray
    moves: Moves
    hour: np.ndarray
    day: np.ndarray
    random: Moves
    random_of: np.ndarray
    """The event whose hour a random moment shares. int64 [M]."""
    random_day: np.ndarray
    clock: str

    @property
    def num_days(self) -> int:
        """Number of trade dates with an event or a random moment: intervals resample them."""
        return len(self._days)

    def num_left_out(self) -> dict[int, int]:
        """Return for each horizon how many events have no move, because the segment or the bars end before."""
        return dict(zip(HORIZONS, np.isnan(self.moves.move).sum(0).tolist(), strict=True))

    @cached_property
    def table(self) -> pd.DataFrame:
        """Every figure by class and by hour, with 95 % intervals over trade dates: ``AFTER_COLUMNS``."""
        groups = [(ALL, ALL, np.ones(len(self.label), bool))]
        groups += [(name, ALL, self.label == k) for k, name in enumerate(self.classes)]
        groups += [(ALL, str(hour), self.hour == hour) for hour in np.unique(self.hour).tolist()]
        named, sums = list[tuple[object, ...]](), list[np.ndarray]()
        for label, hour, kept in groups:
            if not kept.any():
                continue
            own = kept[self.random_of]
            for k, horizon in enumerate(HORIZONS):
                after, anywhere = self.moves.move[kept, k], self.random.move[own, k]
                num = int((~np.isnan(after)).sum())
                for measure in MEASURES:
                    named.append((label, hour, horizon, measure, num, int(kept.sum()) - num))
                    sums += [*self._sums(after, self.day[kept], measure)]
                    sums += [*self._sums(anywhere, self.random_day[own], measure)]
        if not named:
            return pd.DataFrame(columns=list(AFTER_COLUMNS))
        figures = bootstrap_many(_means_and_differences(np.stack(sums, 1)), self.num_days).T.reshape(len(named), -1)
        frame = pd.DataFrame([(*row, *ends) for row, ends in zip(named, figures.tolist(), strict=True)])
        frame.columns = list(AFTER_COLUMNS)
        return frame

    @cached_property
    def _days(self) -> np.ndarray:
        return np.union1d(self.day, self.random_day)

    def _sums(self, move_M: np.ndarray, day_M: np.ndarray, measure: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the sum of a measure and the number of moves on each day. Shapes: float64 [G] each."""
        known = ~np.isnan(move_M)
        at = np.searchsorted(self._days, day_M[known])
        total_G = np.bincount(at, measured(move_M[known], measure), self.num_days)
        return total_G, np.bincount(at, minlength=self.num_days).astype(np.float64)


def _means_and_differences(sums_GX: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return what gives mean after events, mean after random moments, and their difference, from weights on the days.

    Shapes: sums [G, 4 K], sum and number of the one and of the other -> [R, 3 K].
    """

    def statistics(w_RG: np.ndarray) -> np.ndarray:
        weighted_RK4 = (w_RG @ sums_GX).reshape(len(w_RG), -1, 4)
        with np.errstate(invalid="ignore", divide="ignore"):
            after_RK, random_RK = (weighted_RK4[..., i] / weighted_RK4[..., i + 1] for i in (0, 2))
        return np.stack([after_RK, random_RK, after_RK - random_RK], -1).reshape(len(w_RG), -1)

    return statistics


def measured(move_M: np.ndarray, measure: str) -> np.ndarray:
    """Return what is averaged of each move."""
    if measure == "size":
        return np.abs(move_M)
    return move_M if measure == "move" else (move_M > 0).astype(np.float64)


def follow_events(
    scan: EventScan, max_gap_minutes: int = 5, clock: str = "America/New_York", seed: int = 0
) -> AfterEvents:
    """Measure what follows the final events of a scan, and what follows random moments of the same hours.

    Random moments are drawn with replacement from all bars that have a window before them in their segment: for each
    event some of its hour on the ``clock``.
    """
    bars, length = scan.windows.bars, scan.windows.length
    final = np.flatnonzero(scan.final)
    events = scan.events.select(final)
    row = first_rows(bars, events.start, scan.known_ns[final], max_gap_minutes)
    hour_L, day_L = _hours(bars.time_ns, clock), trade_date(bars.time_ns)
    # An event that no bar of its segment follows has the hour and the day of its first bar.
    at = np.where(row >= 0, row, events.start)
    rng, eligible = np.random.default_rng(seed), _with_window(bars, length, max_gap_minutes)
    each = min(PER_EVENT, max(MOST_RANDOM // max(len(events), 1), 1))
    drawn, of = [], []
    for hour in np.unique(hour_L[at]).tolist():
        own, places = np.flatnonzero(hour_L[at] == hour), eligible[hour_L[eligible] == hour]
        if len(places):
            drawn.append(rng.choice(places, each * len(own)))
            of.append(np.repeat(own, each))
    random_row = np.concatenate(drawn) if drawn else np.zeros(0, np.int64)
    return AfterEvents(
        scan.classes, events.label, moves_after(bars, row, length, max_gap_minutes), hour_L[at], day_L[at],
        moves_after(bars, random_row, length, max_gap_minutes),
        np.concatenate(of) if of else np.zeros(0, np.int64), day_L[random_row], clock,
    )  # fmt: skip


def events_with_moves(scan: EventScan, max_gap_minutes: int = 5) -> pd.DataFrame:
    """Return the table of a scan with what a backtest needs: where one may enter first, and what followed.

    ``tradable_at`` and ``tradable_open``: the first bar of the segment after the event is known, and its open;
    ``unit``: the median bar range before it; ``move_5`` and so on: the move over so many bars, in units. They are empty
    if the segment ends before, and for events that are not final.
    """
    bars, table = scan.windows.bars, scan.table()
    row = np.where(scan.final, first_rows(bars, scan.events.start, scan.known_ns, max_gap_minutes), -1)
    moves = moves_after(bars, row, scan.windows.length, max_gap_minutes)
    time = np.where(row >= 0, bars.time_ns[row], np.iinfo(np.int64).min).view("datetime64[ns]")
    columns: dict[str, pd.DatetimeIndex | np.ndarray] = {
        "tradable_at": pd.DatetimeIndex(time, tz="UTC"),
        "tradable_open": np.where(row >= 0, bars.ohlc[row, 0], np.nan),
        "unit": moves.unit,
        **{f"move_{horizon}": moves.move[:, k] for k, horizon in enumerate(HORIZONS)},
    }
    return pd.concat([table, pd.DataFrame(columns, index=table.index)], axis=1)


def _hours(time_ns: np.ndarray, clock: str) -> np.ndarray:
    index = pd.DatetimeIndex(time_ns.view("datetime64[ns]"), tz="UTC").tz_convert(clock)
    return np.asarray(index.hour, np.int64)


def _with_window(bars: Bars, length: int, max_gap_minutes: int) -> np.ndarray:
    """Return the bars that have a window before them in their segment. Shapes: int64 [K]."""
    bounds = segments(bars, max_gap_minutes).tolist()
    rows = [np.arange(first + length, last) for first, last in bounds if last - first > length]
    return np.concatenate(rows) if rows else np.zeros(0, np.int64)
