"""Draw a table of bars: the days that it covers, and the price with the bounds of its segments.

A picture holds only what is drawn, so that a worker process can draw it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from moola_mlflow.bars import Bars, take_rows, utc

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROLL, EDGE, LINE = "#c03028", "#b8860b", "#4878a8"
MAX_YEARS = 12
MAX_POINTS = 4000
CLOSE_UP_BARS = 2000
MAX_BOUNDS = 120
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True)
class CoveragePicture:
    """A calendar: one strip a year, one column a week, one cell a day, coloured by its number of bars.

    Days without bars are white. A day on which the series rolls has a red dot. Only the last twelve years are shown.

    Shapes: days int64 [D] since 1970 UTC, counts [D]; rolls are times in ns since 1970 UTC with the new symbol.
    """

    days: np.ndarray
    counts: np.ndarray
    rolls: Sequence[tuple[int, str]]

    def draw(self) -> Figure:
        """Return the figure."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # a worker imports matplotlib, and draws
        from matplotlib.figure import Figure

        days, counts, rolls = self.days, self.counts, self.rolls
        dates = [dt.date(1970, 1, 1) + dt.timedelta(days=int(day)) for day in days]
        years = sorted({date.year for date in dates})[-MAX_YEARS:]
        figure = Figure(figsize=(14, 1.2 + 1.75 * len(years)), dpi=100, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(years), 1, squeeze=False).ravel()
        most = max(1, int(counts.max(initial=1)))
        rolled = {dt.datetime.fromtimestamp(ns / 1e9, dt.UTC).date() for ns, _ in rolls}
        for year, ax in zip(years, axes, strict=True):
            cells = np.full((7, 54), np.nan)
            first = dt.date(year, 1, 1).weekday()
            for date, count in zip(dates, counts.tolist(), strict=True):
                if date.year == year:
                    week = (date.timetuple().tm_yday - 1 + first) // 7
                    cells[date.weekday(), week] = count
                    if date in rolled:
                        ax.plot(week, date.weekday(), "o", color=ROLL, markersize=4)
            ax.imshow(cells, aspect="auto", cmap="viridis_r", vmin=0, vmax=most, interpolation="nearest")
            ax.set_yticks(range(0, 7, 2), DAYS[::2], fontsize=9)
            starts = [(dt.date(year, m, 1).timetuple().tm_yday - 1 + first) // 7 for m in range(1, 13)]
            ax.set_xticks(starts, [f"{dt.date(year, m, 1):%b}" for m in range(1, 13)], fontsize=9)
            ax.set_ylabel(str(year), fontsize=11)
        figure.colorbar(axes[0].images[0], ax=axes.tolist(), label="bars a day (UTC)", shrink=0.9)
        dots = f"; a red dot is a roll ({len(rolls):,})" if rolls else ""
        figure.suptitle(f"{int(counts.sum()):,} bars on {len(days):,} days; white: no bars{dots}", fontsize=13)
        return figure


@dataclass(frozen=True)
class Band:
    """High and low of all bars, at most a few thousand points, with rolls and the bounds of segments.

    Shapes: places, lows, highs [P], NaN between segments; ticks [K] with K times.
    """

    places: np.ndarray
    lows: np.ndarray
    highs: np.ndarray
    bounds: list[int]
    """Where segments begin; empty if they are many."""
    rolls: list[tuple[int, str]]
    ticks: np.ndarray
    times: list[str]
    marks: str


@dataclass(frozen=True)
class CloseUp:
    """The closes of the last bars, segment by segment. ``ends``: where each segment ends."""

    closes: list[np.ndarray]
    ends: list[int]
    ticks: np.ndarray
    times: list[str]


@dataclass(frozen=True)
class PricePicture:
    """The price of one instrument or series: all bars above, the last bars below.

    Both axes count bars, so that nights and years without bars take no room. Above are high and low with the rolls,
    and with the bounds of segments if they are few. Below are the last closes, with a dashed line at each end of a
    segment.
    """

    title: str
    num_bars: int
    whole: Band
    last: CloseUp

    @classmethod
    def of(cls, bars: Bars, runs: np.ndarray, symbol: str, rolls: Sequence[tuple[int, str]]) -> PricePicture:
        """Return the picture of some segments. Shapes: runs int64 [S, 2], in order of time."""
        num_bars = int((runs[:, 1] - runs[:, 0]).sum())
        title = f"{symbol}: {num_bars:,} bars in {len(runs):,} segments"
        return cls(title, num_bars, _band(bars, runs, rolls), _close_up(bars, runs))

    def draw(self) -> Figure:
        """Return the figure."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # a worker imports matplotlib, and draws
        from matplotlib.figure import Figure

        figure = Figure(figsize=(14, 8), dpi=100, layout="constrained")
        FigureCanvasAgg(figure)
        whole, close_up = figure.subplots(2, 1)
        _draw_band(whole, self.whole, self.num_bars)
        _draw_close_up(close_up, self.last)
        figure.suptitle(self.title, fontsize=13, parse_math=False)
        return figure


def _band(bars: Bars, runs: np.ndarray, rolls: Sequence[tuple[int, str]]) -> Band:
    sizes = runs[:, 1] - runs[:, 0]
    before = np.cumsum(sizes) - sizes
    width = max(1, int(sizes.sum()) // MAX_POINTS)
    places, lows, highs = [], [], []
    for (lo, hi), at in zip(runs.tolist(), before.tolist(), strict=True):
        ohlc, cuts = take_rows(bars.ohlc, np.arange(lo, hi)), np.arange(0, hi - lo, width)
        places += [*(at + cuts), at + hi - lo]
        lows += [*np.minimum.reduceat(ohlc[:, 2], cuts), np.nan]  # NaN breaks the line at the end of a segment
        highs += [*np.maximum.reduceat(ohlc[:, 1], cuts), np.nan]
    starts = take_rows(bars.time_ns, runs[:, 0])
    ticks = np.linspace(0, int(sizes.sum()) - 1, 10).astype(int)
    rows = runs[at_tick := np.searchsorted(before, ticks, side="right") - 1, 0] + ticks - before[at_tick]
    few = len(runs) <= MAX_BOUNDS
    return Band(
        np.array(places), np.array(lows), np.array(highs), before[1:].tolist() if few else [],
        [(int(before[np.searchsorted(starts, ns)]), name) for ns, name in rolls],
        ticks, [utc(int(ns))[:10] for ns in take_rows(bars.time_ns, rows)],
        (", dashed: end of a segment" if few else "") + ("; red: a roll and its new contract" if rolls else ""),
    )  # fmt: skip


def _close_up(bars: Bars, runs: np.ndarray) -> CloseUp:
    sizes = runs[:, 1] - runs[:, 0]
    behind = np.cumsum(sizes[::-1])[::-1] - sizes  # bars after each segment
    shown = runs[behind < CLOSE_UP_BARS].copy()
    shown[0, 0] = max(shown[0, 0], shown[0, 1] - (CLOSE_UP_BARS - behind[behind < CLOSE_UP_BARS][0]))
    ends = np.cumsum(shown[:, 1] - shown[:, 0])
    ticks = np.linspace(0, int(ends[-1]) - 1, 8).astype(int)
    rows = np.concatenate([np.arange(lo, hi) for lo, hi in shown.tolist()])[ticks]
    closes = [take_rows(bars.ohlc, np.arange(lo, hi))[:, 3].copy() for lo, hi in shown.tolist()]
    return CloseUp(closes, ends.tolist(), ticks, [utc(int(ns)) for ns in take_rows(bars.time_ns, rows)])


def _draw_band(ax: Axes, band: Band, num_bars: int) -> None:
    ax.fill_between(band.places, band.lows, band.highs, color=LINE, linewidth=0.9)
    for at in band.bounds:
        ax.axvline(at, color=EDGE, linewidth=0.5, linestyle="--", alpha=0.7)
    for at, name in band.rolls:
        ax.axvline(at, color=ROLL, linewidth=1.0)
        ax.annotate(
            f" {name}",
            (at, 0.97),
            xycoords=("data", "axes fraction"),
            fontsize=9,
            color=ROLL,
            va="top",
            parse_math=False,
        )
    ax.set_xticks(band.ticks, band.times, fontsize=8)
    ax.set_xlim(0, num_bars)
    ax.set_title(f"high and low, bar by bar{band.marks}", fontsize=11)


def _draw_close_up(ax: Axes, last: CloseUp) -> None:
    for close, end in zip(last.closes, last.ends, strict=True):
        ax.plot(np.arange(end - len(close), end), close, color=LINE, linewidth=0.9)
    for end in last.ends[:-1]:
        ax.axvline(end - 0.5, color=EDGE, linewidth=0.8, linestyle="--")
    ax.set_xticks(last.ticks, last.times, fontsize=8)
    ax.set_xlim(0, last.ends[-1])
    ax.set_title(f"the last {last.ends[-1]:,} bars; dashed: end of a segment, which no window crosses", fontsize=11)
