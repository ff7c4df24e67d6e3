"""What the background process learns: an order, suggestions inside their windows, a score, a review."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from small_events import looked_at
from small_models import small_detector
from small_sessions import sample

from moola_mlflow.annotate import learning
from moola_mlflow.annotate.learning import Learned, LearningTask, learn, load_event_detector
from moola_mlflow.core import UserError
from moola_mlflow.models import save_detector
from moola_mlflow.windows import make_windows


def task(**changes: object) -> LearningTask:
    labels = looked_at(60)
    windows = make_windows(sample(), 105, 105)
    rows = windows.starts[:20]
    made = LearningTask(labels, np.arange(60) % 2 == 0, rows, windows.gather(np.arange(20)), 3)
    return replace(made, **changes)  # type: ignore[arg-type]


@cache
def learned() -> Learned:
    return learn(task(review=True))


def test_every_window_gets_a_score_and_suggestions_that_lie_in_it() -> None:
    made = learned()
    assert made.rows.tolist() == task().rows.tolist()
    assert ((made.top >= 0) & (made.top <= 1)).all()
    events = [event for own in made.events for event in own]
    assert events
    for event in events:
        assert event["label"] in looked_at(60).classes
        assert 0 <= event["start"] < event["end"] < 105
        assert 0.2 <= event["score"] <= 1


def test_the_score_is_that_of_the_blind_windows() -> None:
    assert learned().map is not None
    assert 0 <= learned().map <= 1
    assert learn(task(blind=np.zeros(60, bool))).map is None


def test_a_review_names_each_window_once_the_least_believable_label_first() -> None:
    reviews = learned().reviews
    assert sorted(review["window"] for review in reviews) == list(range(60))
    said = [float(review["text"].rsplit(" ", 1)[1].rstrip(".")) for review in reviews]
    assert said == sorted(said)
    assert {review["kind"] for review in reviews} <= {"label", "miss", "false hit"}
    labels = looked_at(60)
    for review in reviews:
        assert len(review["given"]) == labels.events_per_window()[review["window"]]


def test_a_wrong_label_comes_early() -> None:
    labels = looked_at(60)
    first = int(labels.window[0])
    swapped = labels.label.copy()
    swapped[labels.window == first] = 1 - swapped[labels.window == first]
    places = []
    for made in (labels, replace(labels, label=swapped)):
        reviews = learn(task(labels=made, review=True)).reviews
        places.append([review["window"] for review in reviews].index(first))
    assert places[1] <= places[0]


def test_of_many_windows_a_fit_reads_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "MOST_FITTED", 30)
    labels, blind = learning._at_most(task())
    assert (len(labels), len(blind)) == (30, 30)
    assert np.array_equal(blind, np.isin(labels.window_id, [f"w{i}" for i in range(0, 60, 2)]))


def test_labels_that_cannot_be_fitted_are_refused_in_words() -> None:
    nothing = looked_at(60).select(np.flatnonzero(looked_at(60).events_per_window() == 0))
    with pytest.raises(UserError, match="no window with an event"):
        learn(task(labels=nothing, blind=np.ones(len(nothing), bool)))
    few = looked_at(60).select([0, 1])
    with pytest.raises(UserError, match=r"folds|no window with an event"):
        learn(task(labels=few, blind=np.ones(2, bool)))


def test_a_detector_of_another_kind_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    save_detector(small_detector(), tmp_path / "span")
    with pytest.raises(UserError, match="give an event detector"):
        load_event_detector(str(tmp_path / "span"), 105)
