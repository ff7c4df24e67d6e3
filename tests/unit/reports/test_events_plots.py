"""Pictures of the cross-validation of an event detector."""

from __future__ import annotations

import numpy as np

from moola_mlflow.evaluation import ScoredEvents
from moola_mlflow.reports.plots.events import precision_recall_figure, score_reliability_figure

SCORE = np.array([0.9, 0.8, 0.6, 0.4, 0.2])
RIGHT = np.array([1, 1, 0, -1, 1])
ZEROS = np.zeros(5, np.int64)
SCORED = ScoredEvents(ZEROS, SCORE, RIGHT, ZEROS, ZEROS[:4], ZEROS[:4], 1, ("a",))


def test_precision_and_recall_are_drawn_after_each_judged_event_with_a_dot_at_the_threshold() -> None:
    figure = precision_recall_figure({"detector": SCORED, "other": SCORED}, 0.6)
    line, dot, other = figure.axes[0].get_lines()
    np.testing.assert_allclose(line.get_ydata(), [1, 1, 2 / 3, 3 / 4])
    np.testing.assert_allclose(line.get_xdata(), [0.25, 0.5, 0.5, 0.75])
    assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (0.5, 2 / 3)
    assert other.get_label() == "other"


def test_a_threshold_that_no_event_reaches_has_no_dot() -> None:
    assert len(precision_recall_figure({"detector": SCORED}, 0.95).axes[0].get_lines()) == 1


def test_reliability_is_the_share_of_right_events_in_each_bin_of_scores() -> None:
    _, points = score_reliability_figure(SCORED).axes[0].get_lines()
    np.testing.assert_allclose(points.get_xdata(), [0.9, 0.8, 0.6, 0.2])
    np.testing.assert_allclose(points.get_ydata(), [1, 1, 0, 1])
