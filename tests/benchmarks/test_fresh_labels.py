"""The benchmark over several labelled sets counts every window once and keeps the sets' groups apart."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from paths import ROOT

from moola_mlflow.evaluation.metrics import Predictions

sys.path.insert(0, str(ROOT))

from benchmarks.science.fresh_labels import WANTED, joined, summary, tables

NUM_REPEATS = 3


def said_of(num_windows: int, right: int, seed: int) -> Predictions:
    """Return predictions of which the first ``right`` windows have class and place right in every repeat."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, num_windows)
    span = np.stack([np.full(num_windows, 40), np.full(num_windows, 50)], 1)
    hit = np.arange(num_windows) < right
    guess = np.where(hit, label, 1 - label)
    probability = np.tile(np.where(guess[:, None] == np.arange(2), 0.9, 0.1), (NUM_REPEATS, 1, 1))
    return Predictions(label, span, probability, np.tile(span, (NUM_REPEATS, 1, 1)), ("a", "b"))


def test_sets_are_laid_behind_one_another() -> None:
    one, other = said_of(5, 5, 1), said_of(3, 0, 2)
    whole, groups = joined([(one, np.array([0, 0, 1, 2, 2])), (other, np.array([0, 1, 1]))])
    assert groups.tolist() == [0, 0, 1, 2, 2, 3, 4, 4]
    assert whole.probability.shape == (NUM_REPEATS, 8, 2)
    assert (whole.label == np.concatenate([one.label, other.label])).all()
    score = whole.statistics()["joint_success_at_3"](np.ones((1, 8)))
    assert score[0] == pytest.approx(5 / 8)


def test_a_difference_is_of_all_windows_and_of_each_set() -> None:
    groups = [np.arange(40), np.arange(20)]
    rights = dict.fromkeys(WANTED, (20, 10)) | {"detector, both": (30, 10)}
    sets = {
        name: [(said_of(n, right, k), groups[k]) for k, (n, right) in enumerate(zip((40, 20), each, strict=True))]
        for name, each in rights.items()
    }
    found = summary(sets)
    row = next(row for row in found["differences"] if row["detector"] == "detector, both")
    mean, low, high = row["joint_success_at_3"]
    assert mean == pytest.approx(10 / 60)
    assert 0 < low < mean < high
    assert [values[0] for values in row["joint_success_at_3 by set"]] == pytest.approx([0.25, 0.0])
    assert "+0.167 [" in tables(found)
    assert "+0.250, +0.000" in tables(found)
