"""The page of windows that a fine-tuning got wrong out of fold: which windows, what it says of each, and its size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_events import CLASSES, encoder_of_rules, looked_at
from small_evidence import LABELS, evidence
from touched import figures_of, windows_of

from moola_mlflow.core import FinetuneKeys, make_config
from moola_mlflow.evaluation import (
    DETECTOR,
    EventEvidence,
    EventSetting,
    build_event_methods,
    collect_event_evidence,
    fit_event_methods,
)
from moola_mlflow.models import EventSettings
from moola_mlflow.reports.touchable import MAX_BYTES, MOST_WINDOWS
from moola_mlflow.reports.wrong_windows import PREDICTED_COLOR, wrong_events, wrong_spans, wrong_windows_page

SPANS = evidence()
QUICK = EventSettings(epochs=1, min_steps=20, folds=2, hidden=8)


@pytest.fixture(scope="module")
def events() -> EventEvidence:
    setting = EventSetting(looked_at(60), encoder_of_rules(), make_config(FinetuneKeys, {}, {}))
    methods = [replace(method, settings=QUICK) for method in build_event_methods(setting)[:1]]
    return collect_event_evidence(setting, fit_event_methods(setting, methods))


def test_a_window_is_shown_if_half_of_the_repeats_get_it_wrong_and_in_no_other_case() -> None:
    groups = wrong_spans(SPANS)
    shown = {one.window for _, found in groups.values() for one in found}
    rows = SPANS.rows(DETECTOR)
    wrong = np.zeros(len(LABELS))
    for k, row in enumerate(rows):
        wrong[k % len(LABELS)] += not row["joint_success_at_3"]
    assert shown == set(np.flatnonzero(wrong >= len(rows) / len(LABELS) / 2).tolist())
    assert 0 < len(shown) < len(LABELS)


def test_the_label_that_was_believed_least_comes_first() -> None:
    found = SPANS.predictions[DETECTOR]
    own = found.probability[:, np.arange(len(LABELS)), LABELS.label].mean(0)
    _, first = wrong_spans(SPANS)["Wrong class"]
    assert [one.window for one in first] == sorted((one.window for one in first), key=lambda i: own[i])
    assert f"probability {own[first[0].window]:.2f}" in first[0].why
    assert "of 4 repeats" in first[0].why


def test_misses_and_false_hits_are_those_that_the_scores_count(events: EventEvidence) -> None:
    groups = wrong_events(events)
    (_, misses), (_, false_hits) = groups["Misses"], groups["False hits"]
    _, above = events.fit.out_of_fold()
    held = events.fit.held
    right = {int(k) for k in held.matched[above & (held.matched >= 0)]}
    assert len(misses) == len(held.true) - len(right)
    assert len(false_hits) == int((above & (held.matched < 0) & held.judged).sum())
    steps = events.labels.ohlc.shape[1]
    for one in [*misses, *false_hits]:
        assert all(0 <= start <= end < steps and name in CLASSES for start, end, name in one.said)
    assert all(one.said for one in false_hits)


def test_the_page_draws_each_window_with_its_label_in_colour_and_what_was_said_in_grey(events: EventEvidence) -> None:
    page = wrong_windows_page(events)
    _, found = wrong_events(events)["Misses"]
    assert len(windows_of(page)[0]) == min(len(found), MOST_WINDOWS)
    spans = wrong_windows_page(SPANS)
    assert f'"fillcolor":"{PREDICTED_COLOR}"' in spans
    assert "moola annotate" in spans
    first, *_ = figures_of(spans).values()
    named = {note["text"] for note in first["layout"]["annotations"]}
    assert any(text.startswith("said ") for text in named)
    assert len(spans.encode()) < MAX_BYTES


def test_a_window_without_times_counts_its_bars() -> None:
    page = wrong_windows_page(replace(SPANS, labels=replace(LABELS, start_ns=None, end_ns=None)))
    first, *_ = figures_of(page).values()
    assert first["layout"]["xaxis"]["title"]["text"] == "bar of the window"
    assert first["data"][0]["x"] == list(range(LABELS.ohlc.shape[1]))


def test_a_name_cannot_put_an_element_on_the_page() -> None:
    ids = np.array([f"<img src=x onerror=alert({i})>" for i in range(len(LABELS))])
    assert "<img" not in wrong_windows_page(replace(SPANS, labels=replace(LABELS, window_id=ids)))


def test_a_detector_that_is_never_wrong_has_an_empty_page() -> None:
    perfect = evidence(**{DETECTOR: 1.01, "majority": 0.0})
    found = perfect.predictions[DETECTOR]
    told = replace(found, probability=np.tile(np.eye(len(LABELS.classes))[LABELS.label], (4, 1, 1)),
                   predicted=np.tile(found.span, (4, 1, 1)))  # fmt: skip
    page = wrong_windows_page(replace(perfect, predictions={**perfect.predictions, DETECTOR: told}))
    assert page.count("None.") == 2
    assert "Wrong class (0)" in page
