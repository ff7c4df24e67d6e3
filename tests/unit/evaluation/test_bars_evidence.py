"""Found events next to true ones: what is right, wrong, neither and missed, and the scores of it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from small_evaluations import found, truth

from moola_mlflow.evaluation.bars_evidence import BARS_COLUMNS, BarsEvidence, collect_bars_evidence

FOUND = [
    *((0, 100, 105, 0.9), (1, 300, 306, 0.8), (0, 500, 504, 0.7), (0, 800, 806, 0.6)),
    *((1, 1000, 1005, 0.3), (1, 1300, 1304, 0.95)),
]
TRUE = [(0, 101, 106, 1.0), (1, 1001, 1004, 1.0), (0, 2000, 2005, 1.0), (1, 300, 306, 1.0)]
UNCLEAR = [(0, 801, 806, 0.3)]


def evidence(**keys: bool) -> BarsEvidence:
    return collect_bars_evidence(found(FOUND), truth(TRUE, UNCLEAR), 500, **keys)


def test_reported_events_are_right_wrong_or_neither_and_the_other_true_ones_are_missed() -> None:
    one = evidence()
    assert one.num_reported() == {"right": 2, "wrong": 2, "neither": 1}
    assert one.truth.true.start[one.missed].tolist() == [2000, 1001]  # the lowest score first
    assert one.found.events.start[one.false_hits].tolist() == [1300, 500]  # the highest score first
    assert one.intervals["precision"].mean == pytest.approx(2 / 4)
    assert one.intervals["recall"].mean == pytest.approx(2 / 4)
    assert evidence(strict=True).num_reported() == {"right": 2, "wrong": 3, "neither": 0}


def test_found_events_outside_of_the_bars_that_were_looked_at_do_not_count() -> None:
    one = collect_bars_evidence(found(FOUND), truth(TRUE[:1], None, slice(50, 400)), 100)
    assert one.num_reported() == {"right": 1, "wrong": 1, "neither": 3}
    assert one.metrics()["eval/precision"] == pytest.approx(0.5)
    assert one.metrics()["eval/bars"] == 350
    assert one.scored.num_blocks == 4  # blocks of 100 bars that hold a bar looked at


def test_the_table_has_a_row_for_each_found_and_each_missed_event() -> None:
    rows = evidence().table()
    assert tuple(rows.columns) == BARS_COLUMNS
    assert len(rows) == len(FOUND) + 2
    assert rows["start"].is_monotonic_increasing
    by_judged = rows.groupby("judged")["start"].count().to_dict()
    assert by_judged == {"right": 3, "wrong": 2, "neither": 1, "missed": 2}
    missed = rows[rows["judged"] == "missed"]
    assert sorted(missed["score"].fillna(-1).tolist()) == [-1, 0.3]
    assert missed["known_at"].isna().all()
    assert not missed["above"].any()
    others = rows[rows["judged"] != "missed"]
    assert (others["known_at"] > others["end"]).all()
    no_times = collect_bars_evidence(found(FOUND, known=False), truth(TRUE), 500).table()
    assert no_times["known_at"].isna().all()
    assert isinstance(no_times["known_at"].dtype, pd.DatetimeTZDtype)


def test_metrics_are_finite_and_have_the_ends_of_their_intervals() -> None:
    figures = evidence().metrics()
    assert {"eval/map", "eval/map_lo", "eval/map_hi", "eval/ap_retracement", "eval/event_ece", "eval/f1"} <= set(
        figures
    )
    assert all(math.isfinite(value) for value in figures.values())
    counts = {name: figures[f"eval/{name}"] for name in ("true_events", "right", "wrong", "missed", "threshold")}
    assert counts == {"true_events": 4, "right": 2, "wrong": 2, "missed": 2, "threshold": 0.5}
    one_block = collect_bars_evidence(found(FOUND), truth(TRUE), 100_000)
    assert "eval/map" in one_block.metrics()
    assert "eval/map_lo" not in one_block.metrics()  # one block shows no spread
    assert "nan" not in one_block.headline()


def test_without_a_reported_event_precision_is_not_defined_and_the_headline_says_so() -> None:
    none = collect_bars_evidence(found(FOUND, threshold=1.0), truth(TRUE), 500)
    assert "eval/precision" not in none.metrics()
    assert "nothing judged is found, recall 0.00" in none.headline()
    assert none.summary()["scores"]["precision"]["mean"] is None
    assert len(none.missed) == len(TRUE)


def test_the_score_of_a_true_event_is_that_of_the_event_that_matches_it() -> None:
    np.testing.assert_array_equal(evidence().score_of_true(), [0.9, 0.3, np.nan, 0.8])


def test_a_detector_that_finds_nothing_at_all_is_scored_too() -> None:
    nothing = collect_bars_evidence(found([]), truth(TRUE), 500)
    assert nothing.metrics()["eval/map"] == nothing.metrics()["eval/recall"] == 0
    assert len(nothing.table()) == len(nothing.missed) == len(TRUE)
