"""Class and span of each labelled window."""

from __future__ import annotations

import numpy as np
from small_labels import small_labels

from moola_mlflow.labels.targets import Targets


def test_targets_are_those_of_their_labels() -> None:
    labels = small_labels(12, num_classes=3)
    targets = Targets.of(labels)
    np.testing.assert_array_equal(targets.label, labels.label)
    np.testing.assert_array_equal(targets.start, labels.start)
    np.testing.assert_array_equal(targets.end, labels.end)
    assert targets.ohlc is labels.ohlc
    assert targets.num_classes == 3


def test_span_lengths_count_both_ends_of_the_windows_asked_for() -> None:
    start, end = np.array([10, 20, 30]), np.array([10, 24, 90])
    targets = Targets(np.zeros(3, int), start, end, np.zeros((3, 105, 4)), 2)
    assert targets.span_lengths(np.array([0, 1])) == (1, 5)
    assert targets.span_lengths(np.array([2])) == (61, 61)
