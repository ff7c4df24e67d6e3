"""The simulated annotator says over HTTP what its rule says, and the study judges its lines by means over draws."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from paths import ROOT
from small_sessions import sample

from moola_mlflow.labels import RuleWindows, find_rule

sys.path.insert(0, str(ROOT))

from benchmarks.science import annotate_study


def test_the_labels_of_a_simulated_annotator_are_those_of_its_rule(tmp_path: Path) -> None:
    rule = find_rule("surge-1")
    labels = annotate_study.labelled(sample(), rule, "random", 30, tmp_path)
    assert len(labels) == 30
    marked = rule.apply(RuleWindows(labels.ohlc))
    kept = np.flatnonzero(marked.labelled)
    assert labels.window.tolist() == kept.tolist()
    assert labels.start.tolist() == marked.start[kept].tolist()
    assert labels.end.tolist() == marked.end[kept].tolist()
    assert set(annotate_study.keeper_rates(labels)) == {"random"}


def test_a_line_is_kept_if_the_mean_over_draws_keeps_it() -> None:
    def row(uncertain: float, random: float, queried: float) -> dict[str, object]:
        return {
            "rule": "r",
            "uncertain 200": {"map": uncertain, "keepers": {"uncertain": queried, "random": 0.4}},
            "random 300": {"map": random, "keepers": {"random": 0.4}},
        }

    (judged,) = annotate_study.judged([row(0.8, 0.7, 0.5), row(0.6, 0.7, 0.7)]).values()
    assert judged["map line kept"]
    assert judged["keeper line kept"]
    (judged,) = annotate_study.judged([row(0.7, 0.7, 0.5), row(0.6, 0.7, 0.6)]).values()
    assert not judged["map line kept"]
    assert not judged["keeper line kept"]


@pytest.mark.slow
def test_the_order_uncertain_asks_the_detector(tmp_path: Path) -> None:
    rule = annotate_study.RULES["surge-1, strength 2.6"]()
    labels = annotate_study.labelled(sample(40_000), rule, "uncertain", 110, tmp_path)
    rates = annotate_study.keeper_rates(labels)
    assert rates["uncertain"] > rates["random"]
