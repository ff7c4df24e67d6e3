"""A researcher's own feature, and labelled windows that only it can read: what tests of hand-made inputs share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_labels import small_labels

from moola_mlflow.features import relativity
from moola_mlflow.features.relativity import Feature, State, extend
from moola_mlflow.labels.labelled_set import LabelledSet

START, END, OTHER_CLASS = 5, 3, 7
"""Third decimal of a close at a span's end, and at its start in each class: no other feature sees a thousandth."""


def _marks(digits: tuple[int, ...], s: State) -> np.ndarray:
    return np.isin(np.round(np.abs(s.c) * 1000) % 10, digits).astype(np.float64)


def add_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `relativity10+marks` known until the test ends: the features that read the third decimal of closes."""
    monkeypatch.setattr(relativity, "_ROWS", dict(relativity._ROWS))
    monkeypatch.setattr(relativity, "OWN", dict(relativity.OWN))
    rows = {"mark_start": (START, OTHER_CLASS), "mark_end": (END,), "mark_class": (OTHER_CLASS,)}
    extend("marks", tuple(Feature(n, 0, 1, lambda s, d=d: _marks(d, s)) for n, d in rows.items()))


def marked_labels(num: int = 24, seed: int = 4) -> LabelledSet:
    """Return windows of random walks whose spans and classes are marked in the third decimal of the close."""
    labels = small_labels(num, seed)
    ohlc = labels.ohlc.round(2)
    rows, second = np.arange(num), labels.label == 1
    ohlc[rows, labels.start, 3] += np.where(second, OTHER_CLASS, START) / 1000
    ohlc[rows, labels.end, 3] += END / 1000
    ohlc[..., 1] = ohlc.max(-1)
    return replace(labels, ohlc=ohlc)
