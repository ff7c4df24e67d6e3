"""The length of a bar comes from the times of labelled windows: breaks and odd seconds do not change it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_labels import small_labels

from moola_mlflow.bars import MINUTE_NS
from moola_mlflow.core import CvConfig
from moola_mlflow.evaluation.folds import purge
from moola_mlflow.labels import LabelledSet, bar_minutes, bar_times

LABELS = small_labels(12)
STEPS = LABELS.ohlc.shape[1] - 1
START = np.arange(12) * 10_000 * MINUTE_NS


def of_minutes(minutes: int, late_ns: int = 0) -> LabelledSet:
    return replace(LABELS, start_ns=START, end_ns=START + minutes * STEPS * MINUTE_NS + late_ns)


@pytest.mark.parametrize("minutes", [1, 5, 15])
def test_the_shortest_window_says_the_length(minutes: int) -> None:
    labels = of_minutes(minutes)
    assert bar_minutes(labels) == minutes
    assert bar_minutes(of_minutes(minutes, late_ns=-MINUTE_NS + 1)) == minutes
    assert labels.end_ns is not None
    longer = replace(labels, end_ns=labels.end_ns + np.arange(12) * 60 * MINUTE_NS)
    assert bar_minutes(longer) == minutes


def test_without_times_a_bar_has_one_minute() -> None:
    assert bar_minutes(replace(LABELS, start_ns=None, end_ns=None)) == 1


def test_the_times_of_bars_are_known_in_a_window_without_a_gap() -> None:
    labels = of_minutes(5)
    times = bar_times(labels, 3)
    assert times is not None
    assert labels.end_ns is not None
    assert (times[0], times[-1], times[1] - times[0]) == (START[3], labels.end_ns[3], 5 * MINUTE_NS)
    ends = labels.end_ns.copy()
    ends[3] += 60 * MINUTE_NS
    assert bar_times(replace(labels, end_ns=ends), 3) is None
    assert bar_times(replace(labels, start_ns=None, end_ns=None), 3) is None


@pytest.mark.parametrize(("minutes", "kept"), [(1, 1), (5, 0)])
def test_the_embargo_counts_bars_of_the_labels(minutes: int, kept: int) -> None:
    start = np.array([0, 15 * STEPS + 200]) * MINUTE_NS
    end = start + minutes * STEPS * MINUTE_NS
    start[1] = end[0] + 200 * MINUTE_NS
    end[1] = start[1] + minutes * STEPS * MINUTE_NS
    two = LabelledSet(LABELS.window_id[:2], LABELS.ohlc[:2], LABELS.label[:2], LABELS.classes, LABELS.start[:2],
                      LABELS.end[:2], start, end)  # fmt: skip
    assert len(purge(np.array([1]), np.array([0]), two, CvConfig(embargo_bars=105))) == kept
