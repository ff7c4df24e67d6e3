"""What follows events, beside what follows random moments. A worker process can draw it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from moola_mlflow.reports.plots.candles import class_color

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEUTRAL = "0.45"
RANDOM = ("random", "random_lo", "random_hi")
TITLES = {"move": "mean move (up is positive)", "size": "mean size of the move"}


@dataclass(frozen=True)
class AfterPicture:
    """Mean move and mean size of each class against the bars of the move, and the size by hour after 20 bars.

    Bars are 95 % intervals. Grey is what follows random moments of the same hours.
    """

    table: pd.DataFrame
    classes: tuple[str, ...]

    def draw(self) -> Figure:
        """Return the figure."""
        from moola_mlflow.reports.plots.figure import blank_figure  # a worker imports matplotlib, and draws

        table = self.table
        figure = blank_figure(13.0, 4.2)
        axes = figure.subplots(1, 3)
        by_class = table[(table["hour"] == "all") & (table["label"] != "all")]
        for ax, measure in zip(axes[:2], TITLES, strict=True):
            own = by_class[by_class["measure"] == measure]
            for i, label in enumerate(name for name in self.classes if (own["label"] == name).any()):
                rows = own[own["label"] == label]
                at = rows["bars"] * 1.05**i  # beside each other
                color, number = class_color(self.classes, label), f"{label} ({rows['num'].max():,})"
                _points(ax, at, rows, ("value", "lo", "hi"), color, number)
            anywhere = table[(table["label"] == "all") & (table["hour"] == "all") & (table["measure"] == measure)]
            _points(ax, anywhere["bars"] / 1.05, anywhere, RANDOM, NEUTRAL, "random moments")
            ax.set(xscale="log", xlabel="bars after the event is known", ylabel="median bar ranges")
            ax.set_title(TITLES[measure])
            ax.set_xticks(anywhere["bars"].tolist(), [str(bars) for bars in anywhere["bars"]])
            ax.minorticks_off()
            ax.grid(alpha=0.3)
            ax.legend()
        hours = table[(table["hour"] != "all") & (table["bars"] == 20) & (table["measure"] == "size")]
        at = hours["hour"].astype(int)
        _points(axes[2], at, hours, ("value", "lo", "hi"), "C0", "events")
        _points(axes[2], at + 0.25, hours, RANDOM, NEUTRAL, "random moments")
        axes[2].set(xlabel="hour", ylabel="median bar ranges", title="size after 20 bars, by hour")
        axes[2].grid(alpha=0.3)
        axes[2].legend()
        return figure


def _points(ax: Axes, at: pd.Series, rows: pd.DataFrame, names: tuple[str, str, str], color: str, label: str) -> None:
    """Draw figures with their intervals; an interval that is not known is left out."""
    value, low, high = (rows[name] for name in names)
    ends = [(value - low).clip(lower=0).fillna(0), (high - value).clip(lower=0).fillna(0)]
    ax.errorbar(at, value, yerr=ends, fmt="o", markersize=4, color=color, label=label, capsize=2)
