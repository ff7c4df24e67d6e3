"""The report of a scan for events: table, page, figures, and what to expect at the threshold."""

from __future__ import annotations

import numpy as np
import pytest
from small_events import random_event_detector, sample
from touched import windows_of

from moola_mlflow.core import DetectKeys, make_config
from moola_mlflow.models import scan_events
from moola_mlflow.reports.event_detections import NO_EVENT, EventDetectionsReport
from moola_mlflow.reports.plots.interactive import local_times
from moola_mlflow.reports.touchable import MOST_WINDOWS
from moola_mlflow.tracking import Artifacts

CARD = {"headline": "<b>a headline</b>", "labels": {"weak": True, "num": 9, "counts": {"consolidation": 4}}}
DETECTOR = random_event_detector(**CARD)


LEVEL = float(np.quantile(scan_events(sample(), DETECTOR, 0.0).events.score, 0.7))
"""A threshold that a few events in ten reach."""


def report(**keys: object) -> EventDetectionsReport:
    config = make_config(DetectKeys, {}, {f"detect.{key}": value for key, value in keys.items()})
    return EventDetectionsReport.of(scan_events(sample(), DETECTOR, 0.0), DETECTOR, "models:/m/1", config)


def test_expected_precision_is_the_mean_score_and_expected_recall_the_share_of_all_scores() -> None:
    every, some = report(min_score=0.0), report(min_score=LEVEL)
    score = every.table["score"].to_numpy()
    assert some.expected_precision == pytest.approx(score[score >= LEVEL].mean())
    assert some.expected_recall == pytest.approx(score[score >= LEVEL].sum() / score.sum())
    assert every.expected_recall == 1
    found = some.metrics(2.0)
    assert found["detect/hits"] == len(some.table) == (score >= LEVEL).sum()
    assert found["detect/threshold"] == LEVEL
    assert all(np.isfinite(value) for value in found.values())


def test_the_threshold_is_named_by_where_it_comes_from() -> None:
    assert "(the detector's own)" in report().scanned()
    assert "(detect.min_score)" in report(min_score=0.1).scanned()
    assert f"for an expected precision of {LEVEL:g}" in report(precision=LEVEL).scanned()
    assert "for at most 3 events a day" in report(max_per_day=3).scanned()


def test_the_page_shows_the_surest_events_with_the_time_at_which_they_are_known_and_escapes_the_card() -> None:
    some = report(min_score=LEVEL, top=5)
    page = some.html()
    assert len(windows_of(page)[0]) == 5
    best = some.table.sort_values("score", ascending=False).iloc[0]
    assert f"known at {best['known_at']:%H:%M}" in page
    assert "<b>a headline</b>" not in page
    assert "known_at" in some.note(1.0)


def test_an_event_lies_in_its_chart() -> None:
    some = report(min_score=LEVEL, top=1000)
    pictures = some.pictures()
    assert len(pictures) == min(len(some.table), MOST_WINDOWS)
    for one, (_, event) in zip(pictures, some.best().iterrows(), strict=False):
        (span,) = one.spans
        assert 0 <= span.start <= span.end < len(one.times)
        assert one.times[span.start] == local_times(np.array([event["start"].value]), one.zone)[0]


def test_without_an_event_the_page_says_what_to_do() -> None:
    none = report(min_score=1.0)
    assert len(none.table) == 0
    assert NO_EVENT in none.html()
    assert "detect/expected_precision" not in none.metrics(1.0)
    assert [*none.drawn] == [Artifacts.DETECTIONS_FIGURE]
