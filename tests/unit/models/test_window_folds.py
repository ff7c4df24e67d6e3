"""Folds of windows looked at: classes and empty windows are spread evenly, overlapping windows stay together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_events import labels_of, looked_at

from moola_mlflow.core.errors import UserError
from moola_mlflow.models.events.window_folds import window_folds


def test_every_fold_has_its_part_of_each_class_and_of_the_empty_windows() -> None:
    labels = labels_of([[(k % 2, 20, 25)] if k % 3 else [] for k in range(60)])
    kind = np.full(60, 2)
    kind[labels.window] = labels.label
    fold = window_folds(labels, 5, 0)
    count = np.array([[((fold == f) & (kind == k)).sum() for k in range(3)] for f in range(5)])
    assert (count == 4).all()


def test_another_seed_deals_the_windows_otherwise() -> None:
    labels = looked_at()
    assert (window_folds(labels, 5, 0) == window_folds(labels, 5, 0)).all()
    assert (window_folds(labels, 5, 0) != window_folds(labels, 5, 1)).any()


def test_windows_that_share_bars_are_in_one_fold() -> None:
    labels = looked_at()
    assert labels.start_ns is not None
    assert labels.end_ns is not None
    pairs = np.repeat(np.arange(0, len(labels), 2), 2)  # each second window at the time of the one before
    moved = replace(labels, start_ns=labels.start_ns[pairs], end_ns=labels.end_ns[pairs])
    fold = window_folds(moved, 5, 3)
    assert (fold[::2] == fold[1::2]).all()


def test_the_same_minutes_of_two_contracts_are_in_one_fold() -> None:
    labels = looked_at()
    assert labels.start_ns is not None
    assert labels.end_ns is not None
    pairs = np.repeat(np.arange(0, len(labels), 2), 2)
    contracts = np.tile(["ESM5", "ESU5"], len(labels) // 2)
    twice = replace(labels, start_ns=labels.start_ns[pairs], end_ns=labels.end_ns[pairs], instrument=contracts)
    fold = window_folds(twice, 5, 3)
    assert (fold[::2] == fold[1::2]).all()


def test_a_group_counts_as_one_with_an_event_if_any_of_its_windows_holds_one() -> None:
    labels = labels_of([[] if k % 2 == 0 or k > 20 else [(k // 2 % 2, 20, 25)] for k in range(60)])
    hour = 3_600_000_000_000
    start = np.repeat(np.arange(30), 2) * 10 * hour
    fold = window_folds(replace(labels, start_ns=start, end_ns=start + hour), 5, 0)
    assert np.bincount(fold[labels.window], minlength=5).tolist() == [2] * 5


@pytest.mark.parametrize(
    ("num", "cure"), [(1, "label more windows that hold an event$"), (3, "or set cv.folds to 3 or less$")]
)
def test_events_in_too_few_groups_are_refused_with_the_cure(num: int, cure: str) -> None:
    labels = labels_of([[(0, 20, 25)] if k < num else [] for k in range(40)])
    with pytest.raises(UserError, match=rf"{num} labelled events lie in {num} groups .* cv.folds=5 needs 5.*{cure}"):
        window_folds(labels, 5, 0)


def test_too_few_groups_are_refused_with_the_counts() -> None:
    with pytest.raises(UserError, match=r"3 windows looked at form 3 groups .* 5 folds need 5"):
        window_folds(labels_of([[(0, 20, 25)], [(1, 20, 25)], []]), 5, 0)
