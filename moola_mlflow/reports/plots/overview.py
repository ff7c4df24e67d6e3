"""The overview of a scan: prices with every hit, and how sure the detector was. A worker process can draw it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from moola_mlflow.reports.plots.candles import class_color

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_POINTS = 4000
"""Points of the price line, about as many as it has pixels."""


@dataclass(frozen=True)
class HitsOfClass:
    """The middles of the hits of one class. Shapes: rows and closes [H]."""

    name: str
    color: str
    rows: np.ndarray
    closes: np.ndarray


@dataclass(frozen=True)
class OverviewPicture:
    """The prices with every hit marked, and a histogram of the probability of the class in each window.

    Shapes: rows and closes of the price line [P]; ticks [7] with their dates; confidence [W windows].
    """

    num_bars: int
    num_hits: int
    rows: np.ndarray
    closes: np.ndarray
    hits: list[HitsOfClass]
    ticks: np.ndarray
    dates: list[str]
    confidence: np.ndarray
    threshold: float

    @classmethod
    def of(
        cls,
        close_N: np.ndarray,
        time_ns_N: np.ndarray,
        first_H: np.ndarray,
        last_H: np.ndarray,
        label_H: Sequence[str],
        confidence_W: np.ndarray,
        threshold: float,
        classes: Sequence[str],
    ) -> OverviewPicture:
        """Return the picture of a scan.

        Shapes: close and times [N bars], first and last row of each hit [H], confidence [W windows].
        """
        rows = np.arange(0, len(close_N), max(1, len(close_N) // MAX_POINTS))
        labels, middle = np.asarray(label_H, dtype=object), (first_H + last_H) // 2
        hits = [
            HitsOfClass(name, class_color(classes, name), at, close_N[at])
            for name in classes
            for at in [middle[labels == name]]
        ]
        ticks = np.linspace(0, len(close_N) - 1, 7).astype(int)
        dates = [str(np.datetime64(int(time_ns_N[t]), "ns").astype("datetime64[D]")) for t in ticks]
        return cls(
            len(close_N), len(first_H), rows, close_N[rows], hits, ticks, dates, np.asarray(confidence_W), threshold
        )

    def draw(self) -> Figure:
        """Return the figure."""
        from moola_mlflow.reports.plots.figure import blank_figure  # a worker imports matplotlib, and draws

        figure = blank_figure(12, 6.4)
        price_ax, share_ax = figure.subplots(2, 1, height_ratios=[3, 1.4])
        price_ax.plot(self.rows, self.closes, color="0.55", linewidth=0.7)
        for one in self.hits:
            # matplotlib reads text between dollar signs as a formula.
            legend = f"{one.name.replace('$', chr(92) + '$')} ({len(one.rows):,})"
            price_ax.plot(one.rows, one.closes, "o", markersize=4, color=one.color, alpha=0.8, label=legend)
        price_ax.set_xticks(self.ticks, self.dates)
        price_ax.set(xlabel="bar number", ylabel="close", title=f"{self.num_hits:,} hits in {self.num_bars:,} bars")
        price_ax.legend(loc="best")
        price_ax.margins(x=0.01)
        share_ax.hist(self.confidence, bins=np.linspace(0, 1, 51).tolist(), color="#4878a8")
        line = f"threshold {self.threshold:g}"
        share_ax.axvline(self.threshold, color="#c03028", linestyle="--", linewidth=1.2, label=line)
        share_ax.set(xlabel="calibrated probability of the predicted class, all windows", ylabel="windows", xlim=(0, 1))
        share_ax.legend(loc="upper left")
        for ax in (price_ax, share_ax):
            ax.grid(alpha=0.3)
            ax.set_axisbelow(True)
        return figure
