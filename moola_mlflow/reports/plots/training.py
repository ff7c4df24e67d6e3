"""Draw a training: its curves, learning rate and reconstructions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from moola_mlflow.core import Metrics
from moola_mlflow.reports.plots.figure import blank_figure


def curves_figure(history: Sequence[dict[str, float]], best_epoch: int) -> Figure:
    """Return losses, Huber and skill by epoch, with a line at the best epoch.

    ``best_epoch`` counts from 0, as the steps of metrics do. Pictures, console and notes count epochs from 1.
    """
    figure = blank_figure(13, 4)
    epochs = np.arange(1, len(history) + 1)
    panels = [
        ("loss", [Metrics.TRAIN_LOSS, Metrics.VAL_LOSS, Metrics.VAL_LOSS_PROFILED]),
        ("Huber", [Metrics.VAL_HUBER]),
        ("skill", [Metrics.VAL_SKILL]),
    ]
    for ax, (title, names) in zip(figure.subplots(1, 3), panels, strict=True):
        for name in names:
            ax.plot(epochs, [row[name] for row in history], marker=".", label=name)
        ax.axvline(best_epoch + 1, color="grey", linestyle=":", label="best epoch")
        ax.set(title=title, xlabel="epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(alpha=0.3)
        ax.legend()
    return figure


def lr_figure(history: Sequence[dict[str, float]]) -> Figure:
    """Return the learning rate by epoch."""
    figure = blank_figure(7, 3.5)
    ax = figure.subplots()
    ax.plot(np.arange(1, len(history) + 1), [row["lr"] for row in history], marker=".")
    ax.set(title="learning rate at the end of each epoch", xlabel="epoch", ylim=(0, None))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)
    return figure


def reconstruction_figure(
    predicted_NTK: np.ndarray, target_NTK: np.ndarray, where_NTK: np.ndarray, names: Sequence[str], title: str
) -> Figure:
    """Return targets and predictions at the loss positions: one column a window, one lane a target.

    Shapes: [N, T, K] each; names of the K targets.
    """
    num_windows, num_steps, num_targets = target_NTK.shape
    figure = blank_figure(5.2 * num_windows, 0.55 * num_targets + 1.2)
    # One axis a window, not one a target: those would take longer to draw than an epoch takes to log its metrics.
    low_K, high_K = target_NTK.min((0, 1)), target_NTK.max((0, 1))
    lanes_K = np.arange(num_targets)[::-1] * 1.25

    def lane(values_TK: np.ndarray) -> np.ndarray:
        return np.clip((values_TK - low_K) / np.maximum(high_K - low_K, 1e-12), -0.1, 1.1) + lanes_K

    steps = np.arange(num_steps)
    for n, ax in enumerate(figure.subplots(1, num_windows, sharey=True, squeeze=False)[0]):
        truth, guess, where = lane(target_NTK[n]), lane(predicted_NTK[n]), where_NTK[n]
        ax.plot(steps, truth, color="0.6", linewidth=0.9)
        at, column = np.nonzero(where)
        ax.plot(steps[at], truth[at, column], "o", color="0.3", markersize=2.5, linestyle="none")
        ax.plot(steps[at], guess[at, column], "x", color="tab:red", markersize=4, linestyle="none")
        ax.set_xlabel("step")
        ax.set_yticks(lanes_K + 0.5, names, fontsize=8)
    figure.suptitle(f"{title}: grey = target, dots = steps to predict, red = predicted; each lane spans its own range")
    return figure
