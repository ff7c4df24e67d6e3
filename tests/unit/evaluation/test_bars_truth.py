"""What a rule says of bars, in the numbers of a detector's classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from small_events import sample

from moola_mlflow.core.errors import UserError
from moola_mlflow.evaluation.bars_truth import renumbered, truth_of_rule
from moola_mlflow.evaluation.rule_truth import true_by_rule
from moola_mlflow.labels import Marked, RuleWindows, find_rule
from moola_mlflow.models.events.matching import EventTable

SURGE = find_rule("surge-1")
TWO = EventTable(np.array([0, 1]), np.array([5, 30]), np.array([9, 36]), np.ones(2))


@dataclass(frozen=True)
class Silent:
    """Finds nothing."""

    name: str = "silent"
    classes: tuple[str, ...] = ("consolidation", "retracement")
    shortest: int = 50

    def apply(self, w: RuleWindows) -> Marked:
        zeros = np.zeros(w.num, np.int64)
        return Marked(zeros > 0, zeros, zeros, zeros, zeros - 1)

    def describe(self) -> str:
        return "nothing"


def test_the_events_of_a_rule_have_the_numbers_of_the_detectors_classes() -> None:
    bars = sample(6000, 44)
    by_rule = true_by_rule(bars, SURGE)
    truth = truth_of_rule(bars, SURGE, ("retracement", "consolidation"))
    assert truth.true.label.tolist() == (1 - by_rule.true.label).tolist()
    assert truth.true.start.tolist() == by_rule.true.start.tolist()
    assert truth.unclear.end.tolist() == by_rule.unclear.end.tolist()
    assert truth.counts() == dict(zip(truth.classes, np.bincount(truth.true.label).tolist(), strict=True))
    assert truth.judged is None
    assert truth.source == "the rule surge-1"


def test_a_rule_that_names_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"evaluate\.rule=silent: no event of 4,000 bars"):
        truth_of_rule(sample(4000, 44), Silent(), ("consolidation", "retracement"))


def test_a_class_that_the_detector_does_not_know_is_refused_where_an_event_has_it() -> None:
    with pytest.raises(UserError, match="class b, and the detector knows a, c"):
        renumbered(TWO, ("a", "b"), ("a", "c"), "the rule x")
    assert renumbered(TWO, ("a", "c", "b"), ("c", "a"), "the rule x").label.tolist() == [1, 0]
