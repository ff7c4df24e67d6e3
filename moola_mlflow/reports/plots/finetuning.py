"""Draw a detector's cross-validation: confusion, reliability, pointers, recall, paired differences.

Predictions come once for each repeat, as in ``metrics.Predictions``. A picture shows the mean over repeats.

Shape legend: K repeats, N windows, C classes.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from moola_mlflow.evaluation import DETECTOR, ECE_BINS, Evidence, Interval, ece
from moola_mlflow.reports.plots.figure import blank_figure

BEFORE, AFTER, GAIN, LOSS, NEUTRAL = "tab:orange", "tab:blue", "tab:green", "tab:red", "0.45"
HITS = (3, 5)
WIDEST_ERROR = 40
"""Larger errors, in bars, are counted in the outermost bin of the histogram."""
WRAP = 34


def evidence_figures(evidence: Evidence) -> dict[str, Figure]:
    """Return all pictures of a cross-validation by their names."""
    found, raw, labels = evidence.predictions[DETECTOR], evidence.uncalibrated, evidence.labels
    gains = [(evidence.title(name), row["joint_success_at_3"]) for name, row in evidence.differences.items()]
    return {
        "confusion": confusion_figure(found.label, found.probability.argmax(-1), labels.classes),
        "reliability": reliability_figure(found.label, raw.probability, found.probability),
        "pointer_errors": pointer_figure(found.span, found.predicted),
        "recall": recall_figure(evidence.recall()),
        "paired_differences": forest_figure(gains, "The detector beyond each baseline", "difference of Joint@3"),
    }


def confusion_figure(label_N: np.ndarray, guess_KN: np.ndarray, classes: Sequence[str]) -> Figure:
    """Return how many windows of each class were predicted as each class, and their share of the class.

    Shapes: label int [N], guess int [K, N].
    """
    num_classes, num_repeats = len(classes), len(guess_KN)
    count_CC = np.zeros((num_classes, num_classes))
    np.add.at(count_CC, (np.broadcast_to(label_N, np.shape(guess_KN)), guess_KN), 1 / num_repeats)
    of_class_C1 = count_CC.sum(1, keepdims=True)
    share_CC = np.divide(count_CC, of_class_C1, out=np.full_like(count_CC, np.nan), where=of_class_C1 > 0)

    figure = blank_figure(3.6 + 1.05 * num_classes, 2.1 + 0.95 * num_classes)
    ax = figure.subplots()
    image = ax.imshow(share_CC, vmin=0, vmax=1, cmap="Blues")
    for row, column in np.ndindex(share_CC.shape):
        share, count = share_CC[row, column], round(float(count_CC[row, column]), 1)
        text = f"{count:g}\n" + ("–" if np.isnan(share) else f"{share:.0%}")
        ax.text(column, row, text, ha="center", va="center", color="white" if share > 0.55 else "black")
    names = [_wrapped(name, 16) for name in classes]
    tilt: dict[str, Any] = {"rotation": 30, "ha": "right"} if num_classes > 2 else {}
    ax.set_xticks(range(num_classes), names, **tilt)
    sizes = of_class_C1[:, 0].round(1)
    ax.set_yticks(range(num_classes), [f"{name}\n({n:g})" for name, n in zip(names, sizes, strict=True)])
    ax.set(xlabel="predicted", ylabel="labelled (windows)")
    figure.colorbar(image, ax=ax, label="share of the class", shrink=0.85)
    figure.suptitle(f"Confusion, windows out of fold{_over(num_repeats)}")
    return figure


def reliability_figure(
    label_N: np.ndarray, raw_KNC: np.ndarray, calibrated_KNC: np.ndarray, bins: int = ECE_BINS
) -> Figure:
    """Return accuracy against confidence, before and after temperature: one point for each bin of equal size.

    Windows of equal confidence share a bin. The ECE in the legend is the mean over repeats.

    Shapes: label int [N], probabilities [K, N, C].
    """
    figure = blank_figure(5.6, 5.4)
    ax = figure.subplots()
    ax.plot([0, 1], [0, 1], color=NEUTRAL, linestyle=":", label="confidence = accuracy")
    methods = (("before temperature", raw_KNC, BEFORE), ("after temperature", calibrated_KNC, AFTER))
    for name, probability_KNC, color in methods:
        # The windows of each repeat that have a prediction.
        there = [(_finite(one_NC), one_NC) for one_NC in probability_KNC]
        parts = [(label_N[there_N], one_NC[there_N]) for there_N, one_NC in there if there_N.any()]
        if not parts:
            ax.plot([], [], marker="o", color=color, label=f"{name}: undefined")
            continue
        confidence_M = np.concatenate([one_NC.max(1) for _, one_NC in parts])
        right_M = np.concatenate([one_NC.argmax(1) == label for label, one_NC in parts])
        error = float(np.mean([ece(label, one_NC, bins) for label, one_NC in parts]))
        points = _reliability(confidence_M, right_M, bins)
        ax.plot(*points, marker="o", color=color, label=f"{name}: ECE {error:.3f}")
    # The largest of C probabilities is at least 1 / C.
    lowest = max(0.0, 1 / raw_KNC.shape[2] - 0.1)
    ax.set(xlabel="confidence (largest probability)", ylabel="share of correct windows", xlim=(lowest, 1.02))
    ax.set(ylim=(0, 1.03), title=f"Reliability, {len(label_N)} windows out of fold{_over(len(raw_KNC))}")
    ax.grid(alpha=0.3)
    ax.legend(loc="lower right")
    return figure


def pointer_figure(span_N2: np.ndarray, predicted_KN2: np.ndarray) -> Figure:
    """Return histograms of the errors of the span's centre and length, predicted minus labelled.

    Shapes: span [N, 2], predicted [K, N, 2]: start and end. Units: bars.
    """
    figure = blank_figure(12, 4.2)
    centre_ax, length_ax = figure.subplots(1, 2)
    there_KN = _finite(predicted_KN2)
    centre_M = ((predicted_KN2.sum(2) - span_N2.sum(1)) / 2)[there_KN]
    length_M = (np.diff(predicted_KN2, axis=2)[..., 0] - np.diff(span_N2, axis=1)[:, 0])[there_KN]
    for ax, error_M, name in ((centre_ax, centre_M, "centre"), (length_ax, length_M, "length")):
        if len(error_M):
            _errors(ax, error_M, 1 / len(predicted_KN2), name)
        else:
            ax.set(title=f"{name}: undefined")
    for bars, style in zip(HITS, ("--", ":"), strict=True):
        share = (np.abs(centre_M) <= bars).mean() if len(centre_M) else np.nan
        for side in (-bars, bars):
            label = f"within {bars} bars: {share:.0%}" if side > 0 else None
            centre_ax.axvline(side, color=GAIN, linestyle=style, linewidth=1.2, label=label)
    centre_ax.margins(y=0.2)  # room for the legend
    centre_ax.legend(loc="upper right")
    figure.suptitle(f"Pointers, {len(span_N2)} windows out of fold{_over(len(predicted_KN2))}")
    return figure


def recall_figure(recall: Mapping[str, Interval], floor: float = 0.3) -> Figure:
    """Return the recall of each class with its interval. A class below ``floor`` counts as collapsed."""
    figure = blank_figure(7.5, 1.5 + 0.55 * len(recall))
    ax = figure.subplots()
    for y, interval in enumerate(recall.values()):
        if not np.isfinite(interval.mean):
            _note(ax, y, "no windows of this class")
            continue
        color = AFTER if interval.mean >= floor else LOSS
        ax.barh(y, interval.mean, height=0.55, color=color, alpha=0.75)
        _whisker(ax, y, interval, "0.15")
        end = np.nanmax([interval.mean, interval.hi])
        ax.annotate(f"{interval.mean:.2f}", (end, y), (6, 0), textcoords="offset points", va="center")
    ax.axvline(floor, color=LOSS, linestyle="--", linewidth=1)
    _rows(ax, list(recall))
    ax.set(xlim=(0, 1.15), xticks=np.linspace(0, 1, 6), title="Recall of each class")
    ax.set(xlabel=f"recall, 95 % interval\ndashed: below {floor:g} a class has collapsed")
    ax.grid(alpha=0.3, axis="x")
    ax.set_axisbelow(True)
    return figure


def forest_figure(rows: Sequence[tuple[str, Interval]], title: str, xlabel: str) -> Figure:
    """Return differences with their intervals, one row each, and a line at zero."""
    figure = blank_figure(9.5, 1.4 + 0.45 * max(len(rows), 1))
    ax = figure.subplots()
    ax.axvline(0, color="0.2", linewidth=1)
    for y, (_, interval) in enumerate(rows):
        if not np.isfinite(interval.mean):
            _note(ax, y, "undefined")
            continue
        color = GAIN if interval.lo > 0 else LOSS if interval.hi < 0 else NEUTRAL
        ax.plot(interval.mean, y, marker="s", markersize=6, color=color)
        _whisker(ax, y, interval, color)
        text = f"{interval.mean:+.3f}" + (f"  [{interval.lo:+.3f}, {interval.hi:+.3f}]" if _known(interval) else "")
        ax.annotate(text, (1.01, y), xycoords=ax.get_yaxis_transform(), va="center", fontsize=9, color=color)
    _rows(ax, [name for name, _ in rows])
    ends = [0.0, *(value for _, interval in rows for value in interval if np.isfinite(value))]
    margin = 0.08 * (max(ends) - min(ends)) or 0.1
    ax.set(xlim=(min(ends) - margin, max(ends) + margin), title=title)
    ax.set(xlabel=f"{xlabel}\ngrey: the interval contains 0, no gain")
    ax.grid(alpha=0.3, axis="x")
    return figure


def _reliability(confidence_M: np.ndarray, right_M: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean confidence and accuracy of each bin with windows. Shapes: [B] each, B at most ``bins``."""
    _, tie_M, count = np.unique(confidence_M, return_inverse=True, return_counts=True)
    bin_M = ((np.cumsum(count) - count) * bins // len(confidence_M))[tie_M]
    there = np.bincount(bin_M, minlength=bins)
    sums = [np.bincount(bin_M, weights=x_M, minlength=bins) for x_M in (confidence_M, right_M)]
    return sums[0][there > 0] / there[there > 0], sums[1][there > 0] / there[there > 0]


def _errors(ax: Axes, error_M: np.ndarray, weight: float, name: str) -> None:
    limit = int(np.clip(np.ceil(np.abs(error_M).max()), 8, WIDEST_ERROR))
    # An error of half a bar counts half in each of two bins, so that the picture leans to neither side.
    both = np.clip(np.concatenate([error_M - 0.25, error_M + 0.25]), -limit, limit)
    edges = (np.arange(-limit, limit + 2) - 0.5).tolist()
    ax.hist(both, bins=edges, weights=np.full(both.shape, weight / 2), color=AFTER, alpha=0.75)
    ax.axvline(0, color="0.2", linewidth=1)
    beyond = f"; outermost bins: {limit} or more" if (np.abs(error_M) > limit).any() else ""
    ax.set(xlabel=f"predicted minus labelled {name}, bars{beyond}", ylabel="windows")
    ax.set(title=f"{name}: mean error {error_M.mean():+.1f}, mean absolute error {np.abs(error_M).mean():.1f} bars")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)
    ax.set_axisbelow(True)


def _finite(values_MC: np.ndarray) -> np.ndarray:
    """Return which rows have a number everywhere. Shapes: bool [M]."""
    return np.isfinite(values_MC).all(-1)


def _rows(ax: Axes, names: Sequence[str]) -> None:
    """Name the rows, with the first on top."""
    ax.set_yticks(range(len(names)), [_wrapped(name, WRAP) for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)


def _whisker(ax: Axes, y: int, interval: Interval, color: str) -> None:
    if _known(interval):
        ax.plot([interval.lo, interval.hi], [y, y], color=color, linewidth=2, marker="|", markersize=8)


def _known(interval: Interval) -> bool:
    return bool(np.isfinite([interval.lo, interval.hi]).all())


def _note(ax: Axes, y: int, text: str) -> None:
    ax.annotate(text, (0.02, y), xycoords=ax.get_yaxis_transform(), va="center", style="italic", color=NEUTRAL)


def _wrapped(name: str, width: int) -> str:
    return textwrap.fill(name, width)


def _over(num_repeats: int) -> str:
    return f", mean of {num_repeats} repeats" if num_repeats > 1 else ""
