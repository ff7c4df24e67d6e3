"""Windows looked at and their events: selection, counts, rows of a file, the hash, and what a span detector reads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_labels import small_labels

from moola_mlflow.core import UserError
from moola_mlflow.labels import NONE, EventLabels, events_sha256
from moola_mlflow.labels.labelled_set import content_sha256


def events(per_window: list[int], num_classes: int = 2) -> EventLabels:
    """Return windows of random walks with so many events each, apart from each other, of changing classes."""
    base = small_labels(num=max(2, len(per_window)), num_classes=2)
    window = np.repeat(np.arange(len(per_window)), per_window)
    nth = np.concatenate([np.arange(num) for num in per_window]).astype(np.int64) if len(window) else window
    num, rows = len(per_window), sum(max(1, k) for k in per_window)
    assert base.start_ns is not None
    assert base.end_ns is not None
    assert base.instrument is not None
    return EventLabels(
        base.window_id[:num], base.ohlc[:num], ("consolidation", "retracement", "reversal")[:num_classes], window,
        np.arange(len(window)) % num_classes, 20 + 12 * nth, 26 + 12 * nth, base.start_ns[:num], base.end_ns[:num],
        base.instrument[:num], np.array(["random"] * num), extra=pa.table({"grade": [f"row {i}" for i in range(rows)]}),
    )  # fmt: skip


PER_WINDOW = st.lists(st.integers(0, 3), min_size=1, max_size=8)


def test_windows_and_events_are_counted_by_class_and_those_without_as_none() -> None:
    labels = events([1, 0, 2, 0])
    assert (len(labels), labels.num_events) == (4, 3)
    assert labels.counts() == {"consolidation": 2, "retracement": 1, NONE: 2}


def test_a_window_has_a_row_for_each_event_or_one_row_if_it_has_none() -> None:
    labels = events([1, 0, 2])
    assert labels.row_window().tolist() == [0, 1, 2, 2]
    assert labels.row_event().tolist() == [0, -1, 1, 2]


@given(PER_WINDOW, st.data())
def test_selected_windows_keep_their_events_and_the_rows_beside_them(
    per_window: list[int], data: st.DataObject
) -> None:
    labels = events(per_window)
    index = data.draw(st.lists(st.integers(0, len(per_window) - 1), max_size=10))
    some = labels.select(index)
    assert some.window_id.tolist() == labels.window_id[index].tolist()
    assert some.events_per_window().tolist() == [per_window[i] for i in index]
    for k, i in enumerate(index):
        mine, theirs = some.window == k, labels.window == i
        assert some.start[mine].tolist() == labels.start[theirs].tolist()
        assert some.label[mine].tolist() == labels.label[theirs].tolist()
    assert some.extra is not None
    assert labels.extra is not None
    rows = [r for i in index for r in np.flatnonzero(labels.row_window() == i)]
    assert some.extra["grade"].to_pylist() == [f"row {r}" for r in rows]


def test_a_labelled_set_becomes_windows_with_one_event_each_and_comes_back_with_its_hash() -> None:
    base = small_labels()
    base = replace(base, sha256=content_sha256(base))
    labels = EventLabels.of(base)
    assert labels.counts()[NONE] == 0
    assert events_sha256(labels) == base.sha256
    back = labels.spans()
    assert back.sha256 == base.sha256
    assert back.warnings == ()
    assert back.label.tolist() == base.label.tolist()


def test_only_windows_with_exactly_one_event_are_spans_and_a_warning_counts_the_others() -> None:
    labels = events([1, 0, 2, 1, 1])
    spans = labels.spans()
    assert spans.window_id.tolist() == ["w0", "w3", "w4"]
    assert "1 windows without an event and 1 with several were left out: 3 windows" in spans.warnings[-1]


def test_spans_have_the_classes_that_are_left() -> None:
    labels = events([1, 2, 1, 1], num_classes=3)  # the classes of single events: 0, 0, 1
    assert labels.spans().classes == ("consolidation", "retracement")


def test_spans_of_one_class_are_refused_with_their_number() -> None:
    with pytest.raises(UserError, match="2 of 3 windows hold exactly one event, of the classes: consolidation; a span"):
        events([1, 0, 1], num_classes=1).spans()


def test_the_hash_tells_events_windows_and_draws_apart() -> None:
    labels = events([1, 0, 2])
    others = [
        replace(labels, start=labels.start + 1),
        replace(labels, window=np.array([0, 1, 2]), extra=None),
        replace(labels, drawn=None),
        replace(labels, weak=True),
        labels.select([0, 2]),
        labels,
    ]
    assert len({events_sha256(one) for one in others}) == len(others)


def test_what_no_training_reads_is_not_in_the_hash() -> None:
    labels = events([1, 0, 2])
    assert events_sha256(labels) == events_sha256(replace(labels, extra=None, path="elsewhere"))
