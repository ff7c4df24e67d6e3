"""Draw what follows events, beside what follows random moments."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moola_mlflow.reports.plots.candles import class_color
from moola_mlflow.reports.plots.figure import blank_figure

NEUTRAL = "0.45"
TITLES = {"move": "mean move (up is positive)", "size": "mean size of the move"}


def after_figure(table: pd.DataFrame, classes: tuple[str, ...]) -> Figure:
    """Return mean move and mean size of each class against the bars of the move, and the size by hour after 20 bars.

    Bars are 95 % intervals. Grey is what follows random moments of the same hours.
    """
    figure = blank_figure(13.0, 4.2)
    axes = figure.subplots(1, 3)
    by_class = table[(table["hour"] == "all") & (table["label"] != "all")]
    for ax, measure in zip(axes[:2], TITLES, strict=True):
        own = by_class[by_class["measure"] == measure]
        for i, label in enumerate(name for name in classes if (own["label"] == name).any()):
            rows = own[own["label"] == label]
            at = rows["bars"] * 1.05**i  # beside each other
            _points(
                ax, at, rows, ("value", "lo", "hi"), class_color(classes, label), f"{label} ({rows['num'].max():,})"
            )
        anywhere = table[(table["label"] == "all") & (table["hour"] == "all") & (table["measure"] == measure)]
        _points(ax, anywhere["bars"] / 1.05, anywhere, ("random", "random_lo", "random_hi"), NEUTRAL, "random moments")
        ax.set(xscale="log", xlabel="bars after the event is known", ylabel="median bar ranges", title=TITLES[measure])
        ax.set_xticks(anywhere["bars"].tolist(), [str(bars) for bars in anywhere["bars"]])
        ax.minorticks_off()
        ax.grid(alpha=0.3)
        ax.legend()
    hours = table[(table["hour"] != "all") & (table["bars"] == 20) & (table["measure"] == "size")]
    at = hours["hour"].astype(int)
    _points(axes[2], at, hours, ("value", "lo", "hi"), "C0", "events")
    _points(axes[2], at + 0.25, hours, ("random", "random_lo", "random_hi"), NEUTRAL, "random moments")
    axes[2].set(xlabel="hour", ylabel="median bar ranges", title="size after 20 bars, by hour")
    axes[2].grid(alpha=0.3)
    axes[2].legend()
    return figure


def _points(ax: Axes, at: pd.Series, rows: pd.DataFrame, names: tuple[str, str, str], color: str, label: str) -> None:
    """Draw figures with their intervals; an interval that is not known is left out."""
    value, low, high = (rows[name] for name in names)
    ends = [(value - low).clip(lower=0).fillna(0), (high - value).clip(lower=0).fillna(0)]
    ax.errorbar(at, value, yerr=ends, fmt="o", markersize=4, color=color, label=label, capsize=2)
