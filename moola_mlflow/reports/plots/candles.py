"""Colours of classes and bars, and the overview of a scan: prices with every hit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from moola_mlflow.reports.plots.figure import blank_figure

CLASS_COLORS = ("#3f6fd8", "#d9772b", "#8a56c2", "#2f9e8f", "#c0417f", "#8d7a25")
UP, DOWN = "#2a9d76", "#d1495b"
MAX_POINTS = 4000
"""Points of the overview's price line, about as many as it has pixels."""


def class_color(classes: Sequence[str], label: str) -> str:
    """Return the colour of a class. It is the same in every picture of one detector."""
    return CLASS_COLORS[list(classes).index(label) % len(CLASS_COLORS)]


def clock(time_ns: int) -> str:
    """Return the UTC time of day."""
    return str(np.datetime64(int(time_ns), "ns").astype("datetime64[m]"))[11:16]


def overview_figure(
    close_N: np.ndarray,
    time_ns_N: np.ndarray,
    first_H: np.ndarray,
    last_H: np.ndarray,
    label_H: Sequence[str],
    confidence_W: np.ndarray,
    threshold: float,
    classes: Sequence[str],
) -> Figure:
    """Return the prices with every hit marked, and a histogram of the probability of the class in each window.

    Shapes: close and times [N bars], first and last row of each hit [H], confidence [W windows].
    """
    figure = blank_figure(12, 6.4)
    price_ax, share_ax = figure.subplots(2, 1, height_ratios=[3, 1.4])
    every = max(1, len(close_N) // MAX_POINTS)
    rows = np.arange(0, len(close_N), every)
    price_ax.plot(rows, close_N[rows], color="0.55", linewidth=0.7)
    labels = np.asarray(label_H, dtype=object)
    for name in classes:
        middle = ((first_H + last_H) // 2)[labels == name]
        color = class_color(classes, name)
        # matplotlib reads text between dollar signs as a formula.
        legend = f"{name.replace('$', chr(92) + '$')} ({len(middle):,})"
        price_ax.plot(middle, close_N[middle], "o", markersize=4, color=color, alpha=0.8, label=legend)
    marks = np.linspace(0, len(close_N) - 1, 7).astype(int)
    price_ax.set_xticks(marks, [str(np.datetime64(int(time_ns_N[t]), "ns").astype("datetime64[D]")) for t in marks])
    price_ax.set(xlabel="bar number", ylabel="close", title=f"{len(first_H):,} hits in {len(close_N):,} bars")
    price_ax.legend(loc="best")
    price_ax.margins(x=0.01)
    share_ax.hist(confidence_W, bins=np.linspace(0, 1, 51).tolist(), color="#4878a8")
    share_ax.axvline(threshold, color="#c03028", linestyle="--", linewidth=1.2, label=f"threshold {threshold:g}")
    share_ax.set(xlabel="calibrated probability of the predicted class, all windows", ylabel="windows", xlim=(0, 1))
    share_ax.legend(loc="upper left")
    for ax in (price_ax, share_ax):
        ax.grid(alpha=0.3)
        ax.set_axisbelow(True)
    return figure
