"""How far two annotators agree on the windows that both have decided: Cohen's kappa of classes, and matched events."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from moola_mlflow.annotate.decisions import Decision
from moola_mlflow.labels import NONE

COLLAR = 3
"""Bars by which the centres of two marks of one event may differ."""


def agreement_of(by_annotator: Mapping[str, Mapping[int, Decision]]) -> dict[str, Any] | None:
    """Return the agreement over all pairs of annotators and the windows that both have labelled; None without any.

    ``kappa``: Cohen's kappa of the classes of a window; None if only one answer occurs. ``spans``: share of marked
    events that the other has marked too, of the same class and with a centre within 3 bars; None without events.

    Source: J. Cohen, A Coefficient of Agreement for Nominal Scales, 1960.
    """
    left, right, matched, marked = list[str](), list[str](), 0, 0
    for a, b in itertools.combinations(sorted(by_annotator), 2):
        one, other = by_annotator[a], by_annotator[b]
        for row in sorted(one.keys() & other.keys()):
            x, y = one[row], other[row]
            if "skip" in (x.action, y.action):
                continue
            left.append(_classes(x))
            right.append(_classes(y))
            matched += 2 * _num_matched(x, y)
            marked += len(x.events) + len(y.events)
    if not left:
        return None
    return {
        "kappa": _kappa(left, right),
        "windows": len(left),
        "spans": matched / marked if marked else None,
    }


def _kappa(left: list[str], right: list[str]) -> float | None:
    if len({*left, *right}) < 2:
        return None
    from sklearn.metrics import cohen_kappa_score

    value = float(cohen_kappa_score(left, right))
    return value if np.isfinite(value) else None


def _classes(decision: Decision) -> str:
    return " and ".join(sorted({event.label for event in decision.events})) or NONE


def _num_matched(x: Decision, y: Decision) -> int:
    """Return how many events of two decisions are the same one. Each is matched once, the nearest pair first."""
    pairs = sorted(
        (abs((a.start + a.end) - (b.start + b.end)) / 2, i, k)
        for i, a in enumerate(x.events)
        for k, b in enumerate(y.events)
        if a.label == b.label
    )
    left, right = set[int](), set[int]()
    for distance, i, k in pairs:
        if distance <= COLLAR and i not in left and k not in right:
            left.add(i)
            right.add(k)
    return len(left)
