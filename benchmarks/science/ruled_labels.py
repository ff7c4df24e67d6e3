"""Labels by the rule of a study: candidates, rule, and a choice of windows as ``labels.weak_labels`` makes its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from moola_mlflow.bars import Bars
from moola_mlflow.labels.labelled_set import LENGTH, LabelledSet, content_sha256
from moola_mlflow.labels.surge_rule import CLASSES, NO_LABEL, NO_SURGE
from moola_mlflow.labels.weak import CHUNK, STRIDE, Patterns, _apart, choose_labels
from moola_mlflow.windows import make_windows

Ruled = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Outcome, start and end of each window. Shapes: int [N] each."""


def ruled_labels(bars: Bars, n: int, seed: int, rule: str, apply: Callable[[np.ndarray], Ruled]) -> LabelledSet:
    """Label n windows of some bars by a rule that takes windows. Shapes: float64 [N, T, 4], order o h l c."""
    candidates = make_windows(bars, LENGTH, STRIDE)
    chunks = [np.arange(i, min(i + CHUNK, len(candidates))) for i in range(0, len(candidates), CHUNK)]
    ruled = zip(*(apply(candidates.gather(chunk)) for chunk in chunks), strict=True)
    outcome, start, end = (np.concatenate(parts) for parts in ruled)
    found = np.flatnonzero(outcome < len(CLASSES))
    found = found[_apart(candidates.starts[found], LENGTH, len(bars), np.random.default_rng(seed))]
    counts = [int((outcome == code).sum()) for code in (NO_LABEL, NO_SURGE)]
    patterns = Patterns(candidates.select(found), outcome[found], start[found], end[found], len(candidates), *counts)
    labels = replace(choose_labels(patterns, n, seed), rule=rule, sha256="")
    return replace(labels, sha256=content_sha256(labels))
