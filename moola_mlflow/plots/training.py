"""Pictures of a training: curves, learning rate, reconstructions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def blank(width: float, height: float) -> Figure:
    """Return an empty figure with its own canvas: pyplot keeps global state and a window system. Units: inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def curves_figure(history: Sequence[dict[str, float]], best_epoch: int) -> Figure:
    """Return losses, Huber and skill by epoch, with the chosen epoch marked."""
    figure = blank(13, 4)
    epochs = np.arange(len(history))
    panels = [
        ("loss", ["train/loss", "val/loss", "val/loss_profiled"]),
        ("Huber", ["val/huber"]),
        ("skill", ["val/skill"]),
    ]
    for ax, (title, names) in zip(figure.subplots(1, 3), panels, strict=True):
        for name in names:
            ax.plot(epochs, [row[name] for row in history], marker=".", label=name)
        ax.axvline(best_epoch, color="grey", linestyle=":", label=f"best epoch {best_epoch}")
        ax.set(title=title, xlabel="epoch")
        ax.grid(alpha=0.3)
        ax.legend()
    return figure


def lr_figure(history: Sequence[dict[str, float]]) -> Figure:
    """Return the learning rate by epoch."""
    figure = blank(7, 3.5)
    ax = figure.subplots()
    ax.plot([row["lr"] for row in history], marker=".")
    ax.set(title="learning rate at the end of each epoch", xlabel="epoch", ylim=(0, None))
    ax.grid(alpha=0.3)
    return figure


def reconstruction_figure(
    predicted_NTK: np.ndarray, target_NTK: np.ndarray, where_NTK: np.ndarray, names: Sequence[str], title: str
) -> Figure:
    """Return target lines and predictions at the loss positions, a column a window and a row a target.

    Shapes: [N, T, K] each; names of the K targets.
    """
    num_windows, num_steps, num_targets = target_NTK.shape
    figure = blank(4.5 * num_windows, 1.3 * num_targets + 0.6)
    axes = figure.subplots(num_targets, num_windows, sharex=True, sharey="row", squeeze=False)
    steps = np.arange(num_steps)
    for k, name in enumerate(names):
        for n in range(num_windows):
            ax, at = axes[k, n], where_NTK[n, :, k]
            ax.plot(steps, target_NTK[n, :, k], color="0.6", linewidth=0.9)
            ax.plot(steps[at], target_NTK[n, at, k], "o", color="0.3", markersize=2.5)
            ax.plot(steps[at], predicted_NTK[n, at, k], "x", color="tab:red", markersize=4)
        axes[k, 0].set_ylabel(name, fontsize=7)
    figure.suptitle(f"{title}: grey = truth, dots = to be predicted, red = predicted")
    return figure
