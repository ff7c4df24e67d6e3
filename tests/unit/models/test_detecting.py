"""Detect in one call, with detectors of both kinds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_events import random_event_detector, sample

from moola_mlflow.core.errors import UserError
from moola_mlflow.models import Detector, PatternDetector
from moola_mlflow.models.detecting import chosen_threshold, detect, detect_options, find_events, learned_minutes
from moola_mlflow.models.events.event_scan import EVENT_COLUMNS, scan_events
from moola_mlflow.models.files.event_detector import save_event_detector

DETECTOR = random_event_detector()


def test_an_event_detector_gives_events_from_memory_and_from_its_folder(tmp_path: Path) -> None:
    save_event_detector(DETECTOR, tmp_path / "detector")
    here, there = (detect(sample(), one, min_score=0.2) for one in (DETECTOR, tmp_path / "detector"))
    assert list(here.columns) == list(EVENT_COLUMNS)
    assert len(here) > 0
    assert (here["score"] >= 0.2).all()
    assert here.attrs == there.attrs == {"windows": here.attrs["windows"], "threshold": 0.2}
    np.testing.assert_allclose(here["score"], there["score"], atol=1e-6)


def test_a_table_or_a_file_has_bars_of_the_length_that_the_detector_learned_from(tmp_path: Path) -> None:
    minutes, learned = sample(2_000), replace(DETECTOR, card={**DETECTOR.card, "labels": {"bar_minutes": 5}})
    index = pd.DatetimeIndex(minutes.time_ns[0] + 300_000_000_000 * np.arange(2_000), tz="UTC", name="time")
    table = pd.DataFrame(minutes.ohlc, index, ["open", "high", "low", "close"])
    table.to_csv(tmp_path / "bars.csv")
    found = [detect(bars, learned, min_score=0.0) for bars in (table, tmp_path / "bars.csv")]
    for one in found:
        wait = one["known_at"] - one["end"]
        assert (wait >= pd.Timedelta("10min")).all()
        assert (wait % pd.Timedelta("5min") == pd.Timedelta(0)).all()
    assert learned_minutes(learned.card) == 5
    assert learned_minutes({}) == learned_minutes({"labels": None}) == 1
    with pytest.raises(UserError, match=r"--bars\.minutes 5"):
        detect(table, DETECTOR, min_score=0.0)


def test_without_a_threshold_the_detectors_own_holds() -> None:
    assert detect(sample(), DETECTOR).attrs["threshold"] == DETECTOR.threshold


def test_a_threshold_for_a_precision_or_a_count_a_day_keeps_what_was_asked_for() -> None:
    every = scan_events(sample(), DETECTOR, 0.0)
    wanted = (every.events.score.max() + every.events.score.mean()) / 2
    precise = every.at(chosen_threshold(every, DETECTOR, detect_options({"precision": wanted})))
    assert precise.events.score.mean() >= wanted
    fewer = every.at(chosen_threshold(every, DETECTOR, detect_options({"max_per_day": 2})))
    num_days = len(np.unique(sample().time_ns // 86_400_000_000_000))
    assert 0 < len(fewer.events) <= 2 * num_days
    rest = np.setdiff1d(every.events.score, fewer.events.score)
    assert fewer.events.score.min() > rest.max()
    all_of_them = find_events(sample(), DETECTOR, detect_options({"max_per_day": 1e6}))
    assert len(all_of_them.events) == len(every.events)


def test_two_ways_to_choose_a_threshold_are_refused() -> None:
    with pytest.raises(UserError, match=r"detect.min_score=0.5 and detect.precision=0.8 each choose a threshold"):
        find_events(sample(), DETECTOR, detect_options({"min_score": 0.5, "precision": 0.8}))


@pytest.mark.parametrize("given", [{"min_probability": 0.5}, {"min_span_score": 0.0}, {"margin": 5}])
def test_a_threshold_of_span_detectors_is_refused_for_an_event_detector(given: dict[str, float]) -> None:
    (key,) = given
    with pytest.raises(UserError, match=rf"detect.{key}=.* has no meaning for event detectors; their keys: detect"):
        detect(sample(), DETECTOR, **given)  # type: ignore[arg-type]


def test_a_threshold_of_event_detectors_is_refused_for_a_span_detector() -> None:
    head = Detector("span", num_inputs=56, num_classes=2, lengths=(5, 12)).eval()
    spans = PatternDetector(head, None, "price_path", ("consolidation", "retracement"), 1.0, card={})
    with pytest.raises(UserError, match=r"detect.min_score=0.5 has no meaning for span detectors"):
        detect(sample(), spans, min_score=0.5)
