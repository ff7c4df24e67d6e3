"""Draw several runs together: their curves in one picture, their scores side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from moola_mlflow.evaluation import Interval
from moola_mlflow.reports.plots.figure import blank_figure

COLORS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink", "tab:olive")
STYLES = ("-", "--", ":")


def literal(text: str, length: int = 48) -> str:
    """Return text that matplotlib shows as it is. It makes no formula, and a legend does not hide it."""
    line = " ".join(text.split())
    line = line if len(line) <= length else f"{line[: length - 1]}…"
    return line.replace("\\", "\\\\").replace("$", r"\$").lstrip("_") or "?"


def overlay_figure(
    runs: Sequence[str], curves: Mapping[str, Sequence[Sequence[Mapping[int, float]]]], title: str
) -> Figure:
    """Return all curves in one picture: one colour a run, one line style a metric.

    ``curves`` holds the values by epoch, from 0, for each metric, each run and each part of the run (one, or its
    folds).
    """
    figure = blank_figure(9, 4.6)
    ax = figure.subplots()
    for (metric, by_run), style in zip(curves.items(), STYLES, strict=False):
        for name, parts, color in zip(runs, by_run, COLORS, strict=False):
            for k, part in enumerate(parts):
                label = f"{literal(name, 36)}  {metric}" if k == 0 else None
                thin = len(parts) > 1
                epochs = [step + 1 for step in part]  # counted from 1, as on the console
                ax.plot(epochs, list(part.values()), color=color, linestyle=style, marker="" if thin else ".",
                        linewidth=0.8 if thin else 1.6, alpha=0.55 if thin else 1, label=label)  # fmt: skip
    ax.set(title=title, xlabel="epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
    return figure


def scores_figure(runs: Sequence[str], scores: Mapping[str, Sequence[Interval | None]]) -> Figure:
    """Return each score of each run with its 95 % interval, one panel a score."""
    figure = blank_figure(4.6 * len(scores), 1.4 + 0.45 * len(runs))
    for ax, (metric, by_run) in zip(figure.subplots(1, len(scores), squeeze=False, sharey=True)[0], scores.items(),
                                    strict=True):  # fmt: skip
        for y, (interval, color) in enumerate(zip(by_run, COLORS, strict=False)):
            if interval is None or not np.isfinite(interval.mean):
                continue
            ax.plot(interval.mean, y, marker="s", color=color)
            ax.plot([interval.lo, interval.hi], [y, y], color=color, linewidth=2, marker="|", markersize=8)
        ax.set(title=metric, xlabel="95 % interval")
        ax.set_yticks(range(len(runs)), [literal(name, 30) for name in runs])
        ax.set_ylim(len(runs) - 0.4, -0.6)
        ax.grid(alpha=0.3, axis="x")
    return figure
