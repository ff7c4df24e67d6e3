"""Draw a feature quality report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

COLUMNS = 4
BINS = 40
MAX_VALUES = 200_000
"""Values that a histogram is drawn from. More values would not change the picture."""


def quality_figure(report: Mapping[str, Any], features_NTF: NDArray[np.float32]) -> Figure:
    """Return a histogram of each feature with its clip bounds, its share of non-zero steps and of clipped steps.

    Shapes: features [N, T, F], those the report was made from. Units: raw feature units; saved at its own 100 dpi
    the picture is 1400 pixels wide.
    """
    rows = report["features"]
    num_rows = math.ceil(len(rows) / COLUMNS)
    height = 1 + 3.1 * num_rows
    figure = Figure(figsize=(14, height), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.subplots(num_rows, COLUMNS, squeeze=False).ravel()
    # The training waits for this picture, and a layout that measures every label would double the time.
    figure.subplots_adjust(0.06, 0.8 / height, 0.99, 1 - 0.95 / height, wspace=0.2, hspace=0.56)
    for f, (row, ax) in enumerate(zip(rows, axes, strict=False)):
        values_P = features_NTF[:, report["warmup"] :, f].ravel()
        _histogram(ax, row, values_P[:: max(1, len(values_P) // MAX_VALUES)])
    for ax in axes[len(rows) :]:
        ax.set_axis_off()
    figure.supylabel("steps (log scale)", x=0.005, fontsize=12)
    figure.suptitle(
        f"Features of {report['num_windows']:,} windows, {report['num_valid_steps']:,} valid steps past a warm-up of "
        f"{report['warmup']}; the leg flips on {report['swing_flip_rate']:.1%} of them",
        fontsize=14,
    )
    return figure


def _histogram(ax: Axes, row: Mapping[str, Any], values_P: NDArray[np.float32]) -> None:
    lower, upper = row["lower"], row["upper"]
    values_P = values_P[np.isfinite(values_P)]
    # Features of a wide range often fill a small part of it. Show that part, and the bounds if they are near.
    low, high = (float(values_P.min()), float(values_P.max())) if len(values_P) else (lower, upper)
    margin = 0.04 * ((high - low) or 1.0)
    ax.stairs(*np.histogram(values_P, BINS, (low - margin, high + margin)), fill=True, color="#4878a8")
    ax.set_yscale("log", nonpositive="clip")
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_ylim(bottom=0.7)
    for bound in (lower, upper):
        if low - margin <= bound <= high + margin:
            ax.axvline(bound, color="#c03028", linewidth=1.2, linestyle="--")
    ax.set_xlim(low - margin, high + margin)
    ax.set_title(f"{row['name']}  [{lower:g}, {upper:g}]", fontsize=12)
    clipped = row["at_lower"] + row["at_upper"]
    drift = f"\nPSI to training data {row['psi']:.2f}" if "psi" in row else ""
    ax.set_xlabel(f"non-zero {row['nonzero']:.1%}   at a bound {clipped:.1%}{drift}", fontsize=11)
    ax.tick_params(labelsize=10)
