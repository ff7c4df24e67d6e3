"""What a detector of either kind finds at any score, and the threshold at which it reports."""

from __future__ import annotations

import numpy as np
from small_events import random_event_detector, sample
from small_models import small_detector

from moola_mlflow.core import DetectConfig
from moola_mlflow.evaluation.found_events import find_at_any_score
from moola_mlflow.models import scan, scan_events

BARS = sample(4000, 44)


def test_every_peak_of_an_event_detector_is_there_with_the_threshold_that_is_asked_for() -> None:
    detector = random_event_detector()
    found, every = find_at_any_score(BARS, detector, DetectConfig()), scan_events(BARS, detector, 0.0)
    np.testing.assert_array_equal(found.events.score, every.events.score)
    np.testing.assert_array_equal(found.known_ns, every.known_ns)
    assert found.threshold == detector.threshold
    level = float(np.median(every.events.score))
    some = find_at_any_score(BARS, detector, DetectConfig(min_score=level))
    assert some.threshold == level
    assert some.above.sum() == (every.events.score >= level).sum()


def test_every_hit_of_a_span_detector_is_there_and_those_it_reports_are_those_of_detect() -> None:
    detector = small_detector("price_path")
    options = DetectConfig(min_probability=0.55, min_span_score=0.0)
    found, hits = find_at_any_score(BARS, detector, options), scan(BARS, detector, options)
    assert found.known_ns is None
    assert found.classes == detector.classes
    assert found.threshold == 0.55
    assert 0 < found.above.sum() < len(found.events)
    reported = found.events.select(np.flatnonzero(found.above))
    order = np.argsort(reported.start)
    first, last = hits.rows(hits.kept)
    np.testing.assert_array_equal(reported.start[order], np.sort(first))
    np.testing.assert_array_equal(reported.end[order], np.sort(last))
    assert sorted(reported.score.tolist()) == sorted(hits.confidence()[hits.kept].tolist())
