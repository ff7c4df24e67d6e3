"""Draw the cross-validation of an event detector: precision and recall, calibration of its scores, paired differences.

Shape legend: E found events, from the highest score on.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from moola_mlflow.evaluation import DETECTOR, EVENT_TITLES, EventEvidence, ScoredEvents
from moola_mlflow.reports.plots.figure import blank_figure
from moola_mlflow.reports.plots.finetuning import forest_figure, recall_figure
from moola_mlflow.reports.plots.interactive import reliability_bins

NEUTRAL = "0.45"
OUT_OF_FOLD = "events out of fold"


def event_figures(evidence: EventEvidence) -> dict[str, Figure]:
    """Return all pictures of a cross-validation by their names."""
    detector = evidence.scored[DETECTOR][0]
    figures = {
        "precision_recall": precision_recall_figure(
            {EVENT_TITLES[name]: rows[0] for name, rows in evidence.scored.items()}, evidence.fit.detector.threshold
        ),
        "reliability": score_reliability_figure(detector),
        "recall": recall_figure(evidence.recall()),
    }
    if evidence.differences:
        gains = [(EVENT_TITLES[name], gain) for name, gain in evidence.differences.items()]
        figures["paired_differences"] = forest_figure(gains, "The detector beyond each baseline", "difference of mAP")
    return figures


def precision_recall_figure(
    methods: dict[str, ScoredEvents], threshold: float, which: str = OUT_OF_FOLD, true: str = "labelled"
) -> Figure:
    """Return precision against recall of each method, all classes together, as the score's threshold falls.

    A dot marks the detector, which is the first method, at its threshold. If folds have thresholds of their own, it may
    lie beside the line. ``which`` says in words which events are scored, ``true`` what the true ones are.
    """
    figure = blank_figure(6.4, 5.4)
    ax = figure.subplots()
    for i, (name, scored) in enumerate(methods.items()):
        precision_E, recall_E, _ = scored.curve()
        ax.plot(recall_E, precision_E, label=name, linewidth=2.2 if i == 0 else 1.3)
        at = scored.scores(threshold)
        if i == 0 and np.isfinite(at["precision"]):
            ax.plot(at["recall"], at["precision"], "o", color="black", label=f"threshold {threshold:.2f}")
    ax.set(xlabel=f"recall of {true} events", ylabel="precision of found events", xlim=(0, 1.01), ylim=(0, 1.03))
    ax.set_title(f"Precision and recall, {which}")
    ax.grid(alpha=0.3)
    ax.legend(loc="lower left")
    return figure


def score_reliability_figure(scored: ScoredEvents, which: str = OUT_OF_FOLD) -> Figure:
    """Return the share of right events against their score: one point for each bin of equal size."""
    score_B, right_B, num_B = reliability_bins(scored)
    figure = blank_figure(5.6, 5.4)
    ax = figure.subplots()
    ax.plot([0, 1], [0, 1], color=NEUTRAL, linestyle=":", label="score = share of right events")
    ax.plot(score_B, right_B, marker="o", label="events")
    ax.set(xlabel="calibrated score", ylabel="share of right events", xlim=(0, 1.02), ylim=(0, 1.03))
    ax.set_title(f"Reliability, {num_B.sum():,} {which}")
    ax.grid(alpha=0.3)
    ax.legend(loc="upper left")
    return figure
