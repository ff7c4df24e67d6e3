"""Draws windows of bars as candlesticks for the documents: PNG files of few colours."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pictures import IMAGES, record
from PIL import Image

from moola_mlflow.reports.plots.candles import DOWN, UP
from moola_mlflow.reports.plots.interactive import WindowPicture

WIDTH, HEIGHT = 5.6, 2.9
"""Of one window, in inches of 100 pixels."""
COLOURS = 64
NEAR = 14
"""Bars between two times of the axis that do not touch each other."""


def figure_of(windows: Sequence[WindowPicture], columns: int = 1) -> Figure:
    """Return one chart for each window, row by row, its spans shaded."""
    rows = -(-len(windows) // columns)
    figure = Figure(figsize=(columns * WIDTH, rows * HEIGHT), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for ax, window in zip(figure.subplots(rows, columns, squeeze=False).ravel(), windows, strict=False):
        _draw(ax, window)
    return figure


def _draw(ax: Axes, window: WindowPicture) -> None:
    open_T, high_T, low_T, close_T = window.ohlc.T
    bar_T = np.arange(len(open_T))
    color_T = np.where(close_T >= open_T, UP, DOWN).tolist()
    ax.vlines(bar_T, low_T, high_T, color=color_T, linewidth=0.8)
    # The edge makes a bar that did not move visible.
    body_T = np.abs(close_T - open_T)
    ax.bar(bar_T, body_T, 0.5, bottom=np.minimum(open_T, close_T), color=color_T, edgecolor=color_T, linewidth=0.9)
    for span in window.spans:
        ax.axvspan(span.start - 0.5, span.end + 0.5, color=span.color, alpha=0.2, linewidth=0)
    marks = [0]
    for place in [*(span.start for span in window.spans), len(bar_T) - 1]:
        if place - marks[-1] >= NEAR and (place == len(bar_T) - 1 or place < len(bar_T) - NEAR):
            marks.append(place)
    ax.set_xticks(marks, [str(window.times[t]).partition("T")[2][:5] for t in marks], fontsize=8)
    ax.tick_params(axis="y", labelsize=8)
    ax.yaxis.tick_right()
    ax.ticklabel_format(axis="y", useOffset=False)
    ax.set_title(window.title, fontsize=10, loc="left")
    ax.grid(axis="y", alpha=0.3)
    ax.set_axisbelow(True)
    ax.use_sticky_edges = False  # a bar at the bottom would touch the axis
    ax.margins(x=0.01, y=0.05)
    ax.spines[["top", "left"]].set_visible(False)


def save(figure: Figure, path: Path) -> None:
    """Write a picture of the documents and record it."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    picture = Image.open(drawn).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, optimize=True)
    record(path.relative_to(IMAGES).as_posix())
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB", flush=True)
