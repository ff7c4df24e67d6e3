"""Found events are matched with true ones of their class, each once, by falling score."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moola_mlflow.models.events.matching import EventTable, match_events


def table(*rows: tuple[int, int, int, float]) -> EventTable:
    columns = np.array(rows, np.float64).reshape(-1, 4).T
    return EventTable(*(column.astype(np.int64) for column in columns[:3]), columns[3])


def test_centres_three_bars_apart_match_and_further_ones_do_not() -> None:
    true = table((0, 10, 14, 1))
    assert match_events(table((0, 13, 17, 0.5)), true).tolist() == [0]
    assert match_events(table((0, 13, 18, 0.5)), true).tolist() == [-1]


def test_another_class_does_not_match() -> None:
    assert match_events(table((1, 10, 14, 0.5)), table((0, 10, 14, 1))).tolist() == [-1]


def test_the_higher_score_takes_the_event_and_the_nearest_one() -> None:
    true = table((0, 10, 14, 1), (0, 13, 17, 1))
    found = table((0, 11, 15, 0.4), (0, 12, 16, 0.9), (0, 12, 16, 0.1))
    assert match_events(found, true).tolist() == [0, 1, -1]


def test_nothing_found_and_nothing_true_match_nothing() -> None:
    assert match_events(table(), table((0, 1, 2, 1))).tolist() == []
    assert match_events(table((0, 1, 2, 1)), table()).tolist() == [-1]


EVENTS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 60), st.integers(1, 9), st.floats(0, 1)), max_size=20)


@given(found=EVENTS, true=EVENTS)
def test_a_match_is_one_to_one_within_the_collar(found: list, true: list) -> None:
    one, other = (table(*((c, s, s + n, p) for c, s, n, p in rows)) for rows in (found, true))
    matched = match_events(one, other)
    hit = np.flatnonzero(matched >= 0)
    assert len(set(matched[hit].tolist())) == len(hit)
    assert (np.abs(one.centre[hit] - other.centre[matched[hit]]) <= 3).all()
    assert (one.label[hit] == other.label[matched[hit]]).all()
    # Nothing that is left could still be matched.
    free = np.setdiff1d(np.arange(len(other)), matched[hit])
    for i in np.flatnonzero(matched < 0):
        same = free[other.label[free] == one.label[i]]
        assert not (np.abs(other.centre[same] - one.centre[i]) <= 3).any()
