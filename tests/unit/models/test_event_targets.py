"""Targets hold the events of each window; several share one window's weight."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_events import labels_of

from moola_mlflow.models.events.event_targets import EventTargets

EVENTS = [[(0, 20, 26)], [], [(1, 10, 14), (0, 40, 52)], [(1, 60, 66)]]


def test_events_of_a_window_share_its_weight_equally() -> None:
    targets = EventTargets.of(labels_of(EVENTS))
    assert targets.weight.tolist() == [[1, 0], [0, 0], [0.5, 0.5], [1, 0]]
    assert targets.has_event.tolist() == [True, False, True, True]
    assert (targets.lengths, targets.num_classes, len(targets)) == ((5, 13), 2, 4)


def test_events_come_back_as_they_were_given() -> None:
    columns = EventTargets.of(labels_of(EVENTS)).events()
    found = list(zip(*(column.tolist() for column in columns), strict=True))
    assert found == [(i, *event) for i, own in enumerate(EVENTS) for event in own]


@pytest.mark.parametrize("index", [np.array([2, 0]), torch.tensor([2, 0])])
def test_some_windows_keep_their_events_and_the_lengths_of_all(index: np.ndarray) -> None:
    some = EventTargets.of(labels_of(EVENTS)).at(index)
    assert [column.tolist() for column in some.events()] == [[0, 0, 1], [1, 0, 0], [10, 40, 20], [14, 52, 26]]
    assert some.lengths == (5, 13)


def test_windows_without_any_event_are_refused() -> None:
    with pytest.raises(ValueError, match="all windows are labelled none"):
        EventTargets.of(labels_of([[], []]))
